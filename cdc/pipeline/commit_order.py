"""Open transactions in commit order: which is next, and which are dead.

A transaction without END is dead once a higher END, or a watermark, has passed it in the transaction topic: the capture
that sent its rows crashed, and the next one had nothing to send of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from cdc.pipeline.open_transaction import OpenTransaction


class CommitOrder:
    """Transactions that have not taken effect, by commit LSN. ``passed``: every END up to there has been met."""

    def __init__(self, passed: int) -> None:
        self.passed = passed
        self._open: dict[int, OpenTransaction] = {}
        self._ended: list[int] = []
        self._unended: list[int] = []
        self._dead: list[OpenTransaction] = []

    def __contains__(self, lsn: int) -> bool:
        return lsn in self._open

    def get(self, lsn: int) -> OpenTransaction | None:
        """The open transaction that committed at ``lsn``."""
        return self._open.get(lsn)

    def open(self, lsn: int) -> OpenTransaction:
        """A new one, met by its first row or mark."""
        transaction = self._open[lsn] = OpenTransaction(lsn)
        heapq.heappush(self._unended, lsn)
        return transaction

    def end(self, transaction: OpenTransaction, counts: dict[str, int]) -> None:
        """Its END was met, perhaps again: the last one counts."""
        if transaction.counts is None:
            heapq.heappush(self._ended, transaction.lsn)
        transaction.counts = counts

    def settle(self, transaction: OpenTransaction) -> None:
        """It has taken effect, or never will: forget it."""
        if self._ended and self._ended[0] == transaction.lsn:
            heapq.heappop(self._ended)
        transaction.done = True
        del self._open[transaction.lsn]

    @property
    def next_ended(self) -> OpenTransaction | None:
        """The lowest one whose END was met."""
        return self._open[self._ended[0]] if self._ended else None

    @property
    def head(self) -> OpenTransaction | None:
        """The next one to take effect, as far as is known."""
        if self._ended:
            return self._open[self._ended[0]]
        self._bury()
        return self._open[self._unended[0]] if self._unended else None

    def is_dead(self, lsn: int) -> bool:
        """Whether a transaction that commits there is dead, met or not."""
        transaction = self._open.get(lsn)
        return lsn <= self.passed and (transaction is None or transaction.counts is None)

    def dead(self) -> Iterator[OpenTransaction]:
        """Those that are dead by now; an END that comes after all revives one."""
        self._bury()
        self._dead = [transaction for transaction in self._dead if transaction.counts is None]
        yield from self._dead

    def settle_dead(self, lsn: int) -> Iterator[OpenTransaction]:
        """Settle the dead up to ``lsn``: something higher has taken effect."""
        settled = [transaction for transaction in self.dead() if transaction.lsn <= lsn]
        self._dead = [transaction for transaction in self._dead if transaction.lsn > lsn]
        for transaction in settled:
            self.settle(transaction)
            yield transaction

    def _bury(self) -> None:
        """Sort out of the transactions without END those that have one by now, or are dead."""
        while self._unended:
            transaction = self._open.get(self._unended[0])
            if transaction is not None and transaction.counts is None:
                if transaction.lsn > self.passed:
                    break
                self._dead.append(transaction)
            heapq.heappop(self._unended)

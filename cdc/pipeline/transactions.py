"""Puts source transactions together from topics that are read at different speeds. No I/O, no clock.

Rows arrive by partition, BEGIN and END by the transaction topic, each in order of *first* appearance; after a crash of
capture a suffix of everything comes again. A transaction is

- *complete* when every collection that is read has as many distinct positions as its last END counts,
- *dead* when it has no END, and a higher END (or a watermark) has passed it (`cdc.pipeline.commit_order`). Its rows
  never take effect. They are kept until something higher is taken, because a third capture may send it after all.

The *head* is the next transaction in commit order. Memory is bounded: above three quarters of the budget only rows of
the head are let in, above the budget none, but for one row if the head has none. Whoever is not let in is read again
later (`add` returns False). The head can always grow, because its rows can be taken away in parts (`take_part`)
before it is complete; so there is no deadlock, and what is held stays under the budget plus twice the largest row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cdc.errors import Refused
from cdc.event import Delivered, TransactionMark
from cdc.pipeline.commit_order import CommitOrder
from cdc.pipeline.offsets import Offsets
from cdc.pipeline.open_transaction import ROW_OVERHEAD, TRANSACTION_OVERHEAD, OpenTransaction
from cdc.position import Position, TopicPartition


class Reread(Exception):
    """What was believed of a transaction turned out wrong after parts of it were let go: start from the checkpoint.

    The next assembler must know the transaction topic up to ``marks`` (an offset) before it trusts it, and that
    everything up to ``passed`` (a commit LSN) is sent.
    """

    def __init__(self, marks: int, passed: int) -> None:
        super().__init__(f"read again, marks first up to {marks}")
        self.marks = marks
        self.passed = passed


@dataclass(slots=True)
class Group:
    """Whole transactions in commit order (or part of one: no ``position``), events in ``total_order``.

    Events of one part are ordered by ``total_order``; a later part of the same transaction may hold lower numbers
    from partitions that arrived later. Rows of one key share a partition, so their order holds; TRUNCATE waits until
    it has arrived in every partition. ``size`` is what they cost in memory. ``oldest_ms`` is when the source committed
    the first one, 0 if that is not known.
    """

    events: list[Delivered]
    size: int
    transactions: int
    position: Position | None
    oldest_ms: int = 0


class Assembler:
    """Events and marks in, whole transactions out.

    ``held`` is the replica's position. ``reads`` tells whether a collection is one of this sink's; ``since`` from
    which commit LSN on a collection that joined late counts; ``partitions`` how many partitions a data topic has
    (may grow). ``budget`` is in bytes. ``marks`` and ``passed`` come from a `Reread`.
    """

    def __init__(
        self,
        held: Position | None,
        offsets: Offsets,
        *,
        budget: int,
        reads: Callable[[str], bool],
        since: Mapping[str, int],
        partitions: Mapping[str, int],
        marks: int = 0,
        passed: int = 0,
    ) -> None:
        self.budget = budget
        self._ahead_limit = budget * 3 // 4
        self.held_size = 0
        self.lent_size = 0
        self.generation = held.generation if held else 0
        self._fresh = held is None
        # (g, H, 0) is the place of a fence: a commit at H is not held then.
        self._held = held.commit_lsn - (held.total_order == 0) if held else -1
        self._offsets = offsets
        self._reads = reads
        self._since = since
        self._partitions = partitions
        self._order = CommitOrder(passed)
        self._partition = TopicPartition("", -1)  # of the last event: they come in runs
        self._streaming: OpenTransaction | None = None
        self._marks_wanted = marks
        self._marks_seen = 0
        self._mark_overrun = False

    # --- in --------------------------------------------------------------------------------------------------

    def add(self, event: Delivered) -> bool:
        """Take a data event in; True when it needs no second reading. False when there is no room for it now.

        Raises Refused for an event of a newer generation.
        """
        position = event.position
        generation, lsn, order = position
        collection = event.collection
        if generation != self.generation and not self.same_generation(generation):
            return True
        if lsn <= self._held or (self._since and lsn < self._since.get(collection, 0)):
            return True
        partition = self._partition
        if event.partition != partition.partition or event.topic != partition.topic:
            partition = self._partition = TopicPartition(event.topic, event.partition)
        if self.held_size + self.lent_size >= self._ahead_limit:
            if self._trusted and self._order.is_dead(lsn):
                transaction = self._order.get(lsn) or self._opened(lsn)
                self._touch(transaction, partition, event.offset)
                transaction.dropped = True
                return True
            if not self.needs(position):
                return False
        transaction = self._order.get(lsn) or self._opened(lsn)
        if partition not in transaction.touched:
            self._touch(transaction, partition, event.offset)
        if event.op == "t":
            transaction.truncates.setdefault(order, set()).add(event.partition)
        rows, streamed = transaction.rows, transaction.streamed
        if order in rows or order <= (streamed.get(partition, 0) if streamed else 0):
            return True
        rows[order] = event
        found = transaction.found
        found[collection] = found.get(collection, 0) + 1
        cost = event.size + ROW_OVERHEAD
        transaction.size += cost
        self.held_size += cost
        return True

    def mark(self, mark: TransactionMark, partition: TopicPartition) -> bool:
        """Take BEGIN or END in; True when it needs no second reading. False when there is no room for it now.

        Raises Reread.
        """
        lsn = mark.commit_lsn
        if lsn > self._held and lsn not in self._order and not self._has_room_for_mark(lsn):
            return False
        self._marks_seen = mark.offset + 1
        if lsn > self._held:
            transaction = self._order.get(lsn) or self._opened(lsn)
            self._touch(transaction, partition, mark.offset)
            transaction.begun = True
            transaction.commit_ms = mark.commit_ms
            if mark.ended:
                self._end(transaction, dict(mark.counts))
        return True

    def pass_by(self, lsn: int) -> None:
        """Everything that committed at or below ``lsn`` has its END in the marks taken in. Raises Reread."""
        if lsn <= self._order.passed:
            return
        self._order.passed = lsn
        streaming = self._streaming
        if streaming is not None and streaming.counts is None and streaming.lsn <= lsn:
            raise self._reread()

    def same_generation(self, generation: int) -> bool:
        """Whether what carries this generation counts. The first one met is adopted by a replica that holds nothing.

        Raises Refused for a newer one, and for an older one if the replica does not say that it is behind us.
        """
        if not self.generation:
            self.generation = generation
        if generation > self.generation or (generation < self.generation and self._fresh):
            raise Refused(
                f"the source's log began anew (generation {generation}, the replica follows {self.generation}): "
                "rows deleted in the part that was lost may still be in the replica",
                "cdc checkpoint rewind FILE --new-generation (the sink's), then verify with --repair",
            )
        return generation == self.generation

    # --- out -------------------------------------------------------------------------------------------------

    def take(self, limit: int) -> Group | None:
        """Complete transactions from the head on, up to ``limit`` bytes, at least one; None when the head is not.

        What is taken is *lent*: it counts as used until `give_back`.
        """
        if not self.generation:
            return None  # nothing has told yet which history these positions belong to
        events: list[Delivered] = []
        size = count = oldest_ms = 0
        last: OpenTransaction | None = None
        while (transaction := self._order.next_ended) is not None:
            if not self._complete(transaction) or (count and size + transaction.size > limit):
                break
            events += transaction.in_order()
            size += transaction.size
            oldest_ms = oldest_ms or transaction.commit_ms
            count += 1
            last = transaction
            self._settle(transaction)
        if last is None:
            return None
        self._streaming = None
        self._mark_overrun = False
        self.reached(last.lsn)
        self.lent_size += size
        position = Position(self.generation, last.lsn, last.last_order)
        return Group(events, size, count, position, oldest_ms)

    def take_part(self) -> Group | None:
        """The rows that the head has by now, if it is certain to be next; lent, like those of `take`."""
        head = self.head
        if head is None or not (head.begun and self._trusted and self.generation):
            return None
        orders = sorted(head.releasable(self._partitions))
        if not orders:
            return None
        events = [head.rows.pop(order) for order in orders]
        for event in events:
            order = event.position.total_order
            for number in head.truncates.pop(order, (event.partition,)):
                head.streamed[TopicPartition(event.topic, number)] = order
        size = sum(event.size + ROW_OVERHEAD for event in events)
        head.last_order = max(head.last_order, orders[-1])
        head.size -= size
        self.held_size -= size
        self.lent_size += size
        self._streaming = head
        if head.counts is not None:
            events = [event for event in events if event.collection in head.counts]
        return Group(events, size, 0, None)

    def give_back(self, size: int) -> None:
        """The memory of a group is free again."""
        self.lent_size -= size

    def reached(self, lsn: int) -> None:
        """Everything that committed at or below ``lsn`` has taken effect or never will: the dead are dropped."""
        self._held = max(self._held, lsn)
        self._order.passed = max(self._order.passed, lsn)
        for transaction in self._order.settle_dead(lsn):
            self.held_size -= transaction.size

    def drop_dead(self) -> None:
        """Free the rows of the dead; if one of them is sent again after all, its END raises Reread."""
        if not self._trusted:
            return
        for transaction in self._order.dead():
            if transaction.rows:
                self.held_size -= transaction.size - TRANSACTION_OVERHEAD
                transaction.size = TRANSACTION_OVERHEAD
                transaction.rows.clear()
                transaction.dropped = True

    # --- what is known ---------------------------------------------------------------------------------------

    @property
    def used(self) -> int:
        """Bytes held and lent."""
        return self.held_size + self.lent_size

    @property
    def room(self) -> int:
        """Bytes that may still be taken in: of any transaction, or, where there are none, of the head."""
        used = self.used
        return (self._ahead_limit if used < self._ahead_limit else self.budget) - used

    @property
    def nearly_full(self) -> bool:
        """Whether most of what is read now would find no room."""
        return self.used >= self._ahead_limit * 7 // 8

    @property
    def pressed(self) -> bool:
        """Whether the head should give its rows away in parts: there is no more room for what runs ahead of it."""
        if self.streaming:
            return self.held_size >= self.budget // 4
        return self.lent_size == 0 and self.used >= self._ahead_limit

    def holds(self, lsn: int) -> bool:
        """Whether everything that committed at ``lsn`` was taken."""
        return lsn <= self._held

    @property
    def streaming(self) -> bool:
        """Whether parts of the head were taken away: until it is complete no checkpoint may be saved."""
        return self._streaming is not None

    @property
    def head(self) -> OpenTransaction | None:
        """The next transaction to take effect, as far as is known."""
        return self._order.head

    @property
    def head_lsn(self) -> int | None:
        """The head's commit LSN."""
        return head.lsn if (head := self.head) is not None else None

    @property
    def head_is_complete(self) -> bool:
        """Whether `take` has something to give."""
        head = self.head
        return bool(self.generation) and head is not None and self._complete(head)

    def lacking(self) -> Mapping[str, int]:
        """How many rows of a collection the head has fewer than its END counts; none without END."""
        head = self.head
        if head is None or head.counts is None:
            return {}
        return {
            collection: lacks
            for collection, count in head.counts.items()
            if self._counts(collection, head.lsn)
            and (lacks := count - _known(head, collection)) > 0
        }

    def excuse(self, collection: str, rows: int) -> None:
        """So many rows of the head can be read by nobody: it is complete without them."""
        head = self.head
        assert head is not None
        head.excused[collection] = head.excused.get(collection, 0) + rows

    def needs(self, position: Position) -> bool:
        """Whether the head cannot go on before this event is read, and there is room for it.

        What stands before the head is in the way: it is dead, or its BEGIN is still to come.
        """
        head = self.head
        if head is None or not (head.begun and self._trusted):
            return False
        if self.used >= self.budget and head.releasable(self._partitions):
            return False
        if position.commit_lsn == head.lsn:
            barrier = head.barrier(self._partitions)
            return barrier is None or position.total_order <= barrier
        return position.commit_lsn < head.lsn

    def needs_mark(self, lsn: int) -> bool:
        """Whether the head cannot go on without this mark."""
        if not self._trusted or self._mark_overrun:
            return True
        head = self.head
        return head is None or head.counts is None or lsn <= head.lsn

    def overrun_marks(self) -> None:
        """Let marks in beyond the budget until something is taken: the head may wait for a newer END."""
        self._mark_overrun = True

    # --- inside ----------------------------------------------------------------------------------------------

    def _has_room_for_mark(self, lsn: int) -> bool:
        return self.used < self._ahead_limit or self.needs_mark(lsn)

    @property
    def _trusted(self) -> bool:
        return self._marks_seen >= self._marks_wanted

    def _opened(self, lsn: int) -> OpenTransaction:
        transaction = self._order.open(lsn)
        self.held_size += transaction.size
        return transaction

    def _touch(self, transaction: OpenTransaction, partition: TopicPartition, offset: int) -> None:
        if partition not in transaction.touched:
            transaction.touched.add(partition)
            self._offsets.hold(partition, offset, transaction)

    def _end(self, transaction: OpenTransaction, counts: dict[str, int]) -> None:
        streaming = self._streaming
        if transaction.dropped or (
            streaming is not None
            and (
                transaction.lsn < streaming.lsn
                or (transaction is streaming and transaction.shrinks_to(counts))
            )
        ):
            raise self._reread()
        self._order.end(transaction, counts)
        self.pass_by(transaction.lsn)

    def _complete(self, transaction: OpenTransaction) -> bool:
        return transaction.counts is not None and all(
            transaction.found.get(collection, 0) >= count
            or (transaction.excused and _known(transaction, collection) >= count)
            for collection, count in transaction.counts.items()
            if self._counts(collection, transaction.lsn)
        )

    def _counts(self, collection: str, lsn: int) -> bool:
        return self._reads(collection) and lsn >= self._since.get(collection, 0)

    def _settle(self, transaction: OpenTransaction) -> None:
        self.held_size -= transaction.size
        self._order.settle(transaction)

    def _reread(self) -> Reread:
        return Reread(self._marks_seen, self._order.passed)


def _known(transaction: OpenTransaction, collection: str) -> int:
    """Rows that were found, or are known never to be."""
    return transaction.found.get(collection, 0) + transaction.excused.get(collection, 0)

"""The bytes of an envelope's ``source`` and ``transaction`` that stay the same from event to event.

An Avro record is its fields' bytes one behind the other, so what is constant is encoded once: for a transaction,
and for a table within it. Two parts change with the LSN; they are split so that most of them stays as well.
"""

from __future__ import annotations

from cdc.avro_binary import NULL, PRESENT, long_bytes, string_bytes
from cdc.position import TransactionId
from cdc.table import TableId

LOW_DIGITS = tuple(b"%04d" % number for number in range(10_000))
"""The last four decimal digits of an LSN, as they stand in ``sequence``."""


def optional_long(number: int | None) -> bytes:
    """A ``["null", "long"]``."""
    return NULL if number is None else PRESENT + long_bytes(number)


def times(nanoseconds: int) -> bytes:
    """The envelope's ``ts_ms, ts_us, ts_ns``."""
    return b"".join(
        optional_long(number)
        for number in (nanoseconds // 1_000_000, nanoseconds // 1000, nanoseconds)
    )


class TransactionBytes:
    """What all events of one transaction share: the parts of ``source`` and ``transaction`` around their own.

    ``head`` is ``source`` up to ``sequence``, ``sequence`` that up to the event's LSN; ``tail`` is from behind ``lsn`` up
    to ``total_order``.
    """

    def __init__(
        self,
        constants: tuple[str, str, str, str],
        transaction: TransactionId,
        commit_us: int,
        snapshot: str,
        previous_commit: int | None,
        generation: int,
    ) -> None:
        version, connector, name, database = constants
        self.head = (
            string_bytes(version)
            + string_bytes(connector)
            + string_bytes(name)
            + long_bytes(commit_us // 1000)
            + NULL  # branch 0 of ``snapshot`` is its value: it has a default
            + string_bytes(snapshot)
            + string_bytes(database)
            + PRESENT
        )
        known = "null" if previous_commit is None else f'"{previous_commit}"'
        self.sequence = f'[{known},"'.encode()
        self._commit_times = optional_long(commit_us) + optional_long(commit_us * 1000)
        self._xid = optional_long(transaction.xid or None)
        self._xmin_to_generation = NULL * 3 + optional_long(generation)
        self.id = str(transaction)
        self.tail = self._xmin_to_generation + PRESENT + string_bytes(self.id)

    def between(self, table: TableId | None) -> bytes:
        """From the end of ``sequence`` up to ``lsn``'s varint."""
        schema, name = table or ("", "")
        return (
            b'"]'
            + self._commit_times
            + string_bytes(schema)
            + string_bytes(name)
            + self._xid
            + PRESENT
        )

    def source(self, table: TableId | None, lsn: int) -> bytes:
        """A whole ``source`` block."""
        text = self.sequence + str(lsn).encode()
        return (
            self.head
            + long_bytes(len(text) + 2)
            + text
            + self.between(table)
            + long_bytes(lsn)
            + self._xmin_to_generation
        )

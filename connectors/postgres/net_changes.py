"""What a run of events of one table comes to: at most one change for each key.

A set-based statement may touch a row once, so several changes of a key are brought to their last state first.
Deletes stand before the rest when they are applied: a row's unique values are free before another takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc.errors import Rejected
from cdc.event import Delivered
from cdc.exact_row import ExactRow
from cdc.table import Table
from connectors.postgres.tuples import TupleTranscoder

Value = bytes | None
"""A column in PostgreSQL's binary form."""


@dataclass(slots=True)
class Pieces:
    """A row put together from several events: binary values in column order.

    ``missing`` are the positions of columns that no event of the run carried; without any the row is whole.
    """

    values: list[Value]
    missing: frozenset[int]

    def over(self, older: Pieces) -> Pieces:
        """The row with what it lacks taken from an older state of it."""
        filled = self.missing - older.missing
        if not filled:
            return self
        values = [
            older.values[at] if at in filled else value for at, value in enumerate(self.values)
        ]
        return Pieces(values, self.missing - filled)


Row = bytes | Pieces
"""A whole row (an Avro record), or pieces of one."""

Held = tuple[Delivered | None, dict[bytes, tuple[int, bytes | None]]]
"""A delete that waits for the row's new key, and rows that took over a key."""

State = Row | None
"""A key's last state; None for a deleted row."""


@dataclass(frozen=True, slots=True)
class Move:
    """A key changed, and the log did not carry the whole row: what is missing stands under the old key.

    To be applied after all that came before it in the run.
    """

    old_key: bytes
    row: Pieces


class NetChanges:
    """Takes events of one row schema in order. After ``take`` returned a Move, apply all, ``clear``, then the Move.

    ``fresh`` and ``states`` hold each key's last state. Fresh keys began here with a row that was inserted or copied,
    and still have one: by the source's history none of them was there before. ``expected`` holds the keys whose first change here was an update or a
    delete of the log: their rows must have been in the replica before. Rows of fences never count (correctness: a
    table may still be backfilling). ``old_images`` holds, under replica identity full, the whole row that the first
    change of each expected key found in the source.
    """

    __slots__ = (
        "_arrived",
        "_held",
        "collection",
        "expected",
        "fresh",
        "old_images",
        "states",
        "table",
        "transcoder",
    )

    def __init__(self, collection: str, table: Table, transcoder: TupleTranscoder) -> None:
        self.collection = collection
        self.table = table
        self.transcoder = transcoder
        self.fresh: dict[bytes, Row] = {}
        self.states: dict[bytes, State] = {}
        self.expected: set[bytes] = set()
        self.old_images: dict[bytes, Row] = {}
        self._held: Delivered | None = None
        self._arrived: dict[bytes, tuple[int, bytes | None]] = {}

    def __len__(self) -> int:
        return len(self.fresh) + len(self.states)

    def take(self, event: Delivered) -> Move | None:
        """Add an event: ``c``, ``r``, ``u`` or ``d``, with a key."""
        if self._held is not None:
            return self._after_held(event)
        key = event.key
        if key is None:
            raise keyless(event)
        op = event.op
        if self._arrived and op in "ud" and self._is_of_the_row_before(key, event):
            return None
        if op == "d":
            # The row's new key follows, and may need values of the row under its old one.
            if event.other_key is not None:
                self._held = event
            else:
                self._delete(key, event)
        elif event.unchanged:
            self._merge(key, event)
        elif key in self.fresh or (op != "u" and key not in self.states):
            self.fresh[key] = self._whole(event.after or b"")
        else:
            if op == "u":
                self._expect(key, event)
            self.states[key] = self._whole(event.after or b"")
        if op == "c" and event.other_key is not None and self.table.identity == "full":
            self._arrived[key] = (event.position.commit_lsn, event.after)
        return None

    def held(self) -> Held:
        """What outlives a `clear`."""
        return self._held, dict(self._arrived)

    def put_back(self, held: Held) -> None:
        """Forget all that was taken since `held` told this."""
        self.clear()
        self._held, self._arrived = held[0], dict(held[1])

    def settle(self) -> None:
        """Nothing more follows: a held delete is what it says."""
        if (held := self._held) is not None:
            self._held = None
            self._delete(held.key or b"", held)

    def _is_of_the_row_before(self, key: bytes, event: Delivered) -> bool:
        """Whether the event is of a row whose key another one has taken over already.

        With a deferrable key two rows may have one key until the transaction ends (``SET id = id + 1``). Such a
        table has its whole old rows in the log, which tell the two apart; the one that came stands.
        """
        lsn, row = self._arrived.get(key, (-1, None))
        if lsn != event.position.commit_lsn or event.before is None:
            return False
        if event.before == row:
            self._arrived[key] = (lsn, event.after)
            return False
        if event.op == "d":
            del self._arrived[key]
        return True

    def clear(self) -> None:
        """All but what is held is applied."""
        self.fresh = {}
        self.states = {}
        self.expected = set()
        self.old_images = {}

    def _after_held(self, event: Delivered) -> Move | None:
        held = self._held
        moved = (
            held is not None
            and event.op == "c"
            and event.unchanged
            and event.other_key == held.key
            and event.key == held.other_key
        )
        if not moved or held is None:
            self.settle()
            return self.take(event)
        old_key, new_key = held.key or b"", event.key or b""
        row = self._pieces(event)
        if old_key in self.fresh or old_key in self.states:
            older = self.fresh.get(old_key) or self.states.get(old_key)
            if older is None:
                # The old row was deleted, so there is none to move: nothing is made of pieces.
                self._held = None
                return None
            row = row.over(self._as_pieces(older))
        if row.missing:
            self._held = None
            return Move(old_key, row)
        self.settle()
        if new_key in self.states:
            self.states[new_key] = row
        else:
            self.fresh[new_key] = row
        return None

    def _expect(self, key: bytes, event: Delivered) -> None:
        if key not in self.states and event.xid:
            self.expected.add(key)
            if event.before is not None and self.table.identity == "full":
                self.old_images[key] = self._whole(event.before)

    def _delete(self, key: bytes, event: Delivered) -> None:
        if key in self.fresh:
            # Whatever history says: if it was there before, it is not there after.
            del self.fresh[key]
        else:
            self._expect(key, event)
        self.states[key] = None

    def _merge(self, key: bytes, event: Delivered) -> None:
        """Add a row that lacks columns. It makes no row of its own: under a deleted key it is nothing."""
        row = self._pieces(event)
        if (fresh := self.fresh.get(key)) is not None:
            self.fresh[key] = row.over(self._as_pieces(fresh))
        elif key not in self.states:
            self._expect(key, event)
            self.states[key] = row
        elif (older := self.states[key]) is not None:
            self.states[key] = row.over(self._as_pieces(older))

    def _whole(self, row: bytes) -> Row:
        return self._as_pieces(row) if isinstance(row, ExactRow) else row

    def _as_pieces(self, state: Row) -> Pieces:
        if isinstance(state, Pieces):
            return state
        return Pieces(list(self.transcoder.columns_of(state)), frozenset())

    def _pieces(self, event: Delivered) -> Pieces:
        names = event.unchanged
        missing = frozenset(
            at for at, column in enumerate(self.table.columns) if column.name in names
        )
        values: Sequence[Value] = self.transcoder.columns_of(event.after or b"")
        return Pieces(
            [None if at in missing else value for at, value in enumerate(values)], missing
        )


def keyless(event: Delivered) -> Rejected:
    """The error of an event whose row cannot be found."""
    return Rejected(
        f"an event of {event.collection} has no key",
        "capture the table by a key: a primary key, or an index as its replica identity",
    )


__all__ = [
    "Move",
    "NetChanges",
    "Pieces",
    "Row",
    "State",
    "Value",
    "keyless",
]

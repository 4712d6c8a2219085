"""Rows read column by column: those that the generated functions leave, for a value that is not plain.

Such a value is one that its column's form cannot carry (`Unfit`): the nearest goes into the row and the exact one
beside it (`cdc.exact_row`); or one whose binary form is not understood (`Unread`): then the server is asked for its text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from cdc.avro_binary import NULL, PRESENT, bytes_bytes
from cdc.errors import Failed
from cdc.exact_row import ExactRow
from connectors.postgres.codec import Codec, Unfit, Unread, encoder_of, unread

Road = Literal["stream_row", "old_row", "copy_row"]

AskText = Callable[[int, bytes], bytes]
"""PostgreSQL's text of a value: its type's oid, and its binary form as the server sent it."""

_NULL, _UNCHANGED, _TEXT, _BINARY = b"nutb"

TORN = (ValueError, IndexError, KeyError, OverflowError, struct.error)
"""What reading a tuple raises when it is not what it should be."""


class UnexpectedNull(Failed):
    """A NULL in a column that the catalog called NOT NULL: the row schema has to be widened, and the row read again.

    The log is the authority, the catalog a hint. ``column`` is the column's name.
    """

    def __init__(self, column: str) -> None:
        super().__init__(f"column {column} is declared NOT NULL and holds a NULL")
        self.column = column

    def __reduce__(self) -> tuple[type[UnexpectedNull], tuple[str]]:  # type: ignore[override]
        return type(self), (self.column,)


class ReadColumn(NamedTuple):
    """A column of a row. ``absent`` is what stands in it for a value that the log left unchanged, with its tag."""

    name: str
    type_oid: int
    nullable: bool
    in_key: bool
    codec: Codec
    absent: bytes
    excluded: bool


class ExactRows:
    """Reads the rows of one table shape; see `transcoder.RowTranscoder` for the roads and what comes back."""

    def __init__(
        self, columns: Sequence[ReadColumn], key: Sequence[str], ask: AskText | None
    ) -> None:
        self._columns = columns
        self._key = key
        self._ask = ask
        self._encoders = [encoder_of(column.codec) for column in columns]

    def row(self, frame: bytes, at: int, road: Road) -> tuple[bytes, bytes, tuple[str, ...], int]:
        """One row: the Avro record, its key's, the columns left unchanged, and the tuple's end.

        Raises UnexpectedNull, and Failed for a value that cannot be carried or a tuple that is torn.
        """
        try:
            return self._row(frame, at, road)
        except TORN as error:
            raise torn([column.name for column in self._columns], error, road) from error

    def _row(self, frame: bytes, at: int, road: Road) -> tuple[bytes, bytes, tuple[str, ...], int]:
        # A copy does not bring the excluded ones.
        there = [
            place
            for place, column in enumerate(self._columns)
            if road != "copy_row" or not column.excluded
        ]
        if int.from_bytes(frame[at : at + 2]) != len(there):
            raise ValueError(f"a tuple of other than {len(there)} columns")
        at += 2
        parts: list[bytes] = []
        values: dict[str, bytes] = {}
        texts: dict[str, str] = {}
        unchanged: tuple[str, ...] = ()
        for place in there:
            column = self._columns[place]
            kind, content, at = _field(frame, at, road)
            if column.excluded:
                continue
            if kind == _UNCHANGED:
                unchanged += (column.name,)
                parts.append(column.absent)
                continue
            if kind == _NULL:
                values[column.name] = _null(column, road)
                parts.append(values[column.name])
                continue
            is_text = kind == _TEXT or (road == "copy_row" and column.codec.text_only)
            value, text = self._value(place, content, is_text=is_text)
            if text is not None:
                texts[column.name] = text
            values[column.name] = value
            parts.append(PRESENT + value if column.nullable else value)
        if at > len(frame):
            raise ValueError("a torn tuple")
        row = b"".join(parts)
        key = b"".join(values[name] for name in self._key)
        return ExactRow(row, texts) if texts else row, key, unchanged, at

    def _value(self, place: int, content: bytes, *, is_text: bool) -> tuple[bytes, str | None]:
        """A value's Avro bytes, and its text if they are only near it."""
        column = self._columns[place]
        codec = column.codec
        try:
            if not is_text:
                if codec.text_only:
                    unread()
                return self._encoded(place, content)
        except Unread:
            if self._ask is None:
                raise ValueError(f"the type of column {column.name} is not understood") from None
            content = self._ask(column.type_oid, content)
        if codec.spelled:
            return bytes_bytes(content), None
        return self._encoded(place, codec.from_text(content))

    def _encoded(self, place: int, value: bytes) -> tuple[bytes, str | None]:
        column = self._columns[place]
        try:
            return self._encoders[place](len(value).to_bytes(4, "big") + value, 0)[0], None
        except Unfit as unfit:
            if unfit.nearest is None or column.in_key:
                raise
            return unfit.nearest, column.codec.to_text(value).decode()


def _field(frame: bytes, at: int, road: Road) -> tuple[int, bytes, int]:
    """A column's kind, its content, and where it ends. IndexError where the tuple ends before."""
    kind = _BINARY
    if road != "copy_row":
        kind, at = frame[at], at + 1
        if kind in (_NULL, _UNCHANGED):
            return kind, b"", at
        if kind not in (_TEXT, _BINARY):
            raise ValueError("an unknown kind of column")
    size = int.from_bytes(frame[at : at + 4], "big", signed=True)
    at += 4
    if size < 0:
        return _NULL, b"", at
    if at + size > len(frame):
        raise ValueError("a torn tuple")
    return kind, frame[at : at + size], at + size


def _null(column: ReadColumn, road: Road) -> bytes:
    if column.nullable:
        # What stands for a NULL under a mask; an old image lacks what is NULL there.
        return NULL if column.codec.null is None or road == "old_row" else column.codec.null
    if road == "old_row" and not column.in_key:
        return column.codec.filler
    raise UnexpectedNull(column.name)


def torn(names: Sequence[str], error: Exception, road: str) -> Failed:
    """What to raise for a row that cannot be read."""
    return Failed(
        f"a row of columns {', '.join(names)} cannot be read ({road}): {error}",
        "exclude the column from capture, or change its type",
    )

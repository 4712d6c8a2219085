"""Rows of one relation, from the log or from a copy, as changes and as (key, row) records of one row schema.

The log is the authority, the catalog a hint: a NULL in a column that the catalog calls NOT NULL widens the schema
(the table gets a new `Table`), it never fails. https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

from psycopg import sql

from cdc.avro_binary import bytes_bytes
from cdc.errors import Failed
from cdc.event import Change
from cdc.table import Column, Table, TableId
from connectors.postgres.codec import Codec, Unfit, encoder_of
from connectors.postgres.column_rules import ColumnRules, check_covered
from connectors.postgres.exact_rows import AskText, UnexpectedNull
from connectors.postgres.handling import DEFAULT, Handling
from connectors.postgres.masks import Mask
from connectors.postgres.relation import Relation
from connectors.postgres.transcoder import RowTranscoder
from connectors.postgres.tuples import TupleTranscoder
from connectors.postgres.types import Attribute, codec_of, column_of

_FULL_OLD = ord("O")
_UNCHANGED = ord("u")
_WITH_VALUE = b"tb"
_OLD_AT = 31
"""Where the first tuple stands in a frame: behind XLogData's 25 bytes, the message's type, oid and tuple kind."""

_change = tuple.__new__
"""What ``Change(...)`` comes to, without the call between: changes are made by the million."""


class Hints(NamedTuple):
    """What is known of a relation beside the log: its columns' types and NOT NULL, and the primary key in its order.

    ``message_key`` is what the configuration chooses in the place of it. By column, where it is known: its number in
    the table, and the text of the value that older rows have in it.
    """

    attributes: tuple[Attribute, ...]
    primary_key: tuple[str, ...]
    message_key: tuple[str, ...] = ()
    numbers: Mapping[str, int] = MappingProxyType({})
    missing: Mapping[str, str] = MappingProxyType({})


class RowDecoder:
    """Decodes the rows of one relation; ``table`` is the row schema of those decoded last.

    ``program`` is the same in compiled form, for whole runs of messages; None where only Python's runs.
    """

    program: Any

    def __init__(
        self,
        relation: Relation,
        hints: Hints,
        widened: set[str],
        known: Table | None = None,
        *,
        handling: Handling = DEFAULT,
        ask: AskText | None = None,
    ) -> None:
        self.relation = relation
        self.hints = hints
        self._widened = widened
        self._handling = handling
        self._ask = ask
        self._key = hints.message_key or message_key(relation, hints.primary_key)
        self.table = self._shape(known)

    def insert(self, frame: bytes, lsn: int, order: int) -> Change:
        """An Insert message."""
        try:
            row, key, unchanged, _ = self._stream_row(frame, _OLD_AT)
        except UnexpectedNull as null:
            self.widen(null.column)
            return self.insert(frame, lsn, order)
        return _change(
            Change, (self.table, "c", lsn, order, key or None, None, row, unchanged, None)
        )

    def update(self, frame: bytes, lsn: int, order: int) -> Change:
        """An Update message without an old image: the key is as it was."""
        try:
            row, key, unchanged, _ = self._stream_row(frame, _OLD_AT)
        except UnexpectedNull as null:
            self.widen(null.column)
            return self.update(frame, lsn, order)
        return _change(
            Change, (self.table, "u", lsn, order, key or None, None, row, unchanged, None)
        )

    def update_with_old(self, frame: bytes, lsn: int, order: int) -> list[Change]:
        """An Update message with an old image: one change, or two at two numbers when the key is another."""
        before, old_key, end = self._old(frame)
        row, key, unchanged, _ = self._new(frame, end + 1)
        if unchanged and frame[30] == _FULL_OLD:
            whole = _filled(frame, _OLD_AT, end + 1)
            row, key, unchanged, _ = self._new(whole, 0)
        if key == old_key:
            return [Change(self.table, "u", lsn, order, key, before, row, unchanged)]
        return [
            Change(self.table, "d", lsn, order, old_key, before, None, (), key),
            Change(self.table, "c", lsn, order + 1, key, None, row, unchanged, old_key),
        ]

    def delete(self, frame: bytes, lsn: int, order: int) -> Change:
        """A Delete message."""
        before, key, _ = self._old(frame)
        return Change(self.table, "d", lsn, order, key, before, None)

    def copied(self, rows: list[bytes]) -> list[tuple[bytes, bytes]]:
        """Rows of a binary COPY as (key, row). UnexpectedNull: ``widen``, and call again."""
        return self._transcoder.copied(rows)

    def copied_keys(self, rows: list[bytes]) -> list[bytes]:
        """Rows of a binary COPY of the key's columns alone, as key records."""
        return [key for key, _ in self._key_rows.copied(rows)]

    def widen(self, column: str) -> None:
        """From now on the column is nullable. Failed for a column of the key, which has no place for a NULL."""
        if column in self._key:
            raise Failed(
                f"key column {column} of {self.relation.id} holds a NULL",
                "give the table a primary key or an identity whose columns are NOT NULL",
            )
        self._widened.add(column)
        self.table = self._shape(None)

    @property
    def masks(self) -> dict[str, Mask]:
        """The masked columns."""
        return {
            column.name: column.mask
            for column in self.hints.attributes
            if column.mask is not None and not column.excluded
        }

    @property
    def select_list(self) -> sql.Composed:
        """The columns as a COPY has to select them."""
        names = [column.name for column in self.hints.attributes if not column.excluded]
        return _selected(names, self._transcoder.as_text)

    @property
    def key_select_list(self) -> sql.Composed:
        """The key's columns as a COPY has to select them, for `copied_keys`."""
        return _selected(self._key, self._key_rows.as_text)

    @property
    def key_list(self) -> sql.Composed:
        """The key's columns, to order by or, in parentheses, to compare."""
        return sql.SQL(", ").join(sql.Identifier(name) for name in self._key)

    def key_literal(self, key: bytes) -> sql.Composed:
        """A key record as ``('1'::bigint, 'x'::text)``. Rejected when the record is none of this table's."""
        types = {attribute.name: attribute.formatted_type for attribute in self.hints.attributes}
        values = zip(self._key, self._keys.key_text(key), strict=True)
        return sql.SQL("({})").format(
            sql.SQL(", ").join(
                sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(types[name]))
                for name, text in values
            )
        )

    @cached_property
    def _key_rows(self) -> RowTranscoder:
        by_name = {attribute.name: attribute for attribute in self.hints.attributes}
        return RowTranscoder(
            [by_name[name] for name in self._key], self._key, handling=self._handling
        )

    @cached_property
    def _keys(self) -> TupleTranscoder:
        return TupleTranscoder(self.table.columns, self._key)

    def _new(self, frame: bytes, offset: int) -> tuple[bytes, bytes | None, tuple[str, ...], int]:
        try:
            found = self._stream_row(frame, offset)
        except UnexpectedNull as null:
            self.widen(null.column)
            return self._new(frame, offset)
        return found[0], found[1] or None, found[2], found[3]

    def _old(self, frame: bytes) -> tuple[bytes, bytes | None, int]:
        """The old image, its key, and where it ends. Under identity FULL it is a whole row, else the key."""
        if frame[30] == _FULL_OLD:
            row, key, _, end = self._new(frame, _OLD_AT)
        else:
            row, key, _, end = self._old_row(frame, _OLD_AT)
        return row, key or None, end

    def _shape(self, known: Table | None) -> Table:
        attributes = [
            replace(attribute, not_null=False) if attribute.name in self._widened else attribute
            for attribute in self.hints.attributes
        ]
        self._transcoder = RowTranscoder(
            attributes, self._key, handling=self._handling, ask=self._ask
        )
        self._stream_row = self._transcoder.stream_row
        self._old_row = self._transcoder.old_row
        columns = tuple(self._column(taken) for taken in attributes if not taken.excluded)
        table = Table(self.relation.id, columns, self._key, self.relation.identity)
        if known is not None and known.same_shape(table):
            table = known
        program = self._transcoder.program
        self.program = None if program is None else program.with_table(table)
        return table

    def _column(self, attribute: Attribute) -> Column:
        number = self.hints.numbers.get(attribute.name, 0)
        missing = self.hints.missing.get(attribute.name)
        handling = self._handling.of_keys if attribute.name in self._key else self._handling
        return replace(
            column_of(attribute, handling),
            number=self.relation.oid << 16 | number if number else 0,
            # A masked column's rows are not as the source has them, older ones neither.
            missing=None
            if missing is None or attribute.mask is not None
            else _avro(codec_of(attribute, handling), missing),
        )


class Shapes:
    """The relations met so far. The same `Table` object stands for a table as long as its shape holds.

    ``handling`` and ``ask``: as `RowTranscoder` takes them.
    """

    def __init__(
        self, rules: ColumnRules, handling: Handling = DEFAULT, ask: AskText | None = None
    ) -> None:
        self._rules = rules
        self._handling = handling
        self._ask = ask
        self._known: dict[TableId, RowDecoder] = {}
        self._widened: dict[TableId, set[str]] = {}

    def rows(self, relation: Relation, hints: Hints) -> RowDecoder:
        """The decoder of a relation as it is described now. ConfigError where the rules do not fit its columns."""
        hints = self._ruled(relation, hints)
        known = self._known.get(relation.id)
        if known is not None and (known.relation, known.hints) == (relation, hints):
            return known
        widened = self._widened.setdefault(relation.id, set())
        made = RowDecoder(
            relation,
            hints,
            widened,
            known.table if known else None,
            handling=self._handling,
            ask=self._ask,
        )
        self._known[relation.id] = made
        return made

    def _ruled(self, relation: Relation, hints: Hints) -> Hints:
        chosen = self._rules.message_key(relation.id, [column.name for column in relation.columns])
        key = chosen or message_key(relation, hints.primary_key)
        attributes = self._rules.applied(relation.id, hints.attributes, key)
        known = self._known.get(relation.id)
        if known is not None:
            check_covered(relation.id, known.hints.attributes, attributes)
        return hints._replace(attributes=attributes, message_key=chosen)


def _selected(names: Sequence[str], as_text: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(
        # As text by the type's own output function: a cast could be one that somebody has defined.
        sql.SQL(
            "CASE WHEN num_nulls({0}) = 0 THEN format('%s', {0}) END" if name in as_text else "{0}"
        ).format(sql.Identifier(name))
        for name in names
    )


def message_key(relation: Relation, primary_key: Sequence[str]) -> tuple[str, ...]:
    """The columns of the message key: the primary key where old images carry it, else the identity's columns."""
    carried = [column.name for column in relation.columns if column.in_identity]
    if primary_key and set(primary_key) <= set(carried):
        return tuple(primary_key)
    # Under FULL every column is carried, and none of them is a key.
    return () if relation.identity == "full" else tuple(carried)


def _avro(codec: Codec, text: str) -> bytes:
    """A value's Avro bytes by its text, or the nearest that its form can say."""
    if codec.spelled:
        return bytes_bytes(text.encode())
    value = codec.from_text(text.encode())
    try:
        return encoder_of(codec)(len(value).to_bytes(4, "big") + value, 0)[0]
    except Unfit as unfit:
        if unfit.nearest is None:
            raise
        return unfit.nearest


def _filled(frame: bytes, old: int, new: int) -> bytes:
    """The new tuple with what it leaves unchanged taken from the old one."""
    fields = [
        old_field if new_field[0] == _UNCHANGED else new_field
        for old_field, new_field in zip(_fields(frame, old), _fields(frame, new), strict=True)
    ]
    return frame[new : new + 2] + b"".join(fields)


def _fields(frame: bytes, offset: int) -> list[bytes]:
    count = int.from_bytes(frame[offset : offset + 2])
    offset += 2
    fields = []
    for _ in range(count):
        end = offset + 1
        if frame[offset] in _WITH_VALUE:
            end += 4 + int.from_bytes(frame[end : end + 4])
        fields.append(frame[offset:end])
        offset = end
    return fields

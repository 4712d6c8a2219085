"""The SQL by which two servers digest the same rows to the same numbers, and order keys in the same way.

A row's hash is PostgreSQL's own record hash under two seeds, over one record of all compared columns in the row
schema's order; a digest is the count and the two sums (of bigint: exact, reduced modulo 2^64 by the reader). So NULL
and '' differ, no value can flow into its neighbour, and a row that stands twice does not cancel itself.

A hash says no more than the equality of the hashed type: 1.0 = 1.00, -0.0 = 0.0, '1 day' = '24:00'. So a column is
hashed as it is only where equal values are the same value (`Codec.direct`), strings under the collation "C" (bytes);
every other type by its text, which the session settings fix (`connection`).

Keys are compared bytewise where they are text: two servers may disagree about any other collation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from cdc.errors import Failed
from cdc.table import Column, Table, TableId
from connectors.postgres.forms import codec_of_column
from connectors.postgres.masks import Mask
from connectors.postgres.statements import qualified, raw

_SEEDS = (0x5EED_0F_CDC, -0x0DD_B175)
_STRINGS = ("text", "character varying", "name", '"char"')
_PADDED = ("character", "bpchar")
_ORDERED = (
    "smallint",
    "integer",
    "bigint",
    "oid",
    "numeric",
    "real",
    "double precision",
    "boolean",
    "date",
    "time without time zone",
    "timestamp without time zone",
    "timestamp with time zone",
    "uuid",
    "bytea",
)
_MODIFIER = re.compile(r"\([^)]*\)")


Arrays = Sequence[Sequence[str]]
"""Many keys: one list of texts per key column."""


class Present(NamedTuple):
    """A column as one side's catalog has it. ``bytewise``: its own collation orders by bytes."""

    type: str
    bytewise: bool


@dataclass(frozen=True)
class Digests:
    """The statements for one table of one side.

    On the source ``where`` is the publication's row filter, and ``masks`` are done to the columns with these names, so
    that what is compared, and shown, is what the replica may hold.

    Keys go in and come out as texts, one per key column. Everything is put in as a literal: a row filter or a name
    may hold a percent sign, which a statement with parameters would take for one of them.
    """

    table: Table
    target: TableId
    present: Mapping[str, Present]
    where: str | None = None
    masks: Mapping[str, Mask] = field(default_factory=dict)

    @property
    def by_index(self) -> bool:
        """Whether a range of keys can be found through the key's index: its first column is ordered as we order."""
        return self._key[0].own_order

    def ends(
        self, low: Sequence[str] | None, high: Sequence[str] | None, step: int, most: int | None
    ) -> Composed:
        """Every ``step``-th key of a range in order, at most ``most`` rows far; columns as texts."""
        limit = SQL("") if most is None else SQL(" LIMIT {}").format(Literal(most))
        return SQL(
            "SELECT {outer} FROM (SELECT {keys}, row_number() OVER (ORDER BY {order}) AS cdc_row"
            " FROM {target} t WHERE {range} ORDER BY {order}{limit}) q WHERE cdc_row % {step} = 0 ORDER BY cdc_row"
        ).format(
            outer=_list(SQL("q.{}").format(Identifier(f"k{i}")) for i in range(len(self._key))),
            keys=_list(
                SQL("{}::text AS {}").format(key.value, Identifier(f"k{i}"))
                for i, key in enumerate(self._key)
            ),
            order=self._order,
            target=qualified(self.target),
            range=self._between(self._literals(low), self._literals(high)),
            limit=limit,
            step=Literal(step),
        )

    def of_range(self, low: Sequence[str] | None, high: Sequence[str] | None) -> Composed:
        """Count and sums of one range."""
        return self._sums(self._between(self._literals(low), self._literals(high)))

    def of_runs(self, lows: Arrays, highs: Arrays) -> Composed:
        """Count and sums of many runs between these ends, in their order, each found through the index."""
        low_names = [Identifier(f"l{i}") for i in range(len(self._key))]
        high_names = [Identifier(f"h{i}") for i in range(len(self._key))]
        between = self._between(
            [SQL("b.{}").format(name) for name in low_names],
            [SQL("b.{}").format(name) for name in high_names],
        )
        return SQL(
            "SELECT d.* FROM unnest({arrays}) WITH ORDINALITY AS b ({names}, n), LATERAL ({sums}) d ORDER BY b.n"
        ).format(
            arrays=_arrays([*lows, *highs]),
            names=_list([*low_names, *high_names]),
            sums=self._sums(between),
        )

    def in_one_scan(
        self, low: Sequence[str] | None, high: Sequence[str] | None, keys: Arrays
    ) -> Composed:
        """Number, count and sums of the runs that these keys divide a range into, in one scan.

        For keys that no index orders as we do. Run 0 ends at the first key, the last run is behind the last one.
        """
        names = [Identifier(f"e{i}") for i in range(len(self._key))]
        end = SQL("ROW({})").format(
            _list(
                key.ordered(SQL("e.{}").format(name))
                for key, name in zip(self._key, names, strict=True)
            )
        )
        return SQL(
            "WITH ends AS MATERIALIZED (SELECT array_agg({end} ORDER BY e.n) AS a"
            " FROM unnest({arrays}) WITH ORDINALITY AS e ({names}, n))"
            " SELECT q.n - CASE WHEN q.n > 0 AND ends.a[q.n] = q.k THEN 1 ELSE 0 END AS run, count(*), {sums}"
            " FROM (SELECT p.k, p.r, width_bucket(p.k, (SELECT a FROM ends)) AS n"
            " FROM (SELECT ROW({order}) AS k, {row} AS r FROM {target} t WHERE {range} OFFSET 0) p OFFSET 0) q, ends"
            " GROUP BY 1 ORDER BY 1"
        ).format(
            end=end,
            arrays=_arrays(keys),
            names=_list(names),
            sums=_hash_sums("q.r"),
            order=self._order,
            row=self._row,
            target=qualified(self.target),
            range=self._between(self._literals(low), self._literals(high)),
        )

    def without_key(self) -> Composed:
        """A row if any row has a NULL in its key: it is in no range of keys."""
        return SQL("SELECT 1 FROM {target} t WHERE {nulls} LIMIT 1").format(
            target=qualified(self.target),
            nulls=SQL(" OR ").join(
                SQL("t.{} IS NULL").format(Identifier(name)) for name in self.table.key
            ),
        )

    def hashes(self, low: Sequence[str] | None, high: Sequence[str] | None) -> Composed:
        """Each row's key, as texts, and its two hashes, in key order."""
        return SQL(
            "SELECT {keys}, {hashes} FROM (SELECT {parts}, {row} AS r FROM {target} t WHERE {range}"
            " ORDER BY {order} OFFSET 0) q"
        ).format(
            keys=_list(SQL("q.{}").format(Identifier(f"k{i}")) for i in range(len(self._key))),
            hashes=_list(SQL("hash_record_extended(q.r, {})").format(Literal(s)) for s in _SEEDS),
            parts=_list(
                SQL("{}::text AS {}").format(key.value, Identifier(f"k{i}"))
                for i, key in enumerate(self._key)
            ),
            row=self._row,
            target=qualified(self.target),
            range=self._between(self._literals(low), self._literals(high)),
            order=self._order,
        )

    def texts(self, keys: Arrays) -> Composed:
        """Number of the key, then every compared column's text, of the rows with these keys."""
        names = [Identifier(f"w{i}") for i in range(len(self._key))]
        same = SQL(" AND ").join(
            SQL("{} = {}").format(key.order, key.ordered(SQL("w.{}").format(name)))
            for key, name in zip(self._key, names, strict=True)
        )
        return SQL(
            "SELECT w.n, {columns} FROM unnest({arrays}) WITH ORDINALITY AS w ({names}, n)"
            " JOIN {target} t ON {same} WHERE {filter} ORDER BY w.n"
        ).format(
            columns=_list(SQL("({})::text").format(self._hashed(c)) for c in self.table.columns),
            arrays=_arrays(keys),
            names=_list(names),
            target=qualified(self.target),
            same=same,
            filter=self._filter,
        )

    # --- parts -----------------------------------------------------------------------------------------------

    @property
    def _key(self) -> list[_Key]:
        return [_key_of(column, self.present[column.name]) for column in self.table.key_columns]

    @property
    def _order(self) -> Composed:
        return _list(key.order for key in self._key)

    @property
    def _row(self) -> Composed:
        return SQL("ROW({})").format(_list(map(self._hashed, self.table.columns)))

    @property
    def _filter(self) -> Composable:
        return SQL("true") if self.where is None else SQL("({})").format(raw(self.where))

    def _hashed(self, column: Column) -> Composable:
        """What of a column goes into the hash: the value itself, or its text."""
        if column.name in self.masks:
            return self._masked(column)
        if base_name(self.present[column.name].type) in _PADDED:
            # A cast to text would drop trailing blanks.
            return SQL('textin(bpcharout(t.{})) COLLATE "C"').format(Identifier(column.name))
        codec = codec_of_column(column)
        value = self._value(column)
        base = base_name(codec.pg_type)
        if base == "money":
            return SQL('{}::numeric::text COLLATE "C"').format(value)
        if codec.direct and base not in _STRINGS:
            return value
        return SQL('{}::text COLLATE "C"').format(value)

    def _masked(self, column: Column) -> Composable:
        name = Identifier(column.name)
        padded = base_name(self.present[column.name].type) in _PADDED
        text = SQL("textin(bpcharout(t.{}))" if padded else "t.{}::text").format(name)
        made = self.masks[column.name].in_sql(text)
        if made is None:
            raise Failed(f"column {column.name} of {self.target} is masked as the server cannot")
        return SQL('({})::text COLLATE "C"').format(made)

    def _value(self, column: Column) -> Composable:
        """The column in the type that its codec is for, without a modifier: one would cut values."""
        present = SQL("t.{}").format(Identifier(column.name))
        wanted = base_name(codec_of_column(column).pg_type)
        if wanted in (base_name(self.present[column.name].type), "character"):
            return present
        return SQL("{}::{}").format(present, raw(wanted))

    def _sums(self, condition: Composable) -> Composed:
        # OFFSET 0 keeps the record from being built once for each seed.
        return SQL(
            "SELECT count(*), {sums} FROM (SELECT {row} AS r FROM {target} t WHERE {condition} OFFSET 0) q"
        ).format(
            sums=_hash_sums("q.r"),
            row=self._row,
            target=qualified(self.target),
            condition=condition,
        )

    def _between(
        self, low: Sequence[Composable] | None, high: Sequence[Composable] | None
    ) -> Composed:
        """``low < key <= high`` and the row filter; the first column alone as well, for the index's sake."""
        parts: list[Composable] = [self._filter]
        for end, sign, first in ((low, ">", ">="), (high, "<=", "<=")):
            if end is None:
                continue
            values = [key.ordered(value) for key, value in zip(self._key, end, strict=True)]
            if len(values) > 1:
                parts.append(
                    SQL("{} {} {}").format(self._key[0].order, SQL(first), values[0])  # type: ignore[arg-type, unused-ignore]
                )
            parts.append(
                SQL("({}) {} ({})").format(self._order, SQL(sign), _list(values))  # type: ignore[arg-type, unused-ignore]
            )
        return SQL(" AND ").join(parts)

    def _literals(self, key: Sequence[str] | None) -> Sequence[Composable] | None:
        return None if key is None else [Literal(text) for text in key]


class _Key(NamedTuple):
    """A column of the key: ``value`` has the codec's type; ``order`` is what is compared and sorted."""

    value: Composable
    order: Composable
    type: str
    collate: str
    own_order: bool

    def ordered(self, text: Composable) -> Composable:
        """A text as something to compare with ``order``."""
        return SQL("({}::{}{})").format(text, raw(self.type), raw(self.collate))


def _key_of(column: Column, present: Present) -> _Key:
    base = base_name(codec_of_column(column).pg_type)
    name: Composable = SQL("t.{}").format(Identifier(column.name))
    same_type = base_name(present.type) == base
    if base in _ORDERED:
        value = name if same_type else SQL("{}::{}").format(name, raw(base))
        return _Key(value, value, base, "", own_order=same_type)
    if base in ("text", "character varying") and base_name(present.type) in _STRINGS:
        if present.bytewise:
            return _Key(name, name, "text", "", own_order=True)
        return _Key(
            name, SQL('{} COLLATE "C"').format(name), "text", ' COLLATE "C"', own_order=False
        )
    text = SQL(
        "textin(bpcharout({}))" if base_name(present.type) in _PADDED else "{}::text"
    ).format(name)
    return _Key(text, SQL('{} COLLATE "C"').format(text), "text", ' COLLATE "C"', own_order=False)


def _arrays(lists: Arrays) -> Composed:
    return _list(SQL("{}::text[]").format(Literal(list(texts))) for texts in lists)


def base_name(spelled: str) -> str:
    """A type's name as ``format_type`` spells it, without its modifier."""
    return _MODIFIER.sub("", spelled)


def _hash_sums(record: str) -> Composed:
    return _list(
        SQL("coalesce(sum(hash_record_extended({}, {})), 0)").format(raw(record), Literal(seed))
        for seed in _SEEDS
    )


def _list(parts: Iterable[Composable]) -> Composed:
    return SQL(", ").join(list(parts))

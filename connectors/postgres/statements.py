"""The SQL that applies a batch to one table of a replica, set by set.

A batch stands in a *source of rows*, aliased ``s``: a staging table, or a VALUES list for a few rows. Its first column
says what becomes of each row: its *kind*. ``DELETE``, ``UPSERT``, and from ``UPDATE`` on, in steps of two, groups of
updates that carry the same columns. A kind plus one (``EXPECTED``) marks a row that must be there already: the
statements count how many of those were not.

Equality of keys is asked by the operators of the key's own index, wherever these live.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from cdc.table import TableId

KIND = "cdc.kind"
DELETE = 0
UPSERT = 2
UPDATE = 4
EXPECTED = 1


class StagedColumn(NamedTuple):
    """A column as staged and as stored: ``cast`` is the target's type where it is not the staged one, else empty."""

    name: str
    staged_type: str
    cast: str = ""

    @property
    def value(self) -> Composable:
        """Its value in a row of the source of rows."""
        column = SQL("s.{}").format(Identifier(self.name))
        return SQL("{}::{}").format(column, raw(self.cast)) if self.cast else column


class KeyColumn(NamedTuple):
    """A column of the key; ``equals`` is the equality operator of its index, as ``OPERATOR(schema.=)`` takes it."""

    column: StagedColumn
    equals: str


def raw(text: str) -> Composable:
    """SQL that the server itself gave us: a type's name from ``format_type``, an operator's."""
    return SQL(text)  # type: ignore[arg-type, unused-ignore]


def qualified(table: TableId) -> Composable:
    """The table's quoted name."""
    return Identifier(table.schema, table.name)


def names(columns: Iterable[str]) -> Composed:
    """Quoted names with commas."""
    return SQL(", ").join(map(Identifier, columns))


# --- staging -------------------------------------------------------------------------------------------------


def create_stage(stage: str, columns: Sequence[StagedColumn]) -> Composed:
    """A table of this session that is empty again after each transaction."""
    return SQL("CREATE TEMP TABLE {} ({}) ON COMMIT DELETE ROWS").format(
        Identifier(stage),
        SQL(", ").join(
            [
                SQL("{} int2").format(Identifier(KIND)),
                *(SQL("{} {}").format(Identifier(c.name), raw(c.staged_type)) for c in columns),
            ]
        ),
    )


def copy_to_stage(stage: str) -> Composed:
    """The load of a stage: kind, then the columns."""
    return SQL("COPY pg_temp.{} FROM STDIN (FORMAT binary)").format(Identifier(stage))


def copy_to_target(target: Composable, columns: Sequence[StagedColumn]) -> Composed:
    """The load of the target itself, with rows that are new."""
    return SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        target, names(c.name for c in columns)
    )


def empty_stage(stage: str) -> Composed:
    """Make a stage ready for a second batch of one transaction."""
    return SQL("TRUNCATE pg_temp.{}").format(Identifier(stage))


def rows_of_stage(stage: str) -> Composed:
    """A stage as the source of rows."""
    return SQL("pg_temp.{} AS s").format(Identifier(stage))


def inline_rows(columns: Sequence[StagedColumn], rows: int) -> Composed:
    """A VALUES list of parameters (``$1``, ...) as the source of rows. A row whose kind is null is no row."""
    types = ["int2", *(c.staged_type for c in columns)]
    width = len(types)
    # The first row gives the columns their types.
    lists = [[f"${at}::{type_}" for at, type_ in enumerate(types, 1)]]
    lists += [
        [f"${at}" for at in range(row * width + 1, (row + 1) * width + 1)] for row in range(1, rows)
    ]
    return SQL("(VALUES {}) AS s ({})").format(
        raw(", ".join(f"({', '.join(values)})" for values in lists)),
        names([KIND, *(c.name for c in columns)]),
    )


def inline_key(key: Sequence[KeyColumn], first: int) -> Composed:
    """One key of parameters, from number ``first`` on, aliased ``o``."""
    values = (f"${at}::{k.column.staged_type}" for at, k in enumerate(key, first))
    return SQL("(VALUES ({})) AS o ({})").format(
        raw(", ".join(values)), names(k.column.name for k in key)
    )


# --- a batch -------------------------------------------------------------------------------------------------


def delete(target: Composable, rows: Composable, key: Sequence[KeyColumn]) -> Composed:
    """Remove rows by key; returns how many of the expected ones were there."""
    return SQL(
        "WITH gone AS (DELETE FROM {target} AS t USING {rows} WHERE s.{kind} IN ({plain}, {expected}) AND {match}"
        " RETURNING s.{kind} AS kind) SELECT count(*) FILTER (WHERE kind = {expected}) FROM gone"
    ).format(target=target, rows=rows, match=match(key), **_kinds(DELETE))


def upsert(
    target: Composable,
    rows: Composable,
    columns: Sequence[StagedColumn],
    key: Sequence[KeyColumn],
) -> Composed:
    """Insert or overwrite whole rows; returns how many of the expected ones were not there before.

    Parts of one statement see the same snapshot: the count is not changed by the insert beside it.
    """
    keys = {k.column.name for k in key}
    changed = [c.name for c in columns if c.name not in keys]
    return SQL(
        "WITH missing AS (SELECT count(*) AS n FROM {rows} WHERE s.{kind} = {expected}"
        " AND NOT EXISTS (SELECT FROM {target} AS t WHERE {match})),"
        " written AS (INSERT INTO {target} ({names}) OVERRIDING SYSTEM VALUE"
        " SELECT {values} FROM {rows} WHERE s.{kind} IN ({plain}, {expected})"
        " ON CONFLICT ({key}) {action})"
        " SELECT n FROM missing"
    ).format(
        target=target,
        rows=rows,
        match=match(key),
        names=names(c.name for c in columns),
        values=SQL(", ").join(c.value for c in columns),
        key=names(k.column.name for k in key),
        action=SQL("DO UPDATE SET {}").format(
            SQL(", ").join(SQL("{0} = EXCLUDED.{0}").format(Identifier(name)) for name in changed)
        )
        if changed
        else SQL("DO NOTHING"),
        **_kinds(UPSERT),
    )


def update(
    target: Composable,
    rows: Composable,
    columns: Sequence[StagedColumn],
    key: Sequence[KeyColumn],
    kind: int,
) -> Composed:
    """Change these columns of rows that are there; returns how many of the expected ones were."""
    return SQL(
        "WITH changed AS (UPDATE {target} AS t SET {sets} FROM {rows} WHERE s.{kind} IN ({plain}, {expected})"
        " AND {match} RETURNING s.{kind} AS kind) SELECT count(*) FILTER (WHERE kind = {expected}) FROM changed"
    ).format(target=target, rows=rows, sets=_sets(columns), match=match(key), **_kinds(kind))


def differing(
    target: Composable,
    rows: Composable,
    columns: Sequence[StagedColumn],
    key: Sequence[KeyColumn],
) -> Composed:
    """How many rows are there by key and differ in these columns, image by image: every type has one."""
    return SQL(
        "SELECT count(*) FROM {rows} JOIN {target} AS t ON {match}"
        " WHERE pg_catalog.record_image_ne(ROW({theirs}), ROW({ours}))"
    ).format(
        rows=rows,
        target=target,
        match=match(key),
        theirs=SQL(", ").join(SQL("t.{}").format(Identifier(c.name)) for c in columns),
        ours=SQL(", ").join(c.value for c in columns),
    )


def move(
    target: Composable,
    rows: Composable,
    columns: Sequence[StagedColumn],
    key: Sequence[KeyColumn],
    old_rows: Composable,
) -> Composed:
    """Give the row with the key in ``o`` (a VALUES list) the columns in ``s``, its new key among them."""
    return SQL("UPDATE {target} AS t SET {sets} FROM {rows}, {old_rows} WHERE {match}").format(
        target=target, rows=rows, old_rows=old_rows, sets=_sets(columns), match=match(key, "o")
    )


def truncate(tables: Sequence[TableId]) -> Composed:
    """Empty tables that the source emptied by one statement."""
    return SQL("TRUNCATE {}").format(SQL(", ").join(map(qualified, tables)))


def delete_all(table: TableId) -> Composed:
    """Empty a table that other tables refer to: TRUNCATE would refuse."""
    return SQL("DELETE FROM {}").format(qualified(table))


def match(key: Sequence[KeyColumn], alias: str = "s") -> Composed:
    """Whether row ``t`` has the key that stands in ``s`` (or ``o``)."""
    parts = []
    for column, equals in key:
        value: Composable = SQL("{}.{}").format(Identifier(alias), Identifier(column.name))
        if column.cast:
            value = SQL("{}::{}").format(value, raw(column.cast))
        parts.append(
            SQL("t.{} OPERATOR({}) {}").format(Identifier(column.name), raw(equals), value)
        )
    return SQL(" AND ").join(parts)


# --- a batch that meets a unique constraint beside the key ---------------------------------------------------


def create_scratch(target: Composable, scratch: str) -> Composed:
    """An empty table like the target, without its constraints but NOT NULL."""
    return SQL("CREATE TEMP TABLE {} (LIKE {} INCLUDING DEFAULTS) ON COMMIT DROP").format(
        Identifier(scratch), target
    )


def index_scratch(scratch: str, key: Sequence[KeyColumn]) -> Composed:
    """The key of a scratch table, for its upserts."""
    return SQL("CREATE UNIQUE INDEX ON pg_temp.{} ({})").format(
        Identifier(scratch), names(k.column.name for k in key)
    )


def take_touched(
    target: Composable, scratch: Composable, rows: Composable, key: Sequence[KeyColumn]
) -> Composed:
    """Move every row that the batch touches out of the target."""
    return SQL(
        "WITH touched AS (DELETE FROM {target} AS t USING {rows} WHERE {match} RETURNING t.*)"
        " INSERT INTO {scratch} SELECT * FROM touched"
    ).format(target=target, scratch=scratch, rows=rows, match=match(key))


def put_back(target: Composable, scratch: Composable, columns: Iterable[str]) -> Composed:
    """Move all rows of the scratch table into the target; ``columns`` are all that can be written."""
    listed = names(columns)
    return SQL(
        "INSERT INTO {target} ({listed}) OVERRIDING SYSTEM VALUE SELECT {listed} FROM {scratch}"
    ).format(target=target, scratch=scratch, listed=listed)


def drop(table: Composable) -> Composed:
    """Drop a table of this session."""
    return SQL("DROP TABLE {}").format(table)


def _sets(columns: Sequence[StagedColumn]) -> Composed:
    return SQL(", ").join(SQL("{} = {}").format(Identifier(c.name), c.value) for c in columns)


def _kinds(kind: int) -> dict[str, Composable]:
    return {
        "kind": Identifier(KIND),
        "plain": Literal(kind),
        "expected": Literal(kind + EXPECTED),
    }

"""The statements by which a replica's table follows its source, and how far they may go.

``none``: nothing is made or altered. ``basic``: what loses nothing is done: tables and columns are made, types widened,
NOT NULL dropped; a column that the source dropped stays, free to be NULL. ``full``: the table becomes what the source's
is: columns are renamed, dropped and brought into any type, the primary key is the source's. A table without rows has
nothing to lose: under ``basic`` too it takes any shape. What is not done stops with the statement to run; once somebody
has run it, the next start goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier
from psycopg.sql import Literal as Value

from cdc.errors import Failed
from cdc.table import Column, TableId
from connectors.postgres.replica_columns import widens
from connectors.postgres.statements import names, qualified, raw
from connectors.postgres.tuples import TupleTranscoder

Session = psycopg.Connection[tuple[Any, ...]]

Policy = Literal["none", "basic", "full"]

_REFUSALS = (
    errors.DependentObjectsStillExist,
    errors.DuplicateColumn,
    errors.FeatureNotSupported,
    errors.InvalidTableDefinition,
    errors.IntegrityError,
    errors.DataError,
)
_NO_CAST = (errors.DataError, errors.CannotCoerce, errors.DatatypeMismatch)


class FoundColumn(NamedTuple):
    """A column of the replica's table; ``number`` is its ``attnum``, ``base_type`` its type without a modifier."""

    number: int
    type: str
    base_type: str
    not_null: bool
    has_default: bool
    generated: bool

    @property
    def strict(self) -> bool:
        """Whether a row without it cannot be added."""
        return self.not_null and not (self.has_default or self.generated)


class WantedColumn(NamedTuple):
    """A column's type, the same without a modifier, and the type it is staged as."""

    type: str
    base_type: str
    staged: str


class ReplicaDdl:
    """Alters one table in the session's open transaction, under a policy."""

    def __init__(self, session: Session, target: TableId, policy: Policy) -> None:
        self._session = session
        self._target = target
        self._policy = policy

    def run(
        self,
        why: str,
        statements: Sequence[Composed],
        *,
        harmless: bool = True,
        instead: Sequence[Composed] = (),
    ) -> None:
        """Run them if the policy allows it; Failed otherwise, with the statement (or what to do ``instead``)."""
        text = "; ".join(text_of(statement, self._session) for statement in instead or statements)
        if self._policy == "none" or not (harmless or self._anything_goes):
            least = "basic" if harmless else "full"
            raise Failed(
                f"{why} in the replica", f"run there, or set schema.evolution={least}: {text}"
            )
        try:
            for statement in statements:
                self._session.execute(statement)
        except _REFUSALS as error:
            said = str(error).partition("\n")[0]
            raise Failed(
                f"{why} in the replica, which does not let it follow: {said}", f"run there: {text}"
            ) from error

    def rename(self, renamed: Mapping[str, str]) -> None:
        """All at once, so that names may be exchanged."""
        listed = ", ".join(f"{old} is {new}" for old, new in renamed.items())
        plain = [self._rename(old, new) for old, new in renamed.items()]
        steps = plain
        if not renamed.keys().isdisjoint(renamed.values()):
            aside = [(old, f"cdc_renamed_{place}") for place, old in enumerate(renamed)]
            steps = [self._rename(old, name) for old, name in aside]
            steps += [self._rename(name, renamed[old]) for old, name in aside]
        self.run(
            f"{self._target}: in the source {listed} now, not",
            steps,
            harmless=False,
        )

    def drop(self, gone: Collection[str], strict: Collection[str]) -> None:
        """Columns that the source has no more; where they stay, rows must be able to come without them."""
        if self._policy != "none" and self._anything_goes:
            drops = SQL(", ").join(SQL("DROP COLUMN {}").format(Identifier(n)) for n in gone)
            self.run(f"{self._target} still has {', '.join(gone)}", [self._alter(drops)])
        elif strict:
            self.run(
                f"{self._target} has NOT NULL on {', '.join(strict)}, which the source has no more,",
                [drop_not_null(self._target, strict)],
            )

    def replace(self, columns: Sequence[Column], wanted: Mapping[str, WantedColumn]) -> None:
        """Columns that are others than those whose names they have: no value of the old ones is theirs."""
        drops = SQL(", ").join(SQL("DROP COLUMN {}").format(Identifier(c.name)) for c in columns)
        self.run(
            f"{self._target} has an older {', '.join(c.name for c in columns)}",
            [self._alter(drops), *self._adds(columns, wanted)],
            harmless=False,
        )

    def add(self, columns: Sequence[Column], wanted: Mapping[str, WantedColumn]) -> None:
        """New columns: rows that are there have in them what they have in the source, as far as that is one value."""
        self.run(
            f"{self._target} lacks {', '.join(column.name for column in columns)}",
            self._adds(columns, wanted),
        )

    def retype(self, name: str, have: str, want: str, *, in_key: bool) -> bool:
        """Bring a column into a type; False when its values could not follow and are gone: a copy has to bring them."""
        column = Identifier(name)
        why = f"{self._target}.{name} is {have}, and {want} in the source, not so"
        if widens(have, want):
            self.run(why, [self._alter(_type(name, want))])
            return True
        cast = SQL("{} USING {}::{}").format(_type(name, want), column, raw(want))
        if self._policy == "none" or not self._anything_goes or in_key:
            self.run(why, [self._alter(cast)], harmless=False)
            return True
        self._session.execute("SAVEPOINT cdc_type")
        try:
            self._session.execute(self._alter(cast))
        except _NO_CAST:
            self._session.execute("ROLLBACK TO SAVEPOINT cdc_type")
            anew = SQL("DROP COLUMN {}, ADD COLUMN {} {}").format(column, column, raw(want))
            self.run(why, [self._alter(anew)], harmless=False)
            return False
        self._session.execute("RELEASE SAVEPOINT cdc_type")
        return True

    def rekey(self, key: Sequence[str], primary: str | None) -> bool:
        """Make these columns the primary key, in place of the constraint ``primary``.

        False when rows had no such key: the source gave it to them without events. They are removed; a copy brings them.
        """
        add = SQL("ADD PRIMARY KEY ({})").format(names(key))
        if primary is not None:
            add = SQL("DROP CONSTRAINT {}, {}").format(Identifier(primary), add)
        why = f"{self._target} has no unique index on just the key of the source's table ({', '.join(key)})"
        if self._policy != "full":
            self.run(why, [self._alter(add)], harmless=False)
            return True
        self._session.execute("SAVEPOINT cdc_key")
        try:
            self._session.execute(self._alter(add))
        except (errors.NotNullViolation, errors.UniqueViolation):
            self._session.execute("ROLLBACK TO SAVEPOINT cdc_key")
            self.run(why, [SQL("DELETE FROM {}").format(qualified(self._target)), self._alter(add)])
            return False
        self._session.execute("RELEASE SAVEPOINT cdc_key")
        return True

    def drop_not_null(self, columns: Collection[str]) -> None:
        """Let columns be NULL, as they may be in the source."""
        self.run(
            f"{self._target} has NOT NULL on {', '.join(columns)}, which may be null in the source, not",
            [drop_not_null(self._target, columns)],
        )

    @cached_property
    def _anything_goes(self) -> bool:
        if self._policy == "full":
            return True
        row = self._session.execute(
            SQL("SELECT EXISTS (SELECT FROM {})").format(qualified(self._target))
        ).fetchone()
        return row == (False,)

    def _alter(self, action: Composable) -> Composed:
        return SQL("ALTER TABLE {} {}").format(qualified(self._target), action)

    def _rename(self, old: str, new: str) -> Composed:
        return self._alter(SQL("RENAME COLUMN {} TO {}").format(Identifier(old), Identifier(new)))

    def _adds(
        self, columns: Sequence[Column], wanted: Mapping[str, WantedColumn]
    ) -> list[Composed]:
        """Without a value for older rows a column is nullable, whatever the source says: a copy brings its values."""
        adds, undo = [], []
        for column in columns:
            add = SQL("ADD COLUMN {} {}").format(
                Identifier(column.name), raw(wanted[column.name].type)
            )
            if column.missing is not None:
                text = Value(_text(column, column.missing))
                add += SQL("{} DEFAULT {}::text::{}").format(
                    SQL("" if column.nullable else " NOT NULL"), text, raw(wanted[column.name].type)
                )
                undo.append(SQL("ALTER COLUMN {} DROP DEFAULT").format(Identifier(column.name)))
            adds.append(add)
        statements = [self._alter(SQL(", ").join(adds))]
        if undo:
            statements.append(self._alter(SQL(", ").join(undo)))
        return statements


def drop_not_null(target: TableId, columns: Iterable[str]) -> Composed:
    """Let columns be NULL."""
    return SQL("ALTER TABLE {} {}").format(
        qualified(target),
        SQL(", ").join(
            SQL("ALTER COLUMN {} DROP NOT NULL").format(Identifier(name)) for name in columns
        ),
    )


def text_of(statement: Composed, session: Session) -> str:
    """A statement as an operator can run it."""
    return statement.as_string(session)


def _type(name: str, wanted: str) -> Composed:
    return SQL("ALTER COLUMN {} TYPE {}").format(Identifier(name), raw(wanted))


def _text(column: Column, value: bytes) -> str:
    alone = replace(column, nullable=False)
    return TupleTranscoder((alone,), (column.name,)).key_text(value)[0]

"""What a captured table looks like, in terms that every source and store shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

AvroType = str | Mapping[str, object]
"""The Avro schema of a non-null value, in JSON's shape: ``"long"``, or ``{"type": "bytes", ...}``."""

Identity = Literal["default", "full", "index", "nothing"]
"""What the source's log carries of a row's old image (PostgreSQL's REPLICA IDENTITY)."""


class TableId(NamedTuple):
    """A table's name within its database, as the source spells it, unquoted."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> TableId:
        """Read ``schema.name``; a schema with a dot in it is not supported. ValueError without a dot."""
        schema, dot, name = text.partition(".")
        if not (schema and dot and name):
            raise ValueError(f"not a table name of the form schema.name: {text!r}")
        return cls(schema, name)


class KeyRange(NamedTuple):
    """Rows with ``after < key <= upto`` in key order (Avro key records); None leaves that side open."""

    after: bytes | None = None
    upto: bytes | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a row schema.

    ``source_type`` is the source's full name of the type (``numeric(12,2)``), from which a store of the same
    engine makes the same column; empty when it is not known.
    ``number`` is the column's own in the source, of all its tables: a new name keeps it, a new column of the same
    name has another one; 0 when it is not known.
    ``missing`` is what rows that are older than the column have in it, for which the log held no event: the value's
    Avro bytes, without a union's tag; None for NULL, and where every row has a value of its own.
    """

    name: str
    avro: AvroType
    nullable: bool
    source_type: str = ""
    number: int = 0
    missing: bytes | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """A table's row schema at some point of its history.

    Compared by identity: a source hands out the same object for as long as the shape holds, a new one when it
    changes, so whoever keeps things per row schema may key them by it. ``same_shape`` compares the contents.
    ``key`` names the columns of the message key, in key order; empty for a table without one.
    """

    id: TableId
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    identity: Identity = "default"

    def same_shape(self, other: Table) -> bool:
        """Whether both say the same of the same table."""
        return (self.id, self.columns, self.key, self.identity) == (
            other.id,
            other.columns,
            other.key,
            other.identity,
        )

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """The columns of the key, in key order."""
        by_name = {column.name: column for column in self.columns}
        return tuple(by_name[name] for name in self.key)

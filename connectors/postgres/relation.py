"""A table as PostgreSQL's log describes it: pgoutput's Relation message, parsed."""

from __future__ import annotations

from typing import NamedTuple

from cdc.table import Identity, TableId

_IDENTITIES: dict[int, Identity] = {
    ord("d"): "default",
    ord("f"): "full",
    ord("i"): "index",
    ord("n"): "nothing",
}


class RelationColumn(NamedTuple):
    """``in_identity``: old images carry it. ``typmod`` is -1 without a modifier."""

    name: str
    type_oid: int
    typmod: int
    in_identity: bool


class Relation(NamedTuple):
    """The columns are those that rows in the log have, in that order."""

    oid: int
    id: TableId
    identity: Identity
    columns: tuple[RelationColumn, ...]


def identity_of(code: str) -> Identity:
    """``pg_class.relreplident`` in words."""
    return _IDENTITIES[ord(code)]


def parse_relation(message: bytes, offset: int) -> Relation:
    """Read a Relation message, whose fields begin at ``offset`` (behind its type byte).

    https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
    """
    oid = int.from_bytes(message[offset : offset + 4])
    schema, offset = _text(message, offset + 4)
    name, offset = _text(message, offset)
    identity = _IDENTITIES[message[offset]]
    count = int.from_bytes(message[offset + 1 : offset + 3])
    offset += 3
    columns = []
    for _ in range(count):
        in_identity = bool(message[offset] & 1)
        column, offset = _text(message, offset + 1)
        type_oid = int.from_bytes(message[offset : offset + 4])
        typmod = int.from_bytes(message[offset + 4 : offset + 8], signed=True)
        columns.append(RelationColumn(column, type_oid, typmod, in_identity))
        offset += 8
    # An empty schema name means pg_catalog.
    return Relation(oid, TableId(schema or "pg_catalog", name), identity, tuple(columns))


def _text(message: bytes, offset: int) -> tuple[str, int]:
    end = message.index(0, offset)
    return message[offset:end].decode(), end + 1

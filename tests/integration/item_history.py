"""A source table of a few columns, played in memory: what is done to it, as the events that a sink would meet.

``items(id bigint primary key, code text unique, note text, big text)``; an update that leaves ``big`` alone comes
without it, as the log does it for a value that is stored out of line.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cdc.avro_binary import bytes_bytes, long_bytes
from cdc.config import ConnectorConfig
from cdc.event import Delivered, Op
from cdc.position import Position
from cdc.table import Column, Table, TableId
from connectors.postgres.sink import PostgresStore
from connectors.postgres.sink_settings import SINK_SETTINGS, SinkSettings

Row = tuple[int, str | None, str | None, str | None]

ITEMS = Table(
    TableId("shop", "items"),
    (
        Column("id", "long", nullable=False, source_type="bigint"),
        Column("code", "string", nullable=True, source_type="text"),
        Column("note", "string", nullable=True, source_type="text"),
        Column("big", "string", nullable=True, source_type="text"),
    ),
    ("id",),
)
COLLECTION = "shop.items"
PLACEHOLDER = "__debezium_unavailable_value"


def row_bytes(row: Row) -> bytes:
    """The row as an Avro record."""
    texts = (b"\x00" if text is None else b"\x02" + bytes_bytes(text.encode()) for text in row[1:])
    return long_bytes(row[0]) + b"".join(texts)


def event(
    op: Op,
    key: int | None,
    row: Row | None = None,
    *,
    unchanged: Sequence[str] = (),
    other: int | None = None,
    xid: int = 7,
    lsn: int = 800,
    order: int = 1,
    table: Table = ITEMS,
    collection: str = COLLECTION,
) -> Delivered:
    """One event of the table."""
    return Delivered(
        collection,
        table,
        op,
        Position(1, lsn, order),
        xid,
        None if key is None else long_bytes(key),
        None,
        None if row is None else row_bytes(row),
        tuple(unchanged),
        None if other is None else long_bytes(other),
        f"p.{collection}",
        0,
        order,
        100,
    )


def sink_settings(dsn: str, **overrides: object) -> SinkSettings:
    """Settings of a replica, our defaults but for ``overrides`` (dots of names as underscores)."""
    values: dict[str, object] = {setting.name: setting.default for setting in SINK_SETTINGS}
    values |= {"connection.url": dsn}
    values |= {name.replace("_", "."): value for name, value in overrides.items()}
    config = ConnectorConfig("tests", "postgres", "sink", "postgres.Sink", values)
    return SinkSettings.of(config)


def store(dsn: str, **overrides: object) -> PostgresStore:
    """A store of the replica, under `sink_settings`."""
    return PostgresStore(sink_settings(dsn, **overrides))


@dataclass
class ItemHistory:
    """Changes rows at random, and tells the events of each transaction and the SQL that does the same."""

    rng: random.Random
    rows: dict[int, Row] = field(default_factory=dict)
    statements: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    _lsn: int = 800
    _order: int = 0
    _fresh: int = 0
    _events: list[Delivered] = field(default_factory=list)

    def transaction(self, actions: int) -> list[Delivered]:
        """Some actions in one transaction; their events."""
        self._lsn += 8
        self._order = 0
        self._events = []
        for _ in range(actions):
            self._act()
        return self._events

    def _act(self) -> None:
        ids = list(self.rows)
        kinds: tuple[Literal["insert", "update", "delete", "rekey", "swap", "trade", "empty"], ...]
        kinds = ("insert", "update", "delete", "rekey", "swap", "trade", "empty")
        (kind,) = self.rng.choices(kinds, (30, 30, 12, 8, 5, 5, 0.3))
        match kind:
            case "insert":
                self._insert(self.rng.randrange(60))
            case "update" if ids:
                self._update(self.rng.choice(ids))
            case "delete" if ids:
                self._delete(self.rng.choice(ids))
            case "rekey" if ids:
                self._rekey(self.rng.choice(ids), self.rng.randrange(60))
            case "swap" if len(ids) > 1:
                one, two = self.rng.sample(ids, 2)
                self._rekey(one, -1)
                self._rekey(two, one)
                self._rekey(-1, two)
            case "trade" if len(ids) > 1:
                one, two = self.rng.sample(ids, 2)
                code, other = self.rows[one][1], self.rows[two][1]
                self._set(one, code=None)
                self._set(two, code=code)
                self._set(one, code=other)
            case "empty":
                self._emit("t", None)
                self.statements.append(("TRUNCATE direct.items", ()))
                self.rows.clear()
            case _:
                pass

    def _insert(self, key: int) -> None:
        if key not in self.rows:
            row = (key, self._code(), self._text(20), self._text(3000))
            self.rows[key] = row
            self._emit("c", key, row)
            self.statements.append(("INSERT INTO direct.items VALUES (%s, %s, %s, %s)", row))

    def _update(self, key: int) -> None:
        change: dict[str, str | None] = {}
        if self.rng.random() < 0.5:
            change["note"] = self._text(20)
        if self.rng.random() < 0.3:
            change["code"] = self._code()
        if self.rng.random() < 0.4:
            change["big"] = self._text(3000)
        if change:
            self._set(key, **change)

    def _set(self, key: int, **change: str | None) -> None:
        _, code, note, big = self.rows[key]
        row = (key, change.get("code", code), change.get("note", note), change.get("big", big))
        self.rows[key] = row
        sets = ", ".join(f"{name} = %s" for name in change)
        self.statements.append(
            (f"UPDATE direct.items SET {sets} WHERE id = %s", (*change.values(), key))
        )
        self._emit_row("u", key, row, carried="big" in change)

    def _delete(self, key: int) -> None:
        del self.rows[key]
        self._emit("d", key)
        self.statements.append(("DELETE FROM direct.items WHERE id = %s", (key,)))

    def _rekey(self, old: int, new: int) -> None:
        if new in self.rows:
            return
        row = (new, *self.rows.pop(old)[1:])
        self.rows[new] = row
        self.statements.append(("UPDATE direct.items SET id = %s WHERE id = %s", (new, old)))
        self._emit("d", old, other=new)
        self._emit_row("c", new, row, carried=self.rng.random() < 0.3, other=old)

    def _emit_row(
        self, op: Op, key: int, row: Row, *, carried: bool, other: int | None = None
    ) -> None:
        if carried or row[3] is None:
            self._emit(op, key, row, other=other)
        else:
            self._emit(op, key, (*row[:3], PLACEHOLDER), unchanged=("big",), other=other)

    def _emit(
        self,
        op: Op,
        key: int | None,
        row: Row | None = None,
        *,
        unchanged: Sequence[str] = (),
        other: int | None = None,
    ) -> None:
        self._order += 1
        self._events.append(
            event(op, key, row, unchanged=unchanged, other=other, lsn=self._lsn, order=self._order)
        )

    def _code(self) -> str | None:
        self._fresh += 1
        return None if self.rng.random() < 0.2 else f"code {self._fresh}"

    def _text(self, size: int) -> str | None:
        return None if self.rng.random() < 0.15 else self.rng.randbytes(size // 2).hex()


def split(rng: random.Random, events: Sequence[Delivered]) -> Iterator[Sequence[Delivered]]:
    """Cut into runs of random length."""
    at = 0
    while at < len(events):
        length = rng.choice((1, 2, 3, 7, 20, 60, 200))
        yield events[at : at + length]
        at += length

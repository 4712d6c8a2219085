"""A table that is changed at random, statement by statement, in transactions with rows written before and after."""

from __future__ import annotations

import random
import time
from typing import Any

import psycopg

from cdc.testing.alongside import Alongside

VALUES = {
    "smallint": "(random() * 1000)::int",
    "integer": "(random() * 1000)::int",
    "bigint": "(random() * 1000)::int",
    "numeric(8,2)": "round((random() * 1000)::numeric, 2)",
    "numeric(12,3)": "round((random() * 1000)::numeric, 3)",
    "double precision": "random()",
    "text": "repeat(md5(random()::text), (random() * 3)::int)",
    "character varying(40)": "md5(random()::text)",
    "character varying(80)": "md5(random()::text)",
    "boolean": "random() > 0.5",
    "timestamp with time zone": "'2020-01-01'::timestamptz + random() * interval '1 year'",
    "jsonb": "to_jsonb(random())",
    "bytea": "decode(md5(random()::text), 'hex')",
    "integer[]": "ARRAY[(random() * 9)::int, NULL]",
}
CONSTANTS = {
    "integer": "7",
    "bigint": "8",
    "text": "'o''lder \\ ü'",
    "numeric(8,2)": "1.50",
    "boolean": "true",
    "timestamp with time zone": "'2001-02-03 04:05:06.789+00'",
    "bytea": "'\\x00ff'",
    "integer[]": "'{1,2,NULL}'",
}
WIDER = {
    "smallint": "integer",
    "integer": "bigint",
    "character varying(40)": "character varying(80)",
    "character varying(80)": "text",
    "numeric(8,2)": "numeric(12,3)",
}

_COLUMNS = """
SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('id', 'part') ORDER BY attnum
"""


class ChangingTable:
    """``statement`` gives the next one, by what the table is like inside the open transaction."""

    def __init__(self, name: str, chooser: random.Random) -> None:
        self.name = name
        self._chooser = chooser
        self._made = 0

    def create(self, dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                f"CREATE TABLE {self.name} (id bigserial, part int NOT NULL DEFAULT 1, c0 integer, PRIMARY KEY (id))"
            )
            connection.execute(
                f"INSERT INTO {self.name} (c0) SELECT n FROM generate_series(1, 200) n"
            )

    def statement(self, connection: psycopg.Connection[Any]) -> str:
        columns = dict(connection.execute(_COLUMNS, (self.name,)).fetchall())
        return self._change(columns) if self._chooser.random() < 0.35 else self._rows(columns)

    def _rows(self, columns: dict[str, str]) -> str:
        kind = self._chooser.choice("iiiuuuud")
        if kind == "i" or not columns:
            names = [name for name in columns if self._chooser.random() < 0.7]
            listed = "".join(f", {name}" for name in names)
            values = "".join(f", {VALUES[columns[name]]}" for name in names)
            return f"INSERT INTO {self.name} (part{listed}) SELECT 1{values} FROM generate_series(1, 5)"
        if kind == "u":
            name = self._chooser.choice(list(columns))
            value = self._chooser.choice([VALUES[columns[name]], "NULL"])
            rest = self._chooser.randrange(7)
            return f"UPDATE {self.name} SET {name} = {value} WHERE id % 7 = {rest}"
        return f"DELETE FROM {self.name} WHERE id % 40 = {self._chooser.randrange(40)}"

    def _change(self, columns: dict[str, str]) -> str:
        kind = self._chooser.choice(
            [
                "add",
                "add",
                "constant",
                "constant",
                "volatile",
                "drop",
                "drop",
                "drop",
                "rename",
                "widen",
                "using",
                "exchange",
                "identity",
                "key",
                "again",
                "default",
                "null",
            ]
        )
        table = f"ALTER TABLE {self.name}"
        name = self._chooser.choice(list(columns)) if columns else ""
        fresh = f"c{self._made + 1}"
        if kind in ("add", "constant", "volatile") or not columns:
            self._made += 1
            if kind == "constant":
                type_ = self._chooser.choice(list(CONSTANTS))
                strict = self._chooser.choice(["", " NOT NULL"])
                return f"{table} ADD {fresh} {type_}{strict} DEFAULT {CONSTANTS[type_]}"
            type_ = self._chooser.choice(list(VALUES))
            if kind == "volatile":
                return f"{table} ADD {fresh} {type_} DEFAULT {VALUES[type_]}"
            return f"{table} ADD {fresh} {type_}"
        match kind:
            case "drop":
                return f"{table} DROP {name}"
            case "rename":
                self._made += 1
                return f"{table} RENAME {name} TO {fresh}"
            case "again":
                type_ = self._chooser.choice([columns[name], "text"])
                return f"{table} DROP {name}; {table} ADD {name} {type_}"
            case "exchange" if len(columns) > 1:
                one, other = self._chooser.sample(list(columns), 2)
                return f"{table} RENAME {one} TO x; {table} RENAME {other} TO {one}; {table} RENAME x TO {other}"
            case "widen" if columns[name] in WIDER:
                return (
                    f"{table} ALTER {name} DROP DEFAULT, ALTER {name} TYPE {WIDER[columns[name]]}"
                )
            case "using":
                return f"{table} ALTER {name} DROP DEFAULT, ALTER {name} TYPE text USING md5({name}::text)"
            case "identity":
                return f"{table} REPLICA IDENTITY {self._chooser.choice(['FULL', 'DEFAULT'])}"
            case "key":
                key = self._chooser.choice(["id", "id, part", "part, id"])
                return f"{table} DROP CONSTRAINT {self.name}_pkey, ADD CONSTRAINT {self.name}_pkey PRIMARY KEY ({key})"
            case "default":
                return f"{table} ALTER {name} SET DEFAULT NULL"
            case _:
                return f"{table} ALTER {name} DROP NOT NULL"


class Changes(Alongside):
    """Transactions over the table, in a thread, until the block ends; each is left out where it fails."""

    def __init__(self, dsn: str, table: ChangingTable, chooser: random.Random) -> None:
        super().__init__(self._run_transactions)
        self._dsn = dsn
        self._table = table
        self._chooser = chooser
        self.commits = 0
        self.said: list[str] = []
        """The statements that were committed, for whoever looks for what went wrong."""

    def _run_transactions(self) -> None:
        while not self.stopping.is_set():
            try:
                with psycopg.connect(self._dsn) as connection:
                    self._transaction(connection)
            except psycopg.Error:
                continue  # no cast, a NULL in the key, a lock that another held: then it did not happen
            time.sleep(self._chooser.uniform(0, 0.05))

    def _transaction(self, connection: psycopg.Connection[Any]) -> None:
        done = []
        for _ in range(self._chooser.randrange(1, 6)):
            statement = self._table.statement(connection)
            connection.execute(statement.encode())
            done.append(statement)
        if self._chooser.random() < 0.1:
            connection.rollback()
            return
        connection.commit()
        self.commits += 1
        self.said += [*done, "COMMIT"]

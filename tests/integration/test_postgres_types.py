"""The database itself compares: out by COPY and by the log, through Avro, and in again by COPY."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from cdc.exact_row import ExactRow, texts_of
from connectors.postgres.attributes import TypedColumn, attributes_of
from connectors.postgres.handling import DEFAULT, Handling
from connectors.postgres.server_texts import ServerTexts
from connectors.postgres.transcoder import RowTranscoder
from connectors.postgres.tuples import HEADER, TRAILER, TupleTranscoder
from connectors.postgres.types import Attribute, codec_of, column_of
from tests.integration.typed_values import VALUES, declared, make_user_types, spelled

_COLUMNS = b"""
SELECT a.attname::text, a.atttypid::int8, a.atttypmod, a.attnotnull, a.attndims
FROM pg_attribute a WHERE a.attrelid = 't'::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

MODES = (
    Handling(decimals="string", times="isostring", binaries="base64", hstores="map"),
    Handling(decimals="double", times="connect", intervals="numeric", binaries="hex"),
    Handling(times="nanoseconds", binaries="base64-url-safe", money_digits=0),
    Handling(times="microseconds", money_digits=4),
    Handling(times="adaptive_time_microseconds"),
)
_MODED = ("numeric", "money", "date", "time", "interval", "bytea", "price", "nested")


def attributes(connection: psycopg.Connection[Any]) -> tuple[Attribute, ...]:
    """The columns of table t."""
    rows = connection.execute(_COLUMNS).fetchall()
    return attributes_of(connection, [TypedColumn(*row) for row in rows])


@pytest.fixture(scope="module")
def database(cluster: Any) -> Iterator[str]:
    """A database with the user types, for all cases of this module."""
    dsn = cluster.source.dsn
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE types_of_all_kinds")
    own = psycopg.conninfo.make_conninfo(dsn, dbname="types_of_all_kinds")
    with psycopg.connect(own, autocommit=True) as connection:
        make_user_types(connection)
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    yield own
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE types_of_all_kinds WITH (FORCE)")


def _query(text: str) -> sql.SQL:
    return sql.SQL(text)


def _copied(connection: psycopg.Connection[Any], query: str) -> list[bytes]:
    with connection.cursor().copy(_query(f"COPY ({query}) TO STDOUT (FORMAT binary)")) as copy:
        messages = [bytes(data) for data in copy]
    assert messages[0].startswith(HEADER)
    messages[0] = messages[0][len(HEADER) :]
    return [message for message in messages if message not in (b"", TRAILER)]


def _logged(connection: psycopg.Connection[Any], *, binary: bool) -> list[bytes]:
    """The TupleData of every insert in the slot."""
    frames = connection.execute(
        "SELECT data FROM pg_logical_slot_peek_binary_changes('types', NULL, NULL,"
        " 'proto_version', '1', 'publication_names', 'types', 'binary', %s)",
        (str(binary).lower(),),
    ).fetchall()
    return [bytes(data[6:]) for (data,) in frames if data[:1] == b"I"]


def _filled(connection: psycopg.Connection[Any], name: str) -> None:
    """Table t with every value of this type, in the slot as well."""
    connection.execute("SET TimeZone = 'Asia/Kathmandu'")
    connection.execute("DROP TABLE IF EXISTS t, staging")
    connection.execute(
        _query(f"CREATE TABLE t (id integer PRIMARY KEY, v {declared(name)}, w {declared(name)})")
    )
    connection.execute("CREATE PUBLICATION types FOR TABLE t")
    connection.execute("SELECT pg_create_logical_replication_slot('types', 'pgoutput')")
    for number, value in enumerate(VALUES[name]):
        connection.execute(
            _query(f"INSERT INTO t VALUES (%s, %s::text::{spelled(name)}, NULL)"), (number, value)
        )


def _dropped(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
        " WHERE slot_name = 'types'"
    )
    connection.execute("DROP PUBLICATION IF EXISTS types")


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_as_it_was_by_every_road(database: str, name: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        try:
            _filled(connection, name)
            _every_road(connection, DEFAULT)
            if any(word in name for word in _MODED):
                for handling in MODES:
                    _every_road(connection, handling)
        finally:
            _dropped(connection)


def _every_road(connection: psycopg.Connection[Any], handling: Handling) -> None:
    """COPY and both forms of the log give one row, and that row gives back what was stored."""
    columns = attributes(connection)
    ask = ServerTexts(lambda: connection)
    source = RowTranscoder(columns, ("id",), handling=handling, ask=ask)
    rows = _copied_rows(connection, source, columns)
    assert rows
    for binary in (True, False):
        frames = _logged(connection, binary=binary)
        read = [source.stream_row(frame, 0) for frame in frames]
        assert [end for *_, end in read] == [len(frame) for frame in frames]
        assert [(row, texts_of(row)) for row, *_ in read] == [(row, texts_of(row)) for row in rows]
    _come_back(connection, rows, columns, handling)


def _copied_rows(
    connection: psycopg.Connection[Any], source: RowTranscoder, columns: tuple[Attribute, ...]
) -> list[bytes]:
    listed = ", ".join(
        f"CASE WHEN num_nulls({c.name}) = 0 THEN format('%s', {c.name}) END"
        if c.name in source.as_text
        else c.name
        for c in columns
    )
    tuples = _copied(connection, f"SELECT {listed} FROM t ORDER BY id")
    read = [source.copy_row(data, 0) for data in tuples]
    assert [end for *_, end in read] == [len(data) for data in tuples]
    return [row for row, *_ in read]


def _come_back(
    connection: psycopg.Connection[Any],
    rows: list[bytes],
    columns: tuple[Attribute, ...],
    handling: Handling,
) -> None:
    """By COPY into a staging table, as a replica stages them, and from there by casts; the database compares."""
    replica = TupleTranscoder([column_of(column, handling) for column in columns], ("id",))
    staged = ", ".join(
        f'"{column.name}" {type_}'
        for column, type_ in zip(columns, replica.staged_types, strict=True)
    )
    connection.execute("DROP TABLE IF EXISTS staging")
    connection.execute(_query(f"CREATE TEMP TABLE staging ({staged})"))
    with connection.cursor().copy(_query("COPY staging FROM STDIN (FORMAT binary)")) as copy:
        copy.write(HEADER + b"".join(_tuple(replica, row) for row in rows) + TRAILER)
    cast_list = ", ".join(f'"{column.name}"::{column.formatted_type}' for column in columns)
    as_text = ", ".join(f'"{column.name}"::text' for column in columns)
    there = f"(SELECT {as_text} FROM t)"
    here = f"(SELECT {as_text} FROM (SELECT {cast_list} FROM staging) AS s)"
    for one, other in ((there, here), (here, there)):
        assert connection.execute(_query(f"{one} EXCEPT {other}")).fetchall() == []


def _tuple(replica: TupleTranscoder, row: bytes) -> bytes:
    if not isinstance(row, ExactRow):
        return replica.tuple_of(row)
    values = replica.columns_of(row)
    parts = [b"\xff" * 4 if v is None else len(v).to_bytes(4, "big") + v for v in values]
    return len(values).to_bytes(2, "big") + b"".join(parts)


def test_the_text_of_a_key_is_a_literal_of_its_type(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for name, values in VALUES.items():
            for value in values:
                connection.execute("DROP TABLE IF EXISTS t")
                wanted = f"{sql.Literal(value).as_string()}::text::{spelled(name)}"
                connection.execute(_query(f"CREATE TABLE t AS SELECT {wanted} AS v"))
                (column,) = attributes(connection)
                codec = codec_of(column)
                if codec.text_only:
                    continue
                (data,) = _copied(connection, "SELECT v FROM t")
                text = codec.to_text(data[6:]).decode()
                literal = f"{sql.Literal(text).as_string()}::text::{spelled(name)}"
                assert _copied(connection, f"SELECT {literal}") == [data], (name, value, text)


def test_a_value_that_its_form_cannot_carry_stands_beside_the_row(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS t")
        connection.execute("CREATE TABLE t (id integer PRIMARY KEY, v integer[])")
        connection.execute("INSERT INTO t VALUES (1, '{{1,2},{3,4}}'), (2, '{1,2,3,4}')")
        columns = attributes(connection)
        shaped, plain = _copied_rows(connection, RowTranscoder(columns, ("id",)), columns)
        assert texts_of(shaped) == {"v": "{{1,2},{3,4}}"}
        assert not isinstance(plain, ExactRow)
        assert shaped[1:] == plain[1:]  # every other reader gets the elements


def test_a_composite_value_from_before_its_type_grew_is_as_the_database_reads_it(
    database: str,
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TYPE growing AS (a integer)")
        connection.execute("DROP TABLE IF EXISTS t")
        connection.execute("CREATE TABLE t (id integer PRIMARY KEY, v growing)")
        connection.execute("CREATE PUBLICATION types FOR TABLE t")
        connection.execute("SELECT pg_create_logical_replication_slot('types', 'pgoutput')")
        try:
            connection.execute("INSERT INTO t VALUES (1, ROW(5))")
            before = attributes(connection)
            connection.execute("ALTER TYPE growing ADD ATTRIBUTE b text")
            connection.execute("INSERT INTO t VALUES (2, ROW(6, 'x'))")
            ask = ServerTexts(lambda: connection)
            frames = _logged(connection, binary=True)
            for columns in (before, attributes(connection)):
                source = RowTranscoder(columns, ("id",), ask=ask)
                rows = [source.stream_row(frame, 0)[0] for frame in frames]
                assert rows[1].endswith(b"(6,x)")
            assert rows == _copied_rows(connection, source, columns)
        finally:
            _dropped(connection)
            connection.execute("DROP TABLE t")
            connection.execute("DROP TYPE growing")

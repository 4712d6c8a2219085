"""Digests in PostgreSQL: equal rows have equal ones, any change of a value changes them, whatever the type."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import LiteralString

import pytest

from cdc.errors import Failed
from cdc.table import KeyRange, Table
from tests.integration.verify_databases import Connection, open_session, reading, table_of, whole

EVERYTHING = KeyRange(None, None)


@pytest.fixture
def source(source_dsn: str) -> Iterator[Connection]:
    with open_session(source_dsn) as connection:
        yield connection


@pytest.fixture
def replica(replica_dsn: str) -> Iterator[Connection]:
    with open_session(replica_dsn) as connection:
        yield connection


def both(source: Connection, replica: Connection, statement: LiteralString) -> None:
    source.execute(statement)
    replica.execute(statement)


def equal(source: Connection, replica: Connection, table: Table) -> bool:
    with reading(source, table) as ours, reading(replica, table) as theirs:
        buckets = ours.digest(EVERYTHING, 10, 1000)
        found = theirs.digest_at(EVERYTHING, [bucket.upto for bucket in buckets])
    return list(buckets) == list(found)


# What the type's own operator calls equal, or what lies near, but is another value.
PAIRS: list[tuple[LiteralString, LiteralString, LiteralString]] = [
    ("integer", "1", "2"),
    ("smallint", "0", "NULL"),
    ("bigint", "9223372036854775807", "-9223372036854775808"),
    ("boolean", "true", "false"),
    ("numeric", "1.0", "1.00"),
    ("numeric", "'NaN'", "0"),
    ("numeric", "'Infinity'", "'-Infinity'"),
    ("numeric(12,2)", "1.50", "1.51"),
    ("numeric(12,2)", "'NaN'", "0"),
    ("real", "'0.1'", "'0.10000001'"),
    ("real", "'0'", "'-0'"),
    ("double precision", "'0'", "'-0'"),
    ("double precision", "'NaN'", "'Infinity'"),
    ("double precision", "'0.1'", "'0.10000000000000002'"),
    ("text", "''", "NULL"),
    ("text", "'a'", "'a '"),
    ("text", "'e\u0301'", "'\u00e9'"),
    ("character varying(9)", "'a'", "'A'"),
    ("character(5)", "'a'", "'b'"),
    ("bpchar", "'a'", "'a '"),
    ("bytea", r"'\x00'", r"'\x0000'"),
    ("date", "'infinity'", "'-infinity'"),
    ("date", "'0044-03-15 BC'", "'0044-03-15'"),
    ("timestamp", "'2024-01-01 00:00:00.000001'", "'2024-01-01'"),
    ("timestamptz", "'2024-01-01 00:00+00'", "'2024-01-01 00:00+01'"),
    ("time", "'24:00'", "'00:00'"),
    ("timetz", "'10:00+00'", "'11:00+01'"),
    ("interval", "'1 day'", "'24:00'"),
    ("interval", "'1 month'", "'30 days'"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12'"),
    ("jsonb", "'{\"a\": 1.0}'", "'{\"a\": 1.00}'"),
    ("json", "'{\"a\":1}'", "'{\"a\": 1}'"),
    ("inet", "'10.0.0.1'", "'10.0.0.1/8'"),
    ("money", "'1.00'", "'1.01'"),
    ("int4range", "'[1,2]'", "'[1,4)'"),
    ("bit(3)", "B'101'", "B'100'"),
    ("point", "'(0,1)'", "'(-0,1)'"),
    ("mood", "'sad'", "'happy'"),
    ("integer[]", "'{1}'", "'[0:0]={1}'"),
    ("integer[]", "'{}'", "'{NULL}'"),
    ("numeric[]", "'{1.0}'", "'{1.00}'"),
    ("text[]", "'{a,b}'", "'{\"a,b\"}'"),
]


@pytest.mark.parametrize(("type_", "ours", "theirs"), PAIRS)
def test_values_of_every_type_are_told_apart(
    source: Connection,
    replica: Connection,
    type_: LiteralString,
    ours: LiteralString,
    theirs: LiteralString,
) -> None:
    both(source, replica, "CREATE TYPE mood AS ENUM ('sad', 'happy')")
    both(source, replica, f"CREATE TABLE t (id int PRIMARY KEY, v {type_}, w {type_})")
    both(source, replica, f"INSERT INTO t VALUES (1, {ours}, {theirs}), (2, NULL, NULL)")
    table = table_of(source, "t", ("id",))
    assert equal(source, replica, table)
    replica.execute(f"UPDATE t SET v = {theirs} WHERE id = 1")
    assert not equal(source, replica, table)
    replica.execute(f"UPDATE t SET v = {theirs}, w = {ours} WHERE id = 1")
    assert not equal(source, replica, table), "values that changed places"
    key = b"\x02"
    with reading(source, table) as side, reading(replica, table) as other:
        mine, its = side.texts([key])[key], other.texts([key])[key]
    assert mine["v"] != its["v"]
    assert mine["v"] == its["w"]


def test_a_row_that_stands_twice_does_not_cancel_itself(
    source: Connection, replica: Connection
) -> None:
    both(source, replica, "CREATE TABLE t (id int, v int)")
    source.execute("INSERT INTO t VALUES (1, 1)")
    replica.execute("INSERT INTO t VALUES (1, 1), (2, 2), (2, 2)")
    assert not equal(source, replica, table_of(source, "t", ("id",)))


def test_other_columns_of_the_replica_and_their_order_do_not_matter(
    source: Connection, replica: Connection
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b numeric(6,2))")
    replica.execute(
        "CREATE TABLE t (b numeric, loaded_at timestamptz DEFAULT now(), a varchar, id bigint PRIMARY KEY)"
    )
    both(
        source,
        replica,
        "INSERT INTO t (id, a, b) SELECT i, 'x' || i, i / 4.0 FROM generate_series(1, 50) i",
    )
    assert equal(source, replica, table_of(source, "t", ("id",)))


def test_a_longer_value_in_a_wider_column_is_not_cut(
    source: Connection, replica: Connection
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a varchar(3))")
    replica.execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
    source.execute("INSERT INTO t VALUES (1, 'abc')")
    replica.execute("INSERT INTO t VALUES (1, 'abcd')")
    assert not equal(source, replica, table_of(source, "t", ("id",)))


def test_a_missing_column_is_told(source: Connection, replica: Connection) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
    replica.execute("CREATE TABLE t (id int PRIMARY KEY)")
    table = table_of(source, "t", ("id",))
    with pytest.raises(Failed, match="lacks a"), reading(replica, table):
        pass


def test_a_row_filter_with_a_percent_sign_limits_what_is_read(source: Connection) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
    source.execute(
        "INSERT INTO t SELECT i, CASE WHEN i % 2 = 0 THEN 'even' ELSE '5%' END FROM generate_series(1, 100) i"
    )
    table = table_of(source, "t", ("id",))
    with reading(source, table, "((id % 2) = 0) AND (a <> '5%'::text)") as reader:
        buckets = list(reader.digest(EVERYTHING, 7, 1000))
        assert whole(buckets)[0] == 50
        assert len(reader.hashes(EVERYTHING).keys) == 50
        assert reader.texts([b"\x02"]) == {}


KEYS: list[tuple[LiteralString, tuple[str, ...], LiteralString]] = [
    ("k bigint", ("k",), "i * 7 - 900"),
    ("k text", ("k",), "chr(97 + i % 26) || chr(65 + i % 7) || i"),
    ('k text COLLATE "C"', ("k",), "chr(97 + i % 26) || chr(223 + i % 7) || i"),
    ('k text COLLATE "C.utf8"', ("k",), "chr(97 + i % 26) || '%''\"{},' || chr(223 + i % 7) || i"),
    ("k char(6)", ("k",), "chr(97 + i % 26) || i"),
    ("k uuid", ("k",), "md5(i::text)::uuid"),
    ("k numeric", ("k",), "i / 8.0 - 20"),
    ("k timestamptz", ("k",), "'2024-01-01'::timestamptz + i * '1 second'::interval"),
    ("k date", ("k",), "'2024-01-01'::date + i"),
    ("k bytea", ("k",), "decode(md5(i::text), 'hex')"),
    ("k int, l text", ("k", "l"), "i % 5, chr(97 + i % 26) || i"),
    ('k int, l text COLLATE "C.utf8"', ("k", "l"), "i % 5, chr(97 + i % 26) || i"),
    ('k text COLLATE "C.utf8", l int', ("l", "k"), "chr(97 + i % 26), i"),
]


@pytest.mark.parametrize(("columns", "key", "values"), KEYS)
def test_ranges_cut_a_table_into_the_same_runs_on_both_sides(
    source: Connection,
    replica: Connection,
    columns: LiteralString,
    key: tuple[str, ...],
    values: LiteralString,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    primary = "PRIMARY KEY (k)" if key == ("k",) else "PRIMARY KEY (k, l)"
    # The replica's text keys are sorted by another collation than the source's.
    others = columns
    if columns == "k text":
        others = 'k text COLLATE "C.utf8"'
    source.execute(f"CREATE TABLE t ({columns}, v int, {primary})")
    replica.execute(f"CREATE TABLE t ({others}, v int, {primary})")
    both(source, replica, f"INSERT INTO t SELECT {values}, i FROM generate_series(1, 300) i")
    table = table_of(source, "t", key)
    with reading(source, table) as ours, reading(replica, table) as theirs:
        every = ours.hashes(EVERYTHING)
        assert every == theirs.hashes(EVERYTHING)
        assert len(set(every.keys)) == 300
        after: bytes | None = None
        total = 0
        while True:
            buckets = list(ours.digest(KeyRange(after, None), 7, chance.choice((14, 70))))
            assert (
                list(theirs.digest_at(KeyRange(after, None), [b.upto for b in buckets])) == buckets
            )
            total += whole(buckets)[0]
            after = buckets[-1].upto
            if after is None:
                break
        assert total == 300
        places = sorted(chance.sample(range(300), 4))
        ends = [every.keys[place] for place in places]
        for (low, high), (first, last) in zip(pairwise(ends), pairwise(places), strict=True):
            expected = every.hashes[first + 1 : last + 1]
            found = ours.hashes(KeyRange(low, high))
            assert found.keys == every.keys[first + 1 : last + 1]
            sums = tuple(sum(h[n] for h in expected) % 2**64 for n in (0, 1))
            assert whole(list(ours.digest(KeyRange(low, high), 1000, 1000))) == (
                last - first,
                *sums,
            )
        rows = ours.rows(every.keys[:5])
        assert list(rows) == every.keys[:5]
        assert rows == theirs.rows(every.keys[:5])


def test_rows_that_no_key_tells_apart_are_never_passed_over(replica: Connection) -> None:
    replica.execute("CREATE TABLE t (id int, v int)")
    replica.execute("INSERT INTO t SELECT i, i FROM generate_series(1, 20) i")
    table = table_of(replica, "t", ("id",))
    with reading(replica, table) as reader:
        assert len(reader.hashes(EVERYTHING).keys) == 20
    replica.execute("INSERT INTO t VALUES (7, 7)")
    with reading(replica, table) as reader, pytest.raises(Failed, match="holds a key twice: 7"):
        reader.hashes(EVERYTHING)
    replica.execute("DELETE FROM t WHERE id = 7")
    replica.execute("INSERT INTO t VALUES (NULL, 1)")
    with pytest.raises(Failed, match=r"NULL in their key \(id\)"), reading(replica, table):
        pass


def test_an_empty_table_is_one_open_run_and_extras_are_found_in_it(
    source: Connection, replica: Connection
) -> None:
    both(source, replica, "CREATE TABLE t (id int PRIMARY KEY)")
    table = table_of(source, "t", ("id",))
    with reading(source, table) as ours:
        assert [bucket.upto for bucket in ours.digest(EVERYTHING, 10, 100)] == [None]
    replica.execute("INSERT INTO t VALUES (5)")
    assert not equal(source, replica, table)

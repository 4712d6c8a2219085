"""The database itself compares: out by COPY and by the log, through Avro, and in again by COPY."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import psycopg
import pytest
from psycopg import sql

from cdc.errors import Failed
from connectors.postgres.transcoder import RowTranscoder
from connectors.postgres.tuples import HEADER, TRAILER, TupleTranscoder
from connectors.postgres.types import FIRST_USER_OID, Attribute, codec_of, column_of

_LONG_DECIMAL: Final = "9" * 5000 + "." + "1" * 3000
_TIMESTAMPS: Final = (
    "2026-11-23 12:00:00.123456",
    "1970-01-01 00:00:00",
    "1969-12-31 23:59:59.999999",
    "1999-12-31 23:59:59.999999",
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00 BC",
    "0001-01-01 00:00:00",
    "4714-11-24 00:00:00 BC",
    "12026-01-01 01:02:03.4",
    "294247-01-10 04:00:25.199999",
    "294276-12-31 23:59:59.999999",
    # where microseconds since 1970 leave 64 bits, and where the JDBC driver has its infinities
    "294247-01-10 04:00:25.2",
    "294247-01-10 04:00:54.775807",
    "294247-01-10 04:00:54.775808",
    "294247-01-10 04:01:17.151616",
)
_TEXTS: Final = ("", "x", "häßlich ☃ 𝄞", "a'b\"c\\d", "NULL", "  ", "\n\t", "y" * 9000)

# No xml: the server of the tests is built without libxml, and cannot store any (tests/unit has it).
VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "smallint": ("0", "-1", "32767", "-32768"),
    "integer": ("0", "63", "64", "-64", "-65", "8191", "8192", "2147483647", "-2147483648"),
    "bigint": ("0", "9007199254740993", "9223372036854775807", "-9223372036854775808", "268435456"),
    "oid": ("0", "4294967295"),
    "real": ("0", "-0", "1.5", "3.4028235e38", "1e-45", "NaN", "Infinity", "-Infinity", "0.1"),
    "double precision": (
        "0",
        "-0",
        "1e15",
        "0.1",
        "5e-324",
        "1.7976931348623157e308",
        "NaN",
        "Infinity",
        "-Infinity",
    ),
    "boolean": ("t", "f"),
    "text": _TEXTS,
    'text COLLATE "C"': _TEXTS,
    "varchar(120)": ("", "note", "☃" * 120),
    "varchar": _TEXTS,
    "bpchar": ("", "ab  "),
    "bpchar[]": ('{"ab  "}',),
    "char(6)": ("", "ab", "abcdef"),
    '"char"': ("a", "", "\\351"),
    "name": ("", "pg_class"),
    "numeric(12,2)": (
        "0",
        "0.01",
        "-0.01",
        "1.27",
        "1.28",
        "-1.28",
        "-1.29",
        "9999999999.99",
        "-9999999999.99",
        "100",
        "NaN",
    ),
    "numeric(38,10)": ("1234567890123456789012345678.0123456789", "0.0000000001", "-20000"),
    "numeric(5)": ("99999", "0", "-1"),
    "numeric(3,-2)": ("12300", "-99900", "0"),
    "numeric(4,6)": ("0.001234", "-0.009999"),
    "numeric": (
        "0",
        "0.00",
        "1e-9",
        "-10.1111",
        "1e100",
        "NaN",
        "Infinity",
        "-Infinity",
        "100000000",
        "0.00010000",
        _LONG_DECIMAL,
    ),
    "money": ("0", "1234.50", "-0.01", "92233720368547758.07", "-92233720368547758.08"),
    "date": (
        "2026-11-23",
        "1970-01-01",
        "infinity",
        "-infinity",
        "4714-11-24 BC",
        "5874897-12-31",
        "0001-01-01 BC",
    ),
    "timestamp": _TIMESTAMPS,
    "timestamp(0)": ("2026-11-23 12:00:00", "infinity", "-infinity", "294276-12-31 23:59:59"),
    "timestamp(3)": (
        "2026-11-23 12:00:00.123",
        "infinity",
        "-infinity",
        "294247-01-10 04:00:25.2",
        "4714-11-24 00:00:00 BC",
        "294276-12-31 23:59:59.999",
    ),
    "timestamp(5)": ("2026-11-23 12:00:00.12345",),
    "timestamptz": tuple(
        f"{t[:-3]}+02 BC" if t.endswith("BC") else t
        for t in _TIMESTAMPS
        if not t.startswith("4714")
    ),
    "timestamptz(0)": ("2026-11-23 12:00:00+02", "infinity"),
    "timestamptz(3)": ("2026-11-23 12:00:00.123-11:30", "0044-03-15 12:00:00 BC"),
    "time": ("00:00:00", "24:00:00", "23:59:59.999999"),
    "time(3)": ("00:00:00", "24:00:00", "23:59:59.999"),
    "timetz": (
        "13:51:30.123789+02",
        "11:51:30.123789+00",
        "24:00:00-15:59:59",
        "00:00:00+05:30",
        "12:00:00+15:59:59",
    ),
    "timetz(0)": ("13:51:30+02",),
    "interval": (
        "0",
        "1 mon",
        "30 days",
        "1 year 2 mons -3 days -04:05:06.789",
        "-00:00:00.000001",
        "178000000 years",
        "-1 mon 1 day",
        "2562047788:00:54.775807",
        "-2562047788:00:54.775807",
        "infinity",
        "-infinity",
    ),
    "interval day to second(3)": ("3 days 04:05:06.789",),
    "uuid": ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"),
    "json": ('{"b": 1,  "a": [1,2], "a": null}', '"☃"', "null"),
    "jsonb": ('{"b": 1,  "a": [1,2]}', "null", '"' + "z" * 9000 + '"'),
    "bytea": ("\\x", "\\xdeadbeef00", "\\x" + "00ff" * 5000),
    "bit": ("0", "1"),
    "bit(5)": ("10110", "00000", "11111"),
    "bit(17)": ("10000000000000001",),
    "varbit": ("", "0", "00", "1", "01", "000000000", "0000000010000000"),
    "varbit(9)": ("101",),
    "inet": (
        "10.1.2.3/8",
        "10.1.2.3",
        "::1",
        "::",
        "::ffff:1.2.3.4",
        "::1.2.3.4",
        "2001:db8::1/64",
        "fe80:0:0:1::",
    ),
    "cidr": ("10.0.0.0/8", "10.1.2.3/32", "2001:db8::/32", "::/0"),
    "macaddr": ("08:00:2b:01:02:03",),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "point": ("(1.5,-2)", "(0,-0)", "(Infinity,NaN)"),
    "line": ("{1,2,3}",),
    "lseg": ("[(0,0),(1,1e300)]",),
    "box": ("(3,4),(1,2)",),
    "path": ("((0,0),(1,1))", "[(0,0),(1.5,1)]"),
    "polygon": ("((0,0),(1,1),(2,0))",),
    "circle": ("<(1,2),3>",),
    "int4range": ("[1,10)", "empty", "(,)", "(,5)", "[5,)"),
    "int8range": ("[1,10)",),
    "numrange": ("[1.50,2.500]", "(1,2)", "[NaN,NaN]"),
    "tsrange": ('["2026-01-01 00:00:00",infinity)', '(,"0044-03-15 12:00:00 BC"]'),
    "tstzrange": ('["2026-01-01 00:00:00+02","2026-01-02 00:00:00.5+02"]',),
    "daterange": ("[2026-01-01,2026-02-01)",),
    "int4multirange": ("{}", "{[1,3),[5,8)}"),
    "nummultirange": ("{[1.5,2.50],(3,)}",),
    "xid": ("4294967295",),
    "xid8": ("18446744073709551615",),
    "tid": ("(4294967295,65535)",),
    "pg_lsn": ("0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"),
    "pg_snapshot": ("10:20:10,14,15", "10:10:"),
    "tsvector": ("'a':1A,2B 'it''s':3C 'x\\\\y':4 'z'", ""),
    "jsonpath": ("$.a[*] ? (@ > 1)",),
    "refcursor": ("x",),
    "integer[]": ("{}", "{1,NULL,3}", "{NULL}"),
    "bigint[]": ("{1,-9223372036854775808}",),
    "text[]": ('{"a","b,c",NULL,"NULL","","\\"\\\\"}',),
    "numeric(10,2)[]": ("{1.20,-3.40,NaN}",),
    "numeric[]": ("{1.200,NaN,Infinity}",),
    "timestamptz[]": ("{2026-01-01 00:00:00+00,NULL,infinity}",),
    "timestamp(3)[]": ('{"2026-01-01 00:00:00.5"}',),
    "uuid[]": ("{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",),
    "boolean[]": ("{t,f,NULL}",),
    "bytea[]": ('{"\\\\xdead",NULL}',),
    "varchar(5)[]": ("{abc}",),
    "char(3)[]": ('{"a  "}',),
    "jsonb[]": ('{"{\\"a\\": 1}"}',),
    "date[]": ("{2026-01-01,infinity}",),
    "inet[]": ("{10.0.0.0/8,::1}",),
    "interval[]": ('{"1 mon","-1 days"}',),
    "bit(3)[]": ("{101,NULL}",),
    "varbit[]": ("{101,0}",),
    "point[]": ('{"(1,2)"}',),
    "box[]": ("{(3,4),(1,2);(1,1),(0,0)}",),
    "int4range[]": ('{"[1,3)",empty}',),
    "money[]": ("{1.50}",),
    "integer[][]": ("{{1,2},{3,NULL}}", "{}", "{5}", "[0:1]={1,2}", "[2:3][-1:0]={{1,2},{3,4}}"),
    "text[][]": ('{{a,"b,}"},{NULL,""}}',),
    "mood": ("sad", "it's ok"),
    "mood[]": ('{sad,NULL,"it\'s ok"}',),
    "positive": ("1", "2147483647"),
    "positive[]": ("{1,2}",),
    "price": ("1.50", "NaN"),
    "mood_range": ('[sad,"it\'s ok"]',),
    "textrange": ('["a,\\"b",c]', '["",z)'),
    "vector": ("[1,-2.5,3e10]",),
}

_ATTRIBUTES: Final = """
SELECT a.attname, a.atttypid::int8, a.atttypmod, a.attnotnull,
       format_type(a.atttypid, a.atttypmod), a.attndims
FROM pg_attribute a WHERE a.attrelid = 't'::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""


def _attribute(
    cursor: psycopg.Cursor[Any],
    name: str,
    oid: int,
    typmod: int,
    *,
    not_null: bool,
    formatted: str,
    dimensions: int = 0,
) -> Attribute:
    row = cursor.execute(
        "SELECT t.typtype, t.typname, t.typelem::int8, t.typbasetype::int8, t.typtypmod, t.typcategory,"
        " coalesce(r.rngsubtype, m.rngtypid, 0)::int8"
        " FROM pg_type t LEFT JOIN pg_range r ON r.rngtypid = t.oid"
        " LEFT JOIN pg_range m ON m.rngmultitypid = t.oid WHERE t.oid = %s",
        (oid,),
    ).fetchone()
    assert row is not None
    typtype, typname, element, base, base_typmod, category, subtype = row
    inner_oid, inner_typmod = 0, -1
    if typtype == "d":
        inner_oid, inner_typmod = base, base_typmod
    elif typtype in "rm":
        inner_oid = subtype
    elif category == "A" and element:
        inner_oid, inner_typmod = element, typmod
    inner = None
    if inner_oid:
        (spelled,) = cast(
            "tuple[str]",
            cursor.execute("SELECT format_type(%s::oid, %s)", (inner_oid, inner_typmod)).fetchone(),
        )
        inner = _attribute(cursor, "", inner_oid, inner_typmod, not_null=False, formatted=spelled)
    labels = tuple(
        label
        for (label,) in cursor.execute(
            "SELECT enumlabel FROM pg_enum WHERE enumtypid = %s ORDER BY enumsortorder", (oid,)
        )
    )
    return Attribute(
        name, oid, typmod, not_null, formatted, typtype, typname, inner, labels, dimensions
    )


def attributes(cursor: psycopg.Cursor[Any]) -> list[Attribute]:
    """The columns of table t."""
    return [
        _attribute(
            cursor, name, oid, typmod, not_null=not_null, formatted=formatted, dimensions=dims
        )
        for name, oid, typmod, not_null, formatted, dims in cursor.execute(_ATTRIBUTES).fetchall()
    ]


@pytest.fixture(scope="module")
def database(cluster: Any) -> Iterator[str]:
    """A database with the user types, for all cases of this module."""
    dsn = cluster.source.dsn
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE types_of_all_kinds")
    own = psycopg.conninfo.make_conninfo(dsn, dbname="types_of_all_kinds")
    with psycopg.connect(own, autocommit=True) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('sad', 'it''s ok')")
        connection.execute("CREATE DOMAIN positive AS integer CHECK (VALUE > 0)")
        connection.execute("CREATE DOMAIN price AS numeric(8,2)")
        connection.execute("CREATE TYPE mood_range AS RANGE (SUBTYPE = mood)")
        connection.execute("CREATE TYPE textrange AS RANGE (SUBTYPE = text)")
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


@pytest.mark.parametrize("pg_type", VALUES)
def test_a_value_comes_back_as_it_was_by_every_road(database: str, pg_type: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute("SET TimeZone = 'Asia/Kathmandu'")
        cursor.execute("DROP TABLE IF EXISTS t, staging")
        cursor.execute(_query(f"CREATE TABLE t (id integer PRIMARY KEY, v {pg_type}, w {pg_type})"))
        cursor.execute("CREATE PUBLICATION types FOR TABLE t")
        cursor.execute("SELECT pg_create_logical_replication_slot('types', 'pgoutput')")
        try:
            for number, value in enumerate(VALUES[pg_type]):
                cursor.execute(
                    _query(
                        f"INSERT INTO t VALUES (%s, %s::text::{pg_type.split(' COLLATE')[0]}, NULL)"
                    ),
                    (number, value),
                )
            columns = attributes(cursor)
            rows = _through_avro(connection, columns)
            assert [row for row, _ in rows] == [
                row for row, *_ in _streamed(columns, _logged(connection, binary=True))
            ]
            assert [row for row, _ in rows] == [
                row for row, *_ in _streamed(columns, _logged(connection, binary=False))
            ]
        finally:
            cursor.execute("SELECT pg_drop_replication_slot('types')")
            cursor.execute("DROP PUBLICATION types")


def _streamed(columns: list[Attribute], frames: list[bytes]) -> list[tuple[Any, ...]]:
    stream_row = RowTranscoder(columns, ("id",)).stream_row
    read = [stream_row(frame, 0) for frame in frames]
    assert [end for *_, end in read] == [len(frame) for frame in frames]
    return read


def _through_avro(
    connection: psycopg.Connection[Any], columns: list[Attribute]
) -> list[tuple[bytes, bytes]]:
    """COPY out, to Avro, to tuples, COPY into a staging table, and compare in the database."""
    source = RowTranscoder(columns, ("id",))
    replica = TupleTranscoder([column_of(column) for column in columns], ("id",))
    assert source.as_text == ()
    tuples = _copied(connection, "SELECT * FROM t ORDER BY id")
    rows = [source.copy_row(data, 0) for data in tuples]
    assert len(rows) > 0
    assert [end for *_, end in rows] == [len(data) for data in tuples]
    back = [replica.tuple_of(row) for row, *_ in rows]
    cursor = connection.cursor()
    declared = ", ".join(
        f'"{column.name}" {staged}'
        for column, staged in zip(columns, replica.staged_types, strict=True)
    )
    cursor.execute(_query(f"CREATE TEMP TABLE staging ({declared})"))
    with cursor.copy(_query("COPY staging FROM STDIN (FORMAT binary)")) as copy:
        copy.write(HEADER + b"".join(back) + TRAILER)
    cast_list = ", ".join(f'"{column.name}"::{column.formatted_type}' for column in columns)
    as_text = ", ".join(f'"{column.name}"::text' for column in columns)
    there = f"(SELECT {as_text} FROM t)"
    here = f"(SELECT {as_text} FROM (SELECT {cast_list} FROM staging) AS s)"
    for one, other in ((there, here), (here, there)):
        assert cursor.execute(_query(f"{one} EXCEPT {other}")).fetchall() == []
    if columns[1].inner is None or columns[1].inner.type_oid < FIRST_USER_OID:
        # else an array names its elements' type by an oid of this database
        assert back == tuples or replica.staged_types[1] == "text"
    for row, key, _ in rows:
        assert replica.key_text(key) == (
            str(int.from_bytes(replica.key_columns_of(key)[0] or b"")),
        )
        assert replica.columns_of(row)[0] == replica.key_columns_of(key)[0]
    return [(row, key) for row, key, _ in rows]


def test_the_text_of_a_key_is_a_literal_of_its_type(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for pg_type, values in VALUES.items():
            spelled = pg_type.split(" COLLATE")[0]
            for value in values:
                data = _copied(
                    connection, f"SELECT {sql.Literal(value).as_string()}::text::{spelled}"
                )[0]
                (formatted, oid) = cast(
                    "tuple[str, int]",
                    connection.execute(
                        _query("SELECT format_type(%s::regtype, NULL), %s::regtype::int8"),
                        (spelled.replace("[][]", "[]"), spelled.replace("[][]", "[]")),
                    ).fetchone(),
                )
                codec = codec_of(
                    _attribute(
                        connection.cursor(),
                        "v",
                        oid,
                        -1,
                        not_null=True,
                        formatted=formatted,
                        dimensions=2 if "[][]" in pg_type else 0,
                    )
                )
                text = codec.to_text(data[6:]).decode()
                again = _copied(
                    connection, f"SELECT {sql.Literal(text).as_string()}::text::{spelled}"
                )[0]
                assert again == data, (pg_type, value, text)


def test_an_array_of_more_dimensions_than_declared_is_refused_and_not_flattened(
    database: str,
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute("DROP TABLE IF EXISTS t")
        cursor.execute("CREATE TABLE t (id integer PRIMARY KEY, v integer[])")
        cursor.execute("INSERT INTO t VALUES (1, '{{1,2},{3,4}}')")
        transcoder = RowTranscoder(attributes(cursor), ("id",))
        (data,) = _copied(connection, "SELECT * FROM t")
        with pytest.raises(Failed, match="2 dimensions"):
            transcoder.copy_row(data, 0)


def test_a_type_without_a_binary_form_comes_as_text(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute("DROP TABLE IF EXISTS t")
        cursor.execute("CREATE TABLE t (id integer PRIMARY KEY, v aclitem)")
        cursor.execute("CREATE PUBLICATION types FOR TABLE t")
        cursor.execute("SELECT pg_create_logical_replication_slot('types', 'pgoutput')")
        try:
            cursor.execute(
                "INSERT INTO t SELECT 1, format('%s=r/%s', current_user, current_user)::aclitem"
            )
            columns = attributes(cursor)
            transcoder = RowTranscoder(columns, ("id",))
            assert transcoder.as_text == ("v",)
            ((row, _, _, _),) = _streamed(columns, _logged(connection, binary=True))
            (data,) = _copied(connection, "SELECT id, v::text FROM t")
            assert transcoder.copy_row(data, 0)[0] == row
            values = TupleTranscoder([column_of(column) for column in columns]).columns_of(row)
            assert cursor.execute("SELECT v::text FROM t").fetchone() == (
                (values[1] or b"").decode(),
            )
        finally:
            cursor.execute("SELECT pg_drop_replication_slot('types')")
            cursor.execute("DROP PUBLICATION types")

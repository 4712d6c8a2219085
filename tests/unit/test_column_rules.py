"""Masks and column lists: bytes as Debezium makes them, and nothing left in the open by a rule that does not fit."""

from __future__ import annotations

import hashlib
import re
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.config import ConnectorConfig
from cdc.errors import ConfigError
from cdc.table import TableId
from connectors.postgres.column_rules import ColumnRules, check_covered
from connectors.postgres.masks import Hash, Mask, Stars, Truncation
from connectors.postgres.settings_of_columns import COLUMN_SETTINGS, column_rules
from connectors.postgres.transcoder import RowTranscoder
from connectors.postgres.types import Attribute, column_of

PEOPLE = TableId("public", "people")


def text(name: str, formatted: str = "text", typmod: int = -1, **more: Any) -> Attribute:
    return Attribute(name, 25, typmod, not_null=False, formatted_type=formatted, **more)


def rules(**properties: str) -> ColumnRules:
    values: dict[str, Any] = {
        setting.name: {} if setting.name.endswith(".*") else setting.default
        for setting in COLUMN_SETTINGS
    }
    for name, value in properties.items():
        for setting in COLUMN_SETTINGS:
            if setting.name == name:
                values[name] = setting.parse(value)
            elif setting.name.endswith(".*") and name.startswith(setting.name[:-1]):
                rest = name.removeprefix(setting.name[:-1])
                values[setting.name][rest] = setting.parse_member(rest, value)
    return column_rules(ConnectorConfig("c", "postgres", "source", "any", values))


def applied(of: ColumnRules, *columns: Attribute, key: tuple[str, ...] = ()) -> list[Attribute]:
    return list(of.applied(PEOPLE, columns, key))


def mask_of(of: ColumnRules, column: Attribute) -> Mask | None:
    return applied(of, column)[0].mask


def test_names_are_matched_whole_qualified_and_in_any_case() -> None:
    lists = rules(**{"column.exclude.list": r"public\.people\.(ssn|pin)"})
    assert not lists.takes(PEOPLE, "SSN")
    assert lists.takes(PEOPLE, "ssn2")
    assert lists.takes(TableId("x", "public.people"), "ssn")
    only = rules(**{"column.include.list": r"public\.people\.id, .*\.name"})
    assert [column for column in ("id", "name", "ssn") if only.takes(PEOPLE, column)] == [
        "id",
        "name",
    ]


def test_the_first_mask_in_debeziums_order_counts() -> None:
    of = rules(
        **{
            "column.mask.hash.v2.SHA-256.with.salt.s": r".*\.note",
            "column.mask.hash.SHA-256.with.salt.s": r".*\.note",
            "column.mask.with.3.chars": r".*\.note",
            "column.truncate.to.5.chars": r".*\.title",
        }
    )
    assert mask_of(of, text("note")) == Stars(3)
    assert mask_of(of, text("title")) == Truncation(5)
    assert mask_of(of, text("name")) is None
    hashes = rules(
        **{
            "column.mask.hash.v2.SHA-256.with.salt.s": r".*\.note",
            "column.mask.hash.SHA-256.with.salt.s": r".*\.note",
        }
    )
    mask = mask_of(hashes, text("note"))
    assert isinstance(mask, Hash)
    assert mask.strategy == "java"


def test_a_mask_on_what_is_no_text_is_refused_and_not_passed_over() -> None:
    of = rules(**{"column.mask.with.3.chars": r"public\.people\..*"})
    with pytest.raises(ConfigError, match=r"column.mask.with.3.chars matches public.people.salary"):
        applied(of, Attribute("salary", 1700, -1, not_null=False, formatted_type="numeric"))
    domain = Attribute(
        "email", 99999, -1, not_null=False, formatted_type="email", typtype="d", inner=text("")
    )
    assert applied(of, domain)[0].mask == Stars(3)


@pytest.mark.parametrize(
    "property_", ["column.exclude.list", "column.mask.with.3.chars", "column.truncate.to.3.chars"]
)
def test_a_column_of_the_key_is_neither_masked_nor_left_out(property_: str) -> None:
    with pytest.raises(ConfigError, match="belongs to the message key"):
        applied(rules(**{property_: r".*\.email"}), text("email"), key=("email",))


@pytest.mark.parametrize(
    ("property_", "value"),
    [
        ("column.truncate.to.0.chars", "a"),
        ("column.truncate.to.x.chars", "a"),
        ("column.mask.with.5", "a"),
        ("column.mask.hash.v2.MD2.with.salt.s", "a"),
        ("column.mask.hash.v2.SHA-256.with.salt", "a"),
        ("column.mask.with.5.chars", "("),
        ("message.key.columns", "people"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(property_: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"expected|regular expression"):
        rules(**{property_: value})


def test_a_salt_is_never_shown() -> None:
    of = rules(**{"column.mask.hash.v2.SHA-256.with.salt.s3cr3t": r".*\.note"})
    assert "s3cr3t" not in repr(of)
    with pytest.raises(ConfigError) as refused:
        applied(of, text("note", "integer"))
    assert "s3cr3t" not in str(refused.value)


def test_key_columns_come_in_the_order_in_which_they_are_chosen() -> None:
    of = rules(**{"message.key.columns": r"public.people:tenant,email;(.*).lines:o , n"})
    columns = ("id", "email", "tenant")
    assert of.message_key(PEOPLE, columns) == ("tenant", "email")
    assert of.message_key(TableId("shop", "lines"), ("n", "o", "x")) == ("o", "n")
    assert of.message_key(TableId("public", "other"), columns) == ()


def test_hashes_are_debeziums() -> None:
    salted = hashlib.sha256(b"salt" + "Zoë".encode()).hexdigest()
    assert Hash("sha256", b"salt", "plain").apply("Zoë".encode()) == salted.encode()
    # Java writes a string object as: stream header, TC_STRING, length, modified UTF-8.
    java = b"\xac\xed\x00\x05\x74\x00\x03abc"
    mask = Hash("md5", b"salt", "java")
    assert mask.apply(b"abc").decode() == hashlib.md5(b"salt" + java).hexdigest()
    beyond = b"\xac\xed\x00\x05\x74\x00\x06\xed\xa0\xbd\xed\xb8\x80"
    assert Hash("md5", b"", "java").apply("😀".encode()).decode() == hashlib.md5(beyond).hexdigest()
    long = b"\xac\xed\x00\x05\x7c" + struct.pack(">q", 65536) + b"x" * 65536
    assert Hash("md5", b"", "java").apply(b"x" * 65536).decode() == hashlib.md5(long).hexdigest()


@pytest.mark.parametrize(
    ("value", "java", "plain"),
    [
        (
            "Zo\u00eb \U0001f600",
            "b9b1b4f375032b32ffa79dddf692159ab869d6bfbe664a1483c9874ba3214ecb",
            "805a5fe9c3204442da2eb68b94619709a5845727307d5f00af35f265b70070b9",
        ),
        (
            "abc",
            "23982a5060e938a6303e33d56b2bdfb80e4cae9c5166f47237648e55911b835e",
            "4255bb5ea51a54b309aed2ddfe79083bcd1e000f6fa43833aa5ac1d6c0659399",
        ),
        (
            "x" * 70_000,
            "21042a3875b47dd8220328aaae40017a2549733682fadda8e245c213391dc13f",
            "d0b74c74bb612bef1c7a7bb3ff2d211de4c4f8b19597c4838d8b57803a75328b",
        ),
    ],
)
def test_hashes_are_what_java_gave(value: str, java: str, plain: str) -> None:
    """By MessageDigest over ObjectOutputStream.writeObject, and over getBytes, of a Java 21."""
    salt = b"CzQMA0cB5K"
    assert Hash("sha256", salt, "java").apply(value.encode()).decode() == java
    assert Hash("sha256", salt, "plain").apply(value.encode()).decode() == plain


def test_a_hash_is_cut_to_the_length_of_its_column() -> None:
    of = rules(**{"column.mask.hash.v2.MD5.with.salt.s": r".*"})
    whole = hashlib.md5(b"sx").hexdigest()
    for column, length in [
        (text("a", "character varying(10)", 14), 10),
        (text("a", "character(4)", 8), 4),
        (text("a"), 32),
    ]:
        mask = mask_of(of, column)
        assert mask is not None
        assert mask.apply(b"x").decode() == whole[:length]


@given(st.text(), st.integers(1, 20))
def test_a_cut_never_splits_a_character(value: str, length: int) -> None:
    assert Truncation(length).apply(value.encode()).decode() == value[:length]


def streamed(*values: tuple[bytes, bytes]) -> bytes:
    parts = [
        kind + (struct.pack(">i", len(value)) + value if kind in (b"b", b"t") else b"")
        for kind, value in values
    ]
    return struct.pack(">h", len(values)) + b"".join(parts)


def copied(*values: bytes | None) -> bytes:
    parts = [
        struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
        for value in values
    ]
    return struct.pack(">h", len(values)) + b"".join(parts)


def test_both_roads_give_the_same_masked_bytes_and_leave_the_same_columns_out() -> None:
    of = rules(
        **{
            "column.exclude.list": r".*\.secret",
            "column.mask.with.4.chars": r".*\.name",
            "column.truncate.to.2.chars": r".*\.note",
        }
    )
    columns = applied(
        of,
        Attribute("id", 20, -1, not_null=True, formatted_type="bigint"),
        text("name"),
        text("secret"),
        text("note"),
        key=("id",),
    )
    transcoder = RowTranscoder(columns, ("id",))
    id_ = struct.pack(">q", 7)
    row = b"\x0e" + b"\x02\x08****" + b"\x02\x04ab"
    copy = transcoder.copy_row(copied(id_, b"Bob", b"abc"), 0)
    assert copy[:2] == (row, b"\x0e")
    for kind in (b"b", b"t"):
        for secret in ((kind, b"x" * 300), (b"n", b""), (b"u", b"")):
            frame = streamed((b"b", id_), (kind, b"Bob"), secret, (kind, b"abc"))
            assert transcoder.stream_row(frame, 0) == (row, b"\x0e", (), len(frame))
    # A NULL is masked too: that there is none would be told otherwise.
    null = streamed((b"b", id_), (b"n", b""), (b"n", b""), (b"n", b""))
    assert transcoder.stream_row(null, 0)[0] == b"\x0e" + b"\x02\x08****" + b"\x00"
    assert transcoder.copy_row(copied(id_, None, None), 0)[0] == b"\x0e" + b"\x02\x08****" + b"\x00"
    gone = streamed((b"b", id_), (b"u", b""), (b"u", b""), (b"u", b""))
    assert transcoder.stream_row(gone, 0)[2] == ("name", "note")


def test_a_masked_column_is_a_text_for_the_replica_and_says_so_as_debezium_does() -> None:
    of = rules(
        **{"column.mask.with.4.chars": r".*\.name", "column.truncate.to.2.chars": r".*\.note"}
    )
    name, note = applied(of, text("name", "character varying(2)", 6), text("note"))
    assert column_of(name).source_type == "text"
    assert column_of(name).avro == {"type": "string", "connect.parameters": {"masked": "true"}}
    assert column_of(note).avro == {
        "type": "string",
        "connect.parameters": {"truncateLength": "2"},
    }


def test_a_column_does_not_come_out_from_under_its_mask_by_a_new_name() -> None:
    of = rules(**{"column.mask.with.4.chars": r".*\.email", "column.exclude.list": r".*\.ssn"})
    before = applied(of, text("email"), text("ssn"), text("note"))
    for renamed in (("mail", "ssn", "note"), ("email", "number", "note")):
        now = applied(of, *map(text, renamed))
        with pytest.raises(ConfigError, match="would be in the open"):
            check_covered(PEOPLE, before, now)
    for harmless in (("email", "ssn", "note", "more"), ("note",), ("email", "ssn", "remark")):
        check_covered(PEOPLE, before, applied(of, *map(text, harmless)))


def test_a_salt_may_hold_dots() -> None:
    of = rules(**{"column.mask.hash.v2.MD5.with.salt.a.b": "x"})
    (rule,) = of.masks
    assert isinstance(rule.mask, Hash)
    assert rule.mask.salt == b"a.b"
    assert re.search("salt$", rule.setting)

"""Debezium's modes: the form and the value that each gives, and the way back to what was stored."""

from __future__ import annotations

import hashlib
import io
import uuid
from typing import Any, Final

import fastavro
import pytest

from cdc.config import ConnectorConfig
from cdc.exact_row import ExactRow, texts_of
from connectors.postgres.forms import codec_of_column
from connectors.postgres.handling import Handling
from connectors.postgres.settings import SOURCE_SETTINGS
from connectors.postgres.settings_of_values import DEBEZIUM_VALUE_DEFAULTS, handling_of
from connectors.postgres.transcoder import RowTranscoder
from connectors.postgres.tuples import TupleTranscoder
from connectors.postgres.types import Attribute, codec_of, column_of

NUMERIC: Final = "numeric(12,2)"
TIME: Final = "time without time zone"
TIMESTAMP: Final = "timestamp without time zone"
STRINGS: Final = Handling(decimals="string", times="isostring")
DOUBLES: Final = Handling(decimals="double", times="connect", intervals="numeric")
NANOS: Final = Handling(times="nanoseconds")

# (type, modes, text, Avro value, whether the form carries it)
CASES: Final[tuple[tuple[str, Handling, str, Any, bool], ...]] = (
    (NUMERIC, STRINGS, "-1234.50", "-1234.50", True),
    ("numeric", STRINGS, "1.500", "1.500", True),
    ("numeric", STRINGS, "NaN", "NAN", True),
    ("numeric", STRINGS, "-Infinity", "NEGATIVE_INFINITY", True),
    ("money", STRINGS, "1234.50", "1234.50", True),
    (NUMERIC, DOUBLES, "1234.50", 1234.5, True),
    ("numeric", DOUBLES, "1.5", 1.5, True),
    ("numeric", DOUBLES, "1.50", 1.5, False),
    ("numeric", DOUBLES, "Infinity", float("inf"), True),
    ("numeric", DOUBLES, "1e400", float("inf"), False),
    ("numeric(38,10)", DOUBLES, "1234567890123456789.0123456789", 1.2345678901234568e18, False),
    ("money", DOUBLES, "1234.50", 1234.5, True),
    ("money", DOUBLES, "92233720368547758.06", 92233720368547760.0, False),
    ("date", STRINGS, "2017-09-15", "2017-09-15Z", True),
    ("date", STRINGS, "0044-03-15 BC", "-0043-03-15Z", True),
    ("date", STRINGS, "infinity", "infinity", True),
    (TIME, STRINGS, "04:05:11.789", "04:05:11.789Z", True),
    (TIME, STRINGS, "24:00:00", "24:00:00Z", True),
    (TIMESTAMP, STRINGS, "2019-07-09 02:28:57.123456", "2019-07-09T02:28:57.123456Z", True),
    (TIMESTAMP, STRINGS, "2019-07-09 02:28:57", "2019-07-09T02:28:57Z", True),
    (TIMESTAMP, STRINGS, "-infinity", "-infinity", True),
    ("date", DOUBLES, "1970-01-03", 2, True),
    (TIME, DOUBLES, "00:00:01.5", 1500, True),
    (TIME, DOUBLES, "00:00:01.5004", 1500, False),
    (TIMESTAMP, DOUBLES, "1970-01-01 00:00:01.5", 1500, True),
    (TIMESTAMP, DOUBLES, "1969-12-31 23:59:59.9995", -1, False),
    (TIMESTAMP, DOUBLES, "infinity", (1 << 63) - 1, True),
    (TIME, NANOS, "00:00:01.500001", 1_500_001_000, True),
    (TIMESTAMP, NANOS, "1970-01-01 00:00:00.000001", 1000, True),
    (TIMESTAMP, NANOS, "infinity", (1 << 63) - 1, True),
    (TIMESTAMP, NANOS, "-infinity", -(1 << 63), True),
    (TIMESTAMP, NANOS, "9999-12-31 00:00:00", (1 << 63) - 1001, False),
    ("time(2) without time zone", Handling(times="microseconds"), "00:00:01", 1_000_000, True),
    ("timestamp(2) without time zone", Handling(times="microseconds"), "1970-01-01 00:00:01", 1_000_000, True),
    ("timestamp(2) without time zone", Handling(times="adaptive_time_microseconds"), "1970-01-01 00:00:01", 1000, True),
    # as Debezium 3.7 wrote it: tests/golden/data
    ("interval", DOUBLES, "1 year 2 mons 3 days 04:05:06.78", 37091106780000, False),
    ("interval", DOUBLES, "04:05:06.78", 14706780000, True),
    ("bytea", Handling(binaries="base64"), "\\xfbff00", "+/8A", True),
    ("bytea", Handling(binaries="base64-url-safe"), "\\xfbff00", "-_8A", True),
    ("bytea", Handling(binaries="hex"), "\\xfbff00", "fbff00", True),
    ("money", Handling(money_digits=4), "-1.25", b"\xcf\x2c", True),
    ("money", Handling(money_digits=0), "2.50", b"\x03", False),
    ("money", Handling(money_digits=0), "-3.00", b"\xfd", True),
    ("numeric(38,10)[]", DOUBLES, "{0.5000000000,NULL,0.1234567891}", [0.5, None, 0.1234567891], True),
)  # fmt: skip


def attribute(spelled: str) -> Attribute:
    inner = attribute(spelled.removesuffix("[]")) if spelled.endswith("[]") else None
    return Attribute("v", 20, -1, not_null=True, formatted_type=spelled, inner=inner)


@pytest.mark.parametrize(("spelled", "handling", "text", "avro", "exact"), CASES)
def test_a_mode_gives_debeziums_value_and_a_replica_the_one_that_was_stored(
    spelled: str, handling: Handling, text: str, avro: Any, exact: bool
) -> None:
    column = column_of(attribute(spelled), handling)
    binary = codec_of(attribute(spelled)).from_text(text.encode())
    frame = b"\x00\x01" + len(binary).to_bytes(4, "big") + binary
    row, _, _ = RowTranscoder((attribute(spelled),), handling=handling).copy_row(frame, 0)
    bare = {"type": "record", "name": "r", "fields": [{"name": "v", "type": _bare(column.avro)}]}
    assert fastavro.schemaless_reader(io.BytesIO(row), bare, None) == {"v": avro}
    assert isinstance(row, ExactRow) is not exact
    assert TupleTranscoder([column]).columns_of(row) == [binary]


def _bare(avro: Any) -> Any:
    if isinstance(avro, dict):
        if avro["type"] == "array":
            return {"type": "array", "items": ["null", _bare(avro["items"][1])]}
        return avro["type"]
    return avro


@pytest.mark.parametrize("spelled", sorted({case[0] for case in CASES} | {"hstore"}))
def test_a_reader_knows_each_form_by_itself_or_by_its_type(spelled: str) -> None:
    for handling in (*{case[1] for case in CASES}, Handling(hstores="map")):
        of_type = attribute(spelled)
        if spelled == "hstore":
            of_type = Attribute(
                "v", 20_000, -1, not_null=True, formatted_type="public.hstore", type_name="hstore"
            )
        there = codec_of(of_type, handling)
        here = codec_of_column(column_of(of_type, handling))
        assert (here.pg_type, here.avro) == (there.pg_type, there.avro)


def test_a_key_is_exact_whatever_the_modes() -> None:
    key = attribute(TIMESTAMP)
    row, of_key, _ = RowTranscoder((key,), ("v",), handling=DOUBLES).copy_row(
        b"\x00\x01\x00\x00\x00\x08" + (1_500_001).to_bytes(8, "big"), 0
    )
    assert row == of_key
    assert TupleTranscoder([column_of(key, DOUBLES.of_keys)], ("v",)).key_text(of_key) == (
        "2000-01-01 00:00:01.500001",
    )


def test_the_placeholder_is_what_was_chosen_in_every_form() -> None:
    handling = Handling(placeholder=b"gone", hstores="map", binaries="hex")
    columns = (
        attribute("text"), attribute("bytea"), attribute("integer[]"), attribute("text[]"),
        attribute("uuid[]"),
        Attribute("v", 20_000, -1, not_null=True, formatted_type="hstore", type_name="hstore"),
    )  # fmt: skip
    row, _, unchanged, _ = RowTranscoder(columns, handling=handling).stream_row(
        b"\x00\x06uuuuuu", 0
    )
    assert len(unchanged) == 6
    java = str(uuid.UUID(bytes=hashlib.md5(b"gone").digest(), version=3)).encode()
    assert row == (
        b"\x08gone" + b"\x10676f6e65"
        + b"\x08\x02\xce\x01\x02\xde\x01\x02\xdc\x01\x02\xca\x01\x00"
        + b"\x02\x02\x08gone\x00"
        + b"\x02\x02\x48" + java + b"\x00"
        + b"\x02\x08gone\x02\x08gone\x00"
    )  # fmt: skip


def test_the_properties_choose_the_modes() -> None:
    values = {setting.name: setting.default for setting in SOURCE_SETTINGS}
    plain = ConnectorConfig("c", "postgres", "source", "x", values)
    assert handling_of(plain) == Handling()
    given = {
        "decimal.handling.mode": "double", "time.precision.mode": "isostring", "interval.handling.mode": "numeric",
        "binary.handling.mode": "base64-url-safe", "hstore.handling.mode": "map", "money.fraction.digits": "3",
        "unavailable.value.placeholder": "hex:676f6e65",
    }  # fmt: skip
    parse = {setting.name: setting.parse for setting in SOURCE_SETTINGS}
    read = {name: parse[name](text) for name, text in given.items()}
    chosen = handling_of(ConnectorConfig("c", "postgres", "source", "x", {**values, **read}))
    assert chosen == Handling(
        "double", "isostring", "numeric", "base64-url-safe", "map", 3, b"gone"
    )
    for name in ("decimal.handling.mode", "unavailable.value.placeholder", "time.precision.mode"):
        with pytest.raises(ValueError, match=r"expected|hexadecimal"):
            parse[name]("hex:zz")
    assert DEBEZIUM_VALUE_DEFAULTS["interval.handling.mode"] == "numeric"
    assert texts_of(b"") == {}

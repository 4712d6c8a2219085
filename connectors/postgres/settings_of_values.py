"""The properties that say how values and names are represented in events, by Debezium's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdc.config import ConnectorConfig, Setting
from cdc.setting_values import one_of, whole
from connectors.postgres.handling import PLACEHOLDER, Handling


def placeholder(raw: Any) -> bytes:
    """A text, or ``hex:`` and the digits of one."""
    text = str(raw)
    words = bytes.fromhex(text[4:]) if text.startswith("hex:") else text.encode()
    if not words:
        raise ValueError("a text is expected")
    words.decode()  # it stands in strings too
    return words


_NAMES = ("none", "avro", "avro_unicode")

VALUE_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "decimal.handling.mode",
        "Numeric and money as exact decimals, as text, or as the nearest double.",
        one_of("precise", "string", "double"),
        "precise",
    ),
    Setting(
        "time.precision.mode",
        "Dates, times and timestamps: in which unit, or as ISO strings, or as Kafka Connect's own types.",
        one_of(
            "adaptive",
            "adaptive_time_microseconds",
            "connect",
            "isostring",
            "microseconds",
            "nanoseconds",
        ),
        "adaptive",
    ),
    Setting(
        "interval.handling.mode",
        "Intervals as strings with every part, or as about how many microseconds.",
        one_of("string", "numeric"),
        "string",
    ),
    Setting(
        "binary.handling.mode",
        "Bytea as bytes, or as text.",
        one_of("bytes", "base64", "base64-url-safe", "hex"),
        "bytes",
    ),
    Setting("hstore.handling.mode", "Hstore as JSON, or as a map.", one_of("json", "map"), "json"),
    Setting("money.fraction.digits", "Digits behind the point of money.", whole(0, 16), 2),
    Setting(
        "unavailable.value.placeholder",
        "What stands in events for a value that the log left out as unchanged; hex: and digits for other bytes.",
        placeholder,
        PLACEHOLDER,
    ),
    Setting(
        "schema.name.adjustment.mode",
        "How names of schemas are made valid in Avro: not at all, with underscores, with _uxxxx.",
        one_of(*_NAMES),
        "avro",
    ),
    Setting(
        "field.name.adjustment.mode",
        "How names of fields are made valid in Avro: not at all, with underscores, with _uxxxx.",
        one_of(*_NAMES),
        "avro",
    ),
)

DEBEZIUM_VALUE_DEFAULTS: Mapping[str, Any] = {
    "interval.handling.mode": "numeric",
    "schema.name.adjustment.mode": "none",
    "field.name.adjustment.mode": "none",
}
"""What a property left out means under Debezium's class name."""


def handling_of(config: ConnectorConfig) -> Handling:
    """How a source's checked configuration wants values represented."""
    return Handling(
        decimals=config["decimal.handling.mode"],
        times=config["time.precision.mode"],
        intervals=config["interval.handling.mode"],
        binaries=config["binary.handling.mode"],
        hstores=config["hstore.handling.mode"],
        money_digits=config["money.fraction.digits"],
        placeholder=config["unavailable.value.placeholder"],
    )

"""The properties that choose columns, mask them, and make message keys of them; read into `ColumnRules`.

https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-property-column-include-list
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from cdc.config import ConnectorConfig, Setting
from cdc.setting_values import patterns
from connectors.postgres.column_rules import ColumnRules, KeyRule, MaskRule
from connectors.postgres.masks import ALGORITHMS, Hash, Stars, Truncation

_CHARS = re.compile(r"(\d+)\.chars")
_HASH = re.compile(r"(v2\.)?([^.]+)\.with\.salt\.(.+)")
_KEY = re.compile(r"\s*([^\s:]+):([^:\s]+(?:\s*,\s*[^:\s]+)*)\s*")
_MOST_STARS = 10_000


def truncation(rest: str, value: Any) -> MaskRule:
    """``column.truncate.to.`` <rest>: a cut at so many characters."""
    length = _chars(rest)
    if length < 1:
        raise ValueError("a length of 1 or more is expected")
    return MaskRule(f"column.truncate.to.{rest}", Truncation(length), patterns(value))


def stars(rest: str, value: Any) -> MaskRule:
    """``column.mask.with.`` <rest>: so many asterisks."""
    count = _chars(rest)
    if count > _MOST_STARS:
        raise ValueError(f"at most {_MOST_STARS} characters are expected")
    return MaskRule(f"column.mask.with.{rest}", Stars(count), patterns(value))


def hashing(rest: str, value: Any) -> MaskRule:
    """``column.mask.hash.`` <rest>: a hash function and a salt."""
    match = _HASH.fullmatch(rest)
    if match is None:
        raise ValueError("column.mask.hash.v2.<algorithm>.with.salt.<salt> is expected")
    version, name, salt = match.groups()
    algorithm = ALGORITHMS.get(name.upper())
    if algorithm is None or algorithm not in hashlib.algorithms_available:
        raise ValueError(f"{name} is not offered: one of {', '.join(ALGORITHMS)} is expected")
    return MaskRule(
        f"column.mask.hash.{version or ''}{name}.with.salt",
        Hash(algorithm, salt.encode(), "plain" if version else "java"),
        patterns(value),
    )


def message_keys(raw: Any) -> tuple[KeyRule, ...]:
    """``table:column,column;table:column``, where tables and columns are regular expressions."""
    rules = []
    for part in str(raw).split(";"):
        if not part.strip():
            continue
        match = _KEY.fullmatch(part)
        if match is None:
            raise ValueError("schema.table:column,column;schema.table:column is expected")
        table, columns = match.groups()
        found = (patterns(f"{table}\\.{column.strip()}") for column in columns.split(","))
        rules.append(KeyRule(table, tuple(pattern for each in found for pattern in each)))
    return tuple(rules)


_TRUNCATE, _STARS, _HASHED = "column.truncate.to.*", "column.mask.with.*", "column.mask.hash.*"

COLUMN_SETTINGS: Final = (
    Setting(
        "column.include.list",
        "Regular expressions of columns to capture (schema.table.column).",
        patterns,
        (),
    ),
    Setting("column.exclude.list", "Regular expressions of columns not to capture.", patterns, ()),
    Setting(
        _TRUNCATE,
        "column.truncate.to.<n>.chars: regular expressions of columns of which the first n characters are captured.",
        parse_member=truncation,
    ),
    Setting(
        _STARS,
        "column.mask.with.<n>.chars: regular expressions of columns whose values become n asterisks.",
        parse_member=stars,
    ),
    Setting(
        _HASHED,
        "column.mask.hash.v2.<algorithm>.with.salt.<salt>: regular expressions of columns whose values are hashed.",
        parse_member=hashing,
        secret=True,
    ),
    Setting(
        "message.key.columns",
        "What the key of a table's messages is, where not its primary key: schema.table:column,column;...",
        message_keys,
        (),
    ),
)


def column_rules(config: ConnectorConfig) -> ColumnRules:
    """The rules of a checked configuration; masks in the order in which Debezium tries them."""
    hashes = sorted(config[_HASHED].items(), key=lambda item: item[0].startswith("v2."))
    rules = (
        *config[_TRUNCATE].values(),
        *config[_STARS].values(),
        *(rule for _, rule in hashes),
    )
    return ColumnRules(
        config["column.include.list"],
        config["column.exclude.list"],
        rules,
        config["message.key.columns"],
    )


def _chars(rest: str) -> int:
    match = _CHARS.fullmatch(rest)
    if match is None:
        raise ValueError("a number of characters is expected: <n>.chars")
    return int(match[1])

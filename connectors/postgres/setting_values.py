"""How the text of a property of PostgreSQL's own is read; see `cdc.setting_values`."""

from __future__ import annotations

import re
from typing import Any

from cdc.setting_values import one_of, whole


def identifier(raw: Any) -> str:
    """A name of PostgreSQL's: at most 63 bytes, or it would be cut silently."""
    text = str(raw)
    if not text or len(text.encode()) > 63:
        raise ValueError("a name of 1 to 63 bytes is expected")
    return text


def slot_name(raw: Any) -> str:
    """A replication slot's name: lower case letters, digits and underscores."""
    text = identifier(raw)
    if not re.fullmatch(r"[a-z0-9_]+", text):
        raise ValueError("only lower case letters, digits and _ may stand in a slot's name")
    return text


def snapshot_mode(raw: Any) -> str:
    """Debezium's modes, but for those that a Java class decides."""
    text = str(raw).strip().lower()
    if text in ("custom", "configuration_based"):
        raise ValueError(
            f"{text} is not supported: there is no place for code or for halves of a copy"
        )
    return one_of("initial", "initial_only", "no_data", "always", "when_needed")(
        {"never": "no_data"}.get(text, text)
    )


def ports(raw: Any) -> str:
    """Port numbers separated by commas."""
    number = whole(1, 65535)
    return ",".join(str(number(part.strip())) for part in str(raw).split(","))


def listed(raw: Any) -> tuple[str, ...]:
    """Words separated by commas."""
    parts = raw if isinstance(raw, list) else str(raw).split(",")
    return tuple(text for part in parts if (text := str(part).strip()))


def stream_options(raw: Any) -> tuple[tuple[str, str], ...]:
    """``name=value;name=value`` of pgoutput's options that capture does not depend on."""
    found: dict[str, str] = {}
    for part in str(raw).split(";"):
        if not part.strip():
            continue
        name, equals, value = (text.strip() for text in part.partition("="))
        if not equals:
            raise ValueError("name=value;name=value is expected")
        if name != "origin":
            raise ValueError(f"{name} is fixed: of pgoutput's options only origin may be set")
        if value not in ("any", "none"):
            raise ValueError("origin is any or none")
        found[name] = value
    return tuple(found.items())

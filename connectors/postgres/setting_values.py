"""How the text of a property of PostgreSQL's own is read; see `cdc.setting_values`."""

from __future__ import annotations

import re
from typing import Any

from cdc.setting_values import whole


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


def ports(raw: Any) -> str:
    """Port numbers separated by commas."""
    number = whole(1, 65535)
    return ",".join(str(number(part.strip())) for part in str(raw).split(","))

"""Values as the bytes of a hash's field: text where there is one, a NULL is no field at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping


def field_bytes(value: object) -> bytes:
    """A value that is not NULL. Numbers and times as text, bytes as they are, lists and structures as JSON."""
    match value:
        case bytes():
            return value
        case str():
            return value.encode()
        case bool():
            return b"true" if value else b"false"
        case float():
            return _float(value).encode()
        case int():
            return str(value).encode()
    return json.dumps(value, default=_in_json, ensure_ascii=False, separators=(",", ":")).encode()


def fields_of(values: Mapping[str, object]) -> dict[bytes, bytes]:
    """The fields of a row."""
    return {
        name.encode(): field_bytes(value) for name, value in values.items() if value is not None
    }


def _float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def _in_json(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} has no form in JSON")

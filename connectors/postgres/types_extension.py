"""Types of extensions. Their binary forms are read; a replica gets their text, which casts to them."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cdc.avro_binary import bytes_bytes
from cdc.table import AvroType
from connectors.postgres.codec import (
    PLACEHOLDER,
    Codec,
    connect,
    converted,
    string_by,
    text_like,
)
from connectors.postgres.types_scalar import JSON, real_text, versioned


def staged_as_text(codec: Codec, avro: AvroType = "string") -> Codec:
    """The codec of a type whose oid differs from database to database: read in its form, written as its text."""
    plain = text_like("text", avro)
    return replace(codec, pg_type="text", avro=avro, decode=plain.decode)


def hstore() -> Codec:
    """Hstore as Debezium's JSON: an object of texts and nulls."""
    return converted(
        "text",
        connect("string", JSON),
        lambda value: bytes_bytes(_hstore_json(value)),
        _literal_of_json,
        to_text=lambda value: _literal_of_json(_hstore_json(value)),
        from_text=_hstore_value,
        placeholder=bytes_bytes(json.dumps({PLACEHOLDER.decode(): PLACEHOLDER.decode()}).encode()),
    )


def _hstore_json(value: bytes) -> bytes:
    at, pairs = 4, {}
    for _ in range(int.from_bytes(value[:4], "big")):
        key, at = _sized(value, at)
        text, at = _sized(value, at)
        pairs[key or ""] = text
    return json.dumps(pairs, ensure_ascii=False, separators=(",", ":")).encode()


def _sized(value: bytes, at: int) -> tuple[str | None, int]:
    size = int.from_bytes(value[at : at + 4], "big", signed=True)
    at += 4
    return (None, at) if size < 0 else (value[at : at + size].decode(), at + size)


def _literal_of_json(text: bytes) -> bytes:
    def quoted(part: str) -> str:
        escaped = part.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'

    return ", ".join(
        f"{quoted(key)}=>{'NULL' if value is None else quoted(value)}"
        for key, value in json.loads(text).items()
    ).encode()


_PAIR: Final = re.compile(r'"((?:[^"\\]|\\.)*)"=>(?:NULL|"((?:[^"\\]|\\.)*)")(?:, )?', re.DOTALL)


def _hstore_value(text: bytes) -> bytes:
    parts = []
    for match in _PAIR.finditer(text.decode()):
        for part in match.groups():
            if part is None:
                parts.append(struct.pack(">i", -1))
            else:
                raw = re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL).encode()
                parts.append(struct.pack(">i", len(raw)) + raw)
    return struct.pack(">i", len(parts) // 2) + b"".join(parts)


def vector() -> Codec:
    """The ``vector`` of pgvector, as its text."""

    def to_text(value: bytes) -> bytes:
        return (
            b"[" + b",".join(real_text(value[at : at + 4]) for at in range(4, len(value), 4)) + b"]"
        )

    def from_text(text: bytes) -> bytes:
        numbers = [float(part) for part in text[1:-1].split(b",")]
        return struct.pack(f">HH{len(numbers)}f", len(numbers), 0, *numbers)

    return staged_as_text(string_by("vector", to_text, from_text))


EXTENSIONS: Final[dict[str, Callable[[], Codec]]] = {
    "citext": lambda: text_like("text"),
    "hstore": hstore,
    "ltree": lambda: staged_as_text(versioned("ltree", "string")),
    "lquery": lambda: staged_as_text(versioned("lquery", "string")),
    "ltxtquery": lambda: staged_as_text(versioned("ltxtquery", "string")),
    "vector": vector,
}
"""By ``typname``."""

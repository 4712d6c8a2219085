"""Hstore, by ``hstore.handling.mode``: a JSON object of texts and nulls, or a map of them.

The binary form (``hstore_send``): the count of pairs, then each key and value with its length, -1 for NULL.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from typing import Final

from cdc.avro_binary import (
    END_OF_BLOCKS,
    NULL,
    PRESENT,
    bytes_at,
    bytes_bytes,
    items_at,
    long_bytes,
    optional,
)
from connectors.postgres.codec import SIZE, TAKE, Codec, Decode, Encode, connect, converted
from connectors.postgres.types_scalar import JSON

Pairs = dict[str, str | None]


def hstore_as_json() -> Codec:
    """A JSON object; a replica gets the literal."""
    return converted(
        "text",
        connect("string", JSON),
        lambda value: bytes_bytes(_json(_pairs(value))),
        lambda content: _literal(json.loads(content)),
        to_text=lambda value: _literal(_pairs(value)),
        from_text=_value,
        placeholder=lambda words: bytes_bytes(
            json.dumps({words.decode(): words.decode()}).encode()
        ),
    )


def hstore_as_map() -> Codec:
    """A map from texts to optional texts."""
    return replace(
        hstore_as_json(),
        avro={"type": "map", "values": ["null", "string"]},
        encode=Encode(TAKE, ("map_avro(f[q:o])",)),
        decode=Decode(("v, p = map_at(r, p)", "n = len(v)"), (SIZE, "v"), "v"),
        filler=END_OF_BLOCKS,
        placeholder=lambda words: _map({words.decode(): words.decode()}),
        scope={"map_avro": lambda value: _map(_pairs(value)), "map_at": _map_at},
    )


def _map(pairs: Pairs) -> bytes:
    if not pairs:
        return END_OF_BLOCKS
    return (
        long_bytes(len(pairs))
        + b"".join(
            bytes_bytes(key.encode())
            + optional(None if text is None else bytes_bytes(text.encode()))
            for key, text in pairs.items()
        )
        + END_OF_BLOCKS
    )


def _map_at(row: bytes, at: int) -> tuple[bytes, int]:
    """The literal of the map at ``at``, and where it ends."""

    def pair_at(data: bytes, at: int) -> tuple[tuple[str, str | None], int]:
        key, at = bytes_at(data, at)
        tag, at = data[at : at + 1], at + 1
        if tag == NULL:
            return (key.decode(), None), at
        if tag != PRESENT:
            raise ValueError("an unknown branch of a union")
        text, at = bytes_at(data, at)
        return (key.decode(), text.decode()), at

    pairs, at = items_at(row, at, pair_at)
    return _literal(dict(pairs)), at


def _pairs(value: bytes) -> Pairs:
    at, pairs = 4, Pairs()
    for _ in range(int.from_bytes(value[:4], "big")):
        key, at = _sized(value, at)
        text, at = _sized(value, at)
        pairs[key or ""] = text
    return pairs


def _json(pairs: Pairs) -> bytes:
    return json.dumps(pairs, ensure_ascii=False, separators=(",", ":")).encode()


def _sized(value: bytes, at: int) -> tuple[str | None, int]:
    size = int.from_bytes(value[at : at + 4], "big", signed=True)
    at += 4
    return (None, at) if size < 0 else (value[at : at + size].decode(), at + size)


def _literal(pairs: Pairs) -> bytes:
    def quoted(part: str) -> str:
        escaped = part.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'

    return ", ".join(
        f"{quoted(key)}=>{'NULL' if value is None else quoted(value)}"
        for key, value in pairs.items()
    ).encode()


_PAIR: Final = re.compile(r'"((?:[^"\\]|\\.)*)"=>(?:NULL|"((?:[^"\\]|\\.)*)")(?:, )?', re.DOTALL)


def _value(text: bytes) -> bytes:
    parts = []
    for match in _PAIR.finditer(text.decode()):
        for part in match.groups():
            if part is None:
                parts.append(struct.pack(">i", -1))
            else:
                raw = re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL).encode()
                parts.append(struct.pack(">i", len(raw)) + raw)
    return struct.pack(">i", len(parts) // 2) + b"".join(parts)

"""Ranges and multiranges, carried as their text. The binary form: flags, then each bound that there is, sized."""

from __future__ import annotations

from typing import Final

from connectors.postgres.codec import Codec, string_by

_EMPTY, _LOWER_IN, _UPPER_IN, _LOWER_OPEN, _UPPER_OPEN = 1, 2, 4, 8, 16

SUBTYPES: Final = {
    "int4": "integer",
    "int8": "bigint",
    "num": "numeric",
    "ts": "timestamp without time zone",
    "tstz": "timestamp with time zone",
    "date": "date",
}
"""The built-in range types' subtypes, by what precedes ``range`` and ``multirange``."""


def range_codec(pg_type: str, subtype: Codec) -> Codec:
    """A range over ``subtype``."""
    return string_by(
        pg_type,
        lambda value: _range_text(value, 0, len(value), subtype),
        lambda text: _range_at(text, 0, subtype)[0],
    )


def multirange_codec(pg_type: str, subtype: Codec) -> Codec:
    """A multirange over ``subtype``."""

    def to_text(value: bytes) -> bytes:
        at, parts = 4, []
        for _ in range(int.from_bytes(value[:4], "big")):
            size = int.from_bytes(value[at : at + 4], "big")
            parts.append(_range_text(value, at + 4, at + 4 + size, subtype))
            at += 4 + size
        return b"{" + b",".join(parts) + b"}"

    def from_text(text: bytes) -> bytes:
        at, parts = 1, []
        while text[at] != 125:
            if text[at] == 44:
                at += 1
            part, at = _range_at(text, at, subtype)
            parts.append(len(part).to_bytes(4, "big") + part)
        return len(parts).to_bytes(4, "big") + b"".join(parts)

    return string_by(pg_type, to_text, from_text)


def _range_text(value: bytes, at: int, end: int, subtype: Codec) -> bytes:
    flags, at = value[at], at + 1
    if flags & _EMPTY:
        return b"empty"
    bounds = []
    for open_flag in (_LOWER_OPEN, _UPPER_OPEN):
        if flags & open_flag:
            bounds.append(b"")
            continue
        size = int.from_bytes(value[at : at + 4], "big")
        bounds.append(_quoted(subtype.to_text(value[at + 4 : at + 4 + size])))
        at += 4 + size
    if at != end:
        raise ValueError("a torn range")
    head = b"[" if flags & _LOWER_IN else b"("
    return head + b",".join(bounds) + (b"]" if flags & _UPPER_IN else b")")


def _quoted(text: bytes) -> bytes:
    if text and not any(byte in b'"\\()[], \t\n\r\v\f' for byte in text):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'""') + b'"'


def _range_at(text: bytes, at: int, subtype: Codec) -> tuple[bytes, int]:
    """Binary form of the range whose text begins at ``at``, and where that ends."""
    if text[at : at + 5] == b"empty":
        return bytes((_EMPTY,)), at + 5
    flags = _LOWER_IN if text[at] == 91 else 0
    lower, at = _bound(text, at + 1)
    upper, at = _bound(text, at + 1)
    flags |= _UPPER_IN if text[at] == 93 else 0
    parts = [b""]
    for bound, open_flag in ((lower, _LOWER_OPEN), (upper, _UPPER_OPEN)):
        if bound is None:
            flags |= open_flag
        else:
            value = subtype.from_text(bound)
            parts.append(len(value).to_bytes(4, "big") + value)
    parts[0] = bytes((flags,))
    return b"".join(parts), at + 1


def _bound(text: bytes, at: int) -> tuple[bytes | None, int]:
    out = bytearray()
    quoted = any_quote = False
    while quoted or text[at] not in b",)]":
        byte = text[at]
        if byte == 34:
            if quoted and text[at + 1] == 34:
                out.append(34)
                at += 1
            else:
                quoted, any_quote = not quoted, True
        elif byte == 92:
            at += 1
            out.append(text[at])
        else:
            out.append(byte)
        at += 1
    return (bytes(out) if out or any_quote else None), at

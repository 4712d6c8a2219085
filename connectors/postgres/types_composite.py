"""Composite types, carried as their text: ``(1,"a b",)``.

The binary form (``record_send``): the count of fields, then each field's type, length and value.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from connectors.postgres.codec import Codec, Unread, pack_size, string_by, text_like, unknown

_COUNT: Final = struct.Struct(">i")
_FIELD: Final = struct.Struct(">Ii")
_SPECIAL: Final = b'"\\(), \t\n\r\v\f'


class Field(NamedTuple):
    """A field of a composite type: its type's oid and codec."""

    type_oid: int
    codec: Codec


def composite(fields: Sequence[Field]) -> Codec:
    """A composite type of these fields, as the catalog has them now.

    A value that was stored before fields were added ends early: what it lacks reads as NULL, as in the database. One
    of other fields is Unread.
    """
    if any(field.codec.text_only for field in fields):
        return unknown()

    def to_text(value: bytes) -> bytes:
        (count,) = _COUNT.unpack_from(value)
        if count > len(fields):
            raise Unread("a composite value of more fields than its type has in the catalog")
        at, parts = 4, []
        for field in fields[:count]:
            oid, size = _FIELD.unpack_from(value, at)
            at += 8
            if size < 0:
                parts.append(b"")
                continue
            if oid != field.type_oid:
                raise Unread("a composite value with a field of another type than the catalog has")
            parts.append(_quoted(field.codec.to_text(value[at : at + size])))
            at += size
        parts += [b""] * (len(fields) - count)
        return b"(" + b",".join(parts) + b")"

    def from_text(text: bytes) -> bytes:
        texts = _parsed(text) if fields else []
        if len(texts) != len(fields):
            raise ValueError(f"a composite value of {len(texts)} fields, not {len(fields)}")
        parts = [_COUNT.pack(len(fields))]
        for field, part in zip(fields, texts, strict=True):
            if part is None:
                parts.append(_FIELD.pack(field.type_oid, -1))
            else:
                value = field.codec.from_text(part)
                parts.append(field.type_oid.to_bytes(4, "big") + pack_size(len(value)) + value)
        return b"".join(parts)

    read = string_by("text", to_text, from_text)
    return replace(read, decode=text_like("text").decode, spelled=True)


def _quoted(text: bytes) -> bytes:
    if text and not any(byte in _SPECIAL for byte in text):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'""') + b'"'


def _parsed(text: bytes) -> list[bytes | None]:
    """The fields' texts; None for NULL, which is written as nothing."""
    fields: list[bytes | None] = []
    out = bytearray()
    quoted = any_quote = False
    at = 1
    while at < len(text):
        byte = text[at]
        if byte == 92:
            at += 1
            out.append(text[at])
        elif byte == 34:
            if quoted and text[at + 1] == 34:
                out.append(34)
                at += 1
            else:
                quoted, any_quote = not quoted, True
        elif not quoted and byte in b",)":
            fields.append(bytes(out) if out or any_quote else None)
            out, any_quote = bytearray(), False
        else:
            out.append(byte)
        at += 1
    return fields

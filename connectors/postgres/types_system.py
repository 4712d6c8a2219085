"""PostgreSQL's own identifiers, single bytes, and text search vectors: carried as their text."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import Final

from connectors.postgres.codec import Codec, string_by, text_like


def xid(pg_type: str, size: int) -> Codec:
    """``xid``, ``cid`` and ``xid8``: unsigned numbers."""
    return string_by(
        pg_type,
        lambda value: str(int.from_bytes(value, "big")).encode(),
        lambda text: int(text).to_bytes(size, "big"),
    )


def one_byte() -> Codec:
    """``"char"``: one byte; zero is the empty text, one that is not ASCII is an octal escape."""

    def to_text(value: bytes) -> bytes:
        return value.rstrip(b"\x00") if value < b"\x80" else b"\\%03o" % value[0]

    def from_text(text: bytes) -> bytes:
        return bytes((int(text[1:], 8),)) if len(text) == 4 else text or b"\x00"

    return string_by('"char"', to_text, from_text)


def tid() -> Codec:
    """``tid``: a page and a place on it."""

    def to_text(value: bytes) -> bytes:
        page, place = struct.unpack(">IH", value)
        return f"({page},{place})".encode()

    def from_text(text: bytes) -> bytes:
        page, place = text[1:-1].split(b",")
        return struct.pack(">IH", int(page), int(place))

    return string_by("tid", to_text, from_text)


def pg_lsn() -> Codec:
    """``pg_lsn``."""

    def to_text(value: bytes) -> bytes:
        high, low = struct.unpack(">II", value)
        return f"{high:X}/{low:X}".encode()

    def from_text(text: bytes) -> bytes:
        high, low = text.split(b"/")
        return struct.pack(">II", int(high, 16), int(low, 16))

    return string_by("pg_lsn", to_text, from_text)


def snapshot(pg_type: str) -> Codec:
    """``pg_snapshot`` and ``txid_snapshot``: ``xmin:xmax:xip,…``."""

    def to_text(value: bytes) -> bytes:
        (count,) = struct.unpack_from(">i", value)
        low, high, *running = struct.unpack_from(f">{count + 2}q", value, 4)
        return f"{low}:{high}:{','.join(map(str, running))}".encode()

    def from_text(text: bytes) -> bytes:
        low, high, running = text.split(b":")
        xids = [int(part) for part in running.split(b",") if part]
        return struct.pack(f">i{len(xids) + 2}q", len(xids), int(low), int(high), *xids)

    return string_by(pg_type, to_text, from_text)


def number_vector(code: str, element_oid: int) -> Codec:
    """``int2vector`` and ``oidvector``: ``1 2 3``. The binary form is an array's, from index 0 on.

    A replica gets the text: the server does not take its own binary form of an empty one.
    """
    size = struct.calcsize(code)
    head = struct.Struct(">iiIii")

    def to_text(value: bytes) -> bytes:
        items = struct.iter_unpack(f">i{code}", value[head.size :])
        return b" ".join(str(number).encode() for _, number in items)

    def from_text(text: bytes) -> bytes:
        numbers = [int(part) for part in text.split()]
        items = b"".join(struct.pack(f">i{code}", size, number) for number in numbers)
        return head.pack(1, 0, element_oid, len(numbers), 0) + items

    return replace(string_by("text", to_text, from_text), decode=text_like("text").decode)


_WEIGHTS: Final = "DCBA"
_LEXEME: Final = re.compile(rb"'((?:[^']|'')*)'(?::([0-9A-D,]+))?\s*")


def text_search_vector() -> Codec:
    """``tsvector``: lexemes with positions and weights."""
    return string_by("tsvector", _vector_text, _vector_value)


def _vector_text(value: bytes) -> bytes:
    at, parts = 4, []
    for _ in range(int.from_bytes(value[:4], "big")):
        end = value.index(b"\x00", at)
        lexeme = value[at:end].replace(b"\\", b"\\\\").replace(b"'", b"''")
        (count,) = struct.unpack_from(">H", value, end + 1)
        places = struct.unpack_from(f">{count}H", value, end + 3)
        at = end + 3 + 2 * count
        spelled = ",".join(
            f"{place & 0x3FFF}{_WEIGHTS[place >> 14] if place >> 14 else ''}" for place in places
        )
        parts.append(b"'" + lexeme + b"'" + (f":{spelled}".encode() if places else b""))
    return b" ".join(parts)


def _vector_value(text: bytes) -> bytes:
    parts = []
    at = 0
    while at < len(text):
        match = _LEXEME.match(text, at)
        if match is None:
            raise ValueError(f"not a tsvector: {text[at : at + 40]!r}")
        at = match.end()
        places = []
        for spelled in (match[2] or b"").decode().split(","):
            if spelled:
                weight = _WEIGHTS.index(spelled[-1]) if spelled[-1] in _WEIGHTS else 0
                places.append(int(spelled.rstrip(_WEIGHTS)) | weight << 14)
        lexeme = match[1].replace(b"''", b"'").replace(b"\\\\", b"\\")
        parts.append(lexeme + b"\x00" + struct.pack(f">H{len(places)}H", len(places), *places))
    return len(parts).to_bytes(4, "big") + b"".join(parts)

"""Arrays: Avro arrays of optional elements.

Avro's arrays have neither dimensions nor bounds. A column that is *declared* with more (``integer[][]``) is carried as
PostgreSQL's array literal. An array of more, or from another index than 1, that turns up in another column is carried
as the list of its elements, and Unfit: the literal has to stand beside the row.
The binary form (``array_send``): dimensions, whether there are NULLs, the element's oid; length and lower bound of
each dimension; then each element with its length.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from hashlib import md5
from math import prod
from typing import Final

from cdc.avro_binary import END_OF_BLOCKS, NULL, PRESENT, bytes_bytes, items_at, long_bytes
from connectors.postgres.codec import (
    SIZE,
    TAKE,
    Codec,
    Convert,
    Decode,
    Encode,
    Unfit,
    decoder_of,
    encoder_of,
    pack_size,
    string_by,
    unknown,
)

_HEAD: Final = struct.Struct(">iiI")
_BOUNDS: Final = struct.Struct(">ii")
_NO_VALUE: Final = pack_size(-1)


def array(element: Codec, oid: int, delimiter: str = ",") -> Codec:
    """An array of ``element``, whose type has this oid; ``delimiter`` stands between elements in its literal."""
    encode, decode = encoder_of(element), decoder_of(element)

    def to_avro(value: bytes) -> bytes:
        lengths, lowers, at = _shape(value)
        if not lengths:
            return END_OF_BLOCKS
        parts, exact = [long_bytes(prod(lengths))], True
        for _ in range(prod(lengths)):
            if value[at] == 255:
                parts.append(NULL)
                at += 4
                continue
            try:
                item, at = encode(value, at)
            except Unfit as unfit:
                if unfit.nearest is None:
                    raise
                item, at, exact = unfit.nearest, at + 4 + int.from_bytes(value[at : at + 4]), False
            parts += (PRESENT, item)
        avro = b"".join(parts) + END_OF_BLOCKS
        if lowers != [1]:
            raise Unfit(f"an array of {len(lengths)} dimensions, from {lowers}", avro)
        if not exact:
            raise Unfit("an array with an element that its form can only come near", avro)
        return avro

    def element_at(row: bytes, at: int) -> tuple[bytes | None, int]:
        if row[at] == 2:
            return decode(row, at + 1)
        if row[at]:
            raise ValueError("an unknown branch of a union")
        return None, at + 1

    def from_avro(row: bytes, at: int) -> tuple[bytes, int]:
        items, at = items_at(row, at, element_at)
        return array_binary((len(items),), (1,), items, oid), at

    return Codec(
        pg_type=f"{element.pg_type}[]",
        avro={"type": "array", "items": ["null", element.avro]},
        encode=Encode(TAKE, ("array_avro_@(f[q:o])",)),
        decode=Decode(("v, p = array_at_@(r, p)", "n = len(v)"), (SIZE, "v"), "v"),
        to_text=text_of(element, delimiter),
        from_text=value_of(element, oid, delimiter),
        filler=END_OF_BLOCKS,
        placeholder=_placeholder(element),
        text_only=element.text_only,
        scope={"array_avro_@": to_avro, "array_at_@": from_avro},
    )


def _shape(value: bytes) -> tuple[list[int], list[int], int]:
    """Lengths and lower bounds of an array's dimensions, and where its elements begin."""
    dimensions, _, _ = _HEAD.unpack_from(value)
    bounds = [_BOUNDS.unpack_from(value, 12 + 8 * at) for at in range(dimensions)]
    return [n for n, _ in bounds], [lower for _, lower in bounds], 12 + 8 * dimensions


def array_as_text(element: Codec, oid: int, delimiter: str = ",") -> Codec:
    """An array of any dimensions and bounds, as PostgreSQL's array literal."""
    if element.text_only:
        return unknown()
    return string_by(
        f"{element.pg_type}[]",
        text_of(element, delimiter),
        value_of(element, oid, delimiter),
    )


def _placeholder(element: Codec) -> Convert | None:
    """Debezium's: the placeholder as the only element, its bytes as whole numbers, or a uuid made of it."""
    if element.avro in ("int", "long"):
        return lambda words: _list_of([long_bytes(byte) for byte in words])
    if element.avro in ("string", "bytes"):
        return lambda words: _list_of([bytes_bytes(words)])
    if element.pg_type == "uuid":
        return lambda words: _list_of([bytes_bytes(_named_uuid(words))])
    return None


def _list_of(items: list[bytes]) -> bytes:
    return long_bytes(len(items)) + b"".join(PRESENT + item for item in items) + END_OF_BLOCKS


def _named_uuid(words: bytes) -> bytes:
    """Java's ``UUID.nameUUIDFromBytes``."""
    return str(uuid.UUID(bytes=md5(words, usedforsecurity=False).digest(), version=3)).encode()


def array_binary(
    lengths: tuple[int, ...], lowers: tuple[int, ...], items: list[bytes | None], oid: int
) -> bytes:
    """Binary form of an array of these elements, row by row."""
    if not items:
        return _HEAD.pack(0, 0, oid)
    parts = [_HEAD.pack(len(lengths), int(None in items), oid)]
    parts += (_BOUNDS.pack(*bounds) for bounds in zip(lengths, lowers, strict=True))
    for item in items:
        parts += (_NO_VALUE,) if item is None else (pack_size(len(item)), item)
    return b"".join(parts)


def text_of(element: Codec, delimiter: str) -> Convert:
    """A function from an array's binary form to its literal."""
    between = delimiter.encode()

    def text(value: bytes) -> bytes:
        lengths, lowers, at = _shape(value)
        items = []
        for _ in range(prod(lengths) if lengths else 0):
            size = int.from_bytes(value[at : at + 4], "big", signed=True)
            at += 4
            if size < 0:
                items.append(b"NULL")
            else:
                items.append(_quoted(element.to_text(value[at : at + size]), between))
                at += size
        if not items:
            return b"{}"
        for length in reversed(lengths):
            items = [
                b"{" + between.join(items[start : start + length]) + b"}"
                for start in range(0, len(items), length)
            ]
        if all(lower == 1 for lower in lowers):
            return items[0]
        bounds = zip(lengths, lowers, strict=True)
        head = "".join(f"[{lower}:{lower + length - 1}]" for length, lower in bounds)
        return head.encode() + b"=" + items[0]

    return text


def _quoted(text: bytes, delimiter: bytes) -> bytes:
    special = b'{}"\\ \t\n\r\v\f' + delimiter
    if text and text.upper() != b"NULL" and not any(byte in special for byte in text):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def value_of(element: Codec, oid: int, delimiter: str) -> Convert:
    """A function from an array's literal to its binary form."""
    between = ord(delimiter)

    def value(text: bytes) -> bytes:
        lowers: list[int] = []
        if text.startswith(b"["):
            head, _, text = text.partition(b"=")
            lowers = [int(part.split(b":")[0]) for part in head[1:-1].split(b"][")]
        lengths, items = _parsed(text, between, element.from_text)
        return array_binary(tuple(lengths), tuple(lowers or [1] * len(lengths)), items, oid)

    return value


def _parsed(
    text: bytes, delimiter: int, from_text: Callable[[bytes], bytes]
) -> tuple[list[int], list[bytes | None]]:
    """The length of each dimension, and the elements."""
    counts: list[int] = []
    lengths: dict[int, int] = {}
    items: list[bytes | None] = []
    at = 0
    while at < len(text):
        byte = text[at]
        if byte == 123:  # {
            counts.append(0)
            at += 1
        elif byte == 125:  # }
            lengths[len(counts)] = counts.pop()
            if counts:
                counts[-1] += 1
            at += 1
        elif byte == delimiter:
            at += 1
        else:
            item, at = _element(text, at, delimiter)
            items.append(None if item is None else from_text(item))
            counts[-1] += 1
    return [lengths[depth] for depth in sorted(lengths)], items


def _element(text: bytes, at: int, delimiter: int) -> tuple[bytes | None, int]:
    out = bytearray()
    if text[at] == 34:  # "
        at += 1
        while text[at] != 34:
            if text[at] == 92:
                at += 1
            out.append(text[at])
            at += 1
        return bytes(out), at + 1
    while text[at] not in (delimiter, 125):
        if text[at] == 92:
            at += 1
        out.append(text[at])
        at += 1
    return (None if out == b"NULL" else bytes(out)), at

"""The vectors of pgvector, in Debezium's forms. A replica gets their text, which casts to them."""

from __future__ import annotations

import struct
from typing import Any, Final

from cdc.avro_binary import END_OF_BLOCKS, items_at, long_at, long_bytes
from cdc.table import AvroType
from connectors.postgres.codec import SIZE, TAKE, Codec, Convert, Decode, Encode, Unfit
from connectors.postgres.types_scalar import real_text

DOUBLES: Final = "io.debezium.data.DoubleVector"
FLOATS: Final = "io.debezium.data.FloatVector"
SPARSE: Final = "io.debezium.data.SparseDoubleVector"

_SPARSE_HEAD: Final = struct.Struct(">iii")
_DOUBLE: Final = struct.Struct("<d")
_FLOAT: Final = struct.Struct("<f")
_SHORT_MAX: Final = 32767


def vector() -> Codec:
    """``vector``: an array of doubles, each what its element's text says."""

    def read(value: bytes) -> list[str]:
        return [real_text(value[at : at + 4]).decode() for at in range(4, len(value), 4)]

    return _array(read, DOUBLES, "double", _DOUBLE, "f")


def halfvec() -> Codec:
    """``halfvec``: an array of floats."""

    def read(value: bytes) -> list[str]:
        halves = struct.unpack(f">{len(value) // 2 - 2}e", value[4:])
        return [real_text(struct.pack(">f", half)).decode() for half in halves]

    return _array(read, FLOATS, "float", _FLOAT, "e")


def _array(read: Any, name: str, avro: str, number: struct.Struct, code: str) -> Codec:
    def to_text(value: bytes) -> bytes:
        return f"[{','.join(read(value))}]".encode()

    def from_text(text: bytes) -> bytes:
        numbers = [float(part) for part in text[1:-1].split(b",")]
        return struct.pack(f">HH{len(numbers)}{code}", len(numbers), 0, *numbers)

    def to_avro(value: bytes) -> bytes:
        numbers = [number.pack(float(part)) for part in read(value)]
        return long_bytes(len(numbers)) + b"".join(numbers) + END_OF_BLOCKS

    def item_at(row: bytes, at: int) -> tuple[str, int]:
        (found,) = number.unpack_from(row, at)
        return real_text(struct.pack(">f", found)).decode(), at + number.size

    def text_at(row: bytes, at: int) -> tuple[bytes, int]:
        items, at = items_at(row, at, item_at)
        return f"[{','.join(items)}]".encode(), at

    schema: AvroType = {"type": "array", "items": avro, "connect.version": 1, "connect.name": name}
    return _staged_as_text(schema, to_avro, text_at, to_text, from_text, END_OF_BLOCKS)


_SPARSE_SCHEMA: Final[AvroType] = {
    "type": "record",
    "name": "SparseDoubleVector",
    "namespace": "io.debezium.data",
    "fields": [
        {"name": "dimensions", "type": {"type": "int", "connect.type": "int16"}},
        {
            "name": "vector",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "MapEntry",
                    "namespace": "io.confluent.connect.avro",
                    "fields": [
                        {"name": "key", "type": {"type": "int", "connect.type": "int16"}},
                        {"name": "value", "type": "double"},
                    ],
                },
            },
        },
    ],
    "connect.doc": "Sparse double vector",
    "connect.version": 1,
    "connect.name": SPARSE,
}


def sparsevec() -> Codec:
    """``sparsevec``: its dimensions, and what is not zero by its place from 1 on. A short cannot count them all."""

    def parts(value: bytes) -> tuple[int, list[tuple[int, bytes]]]:
        dimensions, count, _ = _SPARSE_HEAD.unpack_from(value)
        places = struct.unpack_from(f">{count}i", value, 12)
        first = 12 + 4 * count
        numbers = (value[first + 4 * n : first + 4 * n + 4] for n in range(count))
        return dimensions, [(place + 1, n) for place, n in zip(places, numbers, strict=True)]

    def to_text(value: bytes) -> bytes:
        dimensions, found = parts(value)
        inside = ",".join(f"{place}:{real_text(number).decode()}" for place, number in found)
        return f"{{{inside}}}/{dimensions}".encode()

    def from_text(text: bytes) -> bytes:
        inside, _, dimensions = text.decode().partition("/")
        pairs = [part.split(":") for part in inside[1:-1].split(",") if part]
        return (
            _SPARSE_HEAD.pack(int(dimensions), len(pairs), 0)
            + struct.pack(f">{len(pairs)}i", *(int(place) - 1 for place, _ in pairs))
            + struct.pack(f">{len(pairs)}f", *(float(number) for _, number in pairs))
        )

    def to_avro(value: bytes) -> bytes:
        dimensions, found = parts(value)
        within = [(place, number) for place, number in found if place <= _SHORT_MAX]
        entries = b"".join(
            long_bytes(place) + _DOUBLE.pack(float(real_text(number))) for place, number in within
        )
        blocks = long_bytes(len(within)) + entries if within else b""
        avro = long_bytes(min(dimensions, _SHORT_MAX)) + blocks + END_OF_BLOCKS
        if dimensions > _SHORT_MAX:
            raise Unfit(f"a sparse vector of {dimensions} dimensions", avro)
        return avro

    def entry_at(row: bytes, at: int) -> tuple[str, int]:
        place, at = long_at(row, at)
        (number,) = _DOUBLE.unpack_from(row, at)
        return f"{place}:{real_text(struct.pack('>f', number)).decode()}", at + 8

    def text_at(row: bytes, at: int) -> tuple[bytes, int]:
        dimensions, at = long_at(row, at)
        entries, at = items_at(row, at, entry_at)
        return f"{{{','.join(entries)}}}/{dimensions}".encode(), at

    filler = b"\x00" + END_OF_BLOCKS
    return _staged_as_text(_SPARSE_SCHEMA, to_avro, text_at, to_text, from_text, filler)


def _staged_as_text(
    avro: AvroType,
    to_avro: Convert,
    text_at: Any,
    to_text: Convert,
    from_text: Convert,
    filler: bytes,
) -> Codec:
    return Codec(
        pg_type="text",
        avro=avro,
        encode=Encode(TAKE, ("to_avro_@(f[q:o])",)),
        decode=Decode(("v, p = text_at_@(r, p)", "n = len(v)"), (SIZE, "v"), "v"),
        to_text=to_text,
        from_text=from_text,
        filler=filler,
        scope={"to_avro_@": to_avro, "text_at_@": text_at},
    )

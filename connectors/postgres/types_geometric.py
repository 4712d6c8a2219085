"""Points and shapes. A point is Debezium's struct with its WKB; shapes are carried as their text."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Final

from cdc.avro_binary import raw_at
from cdc.table import AvroType
from connectors.postgres.codec import Codec, Decode, Encode, string_by
from connectors.postgres.types_scalar import double_text

POINT: Final = "io.debezium.data.geometry.Point"
POINT_SCHEMA: Final[AvroType] = {
    "type": "record",
    "name": "Point",
    "namespace": "io.debezium.data.geometry",
    "fields": [
        {"name": "x", "type": "double"},
        {"name": "y", "type": "double"},
        {"name": "wkb", "type": ["null", "bytes"], "default": None},
        {"name": "srid", "type": ["null", "int"], "default": None},
    ],
    "connect.doc": "Geometry (POINT)",
    "connect.version": 1,
    "connect.name": POINT,
}
_WKB: Final = bytes.fromhex("0101000000")


def point() -> Codec:
    """Point: x, y, the same as WKB, no reference system."""
    return Codec(
        pg_type="point",
        avro=POINT_SCHEMA,
        encode=Encode(
            (
                "if read_size(f, q)[0] != 16:",
                "    wrong_size(read_size(f, q)[0], 16)",
                "o = q + 20",
                "v = f[q + 11:q + 3:-1] + f[q + 19:q + 11:-1]",
            ),
            ("v", rf"b'\x02\x2a' + {_WKB!r} + v + b'\x00'"),
        ),
        decode=Decode(
            ("v = r[p:p + 8][::-1] + r[p + 8:p + 16][::-1]", "p = skip_point(r, p + 16)"),
            (r"b'\x00\x00\x00\x10'", "v"),
            "v",
        ),
        to_text=_point_text,
        from_text=numbers_value(0),
        filler=bytes(18),
        scope={"skip_point": _skip},
    )


def _skip(row: bytes, at: int) -> int:
    """Where the point ends whose WKB's tag is at ``at``."""
    tag, at = row[at], at + 1
    if tag:
        raw, at = raw_at(row, at)
        at += raw >> 1
    tag, at = row[at], at + 1
    return raw_at(row, at)[1] if tag else at


def _doubles(value: bytes) -> list[str]:
    return [double_text(value[at : at + 8]).decode() for at in range(0, len(value), 8)]


def _pairs(value: bytes) -> list[str]:
    numbers = _doubles(value)
    return [f"({x},{y})" for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def _point_text(value: bytes) -> bytes:
    return _pairs(value)[0].encode()


_NUMBER: Final = re.compile(rb"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|Infinity|NaN)")


def _packed(text: bytes) -> bytes:
    return b"".join(struct.pack(">d", float(number)) for number in _NUMBER.findall(text))


def numbers_value(header: int) -> Callable[[bytes], bytes]:
    """A function from a shape's text to its doubles; ``header`` is the size of a count of points before them."""

    def value(text: bytes) -> bytes:
        packed = _packed(text)
        return ((len(packed) // 16).to_bytes(4, "big") if header else b"") + packed

    return value


def _path_value(text: bytes) -> bytes:
    closed = b"\x00" if text.startswith(b"[") else b"\x01"
    return closed + numbers_value(4)(text)


def _path_text(value: bytes) -> bytes:
    inside = ",".join(_pairs(value[5:]))
    return (f"({inside})" if value[0] else f"[{inside}]").encode()


def _circle_text(value: bytes) -> bytes:
    x, y, radius = _doubles(value)
    return f"<({x},{y}),{radius}>".encode()


def shape(pg_type: str) -> Codec:
    """Line, lseg, box, path, polygon or circle, as text."""
    to_text, from_text = _SHAPES[pg_type]
    return string_by(pg_type, to_text, from_text)


_SHAPES: Final[dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]]] = {
    "line": (lambda v: f"{{{','.join(_doubles(v))}}}".encode(), numbers_value(0)),
    "lseg": (lambda v: f"[{','.join(_pairs(v))}]".encode(), numbers_value(0)),
    "box": (lambda v: ",".join(_pairs(v)).encode(), numbers_value(0)),
    "path": (_path_text, _path_value),
    "polygon": (lambda v: f"({','.join(_pairs(v[4:]))})".encode(), numbers_value(4)),
    "circle": (_circle_text, numbers_value(0)),
}
SHAPES: Final = tuple(_SHAPES)
"""The names of the shapes."""

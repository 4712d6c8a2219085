"""Numbers of fixed size, booleans, text, bytes and documents."""

from __future__ import annotations

import struct
import uuid
from typing import Final

from cdc.avro_binary import bytes_bytes
from cdc.table import AvroType
from connectors.postgres.codec import (
    LENGTH,
    READ_BYTES,
    READ_LONG,
    SIZE,
    TAKE,
    WRITE_LONG,
    Codec,
    Convert,
    Decode,
    Encode,
    connect,
    text_like,
)

JSON: Final = "io.debezium.data.Json"
UUID: Final = "io.debezium.data.Uuid"
_GREATEST_REAL: Final = 3.4028235e38  # a little above it, as its shortest text is
XML: Final = "io.debezium.data.Xml"


def integer(pg_type: str, avro: AvroType, code: str, *, direct: bool = True) -> Codec:
    """A whole number, by its struct code: carried as Avro int or long, whichever ``avro`` says."""
    size = struct.calcsize(f">{code}")
    number = struct.Struct(f">{code}")
    sized = struct.Struct(f">i{code}")
    return Codec(
        pg_type=pg_type,
        avro=avro,
        encode=Encode(
            (
                f"n, v = unpack_sized_{code}(f, q)",
                f"if n != {size}:",
                f"    wrong_size(n, {size})",
                f"o = q + {size + 4}",
                *WRITE_LONG,
            ),
            ("v",),
            ("uint" if code.isupper() else "int", size),
        ),
        decode=Decode(
            READ_LONG,
            (f"pack_sized_{code}({size}, v)",),
            f"pack_{code}(v)",
            ("uint" if code == "I" else "int", size),
        ),
        to_text=lambda value: str(number.unpack(value)[0]).encode(),
        from_text=lambda text: number.pack(int(text)),
        filler=b"\x00",
        direct=direct,
        scope={
            f"unpack_sized_{code}": sized.unpack_from,
            f"pack_sized_{code}": sized.pack,
            f"pack_{code}": number.pack,
        },
    )


def floating(pg_type: str, avro: AvroType, size: int) -> Codec:
    """IEEE numbers: the same bits on both sides, in the other order."""
    prefix = struct.pack(">i", size)
    return Codec(
        pg_type=pg_type,
        avro=avro,
        encode=Encode(
            (
                f"if f[q:q + 4] != {prefix!r}:",
                f"    wrong_size(read_size(f, q)[0], {size})",
                f"o = q + {size + 4}",
            ),
            (f"f[q + {size + 3}:q + 3:-1]",),
            ("float", size),
        ),
        decode=Decode(
            ("s = p", f"p += {size}"),
            (repr(prefix), "r[s:p][::-1]"),
            "r[s:p][::-1]",
            ("float", size),
        ),
        to_text=double_text if size == 8 else real_text,
        from_text=_double_value if size == 8 else _real_value,
        filler=bytes(size),
    )


def double_text(value: bytes) -> bytes:
    """The shortest text that reads back as the same double, as PostgreSQL writes it."""
    (number,) = struct.unpack(">d", value)
    return float_text(repr(number), 15)


def real_text(value: bytes) -> bytes:
    """The shortest text that reads back as the same four-byte float, as PostgreSQL writes it."""
    (number,) = struct.unpack(">f", value)
    for digits in range(1, 9):
        shorter = float(f"{number:.{digits}g}")
        if abs(shorter) <= _GREATEST_REAL and struct.pack(">f", shorter) == value:
            return float_text(repr(shorter), 6)
    number = float(f"{number:.9g}")
    return float_text(repr(number), 6)


def float_text(text: str, widest: int) -> bytes:
    """Python's shortest digits in PostgreSQL's notation, whose exponents begin at ``widest`` digits."""
    if text in {"nan", "-nan"}:
        return b"NaN"
    if text in {"inf", "-inf"}:
        return b"-Infinity" if text[0] == "-" else b"Infinity"
    mantissa, _, exponent = text.partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    fraction = fraction.rstrip("0")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return sign.encode() + b"0"
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if point - 1 < -4 or point - 1 >= widest:
        tail = f".{digits[1:]}" if digits[1:] else ""
        return f"{sign}{digits[0]}{tail}e{point - 1:+03d}".encode()
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}".encode()
    tail = f".{digits[point:]}" if digits[point:] else ""
    return f"{sign}{digits[:point].ljust(point, '0')}{tail}".encode()


def _double_value(text: bytes) -> bytes:
    return struct.pack(">d", float(text))


def _real_value(text: bytes) -> bytes:
    return struct.pack(">f", float(text))


def boolean() -> Codec:
    """Boolean."""
    return Codec(
        pg_type="boolean",
        avro="boolean",
        # PostgreSQL sends a byte of 0 or 1, which is Avro's form too.
        encode=Encode(("o = q + 5",), ("f[q + 4:o]",), ("bool", 0)),
        decode=Decode(
            ("v = r[p]", "p += 1"),
            ("SIZED_TRUE if v else SIZED_FALSE",),
            "TRUE if v else FALSE",
            ("bool", 0),
        ),
        to_text=lambda value: b"t" if value == b"\x01" else b"f",
        from_text=lambda text: b"\x01" if text[:1] in b"tT1yY" else b"\x00",
        filler=b"\x00",
        direct=True,
        scope={
            "TRUE": b"\x01",
            "FALSE": b"\x00",
            "SIZED_TRUE": b"\x00\x00\x00\x01\x01",
            "SIZED_FALSE": b"\x00\x00\x00\x01\x00",
        },
    )


def binary() -> Codec:
    """Bytea: the same bytes."""
    return Codec(
        pg_type="bytea",
        avro="bytes",
        encode=Encode(TAKE, (LENGTH, "f[q:o]"), ("bytes", 0)),
        decode=Decode(READ_BYTES, (SIZE, "r[s:p]"), "r[s:p]", ("bytes", 0)),
        to_text=lambda value: b"\\x" + value.hex().encode(),
        from_text=_bytea_value,
        filler=b"\x00",
        placeholder=bytes_bytes,
        direct=True,
    )


def _bytea_value(text: bytes) -> bytes:
    if text.startswith(b"\\x"):
        return bytes.fromhex(text[2:].decode())
    out = bytearray()  # bytea_output = escape
    at = 0
    while at < len(text):
        if text[at] != 92:
            out.append(text[at])
            at += 1
        elif text[at + 1] == 92:
            out.append(92)
            at += 2
        else:
            out.append(int(text[at + 1 : at + 4], 8))
            at += 4
    return bytes(out)


def versioned(pg_type: str, avro: AvroType) -> Codec:
    """Types whose binary form is a version byte, 1, and their text: jsonb, jsonpath, ltree."""
    return Codec(
        pg_type=pg_type,
        avro=avro,
        encode=Encode(
            (
                "n = read_size(f, q)[0] - 1",
                "if f[q + 4] != 1:",
                "    unknown_version(f[q + 4])",
                "q += 5",
                "o = q + n",
            ),
            (LENGTH, "f[q:o]"),
            ("versioned", 0),
        ),
        decode=Decode(
            (*READ_BYTES, "n += 1"),
            (SIZE, r"b'\x01'", "r[s:p]"),
            r"b'\x01' + r[s:p]",
            ("versioned", 0),
        ),
        to_text=lambda value: value[1:],
        from_text=lambda text: b"\x01" + text,
        filler=b"\x00",
        placeholder=bytes_bytes,
        scope={"unknown_version": _unknown_version},
    )


def _unknown_version(version: int) -> None:
    raise ValueError(f"binary format version {version} where only 1 is known")


def jsonb() -> Codec:
    """Jsonb, as text."""
    return versioned("jsonb", connect("string", JSON))


def json() -> Codec:
    """Json: its text is kept to the byte."""
    return text_like("json", connect("string", JSON))


def xml() -> Codec:
    """Xml: its text is kept to the byte."""
    return text_like("xml", connect("string", XML))


def identifier() -> Codec:
    """Uuid, in lower case with its dashes."""
    to_text: Convert = _uuid_text
    from_text: Convert = _uuid_value
    return Codec(
        pg_type="uuid",
        avro=connect("string", UUID),
        encode=Encode(
            (
                "if read_size(f, q)[0] != 16:",
                "    wrong_size(read_size(f, q)[0], 16)",
                "o = q + 20",
                "v = f[q + 4:o].hex()",
            ),
            ("b'\\x48' + f'{v[:8]}-{v[8:12]}-{v[12:16]}-{v[16:20]}-{v[20:]}'.encode()",),
            ("uuid", 0),
        ),
        decode=Decode(
            (*READ_BYTES, "v = uuid_value(r[s:p])"),
            (r"b'\x00\x00\x00\x10'", "v"),
            "v",
            ("uuid", 0),
        ),
        to_text=to_text,
        from_text=from_text,
        filler=b"\x00",
        direct=True,
        scope={"uuid_value": _uuid_value},
    )


def _uuid_text(value: bytes) -> bytes:
    return str(uuid.UUID(bytes=value)).encode()


def _uuid_value(text: bytes) -> bytes:
    value = bytes.fromhex(text.replace(b"-", b"").strip(b"{}").decode())
    if len(value) != 16:
        raise ValueError(f"not a uuid: {text!r}")
    return value

"""Bit strings.

``bit(1)`` is a boolean. ``bit(n)`` is Debezium's ``Bits``: the number that the bits spell, little-endian, in as few
bytes as n bits need. A ``bit varying`` value has a length of its own, which the number does not tell: it is padded
with zero bytes until there are as many *bytes* as bits. A reader of ``Bits`` sees the same set of bits.
"""

from __future__ import annotations

from typing import Final

from cdc.avro_binary import bytes_bytes
from connectors.postgres.codec import Codec, Decode, Encode, connect, converted

BITS: Final = "io.debezium.data.Bits"
_UNBOUNDED: Final = (1 << 31) - 1


def bit(length: int) -> Codec:
    """``bit(n)``."""
    if length == 1:
        return _one_bit()
    size = (length + 7) // 8

    def to_avro(value: bytes) -> bytes:
        if int.from_bytes(value[:4], "big") != length:
            raise ValueError("a bit string of another length than its column declares")
        number = int.from_bytes(value[4:], "big") >> size * 8 - length
        return bytes_bytes(number.to_bytes(size, "little"))

    def from_content(content: bytes) -> bytes:
        return bits_value(int.from_bytes(content, "little"), length)

    return converted(
        f"bit({length})",
        connect("bytes", BITS, {"length": str(length)}),
        to_avro,
        from_content,
        to_text=bits_text,
        from_text=bits_of_text,
    )


def bit_varying(pg_type: str, limit: int | None) -> Codec:
    """``bit varying``, and ``"bit"`` without a length."""

    def to_avro(value: bytes) -> bytes:
        length = int.from_bytes(value[:4], "big")
        number = int.from_bytes(value[4:], "big") >> len(value[4:]) * 8 - length
        return bytes_bytes(number.to_bytes(length, "little"))

    def from_content(content: bytes) -> bytes:
        return bits_value(int.from_bytes(content, "little"), len(content))

    return converted(
        pg_type,
        connect("bytes", BITS, {"length": str(limit or _UNBOUNDED)}),
        to_avro,
        from_content,
        to_text=bits_text,
        from_text=bits_of_text,
    )


def _one_bit() -> Codec:
    return Codec(
        pg_type="bit(1)",
        avro="boolean",
        encode=Encode(("v = f[q + 8]", "o = q + 9"), (r"b'\x01' if v else b'\x00'",)),
        decode=Decode(("v = ONE if r[p] else ZERO", "p += 1"), (r"b'\x00\x00\x00\x05'", "v"), "v"),
        to_text=bits_text,
        from_text=bits_of_text,
        filler=b"\x00",
        scope={"ONE": b"\x00\x00\x00\x01\x80", "ZERO": b"\x00\x00\x00\x01\x00"},
    )


def bits_value(number: int, length: int) -> bytes:
    """Binary form of the bit string of this length that spells the number. OverflowError when it is too short."""
    size = (length + 7) // 8
    if number >> length:
        raise OverflowError(f"{number} has more than {length} bits")
    return length.to_bytes(4, "big") + (number << size * 8 - length).to_bytes(size, "big")


def bits_text(value: bytes) -> bytes:
    """The zeros and ones."""
    length = int.from_bytes(value[:4], "big")
    return "".join(f"{byte:08b}" for byte in value[4:])[:length].encode()


def bits_of_text(text: bytes) -> bytes:
    """Binary form of zeros and ones."""
    return bits_value(int(text or b"0", 2), len(text))

"""Network addresses, as PostgreSQL writes them."""

from __future__ import annotations

import ipaddress

from connectors.postgres.codec import Codec, string_by


def address(pg_type: str) -> Codec:
    """``inet`` or ``cidr``: the binary form holds family, netmask bits, whether it is a cidr, and the address."""
    is_cidr = pg_type == "cidr"

    def to_text(value: bytes) -> bytes:
        return address_text(value, always_bits=is_cidr)

    return string_by(pg_type, to_text, lambda text: _value(text, is_cidr=is_cidr))


def address_text(value: bytes, *, always_bits: bool) -> bytes:
    """Text of an address; a host's full netmask is left out of an inet."""
    _, bits, _, size = value[:4]
    packed = value[4 : 4 + size]
    text = ".".join(map(str, packed)) if size == 4 else _v6_text(packed)
    return (text if bits == size * 8 and not always_bits else f"{text}/{bits}").encode()


def _v6_text(packed: bytes) -> str:
    mapped = packed[:10] == bytes(10) and packed[10:12] in (b"\xff\xff", b"\x00\x00")
    if mapped and (packed[10:12] == b"\xff\xff" or packed[12:14] != b"\x00\x00"):
        prefix = "::ffff:" if packed[10:12] == b"\xff\xff" else "::"
        return prefix + ".".join(map(str, packed[12:]))
    return str(ipaddress.IPv6Address(packed))


def _value(text: bytes, *, is_cidr: bool) -> bytes:
    spelled, _, bits = text.decode().partition("/")
    packed = ipaddress.ip_address(spelled).packed
    size = len(packed)
    family = 2 if size == 4 else 3
    return bytes((family, int(bits) if bits else size * 8, is_cidr, size)) + packed


def hardware(pg_type: str) -> Codec:
    """``macaddr`` or ``macaddr8``."""
    return string_by(pg_type, lambda value: value.hex(":").encode(), _hardware_value)


def _hardware_value(text: bytes) -> bytes:
    return bytes.fromhex(text.decode().replace(":", ""))

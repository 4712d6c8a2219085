"""Bytea as text: ``binary.handling.mode`` base64, base64-url-safe and hex.

``cdc.encoding`` in the form's parameters tells a reader which of them it is: the form alone is a string.
"""

from __future__ import annotations

import base64
from typing import Final

from cdc.avro_binary import bytes_bytes
from connectors.postgres.codec import Codec, Convert, converted
from connectors.postgres.handling import Binaries
from connectors.postgres.types_scalar import binary

ENCODING: Final = "cdc.encoding"

_WAYS: Final[dict[Binaries, tuple[Convert, Convert]]] = {
    "base64": (base64.b64encode, base64.b64decode),
    "base64-url-safe": (base64.urlsafe_b64encode, base64.urlsafe_b64decode),
    "hex": (lambda value: value.hex().encode(), lambda text: bytes.fromhex(text.decode())),
}


def binary_by(mode: Binaries) -> Codec:
    """Bytea in this mode."""
    plain = binary()
    if mode == "bytes":
        return plain
    encode, decode = _WAYS[mode]
    return converted(
        "bytea",
        {"type": "string", "connect.parameters": {ENCODING: mode}},
        lambda value: bytes_bytes(encode(value)),
        decode,
        to_text=plain.to_text,
        from_text=plain.from_text,
        placeholder=lambda words: bytes_bytes(encode(words)),
        direct=True,
    )

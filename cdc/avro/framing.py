"""Confluent's framing: byte 0, the schema's id in four big-endian bytes, then Avro."""

from __future__ import annotations

FRAME_SIZE = 5


def frame(schema_id: int) -> bytes:
    """The five bytes in front of Avro written with this schema."""
    return b"\x00" + schema_id.to_bytes(4, "big")

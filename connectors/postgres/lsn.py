"""Log positions in PostgreSQL's text form, ``16/B374D848``."""

from __future__ import annotations


def parse_lsn(text: str) -> int:
    """Bytes since the log's beginning; ValueError when the text is not an LSN."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def format_lsn(lsn: int) -> str:
    """The text form of an LSN."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"

"""Numeric and money as text or as doubles: ``decimal.handling.mode`` string and double.

A double carries about fifteen digits, and no count of zeros behind the point: what it cannot carry is Unfit.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from cdc.avro_binary import bytes_bytes
from connectors.postgres.codec import Codec, Convert, converted, lossy
from connectors.postgres.decimals import numeric_text, numeric_value
from connectors.postgres.numeric import money_text, money_value

# io.debezium.data.SpecialValueDecimal's words for what is no number
_WORDS: Final = {
    b"NaN": b"NAN",
    b"Infinity": b"POSITIVE_INFINITY",
    b"-Infinity": b"NEGATIVE_INFINITY",
}
_MOST_MONEY: Final = Decimal("92233720368547758.07")
_SPECIAL: Final = {word: text for text, word in _WORDS.items()}


def numeric_as_string(precise: Codec) -> Codec:
    """Its digits, with the zeros behind the point; Debezium's words for NaN and the infinities."""

    def to_avro(value: bytes) -> bytes:
        text = numeric_text(value)
        return bytes_bytes(_WORDS.get(text, text))

    def from_content(content: bytes) -> bytes:
        return numeric_value(_SPECIAL.get(content, content))

    return _as_string(precise, to_avro, from_content)


def money_as_string(precise: Codec) -> Codec:
    """Units and hundredths, without a currency."""
    return _as_string(precise, lambda value: bytes_bytes(money_text(value)), money_value)


def numeric_as_double(precise: Codec, scale: int | None) -> Codec:
    """The nearest double; ``scale`` is the declared one."""

    def back(number: float) -> bytes:
        text = repr(number)
        if scale is None or text[-1] in "fn":  # inf, nan
            return numeric_value(
                {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}.get(text) or _plain(text)
            )
        return numeric_value(f"{Decimal(text):.{scale}f}".encode())

    return lossy(precise.pg_type, "double", lambda value: float(numeric_text(value)), back, precise)


def money_as_double(precise: Codec) -> Codec:
    """The nearest double."""

    def back(number: float) -> bytes:
        within = max(-_MOST_MONEY, min(_MOST_MONEY, Decimal(repr(number))))
        return money_value(f"{within:.2f}".encode())

    return lossy("money", "double", lambda value: float(money_text(value)), back, precise)


def _plain(text: str) -> bytes:
    """A double's shortest digits as a numeric has them: without an exponent, without a zero behind a bare point."""
    return f"{Decimal(text.removesuffix('.0')):f}".encode()


def _as_string(precise: Codec, to_avro: Convert, from_content: Convert) -> Codec:
    return converted(
        precise.pg_type,
        "string",
        to_avro,
        from_content,
        to_text=precise.to_text,
        from_text=precise.from_text,
        direct=precise.direct,
    )

"""What may be done to a column's text before it leaves the source: cut, starred, hashed; for rows, and in SQL for digests.

The bytes are Debezium's, but for a cut, which counts characters and never splits one (Debezium counts UTF-16 units):
debezium-connector-common, ``relational/mapping/MaskStrings.java`` and ``TruncateColumn.java``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from psycopg.sql import SQL, Composable
from psycopg.sql import Literal as Quoted

from cdc.avro_binary import PRESENT, bytes_bytes
from cdc.table import AvroType
from connectors.postgres.codec import READ_BYTES, TAKE, Codec, Decode, Encode, same

Strategy = Literal["java", "plain"]
"""What of a string is hashed: its serialised Java object (Debezium's first version), or its UTF-8 bytes (``v2``)."""

ALGORITHMS: Final[Mapping[str, str]] = {
    "MD5": "md5",
    "SHA": "sha1",
    "SHA-1": "sha1",
    "SHA-224": "sha224",
    "SHA-256": "sha256",
    "SHA-384": "sha384",
    "SHA-512": "sha512",
    "SHA3-224": "sha3_224",
    "SHA3-256": "sha3_256",
    "SHA3-384": "sha3_384",
    "SHA3-512": "sha3_512",
}
"""Java's names of hash functions, and Python's."""

_IN_SQL = ("md5", "sha224", "sha256", "sha384", "sha512")
_SHORT_STRING, _LONG_STRING = b"\xac\xed\x00\x05t", b"\xac\xed\x00\x05|"
_MOST_SHORT = 65535


@dataclass(frozen=True, slots=True)
class Truncation:
    """Texts longer than ``length`` characters are cut."""

    length: int

    @property
    def parameters(self) -> Mapping[str, str]:
        """What Debezium says of it in the column's schema."""
        return {"truncateLength": str(self.length)}

    def apply(self, text: bytes) -> bytes:
        """The first characters."""
        return text if len(text) <= self.length else text.decode()[: self.length].encode()

    def in_sql(self, text: Composable) -> Composable:
        """The same of an expression of type text."""
        return SQL("left({}, {})").format(text, Quoted(self.length))


@dataclass(frozen=True, slots=True)
class Stars:
    """Every value, NULL too, becomes ``count`` asterisks."""

    count: int

    @property
    def parameters(self) -> Mapping[str, str]:
        """What Debezium says of it in the column's schema."""
        return {"masked": "true"}

    def apply(self, _: bytes) -> bytes:
        """The asterisks."""
        return b"*" * self.count

    def in_sql(self, _: Composable) -> Composable:
        """The same, whatever the expression."""
        return Quoted("*" * self.count)


@dataclass(frozen=True, slots=True)
class Hash:
    """Texts become the hexadecimal hash of salt and text, cut to the column's own ``length`` (0: it has none)."""

    algorithm: str
    salt: bytes = field(repr=False)
    strategy: Strategy
    length: int = 0

    @property
    def parameters(self) -> Mapping[str, str]:
        """What Debezium says of it in the column's schema."""
        return {"masked": "true"}

    def apply(self, text: bytes) -> bytes:
        """The hash."""
        hashed = text if self.strategy == "plain" else _serialised(text)
        digest = hashlib.new(self.algorithm, self.salt + hashed, usedforsecurity=False).hexdigest()
        return (digest[: self.length] if self.length else digest).encode()

    def in_sql(self, text: Composable) -> Composable | None:
        """The same of an expression of type text; None where the server has no such function."""
        if self.algorithm not in _IN_SQL:
            return None
        content: Composable = SQL("convert_to({}, 'UTF8')").format(text)
        if self.strategy == "java":
            content = _serialised_in_sql(text)
        salted = SQL("{}::bytea || {}").format(Quoted(f"\\x{self.salt.hex()}"), content)
        function = SQL(
            "md5({})" if self.algorithm == "md5" else f"encode({self.algorithm}({{}}), 'hex')"
        )
        digest: Composable = function.format(salted)
        return SQL("left({}, {})").format(digest, Quoted(self.length)) if self.length else digest


Mask = Truncation | Stars | Hash


def told_in_sql(mask: Mask) -> bool:
    """Whether a digest can do the same to the source's column."""
    return mask.in_sql(SQL("''")) is not None


def masked(mask: Mask) -> Codec:
    """The codec of a column of texts under a mask: a string, in the replica a ``text``."""
    avro: AvroType = {"type": "string", "connect.parameters": dict(mask.parameters)}
    apply = mask.apply
    to_avro: Callable[[bytes], bytes] = lambda text: bytes_bytes(apply(text))  # noqa: E731 - it is bound, not named
    return Codec(
        pg_type="text",
        avro=avro,
        encode=Encode(TAKE, ("masked_@(f[q:o])",)),
        decode=Decode(READ_BYTES, ("pack_size(n)", "r[s:p]"), "r[s:p]"),
        to_text=same,
        from_text=same,
        filler=b"\x00",
        placeholder=bytes_bytes,
        null=PRESENT + to_avro(b"") if isinstance(mask, Stars) else None,
        scope={"masked_@": to_avro},
    )


def _serialised(text: bytes) -> bytes:
    """Java's ObjectOutputStream of a String: stream header, type, length, and UTF-8 of UTF-16 units.

    https://docs.oracle.com/en/java/javase/17/docs/specs/serialization/protocol.html
    """
    # PostgreSQL's texts hold no NUL, the one other character that is written in a form of its own.
    units = text.decode().encode("utf-16-be")
    written = b"".join(
        chr(int.from_bytes(units[at : at + 2], "big")).encode("utf-8", "surrogatepass")
        for at in range(0, len(units), 2)
    )
    if len(written) <= _MOST_SHORT:
        return _SHORT_STRING + len(written).to_bytes(2, "big") + written
    return _LONG_STRING + len(written).to_bytes(8, "big") + written


def _serialised_in_sql(text: Composable) -> Composable:
    # A character beyond 16 bits is written as two units of three bytes each; every other one is UTF-8.
    return SQL(
        r"""(SELECT CASE WHEN octet_length(b) <= {most}
                    THEN '\xaced000574'::bytea || substring(int8send(octet_length(b)) FROM 7)
                    ELSE '\xaced00057c'::bytea || int8send(octet_length(b)) END || b
             FROM (SELECT coalesce(string_agg(CASE WHEN c < 65536 THEN convert_to(t, 'UTF8') ELSE decode(
                              to_hex(15573120 + (h >> 6 << 8) + (h & 63)) || to_hex(15577216 + (l >> 6 << 8) + (l & 63)),
                              'hex') END, '' ORDER BY n), '') AS b
                   FROM regexp_split_to_table({text}, '') WITH ORDINALITY AS s (t, n),
                        ascii(t) AS c, LATERAL (SELECT (c - 65536) >> 10, (c - 65536) & 1023) AS u (h, l)) w WHERE {text} IS NOT NULL)"""
    ).format(most=Quoted(_MOST_SHORT), text=text)

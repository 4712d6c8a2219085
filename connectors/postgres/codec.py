"""What is known of one PostgreSQL type: its Avro form, and the code that turns either form into the other.

The code is text: `transcoder` and `tuples` put the snippets of a table's columns into one function, so that no
column costs a call. A snippet of ``encode`` runs with

- ``f``: bytes that hold a binary value, ``q``: where its four-byte length stands;

and has to set ``o`` to the value's end; its ``pieces`` are expressions of the Avro bytes. One of ``decode`` runs with

- ``r``: bytes of an Avro row, ``p``: where the value stands (behind a union's tag);

and has to move ``p`` behind it; ``sized`` are expressions of PostgreSQL's binary form with its length in front,
``value`` one without. An ``@`` in a snippet becomes the column's number. Every other name is local, or in ``scope``,
or in `SCOPE`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from cdc.avro_binary import (
    HEADS,
    LONGS,
    PAIRS,
    TAILS,
    bytes_bytes,
    four_pairs,
    long_bytes,
    raw_at,
)
from cdc.table import AvroType

Convert = Callable[[bytes], bytes]


class Unfit(ValueError):
    """A value that its column's form cannot carry.

    ``nearest`` are the Avro bytes of what comes nearest: the value itself has to stand beside the row. Without them
    the caller stops at the value; it is never bent.
    """

    def __init__(self, why: str, nearest: bytes | None = None) -> None:
        super().__init__(why)
        self.nearest = nearest


class Unread(ValueError):
    """A binary form that is not understood here: the server can tell the value's text."""


@dataclass(frozen=True, slots=True)
class Encode:
    """Binary to Avro, as code.

    ``native`` names the operation of ``native/values.h`` that does the same, and its parameter; ``call`` is none: the
    accelerator calls the code. It stands here so that who gives a type other code cannot leave it behind.
    """

    lines: tuple[str, ...]
    pieces: tuple[str, ...]
    native: tuple[str, int] = ("call", 0)


@dataclass(frozen=True, slots=True)
class Decode:
    """Avro to binary, as code.

    ``native`` names the operation of ``native/fields.h`` that does the same, and its parameter; ``call`` is none: the
    accelerator calls the code.
    """

    lines: tuple[str, ...]
    sized: tuple[str, ...]
    value: str
    native: tuple[str, int] = ("call", 0)


@dataclass(frozen=True, slots=True)
class Codec:
    """A type. ``pg_type`` is the type whose binary form this is: what a staging column is declared as.

    ``to_text`` and ``from_text`` convert between binary and PostgreSQL's text form.
    ``filler`` is what stands in for a value that the log did not carry. ``placeholder`` makes the form of one that it
    left unchanged, of the words chosen for that (None: the filler, or null where that may stand). ``null`` is what becomes of a NULL, with its tag (None: null).
    ``direct``: equal values have equal binary forms and equal hashes, so a digest takes the column as it is.
    ``text_only``: the binary form is not understood; a copy has to bring the value as text, in the log it is Unread.
    ``spelled``: the Avro form is PostgreSQL's text itself.
    """

    pg_type: str
    avro: AvroType
    encode: Encode
    decode: Decode
    to_text: Convert
    from_text: Convert
    filler: bytes
    placeholder: Convert | None = None
    direct: bool = False
    text_only: bool = False
    null: bytes | None = None
    spelled: bool = False
    scope: Mapping[str, object] = field(default_factory=dict)


pack_size: Final = struct.Struct(">i").pack
read_size: Final = struct.Struct(">i").unpack_from

SIZES: Final = tuple(map(pack_size, range(8192)))
"""Ready-made four-byte lengths."""


def unread() -> None:
    """Raise for a binary form that is not understood."""
    raise Unread("the binary form of a type that is not understood")


def wrong_size(size: int, expected: int) -> None:
    """Raise for a binary value whose length its type does not have."""
    raise ValueError(f"a value of {size} bytes where the type has {expected}")


SCOPE: Final[Mapping[str, object]] = {
    "HEADS": HEADS,
    "LONGS": LONGS,
    "PAIRS": PAIRS,
    "SIZES": SIZES,
    "TAILS": TAILS,
    "four_pairs": four_pairs,
    "long_bytes": long_bytes,
    "pack_size": pack_size,
    "raw_at": raw_at,
    "read_size": read_size,
    "unread": unread,
    "wrong_size": wrong_size,
}
"""The names that every snippet may use."""

LENGTH: Final = "LONGS[n] if n < 8192 else long_bytes(n)"
"""The Avro length of ``n`` bytes."""
SIZE: Final = "SIZES[n] if n < 8192 else pack_size(n)"
"""The binary length of ``n`` bytes."""

TAKE: Final = ("n = read_size(f, q)[0]", "q += 4", "o = q + n")
"""Find a value of any size: it is ``f[q:o]`` then."""

READ_RAW: Final = (
    "z = r[p]",
    "if z < 128:",
    "    p += 1",
    "elif r[p + 1] < 128:",
    "    z += (r[p + 1] << 7) - 128",
    "    p += 2",
    "else:",
    "    z, p = raw_at(r, p)",
)
"""Read a varint into ``z``, its zigzag not undone."""

READ_LONG: Final = (
    *READ_RAW[:-2],
    "elif r[p + 2] < 128:",
    "    z += (r[p + 1] << 7) + (r[p + 2] << 14) - 16512",
    "    p += 3",
    *READ_RAW[-2:],
    "v = z >> 1 ^ -(z & 1)",
)
"""Read an int or long into ``v``."""

WRITE_LONG: Final = (
    "if 0 <= v < 8192:",
    "    v = LONGS[v]",
    "elif 0 < v < 134217728:",
    "    v = HEADS[v + v & 16383] + TAILS[v >> 13]",
    "else:",
    "    v = long_bytes(v)",
)
"""Turn the number ``v`` into Avro bytes."""

READ_BYTES: Final = (*READ_RAW, "n = z >> 1", "s = p", "p += n")
"""Read bytes or a string: it is ``r[s:p]`` then. A length that passes the end is found at the row's end."""


def number(name: str) -> Callable[[str], str]:
    """A function that gives snippets the column's number ``name``."""
    return lambda snippet: snippet.replace("@", name)


def compile_code(lines: Iterable[str], scope: Mapping[str, object], name: str) -> Any:
    """Run the source ``lines`` in ``SCOPE`` and ``scope``, and return the function ``name`` that they define."""
    space: dict[str, object] = {**SCOPE, **scope}
    exec(compile("\n".join(lines), f"<generated {name}>", "exec"), space)  # noqa: S102 - from our own snippets only
    return space[name]


def encoder_of(codec: Codec) -> Callable[[bytes, int], tuple[bytes, int]]:
    """A function (bytes, where a length stands) -> (Avro bytes of that value, its end)."""
    at = number("0")
    lines = ["def encode(f, q):"]
    lines += [f"    {at(line)}" for line in codec.encode.lines]
    lines.append(f"    return {' + '.join(f'({at(p)})' for p in codec.encode.pieces)}, o")
    scope = {at(name): value for name, value in codec.scope.items()}
    return cast("Callable[[bytes, int], tuple[bytes, int]]", compile_code(lines, scope, "encode"))


def decoder_of(codec: Codec) -> Callable[[bytes, int], tuple[bytes, int]]:
    """A function (Avro bytes, where a value stands) -> (its binary form, the value's end)."""
    at = number("0")
    lines = ["def decode(r, p):"]
    lines += [f"    {at(line)}" for line in codec.decode.lines]
    lines.append(f"    return {at(codec.decode.value)}, p")
    scope = {at(name): value for name, value in codec.scope.items()}
    return cast("Callable[[bytes, int], tuple[bytes, int]]", compile_code(lines, scope, "decode"))


def same(value: bytes) -> bytes:
    """The conversion of types whose binary form is their text."""
    return value


def text_like(pg_type: str, avro: AvroType = "string", *, direct: bool = False) -> Codec:
    """A type whose binary form is its text."""
    return Codec(
        pg_type=pg_type,
        avro=avro,
        encode=Encode(TAKE, (LENGTH, "f[q:o]"), ("bytes", 0)),
        decode=Decode(READ_BYTES, (SIZE, "r[s:p]"), "r[s:p]", ("bytes", 0)),
        to_text=same,
        from_text=same,
        filler=b"\x00",
        placeholder=bytes_bytes,
        direct=direct,
    )


def string_by(
    pg_type: str, to_text: Convert, from_text: Convert, *, avro: AvroType = "string"
) -> Codec:
    """A type that is carried as its text, converted by functions."""
    return converted(
        pg_type,
        avro,
        lambda value: bytes_bytes(to_text(value)),
        from_text,
        to_text=to_text,
        from_text=from_text,
        placeholder=bytes_bytes,
    )


def converted(
    pg_type: str,
    avro: AvroType,
    to_avro: Convert,
    from_content: Convert,
    *,
    to_text: Convert,
    from_text: Convert,
    placeholder: Convert | None = None,
    filler: bytes = b"\x00",
    direct: bool = False,
) -> Codec:
    """A type of Avro's string or bytes, by functions.

    ``to_avro`` makes the whole Avro value, ``from_content`` takes what stands behind the length.
    """
    return Codec(
        pg_type=pg_type,
        avro=avro,
        encode=Encode(TAKE, ("to_avro_@(f[q:o])",)),
        decode=Decode((*READ_BYTES, "v = from_content_@(r[s:p])", "n = len(v)"), (SIZE, "v"), "v"),
        to_text=to_text,
        from_text=from_text,
        filler=filler,
        placeholder=placeholder,
        direct=direct,
        scope={"to_avro_@": to_avro, "from_content_@": from_content},
    )


def unknown() -> Codec:
    """A type of which only the text is known."""
    return replace(text_like("text"), text_only=True, spelled=True)


def lossy(
    pg_type: str,
    avro: AvroType,
    out: Callable[[bytes], Any],
    back: Callable[[Any], bytes],
    like: Codec,
) -> Codec:
    """Another form of ``like``, an Avro int, long or double, that cannot carry every value.

    ``out`` makes its number of a binary value, ``back`` a binary value of a number: where that is another one, the
    value is Unfit.
    """
    write = struct.Struct("<d").pack if avro_primitive(avro) == "double" else long_bytes

    def to_avro(value: bytes) -> bytes:
        number = out(value)
        written = write(number)
        try:
            exact = back(number) == value
        except (ValueError, OverflowError):
            exact = False
        if not exact:
            raise Unfit("a value that its column's form can only come near", written)
        return written

    is_double = avro_primitive(avro) == "double"
    read = ("v, = unpack_double(r, p)", "p += 8") if is_double else READ_LONG
    return replace(
        like,
        pg_type=pg_type,
        avro=avro,
        encode=Encode(TAKE, ("to_avro_@(f[q:o])",)),
        decode=Decode((*read, "v = back_@(v)", "n = len(v)"), (SIZE, "v"), "v"),
        filler=bytes(8) if avro_primitive(avro) == "double" else b"\x00",
        placeholder=None,
        scope={
            "to_avro_@": to_avro,
            "back_@": back,
            "unpack_double": struct.Struct("<d").unpack_from,
        },
    )


def avro_primitive(avro: AvroType) -> object:
    """The type's name, whatever is said beside it."""
    return avro if isinstance(avro, str) else avro["type"]


def connect(avro: str, name: str, parameters: Mapping[str, str] | None = None) -> AvroType:
    """An Avro type that carries the name of a Kafka Connect logical type, version 1."""
    schema: dict[str, object] = {"type": avro, "connect.version": 1}
    if parameters is not None:
        schema["connect.parameters"] = dict(parameters)
    schema["connect.name"] = name
    return schema

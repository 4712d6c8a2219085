"""Walking over Avro bytes without decoding them: code that moves past a value, generated from its schema.

The lines are made to be put into a larger generated function. They move ``i`` over ``b`` (bytes) and raise IndexError
or ValueError (``torn()``) for what cannot be such a value. Whoever uses them checks at the end that ``i`` stands at
``len(b)``: a string that passes the end is found there at the latest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from cdc.avro_binary import long_at, raw_at

_SIZES = {"float": 4, "double": 8}

STEPS = tuple(1 + (raw >> 1) if raw < 128 and not raw & 1 else 0 for raw in range(256))
"""How far a string reaches from its length byte on; 0 where that byte does not say."""


def torn() -> NoReturn:
    """Raise the ValueError of a value that no writer of this schema can have written."""
    raise ValueError("not a value of the writer's schema")


def string_step(data: bytes, at: int) -> int:
    """How far the string or bytes at ``at`` reach from there; ValueError for a length that cannot be."""
    first, second = data[at], data[at + 1]
    if first & 1:
        torn()
    if second < 128:  # lengths from 64 to 8191
        return 2 + ((first & 127) >> 1) + (second << 6)
    raw, start = raw_at(data, at)
    end = start + (raw >> 1)
    if end > len(data):
        torn()
    return end - at


def varint_end(data: bytes, at: int) -> int:
    """Where the varint at ``at`` ends; ValueError when it is longer than 64 bits."""
    return raw_at(data, at)[1]


def item_count(data: bytes, at: int) -> tuple[int, int]:
    """The item count of the array or map block at ``at``, and where its items begin."""
    count, at = long_at(data, at)
    if count < 0:  # the block says its size in bytes for readers that skip it; we walk
        count = -count
        _, at = long_at(data, at)
    if count > len(data):
        torn()
    return count, at


RUNTIME: dict[str, object] = {
    "STEPS": STEPS,
    "string_step": string_step,
    "varint_end": varint_end,
    "item_count": item_count,
    "torn": torn,
}
"""What the generated lines call."""


def indented(lines: list[str]) -> list[str]:
    """The lines one level deeper."""
    return [f"    {line}" for line in lines]


def walk_lines(schema: Any, depth: int = 0) -> list[str]:
    """The lines that move ``i`` past one value of a self-contained schema (see ``self_contained``)."""
    match schema:
        case list():
            return union_lines(schema, depth)
        case {"type": dict() | list() as inner}:
            return walk_lines(inner, depth)
        case {"type": "record", "fields": fields}:
            return [line for field in fields for line in walk_lines(field["type"], depth)]
        case {"type": "array", "items": items}:
            return _block_lines(walk_lines(items, depth + 1), depth)
        case {"type": "map", "values": values}:
            key = walk_lines("string", depth)
            return _block_lines(key + walk_lines(values, depth + 1), depth)
        case {"type": "fixed", "size": size}:
            return [f"i += {size}"]
        case {"type": kind}:
            return _primitive_lines(kind)
    return _primitive_lines(schema)


def union_lines(branches: list[Any], depth: int = 0) -> list[str]:
    """The lines for a union: its tag, then the branch that it names."""
    lines = [f"t{depth} = b[i]", "i += 1"]
    word = "if"
    # A value is met more often than null: it is asked for first.
    for index, branch in sorted(enumerate(branches), key=lambda each: each[1] == "null"):
        lines.append(f"{word} t{depth} == {2 * index}:")
        lines += indented(walk_lines(branch, depth + 1) or ["pass"])
        word = "elif"
    return [*lines, "else:", "    torn()"]


# Comparing byte by byte in line is cheaper than a call, even for the eight bytes of a time in microseconds.
_VARINT_LINES = [
    "if b[i] < 128:",
    "    i += 1",
    *(
        line
        for size in range(2, 10)
        for line in (f"elif b[i + {size - 1}] < 128:", f"    i += {size}")
    ),
    "else:",
    "    i = varint_end(b, i)",
]


def _primitive_lines(kind: str) -> list[str]:
    match kind:
        case "null":
            return []
        case "boolean":
            return ["if b[i] > 1:", "    torn()", "i += 1"]
        case "int" | "long" | "enum":
            return _VARINT_LINES
        case "string" | "bytes":
            return ["i += STEPS[b[i]] or string_step(b, i)"]
        case "float" | "double":
            return [f"i += {_SIZES[kind]}"]
    raise ValueError(f"not a type of Avro: {kind!r}")


def _block_lines(item: list[str], depth: int) -> list[str]:
    return [
        "while True:",
        f"    c{depth}, i = item_count(b, i)",
        f"    if c{depth} == 0:",
        "        break",
        f"    for _ in range(c{depth}):",
        *indented(indented(item or ["pass"])),
    ]


def walker(schema: Any) -> Callable[[bytes, int], int]:
    """A function (bytes, start) -> end that walks over one value of a self-contained schema."""
    lines = ["def walk(b, i):", *indented(walk_lines(schema)), "    return i"]
    walk: Callable[[bytes, int], int] = compiled("\n".join(lines), "walk", RUNTIME)
    return walk


def compiled(source: str, name: str, names: Mapping[str, object]) -> Any:
    """Run generated source with these global names, and give the function or value ``name`` of it."""
    space = dict(names)
    exec(compile(source, f"<generated {name}>", "exec"), space)  # noqa: S102 - made here, from a schema's shape only
    return space[name]

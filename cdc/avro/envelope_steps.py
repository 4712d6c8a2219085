"""An envelope's schema as steps for the compiled reader (``_decoder.c``), which walks as `envelope_reader` does.

Only what our own capture writes is walked there: events that carry a generation and a transaction.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from cdc import accelerators
from cdc.avro.written_schema import fields_of, optional_type, row_schema

native: Final[ModuleType | None] = accelerators.load("cdc.avro._decoder")
"""The compiled reader; None where only Python's runs."""

# Numbered as in _decoder.c.
(
    _VARINT,
    _BOOLEAN,
    _SIZED,
    _FIXED,
    _UNION,
    _BLOCKS,
    _TAG,
    _ROW,
    _BEFORE,
    _AFTER,
    _OP,
    _XID,
    _GENERATION,
    _TRANSACTION,
    _ORDER,
) = range(15)

_PRIMITIVES: Final = {
    "null": (),
    "boolean": (_BOOLEAN,),
    "int": (_VARINT,),
    "long": (_VARINT,),
    "enum": (_VARINT,),
    "string": (_SIZED,),
    "bytes": (_SIZED,),
    "float": (_FIXED, 4),
    "double": (_FIXED, 8),
}

_TAKEN: Final = {
    "source.txId": (_XID,),
    "source.generation": (_GENERATION,),
    "transaction.id": (_TRANSACTION,),
    "transaction.total_order": (_ORDER,),
}
_ROWS: Final = {"before": _BEFORE, "after": _AFTER}


def is_ours(envelope: Any) -> bool:
    """Whether our capture wrote by this schema: its events carry a generation."""
    return "generation" in fields_of(fields_of(envelope)["source"])


def program_of(key: Any, envelope: Any) -> Any:
    """The compiled reader's Program for these self-contained schemas; None where Python has to read.

    ``key`` is None for records without one.
    """
    if native is None or not is_ours(envelope) or "transaction" not in fields_of(envelope):
        return None
    steps: list[int] = []
    for field in envelope["fields"]:
        name, schema = field["name"], field["type"]
        match name:
            case "before" | "after":
                row = [_ROW, *_row_steps(row_schema(envelope)), _ROWS[name]]
                steps += _within_union(schema, row)
            case "op":
                steps.append(_OP)
            case "source" | "transaction":
                record = optional_type(schema)[0]
                steps += _within_union(schema, _taken_steps(name, record["fields"]))
            case _:
                steps += _steps(schema)
    return native.Program(None if key is None else tuple(_steps(key)), tuple(steps))


def _taken_steps(name: str, fields: Any) -> list[int]:
    steps: list[int] = []
    for field in fields:
        taken = _TAKEN.get(f"{name}.{field['name']}")
        schema = field["type"]
        steps += _steps(schema) if taken is None else _within_union(schema, list(taken))
    return steps


def _row_steps(row: Any) -> list[int]:
    steps: list[int] = []
    for field in row["fields"]:
        _, nullable, null_last = optional_type(field["type"])
        steps += [_TAG] if nullable and null_last else []
        steps += _steps(field["type"])
    return steps


def _within_union(schema: Any, steps: list[int]) -> list[int]:
    """Steps for the type that may be null; all there is where it may not."""
    _, nullable, null_last = optional_type(schema)
    if not nullable:
        return steps
    return [_UNION, 2, *((len(steps), 0) if null_last else (0, len(steps))), *steps]


def _steps(schema: Any) -> list[int]:
    """The steps over one value of a self-contained schema."""
    match schema:
        case list():
            branches = [_steps(branch) for branch in schema]
            sizes = [len(branch) for branch in branches]
            return [
                _UNION,
                len(branches),
                *sizes,
                *(step for branch in branches for step in branch),
            ]
        case {"type": dict() | list() as inner}:
            return _steps(inner)
        case {"type": "record", "fields": fields}:
            return [step for field in fields for step in _steps(field["type"])]
        case {"type": "array", "items": items}:
            item = _steps(items)
            return [_BLOCKS, len(item), *item]
        case {"type": "map", "values": values}:
            item = [_SIZED, *_steps(values)]
            return [_BLOCKS, len(item), *item]
        case {"type": "fixed", "size": size}:
            return [_FIXED, size]
        case {"type": kind}:
            return list(_PRIMITIVES[kind])
    return list(_PRIMITIVES[schema])

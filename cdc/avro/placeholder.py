"""Debezium's stand-in for a column that the log did not carry: only its own records are searched for it.

Ours name such columns in a header, so a value that happens to look like it stays a value.
Source of the forms: Debezium's documentation of ``unavailable.value.placeholder``: the text itself, its bytes, a list
or map that holds it, and for lists of numbers its character codes. hstore and the lists of other types have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cdc.avro.values import wire_values
from cdc.avro_binary import PRESENT, long_bytes
from cdc.table import Table

PLACEHOLDER = "__debezium_unavailable_value"
_BYTES = PLACEHOLDER.encode()
_CODES = list(_BYTES)
_CODES_AS_ITEMS = b"".join(PRESENT + long_bytes(code) for code in _CODES)


def unavailable_columns(table: Table, row: bytes) -> tuple[str, ...]:
    """The columns of a row of Debezium's that hold the placeholder, in order."""
    if _BYTES not in row and _CODES_AS_ITEMS not in row:
        return ()
    return tuple(
        column.name
        for column, value in zip(table.columns, wire_values(table, row), strict=True)
        if _stands_in(value)
    )


def _stands_in(value: object) -> bool:
    match value:
        case str():
            return value == PLACEHOLDER
        case bytes():
            return value == _BYTES
        case Sequence():
            items = list(value)
            return items in ([PLACEHOLDER], [_BYTES], _CODES)
        case Mapping():
            return dict(value) == {PLACEHOLDER: PLACEHOLDER}
    return False

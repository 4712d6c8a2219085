"""Random tables with random rows, of every shape that a column's type has on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from cdc.table import Column, Table, TableId
from tests.unit.avro_bench import DECIMAL_12_2, named, value_record, written

VARIABLE_DECIMAL: dict[str, object] = {
    "type": "record",
    "name": "VariableScaleDecimal",
    "namespace": "io.debezium.data",
    "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
    "connect.version": 1,
    "connect.name": "io.debezium.data.VariableScaleDecimal",
}

_ints = st.integers(-(2**31), 2**31 - 1)
_longs = st.integers(-(2**63), 2**63 - 1)
_texts = st.text(st.characters(codec="utf-8"), max_size=200)
_variable = st.fixed_dictionaries({"scale": st.integers(0, 20), "value": st.binary(max_size=9)})


def _array(items: Any, values: st.SearchStrategy[Any]) -> tuple[Any, st.SearchStrategy[Any]]:
    return {"type": "array", "items": ["null", items]}, st.lists(st.none() | values, max_size=4)


TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    ("int", _ints),
    ({"type": "int", "connect.type": "int16"}, st.integers(-(2**15), 2**15 - 1)),
    ("long", _longs),
    (named("long", "io.debezium.time.MicroTimestamp"), _longs),
    ("boolean", st.booleans()),
    ("float", st.floats(width=32, allow_nan=False)),
    ("double", st.floats(allow_nan=False)),
    ("string", _texts),
    (named("string", "io.debezium.data.Json"), _texts),
    ("bytes", st.binary(max_size=9000)),
    (DECIMAL_12_2, st.binary(min_size=1, max_size=5)),
    (VARIABLE_DECIMAL, _variable),
    ({"type": "map", "values": "string"}, st.dictionaries(_texts, _texts, max_size=3)),
    _array("int", _ints),
    _array("string", _texts),
    _array({"type": "array", "items": ["null", "long"]}, st.lists(st.none() | _longs, max_size=3)),
    _array(VARIABLE_DECIMAL, _variable),
]

_names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)


@dataclass(frozen=True)
class TableWithRows:
    """A table of which column 0 is the key, and for each row its values by field and its bytes."""

    table: Table
    values: list[list[Any]]
    rows: list[bytes]
    keys: list[bytes]


@st.composite
def tables_with_rows(draw: st.DrawFn, max_rows: int = 4) -> TableWithRows:
    names = draw(st.lists(_names, min_size=1, max_size=8, unique=True))
    kinds = [draw(st.sampled_from(TYPES)) for _ in names]
    kinds[0] = TYPES[2]
    columns = tuple(
        Column(name, avro, nullable=index > 0 and draw(st.booleans()))
        for index, (name, (avro, _)) in enumerate(zip(names, kinds, strict=True))
    )
    table = Table(
        TableId(draw(_names.filter(lambda name: "." not in name)), draw(_names)),
        columns,
        (columns[0].name,),
        draw(st.sampled_from(("default", "full", "index"))),
    )
    schema = value_record(table)
    fields = [field["name"] for field in schema["fields"]]
    values = [
        [
            draw(st.none() | kind if column.nullable else kind)
            for column, (_, kind) in zip(columns, kinds, strict=True)
        ]
        for _ in range(draw(st.integers(1, max_rows)))
    ]
    return TableWithRows(
        table,
        values,
        [written(schema, dict(zip(fields, row, strict=True))) for row in values],
        [written("long", row[0]) for row in values],
    )

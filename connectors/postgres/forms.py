"""From the column of a row schema to a codec: by its Avro form, and by the exact type that travels beside it.

Ours carry that type (`Column.source_type`), and for a domain ``cdc.base.type``; Debezium's are known by their form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from cdc.table import AvroType, Column
from connectors.postgres import (
    clock,
    intervals,
    numeric,
    temporal,
    temporal_modes,
    types_bits,
    types_geometric,
    types_scalar,
    types_vector,
)
from connectors.postgres.arrays import array, array_as_text
from connectors.postgres.binary_modes import ENCODING
from connectors.postgres.codec import Codec, text_like
from connectors.postgres.handling import DEFAULT, Binaries, Handling
from connectors.postgres.types_builtin import codec_of_name, delimiter_of, oid_of
from connectors.postgres.types_extension import EXTENSIONS

BASE_TYPE: Final = "cdc.base.type"
ENUM: Final = "io.debezium.data.Enum"


def codec_of_column(column: Column) -> Codec:
    """The codec of a row schema's column; that may be Debezium's own."""
    base = parameters_of(column.avro).get(BASE_TYPE, "")
    return _codec(column.avro, [name for name in (column.source_type, base) if name])


def _codec(avro: AvroType, names: Sequence[str]) -> Codec:
    """The codec of a form that stands for a type of one of these names, if the name is known and has that form."""
    if _is_plain_array(avro):
        elements = [name.removesuffix("[]") for name in names if name.endswith("[]")]
        element = _codec(_item(avro), elements)
        return array(element, oid_of(element.pg_type), delimiter_of(element.pg_type))
    form = _form(avro)
    for name in names:
        for codec in _forms_of(name, avro):
            if _form(codec.avro) == form:
                return codec
    return _codec_of_form(avro)


def source_type_of(column: Column) -> str:
    """The PostgreSQL type, as ``format_type`` spells it, to make a replica's column of.

    A ``reg…`` type names something in its own database, which another one need not have: its text is what is kept.
    """
    if column.source_type.removesuffix("[]") in REG_TYPES:
        return "text[]" if column.source_type.endswith("[]") else "text"
    return column.source_type or _type_of_form(column.avro)


REG_TYPES: Final = (
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
)


def staged_type_of(column: Column) -> str:
    """The built-in type to declare a staging column as: what `tuples` writes is its binary form.

    The same as the source's type, or one that casts to it: text for enums and for types of extensions.
    """
    return codec_of_column(column).pg_type


def _forms_of(name: str, avro: AvroType) -> Iterator[Codec]:
    """The codecs that a type of this name can have, the likeliest first."""
    if name.endswith("[]"):
        element = codec_of_name(name.removesuffix("[]")) or text_like("text")
        yield array_as_text(element, oid_of(element.pg_type), delimiter_of(element.pg_type))
        return
    for handling in (DEFAULT, *_OTHERS, Handling(money_digits=_scale(avro))):
        codec = codec_of_name(name, handling)
        if codec is None:
            # Outside pg_catalog it may be qualified; the form has to fit as well.
            extension = EXTENSIONS.get(name.rpartition(".")[2])
            if extension is None:
                return
            codec = extension(handling)
        yield codec


_OTHERS: Final = (
    Handling(decimals="string"),
    Handling(decimals="double"),
    Handling(times="adaptive_time_microseconds"),
    Handling(times="microseconds"),
    Handling(times="nanoseconds"),
    Handling(times="connect"),
    Handling(times="isostring"),
    Handling(intervals="numeric"),
    Handling(binaries="base64"),
    Handling(binaries="base64-url-safe"),
    Handling(binaries="hex"),
    Handling(hstores="map"),
)
"""One for each form that a mode gives a type."""


def _codec_of_form(avro: AvroType) -> Codec:
    """The codec of a form by itself. A type that is not known here by its name is taken for what its form is."""
    form = _form(avro)
    if isinstance(avro, Mapping) and (encoding := parameters_of(avro).get(ENCODING)):
        bytea = codec_of_name("bytea", Handling(binaries=cast("Binaries", encoding)))
        if bytea is not None:
            return bytea
    if isinstance(avro, Mapping) and avro.get("connect.name") == types_scalar.JSON:
        return text_like(
            "text", avro
        )  # json, jsonb, or a domain over one: a cast keeps either's text
    for extension in EXTENSIONS.values():
        for handling in (DEFAULT, Handling(hstores="map")):
            codec = extension(handling)
            if not isinstance(codec.avro, str) and _form(codec.avro) == form:
                return codec
    for codec in _forms_of(_type_of_form(avro), avro):
        if _form(codec.avro) == form:
            return codec
    plain = codec_of_name(_PLAIN.get(cast("str", form[0]), "")) if isinstance(form, tuple) else None
    if plain is None:
        raise ValueError(f"no PostgreSQL type for the Avro type {avro!r}")
    return plain


_NAMED: Final = {
    types_scalar.JSON: "jsonb",
    types_scalar.UUID: "uuid",
    types_scalar.XML: "xml",
    ENUM: "text",
    numeric.VARIABLE: "numeric",
    types_geometric.POINT: "point",
    clock.TIME: "time(3) without time zone",
    clock.MICRO_TIME: "time without time zone",
    clock.ZONED_TIME: "time with time zone",
    intervals.INTERVAL: "interval",
    intervals.DURATION: "interval",
    temporal.DATE: "date",
    temporal.TIMESTAMP: "timestamp(3) without time zone",
    temporal.MICRO_TIMESTAMP: "timestamp without time zone",
    temporal.ZONED_TIMESTAMP: "timestamp with time zone",
    temporal_modes.CONNECT_DATE: "date",
    temporal_modes.CONNECT_TIME: "time(3) without time zone",
    temporal_modes.CONNECT_TIMESTAMP: "timestamp(3) without time zone",
    temporal_modes.ISO_DATE: "date",
    temporal_modes.ISO_TIME: "time without time zone",
    temporal_modes.ISO_TIMESTAMP: "timestamp without time zone",
    temporal_modes.NANO_TIME: "time without time zone",
    temporal_modes.NANO_TIMESTAMP: "timestamp without time zone",
    types_vector.DOUBLES: "vector",
    types_vector.FLOATS: "halfvec",
    types_vector.SPARSE: "sparsevec",
}
_PLAIN: Final = {
    "int": "integer",
    "long": "bigint",
    "float": "real",
    "double": "double precision",
    "boolean": "boolean",
    "string": "text",
    "bytes": "bytea",
    numeric.VARIABLE: "numeric",
    types_geometric.POINT: "point",
}


_RECORDS: Final = {numeric.VARIABLE, types_geometric.POINT, types_vector.SPARSE}
"""Full names: the second use of a record in a schema is its name."""


def parameters_of(avro: AvroType) -> Mapping[str, str]:
    """The form's ``connect.parameters``."""
    if isinstance(avro, str):
        return {}
    return cast("Mapping[str, str]", avro.get("connect.parameters") or {})


def _scale(avro: AvroType) -> int:
    return cast("int", avro.get("scale", 2)) if isinstance(avro, Mapping) else 2


def _form(avro: AvroType) -> Any:
    """What the bytes look like, and the logical type that gives them a meaning."""
    if isinstance(avro, str):
        return avro if avro in _RECORDS else (avro, None, None)
    if avro["type"] == "record":
        return avro.get("connect.name")
    name = avro.get("connect.name")
    if avro["type"] == "array":
        return "array", _form(_item(avro)), name
    if avro["type"] == "map":
        return "map", name, None
    return avro["type"], name, avro.get("scale") or parameters_of(avro).get(ENCODING)


def is_record(avro: AvroType) -> bool:
    """Whether the form is a record, or the name of one."""
    return isinstance(_form(avro), str)


def _is_plain_array(avro: AvroType) -> bool:
    """An array that stands for one; a vector is a type of its own."""
    return isinstance(avro, Mapping) and avro["type"] == "array" and not avro.get("connect.name")


def _item(array_type: AvroType) -> AvroType:
    """The Avro type of an array's elements, without the null of its union."""
    items = cast("Mapping[str, object]", array_type)["items"]
    if isinstance(items, list):
        return cast("AvroType", next(branch for branch in items if branch != "null"))
    return cast("AvroType", items)


def _type_of_form(avro: AvroType) -> str:
    if isinstance(avro, str):
        return _PLAIN.get(avro, "")
    name = avro.get("connect.name")
    if name == numeric.DECIMAL or (name is None and avro.get("logicalType") == "decimal"):
        if parameters_of(avro).get("connect.decimal.precision") is None and avro.get("scale") == 2:
            return "money"
        return f"numeric({avro['precision']},{avro.get('scale', 0)})"
    if name == types_bits.BITS:
        length = parameters_of(avro).get("length", "")
        return "bit varying" if length in {"", "2147483647"} else f"bit({length})"
    if _is_plain_array(avro):
        return f"{_type_of_form(_item(avro))}[]"
    if name is not None:
        return _NAMED.get(cast("str", name), "") or _type_of_form(cast("AvroType", avro["type"]))
    if avro.get("connect.type") == "int16":
        return "smallint"
    return _type_of_form(cast("AvroType", avro["type"]))

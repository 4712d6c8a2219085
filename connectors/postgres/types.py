"""The one type table: what each PostgreSQL type is in Avro, and which type an Avro form stands for.

`codec_of` chooses by the attribute as the catalog has it (the source), `codec_of_column` by the Avro form of a row
schema (the replica); both end in the same `Codec`.

An Avro form is Debezium's default. Where it alone does not tell the exact PostgreSQL type, ``cdc.source.type`` in its
``connect.parameters`` does (``character varying(120)``, ``citext``, ``timestamp(2) without time zone``, a domain's or
an enum's name), so that a replica can make the same column; where it does (``int``, ``Decimal``, ``ZonedTimestamp``,
…), nothing is added. Avro records (``VariableScaleDecimal``, ``Point``) never carry it: a record is defined once in
a schema and its parameters cannot differ by column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from cdc.table import AvroType, Column
from connectors.postgres import (
    clock,
    intervals,
    numeric,
    ranges,
    temporal,
    types_bits,
    types_geometric,
    types_scalar,
)
from connectors.postgres.arrays import array, array_as_text
from connectors.postgres.codec import Codec, connect, text_like
from connectors.postgres.masks import Mask, masked
from connectors.postgres.types_builtin import codec_of_name, oid_of
from connectors.postgres.types_extension import EXTENSIONS, staged_as_text

SOURCE_TYPE: Final = "cdc.source.type"
ENUM: Final = "io.debezium.data.Enum"

FIRST_USER_OID: Final = 16384
"""Types below it are PostgreSQL's own: their names mean what they say."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column as the catalog describes it (``pg_attribute`` joined with ``pg_type``).

    ``formatted_type`` is ``format_type(atttypid, atttypmod)``; ``type_name`` is ``typname``, ``typtype`` the
    letter of ``pg_type`` (b base, d domain, e enum, r range, m multirange, c composite); ``labels`` are an enum's, in
    order. ``inner`` is a domain's base type (with its typmod), an array's element, a range's subtype, a multirange's
    range: an Attribute without a name. ``dimensions`` is ``attndims``. ``mask`` is done to its text; an ``excluded``
    column is no part of any row.
    """

    name: str
    type_oid: int
    typmod: int
    not_null: bool
    formatted_type: str
    typtype: str = "b"
    type_name: str = ""
    inner: Attribute | None = None
    labels: tuple[str, ...] = ()
    dimensions: int = 0
    mask: Mask | None = None
    excluded: bool = False


def column_of(attribute: Attribute) -> Column:
    """The column of a row schema."""
    source_type = "text" if attribute.mask is not None else attribute.formatted_type
    return Column(
        name=attribute.name,
        avro=told(codec_of(attribute).avro, source_type),
        nullable=not attribute.not_null,
        source_type=source_type,
    )


def codec_of(attribute: Attribute) -> Codec:
    """The codec of a source's column. Types that nothing is known of travel as text (``text_only``)."""
    if attribute.mask is not None:
        return masked(attribute.mask)
    inner = attribute.inner
    if attribute.typtype == "d" and inner is not None:
        return codec_of(inner)
    if attribute.typtype == "e":
        return enum(attribute.labels)
    if attribute.formatted_type.endswith("[]") and inner is not None:
        element = codec_of(inner)
        if element.text_only:
            return unknown()
        if attribute.dimensions > 1:
            return array_as_text(element, oid_of(element.pg_type))
        return array(element, oid_of(element.pg_type))
    if attribute.type_oid < FIRST_USER_OID:
        known = codec_of_name(attribute.formatted_type)
        if known is not None:
            return known
    if attribute.typtype == "r" and inner is not None and not codec_of(inner).text_only:
        return staged_as_text(ranges.range_codec("text", codec_of(inner)))
    if attribute.typtype == "m" and inner is not None and inner.inner is not None:
        subtype = codec_of(inner.inner)
        if not subtype.text_only:
            return staged_as_text(ranges.multirange_codec("text", subtype))
    maker = EXTENSIONS.get(attribute.type_name)
    if maker is not None and attribute.typtype == "b":
        return maker()
    return unknown()


def codec_of_column(column: Column) -> Codec:
    """The codec of a row schema's column, by its Avro form; that may be Debezium's own."""
    return codec_of_avro(column.avro)


def codec_of_avro(avro: AvroType) -> Codec:
    """The codec of an Avro form. A type that is not known here by its name is taken for what its form is."""
    spelled = source_type_of(avro)
    form = _form(avro)
    known = codec_of_name(spelled)
    if known is not None and _form(known.avro) == form:
        return known
    if spelled.endswith("[]") and form == ("string", None, None):
        element = codec_of_name(spelled.removesuffix("[]"))
        return (
            text_like("text")
            if element is None
            else array_as_text(element, oid_of(element.pg_type))
        )
    extension = EXTENSIONS.get(spelled)
    if extension is not None and _form(extension().avro) == form:
        return extension()
    if not isinstance(avro, str) and avro["type"] == "array":
        element = codec_of_avro(_item(avro))
        return array(element, oid_of(element.pg_type))
    plain = codec_of_name(_type_of_form(avro))
    if plain is None:
        raise ValueError(f"no PostgreSQL type for the Avro type {avro!r}")
    return plain


def source_type_of(avro: AvroType) -> str:
    """The PostgreSQL type, as ``format_type`` spells it, that an Avro form stands for."""
    told_type = _parameters(avro).get(SOURCE_TYPE)
    return told_type if told_type is not None else _type_of_form(avro)


def staged_type_of(column: Column) -> str:
    """The built-in type to declare a staging column as: what `tuples` writes is its binary form.

    The same as the source's type, or one that casts to it: text for enums and for types of extensions.
    """
    return codec_of_column(column).pg_type


def told(avro: AvroType, formatted_type: str) -> AvroType:
    """The Avro form, with the exact type in its parameters where it does not tell."""
    if _type_of_form(avro) == formatted_type or isinstance(_form(avro), str):
        return avro
    schema: dict[str, object] = {"type": avro} if isinstance(avro, str) else dict(avro)
    schema["connect.parameters"] = {**_parameters(avro), SOURCE_TYPE: formatted_type}
    return schema


def enum(labels: tuple[str, ...]) -> Codec:
    """An enum: its label, and all labels in the schema."""
    return text_like("text", connect("string", ENUM, {"allowed": ",".join(labels)}))


def unknown() -> Codec:
    """A type of which only the text is known."""
    return replace(text_like("text"), text_only=True)


# --- from an Avro form -----------------------------------------------------------------------------------------

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
    temporal.DATE: "date",
    temporal.TIMESTAMP: "timestamp(3) without time zone",
    temporal.MICRO_TIMESTAMP: "timestamp without time zone",
    temporal.ZONED_TIMESTAMP: "timestamp with time zone",
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


def _parameters(avro: AvroType) -> Mapping[str, str]:
    if isinstance(avro, str):
        return {}
    return cast("Mapping[str, str]", avro.get("connect.parameters") or {})


def _form(avro: AvroType) -> Any:
    """What the bytes look like, and the logical type that gives them a meaning."""
    if isinstance(avro, str):
        return avro if avro in {numeric.VARIABLE, types_geometric.POINT} else (avro, None, None)
    if avro["type"] == "record":
        return avro.get("connect.name")
    if avro["type"] == "array":
        return "array", _form(_item(avro)), None
    return avro["type"], avro.get("connect.name"), avro.get("scale")


def _item(array_type: Mapping[str, object]) -> AvroType:
    """The Avro type of an array's elements, without the null of its union."""
    items = array_type["items"]
    if isinstance(items, list):
        return cast("AvroType", next(branch for branch in items if branch != "null"))
    return cast("AvroType", items)


def _type_of_form(avro: AvroType) -> str:
    if isinstance(avro, str):
        return _PLAIN.get(avro, "")
    name = avro.get("connect.name")
    if name == numeric.DECIMAL or (name is None and avro.get("logicalType") == "decimal"):
        if _parameters(avro).get("connect.decimal.precision") is None and avro.get("scale") == 2:
            return "money"
        return f"numeric({avro['precision']},{avro.get('scale', 0)})"
    if name == types_bits.BITS:
        length = _parameters(avro).get("length", "")
        return "bit varying" if length in {"", "2147483647"} else f"bit({length})"
    if avro["type"] == "array":
        return f"{source_type_of(_item(avro))}[]"
    if name is not None:
        return _NAMED.get(cast("str", name), "") or _type_of_form(cast("AvroType", avro["type"]))
    if avro.get("connect.type") == "int16":
        return "smallint"
    return _type_of_form(cast("AvroType", avro["type"]))

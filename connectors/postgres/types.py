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

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from cdc.avro_binary import bytes_bytes
from cdc.table import AvroType, Column
from connectors.postgres import numeric, temporal, types_scalar
from connectors.postgres.codec import PLACEHOLDER, Codec, connect, text_like

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
    range: an Attribute without a name. ``dimensions`` is ``attndims``.
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


def column_of(attribute: Attribute) -> Column:
    """The column of a row schema."""
    return Column(
        name=attribute.name,
        avro=told(codec_of(attribute).avro, attribute.formatted_type),
        nullable=not attribute.not_null,
        source_type=attribute.formatted_type,
    )


def codec_of(attribute: Attribute) -> Codec:
    """The codec of a source's column. Types that nothing is known of travel as text (``text_only``)."""
    if attribute.typtype == "d" and attribute.inner is not None:
        return codec_of(attribute.inner)
    if attribute.typtype == "e":
        return enum(attribute.labels)
    if attribute.type_oid < FIRST_USER_OID:
        known = codec_of_name(attribute.formatted_type)
        if known is not None:
            return known
    maker = EXTENSIONS.get(attribute.type_name)
    if maker is not None and attribute.typtype == "b":
        return maker(attribute.formatted_type)
    return unknown()


def codec_of_column(column: Column) -> Codec:
    """The codec of a row schema's column, by its Avro form; that may be Debezium's own."""
    return codec_of_avro(column.avro)


def codec_of_avro(avro: AvroType) -> Codec:
    """The codec of an Avro form. A type that is not known here by its name is taken for what its form is."""
    known = codec_of_name(source_type_of(avro))
    if known is not None and _form(known.avro) == _form(avro):
        return known
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
    if _type_of_form(avro) == formatted_type or _form(avro) == "record":
        return avro
    schema: dict[str, object] = {"type": avro} if isinstance(avro, str) else dict(avro)
    schema["connect.parameters"] = {**_parameters(avro), SOURCE_TYPE: formatted_type}
    return schema


# --- from a type's name ----------------------------------------------------------------------------------------

_SPELLED: Final = re.compile(
    r"(?P<name>[^(\[]+?)(?:\((?P<args>-?\d+(?:,-?\d+)?)\))?(?P<zone> with(?:out)? time zone)?"
)

Maker = Callable[[str, tuple[int, ...]], Codec]


def codec_of_name(spelled: str) -> Codec | None:
    """The codec of a built-in type as ``format_type`` spells it; None when it is not known."""
    match = _SPELLED.fullmatch(spelled)
    if match is None:
        return None
    maker = BUILT_IN.get(match["name"] + (match["zone"] or ""))
    if maker is None:
        return None
    return maker(spelled, tuple(int(arg) for arg in (match["args"] or "").split(",") if arg))


def enum(labels: tuple[str, ...]) -> Codec:
    """An enum: its label, and all labels in the schema."""
    return text_like("text", connect("string", ENUM, {"allowed": ",".join(labels)}))


def unknown() -> Codec:
    """A type of which only the text is known."""
    codec = text_like("text")
    return Codec(
        pg_type="text",
        avro=codec.avro,
        encode=codec.encode,
        decode=codec.decode,
        to_text=codec.to_text,
        from_text=codec.from_text,
        filler=b"\x00",
        placeholder=bytes_bytes(PLACEHOLDER),
        text_only=True,
    )


def _numeric(spelled: str, args: tuple[int, ...]) -> Codec:
    if not args:
        return numeric.variable_numeric()
    return numeric.numeric(args[0], args[1] if len(args) > 1 else 0, spelled)


def _timestamp(spelled: str, args: tuple[int, ...]) -> Codec:
    if args and args[0] <= 3:
        return temporal.milli_timestamp(spelled)
    return temporal.micro_timestamp(spelled)


def _zoned_timestamp(spelled: str, args: tuple[int, ...]) -> Codec:
    return temporal.zoned_timestamp(spelled, args[0] if args else 6)


def _always(codec: Callable[[], Codec]) -> Maker:
    return lambda _spelled, _args: codec()


def _text(*, direct: bool) -> Maker:
    return lambda spelled, _args: text_like(spelled, direct=direct)


_INT16: Final[AvroType] = {"type": "int", "connect.type": "int16"}

BUILT_IN: Final[dict[str, Maker]] = {
    "smallint": _always(lambda: types_scalar.integer("smallint", _INT16, "h")),
    "integer": _always(lambda: types_scalar.integer("integer", "int", "i")),
    "bigint": _always(lambda: types_scalar.integer("bigint", "long", "q")),
    "oid": _always(lambda: types_scalar.integer("oid", "long", "I", direct=False)),
    "real": _always(lambda: types_scalar.floating("real", "float", 4)),
    "double precision": _always(lambda: types_scalar.floating("double precision", "double", 8)),
    "boolean": _always(types_scalar.boolean),
    "text": _text(direct=True),
    "character varying": _text(direct=True),
    "character": _text(direct=False),
    '"char"': _text(direct=False),
    "name": _text(direct=False),
    "numeric": _numeric,
    "money": _always(numeric.money),
    "date": _always(temporal.date),
    "timestamp without time zone": _timestamp,
    "timestamp with time zone": _zoned_timestamp,
    "uuid": _always(types_scalar.identifier),
    "json": _always(types_scalar.json),
    "jsonb": _always(types_scalar.jsonb),
    "xml": _always(types_scalar.xml),
    "bytea": _always(types_scalar.binary),
}
"""Every built-in type whose binary form is understood, by its name as ``format_type`` spells it."""

EXTENSIONS: Final[dict[str, Callable[[str], Codec]]] = {
    "citext": lambda _spelled: text_like("text"),
}
"""Types of extensions, by their ``typname``."""


# --- from an Avro form -----------------------------------------------------------------------------------------

_NAMED: Final = {
    types_scalar.JSON: "jsonb",
    types_scalar.UUID: "uuid",
    types_scalar.XML: "xml",
    ENUM: "text",
    numeric.VARIABLE: "numeric",
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
}


def _parameters(avro: AvroType) -> Mapping[str, str]:
    if isinstance(avro, str):
        return {}
    return cast("Mapping[str, str]", avro.get("connect.parameters") or {})


def _form(avro: AvroType) -> Any:
    """What the bytes look like, and the logical type that gives them a meaning."""
    if isinstance(avro, str):
        return "record" if avro in {numeric.VARIABLE} else (avro, None, None)
    if avro["type"] == "record":
        return "record"
    return avro["type"], avro.get("connect.name"), avro.get("scale")


def _type_of_form(avro: AvroType) -> str:
    if isinstance(avro, str):
        return _PLAIN.get(avro, "")
    name = avro.get("connect.name")
    if name == numeric.DECIMAL or (name is None and avro.get("logicalType") == "decimal"):
        if _parameters(avro).get("connect.decimal.precision") is None and avro.get("scale") == 2:
            return "money"
        return f"numeric({avro['precision']},{avro.get('scale', 0)})"
    if name is not None:
        return _NAMED.get(cast("str", name), "") or _type_of_form(cast("AvroType", avro["type"]))
    if avro.get("connect.type") == "int16":
        return "smallint"
    return _type_of_form(cast("AvroType", avro["type"]))

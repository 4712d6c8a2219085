"""From the catalog to a codec: what each type of PostgreSQL is in Avro, under the modes of the configuration.

`forms` goes the other way, from the column of a row schema; both end in a `Codec` of the one type table, which is
`types_builtin` and `types_extension`.

A domain's form is its base type's. Which one that is stands in the form's ``connect.parameters`` as ``cdc.base.type``:
a replica knows the domain's name, but a reader cannot know what it is made of. Avro records (``VariableScaleDecimal``,
``Point``) never carry it: a record is defined once in a schema and its parameters cannot differ by column; they tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cdc.table import AvroType, Column
from connectors.postgres import ranges
from connectors.postgres.arrays import array, array_as_text
from connectors.postgres.codec import Codec, connect, text_like, unknown
from connectors.postgres.forms import BASE_TYPE, ENUM, is_record, parameters_of
from connectors.postgres.handling import DEFAULT, Handling
from connectors.postgres.masks import Mask, masked
from connectors.postgres.types_builtin import codec_of_name, oid_of
from connectors.postgres.types_composite import Field, composite
from connectors.postgres.types_extension import EXTENSIONS, staged_as_text

FIRST_USER_OID: Final = 16384
"""Types below it are PostgreSQL's own: their names mean what they say."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column as the catalog describes it (``pg_attribute`` joined with ``pg_type``).

    ``formatted_type`` is ``format_type(atttypid, atttypmod)``; ``type_name`` is ``typname``, ``typtype`` the
    letter of ``pg_type`` (b base, d domain, e enum, r range, m multirange, c composite); ``labels`` are an enum's, in
    order. ``inner`` is a domain's base type (with its typmod), an array's element, a range's subtype, a multirange's
    range: an Attribute without a name; ``fields`` are a composite's. ``dimensions`` is ``attndims``, ``delimiter`` what
    stands between values of the type in the literal of an array (``typdelim``).
    ``mask`` is done to its text; an ``excluded`` column is no part of any row.
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
    fields: tuple[Attribute, ...] = ()
    delimiter: str = ","


def column_of(attribute: Attribute, handling: Handling = DEFAULT) -> Column:
    """The column of a row schema."""
    source_type = "text" if attribute.mask is not None else attribute.formatted_type
    return Column(
        name=attribute.name,
        avro=_with_base(codec_of(attribute, handling).avro, attribute),
        nullable=not attribute.not_null,
        source_type=source_type,
    )


def codec_of(attribute: Attribute, handling: Handling = DEFAULT) -> Codec:
    """The codec of a source's column. Types that nothing is known of travel as text (``text_only``)."""
    if attribute.mask is not None:
        return masked(attribute.mask)
    inner = attribute.inner
    match attribute.typtype:
        case "d" if inner is not None:
            return codec_of(inner, handling)
        case "e":
            return enum(attribute.labels)
        case "c":
            return composite([Field(f.type_oid, codec_of(f, handling)) for f in attribute.fields])
    if inner is not None and _is_array(attribute):
        element = codec_of(inner, handling)
        oid = oid_of(element.pg_type)
        if attribute.dimensions > 1:
            return array_as_text(element, oid, inner.delimiter)
        return array(element, oid, inner.delimiter)
    if attribute.type_oid < FIRST_USER_OID:
        known = codec_of_name(attribute.formatted_type, handling)
        if known is not None:
            return known
    if attribute.typtype == "r" and inner is not None:
        return _range(inner)
    if attribute.typtype == "m" and inner is not None and inner.inner is not None:
        return _multirange(inner.inner)
    maker = EXTENSIONS.get(attribute.type_name)
    if maker is not None and attribute.typtype == "b":
        return maker(handling)
    return unknown()


def _range(subtype: Attribute) -> Codec:
    codec = codec_of(subtype)
    return unknown() if codec.text_only else staged_as_text(ranges.range_codec("text", codec))


def _multirange(subtype: Attribute) -> Codec:
    codec = codec_of(subtype)
    return unknown() if codec.text_only else staged_as_text(ranges.multirange_codec("text", codec))


def _is_array(attribute: Attribute) -> bool:
    return attribute.formatted_type.endswith("[]")


def enum(labels: tuple[str, ...]) -> Codec:
    """An enum: its label, and all labels in the schema."""
    return text_like("text", connect("string", ENUM, {"allowed": ",".join(labels)}))


def _with_base(avro: AvroType, attribute: Attribute) -> AvroType:
    """The Avro form, with the type that a domain is made of in its parameters."""
    base = base_type_of(attribute)
    if base == attribute.formatted_type or is_record(avro):
        return avro
    schema: dict[str, object] = {"type": avro} if isinstance(avro, str) else dict(avro)
    schema["connect.parameters"] = {**parameters_of(avro), BASE_TYPE: base}
    return schema


def base_type_of(attribute: Attribute) -> str:
    """The type's name with every domain replaced by what it is made of."""
    inner = attribute.inner
    if inner is not None and attribute.typtype == "d":
        return base_type_of(inner)
    if inner is not None and _is_array(attribute):
        return f"{base_type_of(inner)}[]"
    return attribute.formatted_type

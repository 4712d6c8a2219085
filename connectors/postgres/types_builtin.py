"""The built-in types, by their names as ``format_type`` spells them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from cdc.table import AvroType
from connectors.postgres import (
    clock,
    intervals,
    numeric,
    ranges,
    temporal,
    types_bits,
    types_geometric,
    types_network,
    types_scalar,
    types_system,
)
from connectors.postgres.arrays import array
from connectors.postgres.codec import Codec, text_like

_SPELLED: Final = re.compile(
    r"(?P<name>[^(\[]+?)(?:\((?P<args>-?\d+(?:,-?\d+)?)\))?(?P<zone> with(?:out)? time zone)?"
)

Maker = Callable[[str, tuple[int, ...]], Codec]


def codec_of_name(spelled: str) -> Codec | None:
    """The codec of a built-in type as ``format_type`` spells it; None when it is not known."""
    if spelled.endswith("[]"):
        element = codec_of_name(spelled.removesuffix("[]"))
        return None if element is None else array(element, oid_of(element.pg_type))
    if spelled.startswith(
        "interval "
    ):  # interval day to second(3): the fields only limit what is stored
        return intervals.interval(spelled)
    match = _SPELLED.fullmatch(spelled)
    if match is None:
        return None
    maker = BUILT_IN.get(match["name"] + (match["zone"] or ""))
    if maker is None:
        return None
    return maker(spelled, tuple(int(arg) for arg in (match["args"] or "").split(",") if arg))


def oid_of(spelled: str) -> int:
    """The oid of a built-in type, which an array's binary form names its element by."""
    match = _SPELLED.fullmatch(spelled)
    if match is None:
        raise ValueError(f"no oid is known of the type {spelled}")
    return OIDS[match["name"] + (match["zone"] or "")]


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


def _time(spelled: str, args: tuple[int, ...]) -> Codec:
    return clock.time(spelled, args[0] if args else 6)


def _zoned_time(spelled: str, args: tuple[int, ...]) -> Codec:
    return clock.zoned_time(spelled, args[0] if args else 6)


def _bit_varying(spelled: str, args: tuple[int, ...]) -> Codec:
    return types_bits.bit_varying(spelled, args[0] if args else None)


def _named(codec: Callable[[str], Codec]) -> Maker:
    return lambda spelled, _args: codec(spelled)


def _range(subtype: str) -> Maker:
    return lambda spelled, _args: ranges.range_codec(spelled, _subtype(subtype))


def _multirange(subtype: str) -> Maker:
    return lambda spelled, _args: ranges.multirange_codec(spelled, _subtype(subtype))


def _subtype(spelled: str) -> Codec:
    return BUILT_IN[spelled](spelled, ())


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
    "bpchar": _text(direct=False),  # character without a length
    '"char"': _always(types_system.one_byte),
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
    "time without time zone": _time,
    "time with time zone": _zoned_time,
    "interval": _named(intervals.interval),
    "bit": lambda _spelled, args: types_bits.bit(args[0] if args else 1),
    '"bit"': _bit_varying,
    "bit varying": _bit_varying,
    "inet": _named(types_network.address),
    "cidr": _named(types_network.address),
    "macaddr": _named(types_network.hardware),
    "macaddr8": _named(types_network.hardware),
    "point": _always(types_geometric.point),
    **dict.fromkeys(types_geometric.SHAPES, _named(types_geometric.shape)),
    **{f"{name}range": _range(subtype) for name, subtype in ranges.SUBTYPES.items()},
    **{f"{name}multirange": _multirange(subtype) for name, subtype in ranges.SUBTYPES.items()},
    "xid": lambda spelled, _args: types_system.xid(spelled, 4),
    "cid": lambda spelled, _args: types_system.xid(spelled, 4),
    "xid8": lambda spelled, _args: types_system.xid(spelled, 8),
    "tid": _always(types_system.tid),
    "pg_lsn": _always(types_system.pg_lsn),
    "pg_snapshot": _named(types_system.snapshot),
    "txid_snapshot": _named(types_system.snapshot),
    "tsvector": _always(types_system.text_search_vector),
    "jsonpath": lambda spelled, _args: types_scalar.versioned(spelled, "string"),
    "refcursor": _text(direct=False),
}
"""Every built-in type whose binary form is understood, by its name as ``format_type`` spells it."""

# select format_type(oid, null), oid from pg_type: they never change
OIDS: Final = {
    "boolean": 16,
    "bytea": 17,
    '"char"': 18,
    "name": 19,
    "bigint": 20,
    "smallint": 21,
    "integer": 23,
    "text": 25,
    "oid": 26,
    "tid": 27,
    "xid": 28,
    "cid": 29,
    "json": 114,
    "xml": 142,
    "point": 600,
    "lseg": 601,
    "path": 602,
    "box": 603,
    "polygon": 604,
    "line": 628,
    "cidr": 650,
    "real": 700,
    "double precision": 701,
    "circle": 718,
    "macaddr8": 774,
    "money": 790,
    "macaddr": 829,
    "inet": 869,
    "character": 1042,
    "bpchar": 1042,
    "character varying": 1043,
    "date": 1082,
    "time without time zone": 1083,
    "timestamp without time zone": 1114,
    "timestamp with time zone": 1184,
    "interval": 1186,
    "time with time zone": 1266,
    "bit": 1560,
    '"bit"': 1560,
    "bit varying": 1562,
    "numeric": 1700,
    "refcursor": 1790,
    "uuid": 2950,
    "txid_snapshot": 2970,
    "pg_lsn": 3220,
    "tsvector": 3614,
    "jsonb": 3802,
    "int4range": 3904,
    "numrange": 3906,
    "tsrange": 3908,
    "tstzrange": 3910,
    "daterange": 3912,
    "int8range": 3926,
    "jsonpath": 4072,
    "int4multirange": 4451,
    "nummultirange": 4532,
    "tsmultirange": 4533,
    "tstzmultirange": 4534,
    "datemultirange": 4535,
    "int8multirange": 4536,
    "pg_snapshot": 5038,
    "xid8": 5069,
}
"""By the name as ``format_type`` spells it."""

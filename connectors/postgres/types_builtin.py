"""The built-in types, by their names as ``format_type`` spells them, in the forms that were chosen for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from cdc.table import AvroType
from connectors.postgres import (
    binary_modes,
    clock,
    decimal_modes,
    intervals,
    numeric,
    ranges,
    temporal,
    temporal_modes,
    types_bits,
    types_geometric,
    types_network,
    types_scalar,
    types_system,
)
from connectors.postgres.arrays import array
from connectors.postgres.codec import Codec, text_like
from connectors.postgres.handling import DEFAULT, Handling, Times

_SPELLED: Final = re.compile(
    r"(?P<name>[^(\[]+?)(?:\((?P<args>-?\d+(?:,-?\d+)?)\))?(?P<zone> with(?:out)? time zone)?"
)

Maker = Callable[[str, tuple[int, ...], Handling], Codec]


def codec_of_name(spelled: str, handling: Handling = DEFAULT) -> Codec | None:
    """The codec of a built-in type as ``format_type`` spells it; None when it is not known."""
    if spelled.endswith("[]"):
        element = codec_of_name(spelled.removesuffix("[]"), handling)
        if element is None:
            return None
        return array(element, oid_of(element.pg_type), delimiter_of(element.pg_type))
    if spelled.startswith("interval "):  # day to second(3): the fields only limit what is stored
        return _interval(spelled, (), handling)
    match = _SPELLED.fullmatch(spelled)
    if match is None:
        return None
    maker = BUILT_IN.get(match["name"] + (match["zone"] or ""))
    if maker is None:
        return None
    args = tuple(int(arg) for arg in (match["args"] or "").split(",") if arg)
    return maker(spelled, args, handling)


def delimiter_of(spelled: str) -> str:
    """What stands between the elements of an array of this built-in type."""
    return ";" if spelled == "box" else ","


def oid_of(spelled: str) -> int:
    """The oid of a built-in type, which an array's binary form names its element by."""
    match = _SPELLED.fullmatch(spelled)
    if match is None:
        raise ValueError(f"no oid is known of the type {spelled}")
    return OIDS[match["name"] + (match["zone"] or "")]


def _numeric(spelled: str, args: tuple[int, ...], handling: Handling) -> Codec:
    scale = args[1] if len(args) > 1 else 0
    precise = numeric.numeric(args[0], scale, spelled) if args else numeric.variable_numeric()
    if handling.decimals == "string":
        return decimal_modes.numeric_as_string(precise)
    if handling.decimals == "double":
        return decimal_modes.numeric_as_double(precise, max(scale, 0) if args else None)
    return precise


def _money(_spelled: str, _args: tuple[int, ...], handling: Handling) -> Codec:
    precise = numeric.money(handling.money_digits)
    if handling.decimals == "string":
        return decimal_modes.money_as_string(precise)
    if handling.decimals == "double":
        return decimal_modes.money_as_double(precise)
    return precise


def _date(_spelled: str, _args: tuple[int, ...], handling: Handling) -> Codec:
    adaptive = temporal.date()
    if handling.times == "connect":
        return temporal_modes.connect_date(adaptive)
    if handling.times == "isostring":
        return temporal_modes.iso_date_form(adaptive)
    return adaptive


def _timestamp(spelled: str, args: tuple[int, ...], handling: Handling) -> Codec:
    if mode := _TIMESTAMP_MODES.get(handling.times):
        return mode(temporal.micro_timestamp(spelled))
    if args and args[0] <= 3 and handling.times != "microseconds":
        return temporal.milli_timestamp(spelled)
    return temporal.micro_timestamp(spelled)


def _time(spelled: str, args: tuple[int, ...], handling: Handling) -> Codec:
    if mode := _TIME_MODES.get(handling.times):
        return mode(clock.time(spelled, in_millis=False))
    return clock.time(
        spelled, in_millis=bool(args) and args[0] <= 3 and handling.times == "adaptive"
    )


_TIMESTAMP_MODES: Final[dict[Times, Callable[[Codec], Codec]]] = {
    "connect": temporal_modes.connect_timestamp,
    "isostring": temporal_modes.iso_timestamp_form,
    "nanoseconds": temporal_modes.nano_timestamp,
}
_TIME_MODES: Final[dict[Times, Callable[[Codec], Codec]]] = {
    "connect": temporal_modes.connect_time,
    "isostring": temporal_modes.iso_time_form,
    "nanoseconds": temporal_modes.nano_time,
}


def _zoned_timestamp(spelled: str, args: tuple[int, ...], _handling: Handling) -> Codec:
    return temporal.zoned_timestamp(spelled, args[0] if args else 6)


def _zoned_time(spelled: str, args: tuple[int, ...], _handling: Handling) -> Codec:
    return clock.zoned_time(spelled, args[0] if args else 6)


def _interval(spelled: str, _args: tuple[int, ...], handling: Handling) -> Codec:
    exact = intervals.interval(spelled)
    return intervals.interval_as_number(exact) if handling.intervals == "numeric" else exact


def _bit(_spelled: str, args: tuple[int, ...], _handling: Handling) -> Codec:
    return types_bits.bit(args[0] if args else 1)


def _bit_varying(spelled: str, args: tuple[int, ...], _handling: Handling) -> Codec:
    return types_bits.bit_varying(spelled, args[0] if args else None)


def _named(codec: Callable[[str], Codec]) -> Maker:
    return lambda spelled, _args, _handling: codec(spelled)


def _range(subtype: str) -> Maker:
    return lambda spelled, _args, _handling: ranges.range_codec(spelled, _subtype(subtype))


def _multirange(subtype: str) -> Maker:
    return lambda spelled, _args, _handling: ranges.multirange_codec(spelled, _subtype(subtype))


def _subtype(spelled: str) -> Codec:
    return BUILT_IN[spelled](spelled, (), DEFAULT)


def _always(codec: Callable[[], Codec]) -> Maker:
    return lambda _spelled, _args, _handling: codec()


def _text(*, direct: bool) -> Maker:
    return lambda spelled, _args, _handling: text_like(spelled, direct=direct)


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
    "money": _money,
    "date": _date,
    "timestamp without time zone": _timestamp,
    "timestamp with time zone": _zoned_timestamp,
    "uuid": _always(types_scalar.identifier),
    "json": _always(types_scalar.json),
    "jsonb": _always(types_scalar.jsonb),
    "xml": _always(types_scalar.xml),
    "bytea": lambda _spelled, _args, handling: binary_modes.binary_by(handling.binaries),
    "time without time zone": _time,
    "time with time zone": _zoned_time,
    "interval": _interval,
    "bit": _bit,
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
    "xid": _named(lambda spelled: types_system.xid(spelled, 4)),
    "cid": _named(lambda spelled: types_system.xid(spelled, 4)),
    "xid8": _named(lambda spelled: types_system.xid(spelled, 8)),
    "tid": _always(types_system.tid),
    "pg_lsn": _always(types_system.pg_lsn),
    "pg_snapshot": _named(types_system.snapshot),
    "txid_snapshot": _named(types_system.snapshot),
    "tsvector": _always(types_system.text_search_vector),
    "jsonpath": _named(lambda spelled: types_scalar.versioned(spelled, "string")),
    "refcursor": _text(direct=False),
    "int2vector": _always(lambda: types_system.number_vector("h", 21)),
    "oidvector": _always(lambda: types_system.number_vector("I", 26)),
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

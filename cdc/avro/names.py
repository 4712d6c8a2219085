"""Names on the wire: what Kafka and Avro allow, made from names that a database allows.

Follows Debezium's ``schema.name.adjustment.mode`` and ``field.name.adjustment.mode``. ``avro``: each character that is
not allowed becomes an underscore, and a leading digit gets one in front of it. ``avro_unicode``: it becomes its code.
``none``: names stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from cdc.errors import Refused
from cdc.table import TableId

Adjustment = Literal["none", "avro", "avro_unicode"]


class NameAdjustment(NamedTuple):
    """How names of schemas and of fields are made."""

    schemas: Adjustment = "avro"
    fields: Adjustment = "avro"


AS_AVRO = NameAdjustment()


_NOT_IN_TOPIC = re.compile(r"[^a-zA-Z0-9._-]")
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_]")


def collection_name(table: TableId) -> str:
    """The topic's name without its prefix: ``schema.table`` in characters that Kafka allows."""
    return topic_characters(str(table))


def topic_characters(name: str) -> str:
    """The name with each character that Kafka forbids in topics replaced by an underscore."""
    return _NOT_IN_TOPIC.sub("_", name)


def topic_name(prefix: str, table: TableId) -> str:
    """The data topic of a table."""
    return f"{prefix}.{collection_name(table)}"


def namespace(topic: str, adjustment: Adjustment = "avro") -> str:
    """The Avro namespace of a topic's records: dot-separated names, each adjusted by itself."""
    return ".".join(
        adjusted(part, adjustment, first=place == 0)
        for place, part in enumerate(part for part in topic.split(".") if part)
    )


def adjusted(name: str, adjustment: Adjustment, *, first: bool = True) -> str:
    """One name as this mode makes it. ``first``: it does not stand behind a dot."""
    if adjustment == "none":
        return name
    return avro_name(name) if adjustment == "avro" else _unicode_name(name, first=first)


def avro_name(name: str) -> str:
    """One Avro name: latin letters, digits and underscores, not led by a digit."""
    safe = _NOT_IN_NAME.sub("_", name)
    return f"_{safe}" if safe[:1].isdigit() or not safe else safe


def _unicode_name(name: str, *, first: bool) -> str:
    """Each character that may not stand there as ``_u`` and its UTF-16 code; so is the underscore, which escapes."""
    units = name.encode("utf-16-be", "surrogatepass")
    codes = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
    out = []
    for place, code in enumerate(codes):
        character = chr(code)
        fits = character.isascii() and (
            character.isalpha() or (character.isdigit() and (place > 0 or not first))
        )
        digits = f"{code:x}"
        out.append(character if fits else f"_u{'00' if len(digits) <= 2 else ''}{digits}")
    return "".join(out)


def field_names(columns: Iterable[str], adjustment: Adjustment = "avro") -> list[str]:
    """Avro field names of columns, in order; where two would meet in one name the later gets a number.

    Refused for a column whose name is none of Avro's and is not to be adjusted.
    """
    names: list[str] = []
    taken = set[str]()
    columns = list(columns)
    exact = {column for column in columns if adjusted(column, adjustment) == column}
    for column in columns:
        name = adjusted(column, adjustment)
        if column not in exact:
            number = 2
            while name in exact or name in taken:
                name = f"{adjusted(column, adjustment)}_{number}"
                number += 1
        elif avro_name(name) != name:
            raise Refused(
                f"column {column} has a name that Avro does not allow",
                "set field.name.adjustment.mode=avro",
            )
        taken.add(name)
        names.append(name)
    return names

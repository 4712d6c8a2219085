"""Names on the wire: what Kafka and Avro allow, made from names that a database allows.

Follows Debezium's ``schema.name.adjustment.mode=avro`` and ``field.name.adjustment.mode=avro``: each character that
is not allowed becomes an underscore, and a leading digit gets one in front of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cdc.table import TableId

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


def namespace(topic: str) -> str:
    """The Avro namespace of a topic's records: dot-separated names, each valid by itself."""
    return ".".join(avro_name(part) for part in topic.split(".") if part)


def avro_name(name: str) -> str:
    """One Avro name: latin letters, digits and underscores, not led by a digit."""
    safe = _NOT_IN_NAME.sub("_", name)
    return f"_{safe}" if safe[:1].isdigit() or not safe else safe


def field_names(columns: Iterable[str]) -> list[str]:
    """Avro field names of columns, in order; where two would meet in one name the later gets a number."""
    names: list[str] = []
    taken = set[str]()
    columns = list(columns)
    exact = {column for column in columns if avro_name(column) == column}
    for column in columns:
        name = avro_name(column)
        if column not in exact:
            number = 2
            while name in exact or name in taken:
                name = f"{avro_name(column)}_{number}"
                number += 1
        taken.add(name)
        names.append(name)
    return names

"""Connector files: what settings there are, and what a file sets them to.

A file is TOML or JSON in Kafka Connect's shape (``name`` and ``config``) or flat, with Debezium's property names.
Secrets stand by reference: ``${env:NAME}``, ``${file:PATH}``. An unknown key is an error that names the nearest one;
a known key that is not supported says so. Nothing is half obeyed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["source", "sink"]

MOST_MESSAGE_BYTES = 64 << 20
"""The largest record that topics of ours take, unless ``producer.override.message.max.bytes`` says otherwise."""


def _as_it_is(_: str, value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Setting:
    """One property: its name, what it means, how its text is read.

    ``parse`` takes the file's value (str, int, float or bool) and raises ValueError with a short reason.
    A name that ends in ``.*`` stands for every property that begins so; its value maps the rest of their names to what
    ``parse_member`` makes of (rest, value), which raises ValueError too.
    ``default`` of None with ``required`` False means that the property may be absent.
    ``secret`` values are never shown. ``unsupported`` holds the reason why a known property is refused.
    """

    name: str
    doc: str
    parse: Callable[[Any], Any] = str
    default: Any = None
    required: bool = False
    secret: bool = False
    unsupported: str = ""
    parse_member: Callable[[str, Any], Any] = _as_it_is


@dataclass(frozen=True)
class ConnectorConfig:
    """A connector's file, checked: every value parsed, every default filled in."""

    name: str
    plugin: str
    role: Role
    connector_class: str
    values: Mapping[str, Any]

    def __getitem__(self, setting: str) -> Any:
        return self.values[setting]

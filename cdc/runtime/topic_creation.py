"""How data topics are made: Kafka Connect's ``topic.creation.*`` properties, the default and groups.

The first group whose ``include`` matches a topic and whose ``exclude`` does not makes it; else ``default`` does. A group
without its own count of partitions or replicas has the default's; other topic settings are each group's own.
https://kafka.apache.org/documentation/#connect_userguide (KIP-158)
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cdc.config import ConnectorConfig
from cdc.errors import ConfigError
from cdc.kafka.topics import TOPIC_SETTINGS, NewTopicSpec

_DEFAULT = "default"
_PREFIX = "topic.creation."


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    partitions: int
    replication: int
    include: tuple[re.Pattern[str], ...] = ()
    exclude: tuple[re.Pattern[str], ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    def makes(self, topic: str) -> bool:
        return _any(self.include, topic) and not _any(self.exclude, topic)


@dataclass(frozen=True, slots=True)
class TopicCreation:
    """What topics are made like, by their names."""

    default: _Group
    groups: tuple[_Group, ...] = ()

    @classmethod
    def of(cls, config: ConnectorConfig) -> TopicCreation:
        """Read a source's configuration. ConfigError for a group or a topic setting that does not exist."""
        members: Mapping[str, Any] = config[f"{_PREFIX}*"]
        names = _listed(members.get("groups", ""))
        of_group: dict[str, dict[str, str]] = {name: {} for name in (*names, _DEFAULT)}
        for member, value in members.items():
            if member == "groups":
                continue
            group, _, setting = member.partition(".")
            if group not in of_group:
                raise ConfigError(
                    f"{_PREFIX}{member}: there is no group {group}",
                    f"name it in {_PREFIX}groups, or set {_PREFIX}default.{setting}",
                )
            of_group[group][setting] = str(value)
        default = _group(
            _DEFAULT,
            of_group.pop(_DEFAULT),
            config[f"{_PREFIX}default.partitions"],
            config[f"{_PREFIX}default.replication.factor"] or -1,
        )
        groups = (
            _group(name, given, default.partitions, default.replication)
            for name, given in of_group.items()
        )
        return cls(default, tuple(groups))

    def spec(self, topic: str) -> NewTopicSpec:
        """The data topic as it would be made."""
        group = next((group for group in self.groups if group.makes(topic)), self.default)
        return NewTopicSpec(topic, "data", group.partitions, group.replication, group.settings)


def _group(name: str, given: dict[str, str], partitions: int, replication: int) -> _Group:
    where = f"{_PREFIX}{name}"
    include, exclude = given.pop("include", None), given.pop("exclude", "")
    if (include is None) != (name == _DEFAULT):
        raise ConfigError(
            f"{where}.include is {'missing' if include is None else 'not for the default'}",
            "regular expressions of topics, separated by commas",
        )
    partitions = _whole(f"{where}.partitions", given.pop("partitions", partitions), 1)
    replication = _whole(
        f"{where}.replication.factor", given.pop("replication.factor", replication), -1
    )
    for setting in given:
        if setting not in TOPIC_SETTINGS:
            near = difflib.get_close_matches(setting, TOPIC_SETTINGS, n=1)
            raise ConfigError(
                f"{where}.{setting}: Kafka's topics have no setting {setting}",
                f"did you mean {near[0]}?" if near else "leave it out",
            )
    return _Group(
        name,
        partitions,
        replication or -1,
        _patterns(f"{where}.include", include or ""),
        _patterns(f"{where}.exclude", exclude),
        given,
    )


def _listed(value: object) -> list[str]:
    return [part.strip() for part in str(value).split(",") if part.strip()]


def _whole(name: str, value: object, least: int) -> int:
    text = str(value).strip()
    if not re.fullmatch(r"-?\d+", text) or int(text) < least:
        raise ConfigError(
            f"{name}: {value!r}: a whole number from {least} on is expected", "correct it"
        )
    return int(text)


def _patterns(name: str, value: str) -> tuple[re.Pattern[str], ...]:
    try:
        return tuple(re.compile(part) for part in _listed(value))
    except re.error as error:
        raise ConfigError(f"{name}: not a regular expression: {error}", "correct it") from error


def _any(patterns: tuple[re.Pattern[str], ...], topic: str) -> bool:
    return any(pattern.fullmatch(topic) for pattern in patterns)

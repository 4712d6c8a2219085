"""The two databases of one source connector and one of its sinks, opened to be looked at side by side."""

from __future__ import annotations

from cdc.config import ConnectorConfig
from cdc.errors import ConfigError
from cdc.protocols import ReplicaSide, SourceSide
from cdc.runtime.plugins import plugins


def open_sides(source: ConnectorConfig, sink: ConnectorConfig) -> tuple[SourceSide, ReplicaSide]:
    """Both doors; each connects at its first use, and is closed by the caller.

    ConfigError where the files are not one source's and its sink's, or one of them has no such door.
    """
    check_pair(source, sink)
    source_side = plugins()[source.plugin].open_source_side
    if source_side is None:
        raise ConfigError(
            f"{source.name}: a {source.plugin} source cannot be verified",
            "see the connector's file",
        )
    return source_side(source), open_replica_side(sink)


def open_replica_side(sink: ConnectorConfig) -> ReplicaSide:
    """The replica's door alone; ConfigError where it has none."""
    side = plugins()[sink.plugin].open_replica_side
    if side is None:
        raise ConfigError(
            f"{sink.name}: a {sink.plugin} sink cannot be verified", "see the connector's file"
        )
    return side(sink)


def check_pair(source: ConnectorConfig, sink: ConnectorConfig) -> None:
    """ConfigError where the files are not one source's and its sink's."""
    for config, role, place in ((source, "source", "first"), (sink, "sink", "second")):
        if config.role != role:
            raise ConfigError(
                f"{config.name} is a {config.role}, not a {role}",
                f"give the file of the {role} {place}",
            )
    if sink["topic.prefix"] != source["topic.prefix"]:
        raise ConfigError(
            f"{sink.name} reads the topics of {sink['topic.prefix']}, {source.name} writes those of"
            f" {source['topic.prefix']}",
            "give the files of one source and of its sink",
        )

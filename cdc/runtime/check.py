"""Everything that connectors need, looked at without changing it: what a start would refuse, and what it would not see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdc.avro.names import topic_characters, topic_name
from cdc.config import ConnectorConfig
from cdc.errors import CdcError
from cdc.findings import Finding, fail, guarded, of_error, ok, warn
from cdc.kafka.checkpoints import read_checkpoint
from cdc.kafka.topics import Topics
from cdc.pipeline.resume import check_history
from cdc.runtime.check_topics import sink_topics, source_topics
from cdc.runtime.clients import kafka_cluster, schema_registry
from cdc.runtime.config_files import SeveralProblems, load
from cdc.runtime.plugins import plugins
from cdc.table import Table, TableId


@dataclass(frozen=True, slots=True)
class Checked:
    """A finding of one file's connector."""

    file: Path
    connector: str
    finding: Finding

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {"file": str(self.file), "connector": self.connector, **self.finding.to_json()}


def check_files(paths: Sequence[Path]) -> Iterator[Checked]:
    """Every finding of every file, as it is found."""
    for path in paths:
        try:
            config = load(path)
        except SeveralProblems as errors:
            yield from (Checked(path, "", of_error("settings", e)) for e in errors.problems)
        except CdcError as error:
            yield Checked(path, "", of_error("settings", error))
        else:
            yield from (Checked(path, config.name, found) for found in check_connector(config))


def check_connector(config: ConnectorConfig) -> Iterator[Finding]:
    """One connector's: registry, brokers, topics, its system, and how its checkpoint fits all that."""
    yield ok("settings", f"{config.name} is a {config.connector_class}")
    yield from guarded("schema registry", _registry(config))
    yield from guarded("Kafka", _kafka(config))
    plugin = plugins()[config.plugin]
    look = plugin.check_source if config.role == "source" else plugin.check_sink
    if look is not None:
        yield from guarded(config.role, look(config))
    if config.role == "source":
        yield from guarded("checkpoint", _checkpoint(config))


def _registry(config: ConnectorConfig) -> Iterator[Finding]:
    registry = schema_registry(config)
    registry.reach()
    rule = registry.compatibility()
    if rule == "NONE":
        yield warn(
            "schema registry",
            "its compatibility rule is NONE: readers meet schemas that they cannot read without a word",
            "set the rule BACKWARD, for all subjects or for those of this connector",
        )
    else:
        yield ok("schema registry", f"reachable{f', compatibility {rule}' if rule else ''}")


def _kafka(config: ConnectorConfig) -> Iterator[Finding]:
    topics = Topics(kafka_cluster(config))
    cluster, brokers = topics.cluster()
    yield ok("Kafka", f"cluster {cluster}, {brokers} brokers")
    if config.role == "source":
        yield from source_topics(topics, brokers, config)
    else:
        yield from sink_topics(topics, config)


def _checkpoint(config: ConnectorConfig) -> Iterator[Finding]:
    """What a start would refuse: the same words, by the same code."""
    checkpoint = read_checkpoint(kafka_cluster(config), config["offset.storage.topic"], config.name)
    open_source = plugins()[config.plugin].open_source
    if open_source is None:
        return
    with closing(open_source(config)) as source:
        yield from _topic_names(config["topic.prefix"], source.tables())
        check_history(source, checkpoint, connector=config.name, slot=config["slot.name"])
    if checkpoint is None:
        yield ok("checkpoint", "there is none: the connector begins anew")
    else:
        copied = sum(progress.state == "done" for progress in checkpoint.backfills.values())
        yield ok(
            "checkpoint",
            f"at {checkpoint.lsn}, {copied} of {len(checkpoint.backfills)} tables copied",
        )


def _topic_names(prefix: str, tables: Sequence[Table]) -> Iterator[Finding]:
    """That no two tables come to one topic: characters that Kafka forbids become underscores."""
    taken: dict[str, TableId] = {}
    for table in tables:
        topic = topic_name(topic_characters(prefix), table.id)
        other = taken.setdefault(topic, table.id)
        if other != table.id:
            yield fail(
                topic,
                f"tables {other} and {table.id} would share it",
                "capture only one of them under this topic.prefix",
            )

"""What a source connector captures, asked of its checkpoint and its source; and copies made anew."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from cdc.checkpoint import SourceCheckpoint
from cdc.config import ConnectorConfig
from cdc.connector import SequenceMove
from cdc.errors import ConfigError, Unreachable
from cdc.fence import SIGNAL_PREFIX, Signal
from cdc.kafka.checkpoints import read_checkpoint
from cdc.protocols import Source
from cdc.runtime.clients import kafka_cluster
from cdc.runtime.plugins import plugins
from cdc.runtime.sides import check_pair
from cdc.table import TableId

_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class CopyState:
    """How far the first copy of a table has come."""

    table: TableId
    state: str
    rows: int

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {"table": str(self.table), "state": self.state, "rows": self.rows}


def states(config: ConnectorConfig) -> list[CopyState]:
    """Every captured table; ``new`` where the connector has not begun with it."""
    checkpoint = _checkpoint(config)
    known = checkpoint.backfills if checkpoint else {}
    with closing(_source(config)) as source:
        selected = [table.id for table in source.tables()]
    return [
        CopyState(table, known[table].state, known[table].rows)
        if table in known
        else CopyState(table, "new", 0)
        for table in selected
    ]


def backfill(config: ConnectorConfig, tables: Sequence[TableId]) -> Iterator[TableId]:
    """Ask the connector to copy these anew; each is in the source's log for good when it is yielded."""
    with closing(_source(config)) as source:
        captured = {table.id for table in source.tables()}
        for table in tables:
            if table not in captured:
                raise ConfigError(
                    f"{table} is not captured by {config.name}",
                    f"one of: {', '.join(map(str, sorted(captured))) or '(none yet: start it first)'}",
                )
        for table in tables:
            signal = Signal(
                f"backfill-{uuid.uuid4().hex[:12]}", "backfill", config["topic.prefix"], table
            )
            source.emit(SIGNAL_PREFIX, signal.to_message())
            yield table


def join(config: ConnectorConfig, table: TableId) -> Sequence[TableId]:
    """Publish the table, and have the connector capture and copy it from here on, whether it runs now or not.

    So are other selected tables that joined since the connector started; all of them are returned. ConfigError where
    the configuration does not select it, or it cannot be captured.
    """
    checkpoint = _checkpoint(config)
    if checkpoint is None:
        raise ConfigError(
            f"{config.name} has never run", "start it: it copies every selected table"
        )
    with closing(_source(config)) as source:
        source.prepare()
        joined = [found.id for found in source.tables() if found.id not in checkpoint.backfills]
        if table not in joined and table not in checkpoint.backfills:
            raise ConfigError(
                f"{config.name} does not select {table}", "see its schema, table and exclude lists"
            )
        for joining in joined:
            name = f"add-{uuid.uuid4().hex[:12]}"
            signal = Signal(name, "add", config["topic.prefix"], joining)
            source.emit(SIGNAL_PREFIX, signal.to_message())
    return joined


def await_copy(config: ConnectorConfig, table: TableId, seconds: float) -> Iterator[CopyState]:
    """How far the copy is, twice a second until it is done. Unreachable when that takes longer than ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        checkpoint = _checkpoint(config)
        progress = checkpoint.backfills.get(table) if checkpoint else None
        state = (
            CopyState(table, progress.state, progress.rows)
            if progress
            else CopyState(table, "new", 0)
        )
        yield state
        if state.state == "done":
            return
        if time.monotonic() > deadline:
            raise Unreachable(
                f"the copy of {table} is not done after {seconds:g} s: it is {state.state}, {state.rows:,} rows",
                "is the connector running? cdc table list tells how far the copy is",
            )
        time.sleep(_LOOK_SECONDS)


def selects(config: ConnectorConfig, table: TableId) -> bool:
    """Whether the configuration selects the table, published or not."""
    with closing(_source(config)) as source:
        return source.selects(table)


def _checkpoint(config: ConnectorConfig) -> SourceCheckpoint | None:
    return read_checkpoint(kafka_cluster(config), config["offset.storage.topic"], config.name)


def sync_sequences(
    source: ConnectorConfig, sink: ConnectorConfig, margin: int
) -> Sequence[SequenceMove]:
    """Move the replica's sequences to where the source's stand. ConfigError where the two systems differ."""
    check_pair(source, sink)
    sync = plugins()[source.plugin].sync_sequences
    if sync is None or source.plugin != sink.plugin:
        raise ConfigError(
            f"sequences of {source.plugin} cannot be moved in {sink.plugin}",
            "only a replica of the same system has them",
        )
    return sync(source, sink, margin)


def _source(config: ConnectorConfig) -> Source:
    plugin = plugins()[config.plugin]
    if config.role != "source" or plugin.open_source is None:
        raise ConfigError(f"{config.name} is not a source connector", "give the source's file")
    return plugin.open_source(config)

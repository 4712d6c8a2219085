"""How many tasks a connector has."""

from __future__ import annotations

from cdc.config import ConnectorConfig


def task_count(config: ConnectorConfig) -> int:
    """One keeps one order; only the partitions of a sink with ``apply.mode=partition`` are shared among several."""
    shared = config.role == "sink" and config["apply.mode"] == "partition"
    return int(config["tasks.max"]) if shared else 1

"""What Debezium registered and wrote: schemas by subject, raw records beside their decoded form."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cdc.event import Record
from cdc.testing.registry import MemoryRegistry

DATA = Path(__file__).parent / "data"
PREFIX = "PREFIX"


class Sample(NamedTuple):
    """A raw record, and what Debezium's side read from its key and value."""

    record: Record
    key: Any
    value: Any


@cache
def subjects() -> dict[str, Any]:
    registered: dict[str, Any] = json.loads((DATA / "debezium_registered_schemas.json").read_text())
    return {name: entry["schema"] for name, entry in registered["subjects"].items()}


def registry() -> MemoryRegistry:
    registered = json.loads((DATA / "debezium_registered_schemas.json").read_text())
    memory = MemoryRegistry()
    for entry in registered["subjects"].values():
        memory.put(entry["id"], json.dumps(entry["schema"]))
    return memory


@cache
def samples() -> list[Sample]:
    lines = (DATA / "debezium_sample_records.jsonl").read_text().splitlines()
    return [_sample(json.loads(line)) for line in lines]


def _sample(raw: Any) -> Sample:
    record = Record(
        topic=raw["topic"],
        partition=raw["partition"],
        key=None if raw["key_hex"] is None else bytes.fromhex(raw["key_hex"]),
        value=None if raw["value_hex"] is None else bytes.fromhex(raw["value_hex"]),
        headers=tuple((name, text.encode()) for name, text in raw["headers"]),
        offset=raw["offset"],
    )
    return Sample(record, raw["decoded_key"], raw["decoded_value"])


def data_samples() -> list[Sample]:
    return [s for s in samples() if not s.record.topic.endswith(".transaction")]


def transaction_samples() -> list[Sample]:
    return [s for s in samples() if s.record.topic.endswith(".transaction")]

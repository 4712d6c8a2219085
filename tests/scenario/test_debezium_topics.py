"""What a real Debezium wrote, on real topics, applied partition by partition under its own sink's class name."""

from __future__ import annotations

import json
from typing import Any

import psycopg

from cdc.event import Record
from cdc.kafka.client import Cluster
from cdc.kafka.registry import Registry
from cdc.kafka.topics import NewTopicSpec, Topics
from tests.golden.debezium import DATA, PREFIX, Sample, data_samples
from tests.scenario.conftest import MakePipeline
from tests.scenario.pipeline import wait_for
from tests.scenario.raw_topics import produce

_SINK = {
    "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
    "apply.mode": "partition",
    "insert.mode": "upsert",
    "primary.key.mode": "record_key",
    "delete.enabled": "true",
    "truncate.enabled": "true",
    "schema.evolution": "basic",
    "collection.name.format": "${source.schema}.${source.table}",
}
_COMPARED = ("id", "customer_id", "status", "note")


def test_debeziums_records_end_as_its_rows(
    make_pipeline: MakePipeline, kafka: str, registry_url: str
) -> None:
    pipeline = make_pipeline(sink=_SINK)
    ids = _registered(registry_url, pipeline.prefix)
    samples = [s for s in data_samples() if s.record.topic.endswith(".bench_orders")]
    records = [_moved(sample.record, pipeline.prefix, ids) for sample in samples]
    Topics(Cluster(kafka)).create([NewTopicSpec(records[0].topic)])
    last = next(n for n, s in enumerate(samples) if s.value is not None and s.value["op"] == "t")
    produce(kafka, records[:last])
    pipeline.start(files=[pipeline.sink_file])
    expected = _rows(samples[:last])
    assert len(expected) > 1
    wait_for("Debezium's rows are in the replica", lambda: _held(pipeline.replica_dsn) == expected)
    produce(kafka, records[:last])
    produce(kafka, records[last:])
    wait_for("its TRUNCATE is too", lambda: _held(pipeline.replica_dsn) == {})
    assert pipeline.alive()


def _registered(url: str, prefix: str) -> dict[int, int]:
    """The ids that this registry gives to Debezium's schemas, by those that they had."""
    registry = Registry(url)
    known = json.loads((DATA / "debezium_registered_schemas.json").read_text())["subjects"]
    return {
        entry["id"]: registry.register(subject.replace(PREFIX, prefix), json.dumps(entry["schema"]))
        for subject, entry in known.items()
    }


def _moved(record: Record, prefix: str, ids: dict[int, int]) -> Record:
    def framed(data: bytes | None) -> bytes | None:
        if data is None:
            return None
        return data[:1] + ids[int.from_bytes(data[1:5], "big")].to_bytes(4, "big") + data[5:]

    return record._replace(
        topic=record.topic.replace(PREFIX, prefix),
        key=framed(record.key),
        value=framed(record.value),
    )


def _rows(samples: list[Sample]) -> dict[int, tuple[Any, ...]]:
    rows: dict[int, tuple[Any, ...]] = {}
    for sample in samples:
        if sample.value is not None:
            after = sample.value["after"]
            if after is None:
                rows.pop(sample.key["id"])
            else:
                rows[after["id"]] = tuple(after[name] for name in _COMPARED)
    return rows


def _held(dsn: str) -> dict[int, tuple[Any, ...]] | None:
    with psycopg.connect(dsn) as connection:
        if connection.execute("SELECT to_regclass('bench_orders')").fetchone() == (None,):
            return None
        names = ", ".join(_COMPARED)
        found = connection.execute(f"SELECT {names} FROM bench_orders").fetchall()
    return {row[0]: row for row in found}

"""Rows wider than a record may be: capture stops and names the table, and goes on once there is room for them."""

from __future__ import annotations

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from cdc.runtime.pinned_topics import MOST_MESSAGE_BYTES
from tests.scenario.command import cdc
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import copied
from tests.scenario.pipeline import Pipeline, rows, wait_for
from tests.scenario.raw_topics import admin

WIDE = "INSERT INTO wide SELECT {id}, string_agg(sha256(n::text::bytea), '') FROM generate_series(1, {n}) n"


def allow(pipeline: Pipeline, topic: str, size: int) -> None:
    """What the remedy says."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = admin(pipeline.kafka)
    for future in client.incremental_alter_configs([resource]).values():
        future.result(20)
    pipeline.change(pipeline.source_file, {"producer.override.message.max.bytes": size})


def test_a_row_above_the_limit_of_a_record_stops_capture_until_there_is_room(
    make_pipeline: MakePipeline,
) -> None:
    small = {"producer.override.message.max.bytes": 2 << 20}
    pipeline = make_pipeline(source=small)
    pipeline.on_source(
        "CREATE TABLE wide (id int PRIMARY KEY, secret bytea)", "INSERT INTO wide VALUES (0, 'x')"
    )
    pipeline.start()
    pipeline.catch_up()
    wait_for("the copy is stored", lambda: copied(pipeline))
    pipeline.on_source(WIDE.format(id=1, n=100_000), "INSERT INTO wide VALUES (2, 'y')")
    assert pipeline.wait(60) == 4
    said = cdc("run", pipeline.source_file)
    assert said.status == 4, said
    assert f"{pipeline.prefix}.public.wide" in said.what, said
    assert "max.message.bytes" in said.remedy, said
    allow(pipeline, f"{pipeline.prefix}.public.wide", MOST_MESSAGE_BYTES)
    pipeline.start()
    pipeline.catch_up()
    assert rows(pipeline.replica_dsn, "wide") == rows(pipeline.source_dsn, "wide")

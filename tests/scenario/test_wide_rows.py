"""Rows wider than a record may be: capture stops and names the table, and goes on once there is room for them."""

from __future__ import annotations

import time

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from cdc.config import MOST_MESSAGE_BYTES
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


@pytest.mark.matrix
def test_a_value_of_600_mb_costs_no_more_than_twice_its_size(make_pipeline: MakePipeline) -> None:
    """Guarantee G7: the budget and twice the largest row, also where the row has no room in any record."""
    pipeline = make_pipeline()
    pipeline.on_source(
        "CREATE TABLE wide (id int PRIMARY KEY, secret bytea)", "INSERT INTO wide VALUES (0, 'x')"
    )
    pipeline.start(files=[pipeline.source_file])
    wait_for("the copy is stored", lambda: copied(pipeline))
    size = 600 << 20
    pipeline.on_source(
        f"INSERT INTO wide SELECT 1, convert_to(repeat('0123456789abcdef', {size // 16}), 'UTF8')"
    )
    peak = 0.0
    while pipeline.alive():
        peak = max(peak, float(pipeline.task("source").get("rss_mb") or 0))
        time.sleep(0.02)
    assert pipeline.wait() == 4
    said = pipeline.log.read_text()
    assert "a row of public.wide has 629" in said, said[-500:]
    assert 600 < peak < 64 + 2 * 600 + 100, f"{peak:.0f} MiB resident"

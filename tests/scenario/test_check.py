"""``cdc check`` on real servers: all in order, and everything wrong found at once, each with what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.scenario.conftest import MakePipeline
from tests.scenario.pipeline import Pipeline
from tests.scenario.raw_topics import admin


def _check(*files: Path) -> tuple[int, list[dict[str, Any]]]:
    command = [sys.executable, "-m", "cdc.cli.main", "check", *map(str, files), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    said = json.loads(done.stdout)
    assert said["verdict"] == ("fail" if done.returncode else "ok")
    found: list[dict[str, Any]] = said["findings"]
    assert all(one["remedy"] for one in found if one["severity"] != "ok")
    return done.returncode, found


def _what(found: list[dict[str, Any]], severity: str) -> str:
    return "\n".join(one["what"] for one in found if one["severity"] == severity)


def _both(pipeline: Pipeline) -> tuple[int, list[dict[str, Any]]]:
    return _check(pipeline.source_file, pipeline.sink_file)


def test_what_is_in_order_is_said_to_be_before_and_after_the_first_start(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline()
    pipeline.on_source('CREATE TABLE "Odd ""Näme"".x" (id int PRIMARY KEY, v text)')
    status, found = _both(pipeline)
    assert (status, _what(found, "fail")) == (0, "")
    assert "is not there yet, and will be made" in _what(found, "ok")
    pipeline.start()
    pipeline.catch_up()
    status, found = _both(pipeline)
    assert (status, _what(found, "fail")) == (0, "")
    assert "1 of 1 tables copied" in _what(found, "ok")
    assert "holds all 1 selected tables" in _what(found, "ok")


def test_everything_that_is_wrong_is_found_at_once(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(
        source={
            "column.mask.with.3.chars": r"public\.masked\.n",
            "message.key.columns": "public.keyed:b",
            "topic.creation.default.replication.factor": 3,
        }
    )
    pipeline.on_source(
        "CREATE TABLE good (id int PRIMARY KEY)",
        "CREATE TABLE keyless (a int)",
        "CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY)",
        "CREATE TABLE hidden (id int PRIMARY KEY)",
        "ALTER TABLE hidden REPLICA IDENTITY NOTHING",
        "CREATE TABLE masked (id int PRIMARY KEY, n int)",
        "CREATE TABLE keyed (id int PRIMARY KEY, b int UNIQUE NOT NULL)",
        f"SELECT pg_create_logical_replication_slot('orphan_{pipeline.prefix}', 'pgoutput')",
    )
    status, found = _check(pipeline.source_file)
    assert status == 2
    failures, warnings = _what(found, "fail"), _what(found, "warn")
    for part in (
        "public.keyless has no primary key",
        "public.fleeting is not logged",
        "public.hidden has REPLICA IDENTITY NOTHING",
        "matches public.masked.n, which is of type integer",
        "message.key.columns chooses b for public.keyed, and its replica identity does not carry",
        "3 replicas are asked for, and there are 1 brokers",
    ):
        assert part in failures
    assert f"orphan_{pipeline.prefix} is read by nobody" in warnings
    assert "key id, replica identity default" in _what(found, "ok")
    remedies = [one["remedy"] for one in found]
    assert "ALTER TABLE public.keyed REPLICA IDENTITY FULL" in remedies


@pytest.mark.matrix
def test_a_slot_that_lost_changes_and_topics_that_lose_them_are_found(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline()
    pipeline.on_source("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    pipeline.start()
    pipeline.catch_up()
    assert pipeline.stop() == 0
    pipeline.on_source(f"SELECT pg_drop_replication_slot('{pipeline.prefix}')")
    _set(pipeline, f"{pipeline.prefix}.transaction", "retention.ms", "60000")
    _set(pipeline, f"{pipeline.prefix}.public.t", "cleanup.policy", "compact")
    with psycopg.connect(pipeline.replica_dsn, autocommit=True) as replica:
        replica.execute("CREATE TABLE other (id int PRIMARY KEY, x int UNIQUE)")
    status, found = _both(pipeline)
    assert status == 4
    failures = _what(found, "fail")
    assert f"replication slot {pipeline.prefix} is gone" in failures
    assert "a sink that starts there would stop" in failures
    assert "is compacted: whole transactions cannot be told" in failures


def test_every_wrong_word_of_a_file_is_told_and_servers_that_are_away(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text(
        json.dumps(
            {
                "name": "n",
                "connector.class": "cdc.postgres.Source",
                "tabel.include.list": "x",
                "snapshot.mode": "custom",
                "converters": "x",
            }
        )
    )
    status, found = _check(wrong)
    assert status == 2
    failures = _what(found, "fail")
    for part in ("tabel.include.list", "custom is not supported", "converters", "is missing"):
        assert part in failures
    away = tmp_path / "away.json"
    away.write_text(
        json.dumps(
            {
                "name": "n",
                "connector.class": "cdc.postgres.Sink",
                "topic.prefix": "p",
                "bootstrap.servers": "127.0.0.1:1",
                "schema.registry.url": "http://127.0.0.1:1",
                "connection.url": "postgresql://127.0.0.1:1/db",
            }
        )
    )
    status, found = _check(away)
    assert status == 3
    assert len([one for one in found if one["severity"] == "fail"]) == 3


def _set(pipeline: Pipeline, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = admin(pipeline.kafka)
    for answer in client.incremental_alter_configs([resource]).values():
        answer.result(20)

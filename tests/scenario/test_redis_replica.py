"""A Redis replica of a live source: equal in the end, whatever tasks and server go through."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any, cast

import psycopg
import redis

from cdc.local.cluster import Cluster
from tests.scenario import bank, shelf
from tests.scenario.conftest import MakePipeline
from tests.scenario.pipeline import Pipeline, wait_for

_TABLES = {
    "accounts": ("id", "balance", "filler"),
    "tellers": ("id", "balance"),
    "branches": ("id", "balance"),
    "history": ("id", "account", "delta"),
    "books": ("id", "title", "body"),
    "loans": ("id", "book", "note"),
}
_GROUP = {
    "consumer.override.session.timeout.ms": 6000,
    "consumer.override.heartbeat.interval.ms": 500,
    "consumer.override.max.poll.interval.ms": 6000,
}


def sink(url: str, **more: Any) -> dict[str, Any]:
    """What differs from the file of a PostgreSQL sink."""
    return {
        "connector.class": "cdc.redis.Sink",
        "connection.url": url,
        "connection.username": None,
        "connection.password": None,
        **_GROUP,
        "tasks.max": 2,
        **more,
    }


def source_rows(dsn: str, table: str) -> dict[str, dict[str, str]]:
    columns = _TABLES[table]
    with psycopg.connect(dsn) as connection:
        shown = ", ".join(f"{column}::text" for column in columns)
        return {
            row[0]: {n: v for n, v in zip(columns, row, strict=True) if v is not None}
            for row in connection.execute(f"SELECT {shown} FROM {table}").fetchall()
        }


def replica_rows(url: str, prefix: str, table: str) -> dict[str, dict[str, str]]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        names = list(client.scan_iter(match=f"{prefix}:public.{table}:*", count=1000))
        with client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hgetall(name)
            found = cast("list[dict[str, str]]", pipeline.execute())
    return {
        name.rpartition(":")[2]: {column: row[column] for column in _TABLES[table] if column in row}
        for name, row in zip(names, found, strict=True)
        if row  # deleted since its name was read
    }


def wait_equal(pipeline: Pipeline, url: str, seconds: float = 90) -> None:
    for table in _TABLES:
        there = source_rows(pipeline.source_dsn, table)
        deadline = time.monotonic() + seconds
        while (here := replica_rows(url, pipeline.prefix, table)) != there:
            assert pipeline.alive(), pipeline.log.read_text()[-2000:]
            differing = [key for key in there if here.get(key) != there[key]]
            extra = sorted(here.keys() - there.keys())
            assert time.monotonic() < deadline, (
                f"{table}: {len(differing)} differ, {len(extra)} too many: "
                f"{[(k, str(there[k])[:60], str(here.get(k))[:60]) for k in differing[:2]]} {extra[:3]}"
                f" ({pipeline.log})"
            )
            time.sleep(0.1)


def start(pipeline: Pipeline, url: str) -> None:
    bank.create(pipeline.source_dsn)
    shelf.create(pipeline.source_dsn)
    pipeline.start()

    def live() -> bool:
        assert pipeline.alive(), pipeline.log.read_text()[-2000:]
        with redis.Redis.from_url(url, decode_responses=True) as client:
            name = f"cdc:{pipeline.prefix}-replica:{pipeline.prefix}:tables"
            states = cast("dict[str, str]", client.hgetall(name))
        return len(states) == len(_TABLES) and set(states.values()) == {"live"}

    wait_for("every table is live", live)


def sinks(pipeline: Pipeline) -> list[int]:
    return [
        int(task["pid"])
        for task in pipeline.tasks()
        if task["role"] == "sink" and task["pid"] and task["state"] == "running"
    ]


def test_redis_follows_its_source_while_tasks_are_killed_and_stopped(
    make_pipeline: MakePipeline, redis_url: str, seed: int
) -> None:
    pipeline = make_pipeline(sink=sink(redis_url))
    start(pipeline, redis_url)
    chooser = random.Random(seed)
    with (
        bank.Traffic(pipeline.source_dsn, seed=seed),
        shelf.Traffic(pipeline.source_dsn, seed=seed) as traffic,
    ):
        time.sleep(1)
        killed = chooser.choice(sinks(pipeline))
        os.kill(killed, signal.SIGKILL)
        wait_for(
            "another one is in its place",
            lambda: len(sinks(pipeline)) == 2 and killed not in sinks(pipeline),
        )
        asleep = chooser.choice(sinks(pipeline))
        os.kill(asleep, signal.SIGSTOP)
        time.sleep(8)
        os.kill(asleep, signal.SIGCONT)
        time.sleep(2)
    assert traffic.truncates
    assert traffic.moves
    wait_equal(pipeline, redis_url)


def test_a_server_that_comes_back_with_less_is_brought_up_again(
    make_pipeline: MakePipeline, tmp_path: Path, seed: int
) -> None:
    """It is killed, and started with the append-only file of a moment before: rows and progress are both older."""
    with Cluster.up(
        tmp_path / "redis", brokers=0, postgres=(), registry=False, redis=True
    ) as servers:
        url = servers.redis_url
        pipeline = make_pipeline(sink=sink(url))
        start(pipeline, url)
        folder = servers.state_dir / "data" / "redis"
        with (
            bank.Traffic(pipeline.source_dsn, seed=seed),
            shelf.Traffic(pipeline.source_dsn, seed=seed),
        ):
            time.sleep(1)
            older = _files(folder)
            time.sleep(2)
            servers.kill("redis")
            assert _files(folder) != older
            _put_back(folder, older)
            servers.start("redis")
            time.sleep(1)
        wait_equal(pipeline, url)


def test_a_server_that_throws_rows_away_is_refused(
    make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    policy = "allkeys-lru"
    settings = {"redis": {"maxmemory": "100mb", "maxmemory-policy": policy}}
    with Cluster.up(
        tmp_path / "redis",
        brokers=0,
        postgres=(),
        registry=False,
        redis=True,
        settings=settings,
    ) as servers:
        pipeline = make_pipeline(sink=sink(servers.redis_url))
        bank.create(pipeline.source_dsn)
        pipeline.start()
        assert pipeline.wait(90) == 4
        assert policy in pipeline.log.read_text()


def _files(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def _put_back(folder: Path, files: dict[Path, bytes]) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.unlink()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

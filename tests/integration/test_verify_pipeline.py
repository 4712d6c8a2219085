"""Verification of a real pipeline while writers write: no false difference, each corruption named, and repaired."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from cdc.cli.verify import app
from cdc.runtime.config_files import load
from cdc.runtime.verification import run_verification
from cdc.verify.report import Report
from tests.scenario.pipeline import Pipeline, rows

ROWS = 4900
HOT = 500
"""Keys from here on are never written: corruptions planted there stay."""


@pytest.fixture
def pipeline(
    tmp_path: Path,
    source_dsn: str,
    replica_dsn: str,
    kafka: str,
    registry_url: str,
    prefix: str,
) -> Iterator[Pipeline]:
    with psycopg.connect(source_dsn) as source:
        source.execute(
            "CREATE TABLE orders (id bigint PRIMARY KEY, status text, amount numeric(12,2) NOT NULL,"
            " score float8, note text, placed timestamptz)"
        )
        # Stored out of line and not compressed, so that updates leave it unchanged in the log.
        source.execute("ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL")
        source.execute(
            "INSERT INTO orders SELECT i, 'new', i / 7.0, i / 3.0, repeat(md5(i::text), 100), now()"
            " FROM generate_series(1, %s) i",
            (ROWS,),
        )
        source.execute("CREATE TABLE lines (o bigint, code text, n int, PRIMARY KEY (o, code))")
        source.execute(
            "INSERT INTO lines SELECT i, chr(65 + i %% 26), i FROM generate_series(1, %s) i",
            (ROWS,),
        )
    made = Pipeline(
        tmp_path,
        source_dsn=source_dsn,
        replica_dsn=replica_dsn,
        kafka=kafka,
        registry_url=registry_url,
        prefix=prefix,
    )
    with made:
        made.catch_up()
        yield made


def write(dsn: str, seed: int, stop: threading.Event) -> None:
    chance = random.Random(seed)
    with psycopg.connect(dsn) as source:
        while not stop.is_set():
            for _ in range(chance.randrange(1, 8)):
                key = chance.randrange(1, HOT)
                match chance.randrange(6):
                    case 0:
                        source.execute("DELETE FROM orders WHERE id = %s", (key,))
                    case 1:
                        source.execute(
                            "INSERT INTO orders VALUES (%s, 'back', 1, -0.0, repeat('x', 4000), now())"
                            " ON CONFLICT (id) DO UPDATE SET note = EXCLUDED.note",
                            (key,),
                        )
                    case 2:
                        source.execute("UPDATE lines SET n = n + 1 WHERE o = %s", (key,))
                    case _:
                        source.execute(
                            "UPDATE orders SET amount = amount + 1, status = %s WHERE id = %s",
                            (f"s{chance.random()}", key),
                        )
            if chance.random() < 0.1:
                source.rollback()
            else:
                source.commit()
            stop.wait(0.002)


@contextmanager
def traffic(pipeline: Pipeline) -> Iterator[None]:
    stop = threading.Event()
    seed = random.randrange(2**32)
    print(f"seed {seed}")

    def tolerant(number: int) -> None:
        while not stop.is_set():
            try:
                write(pipeline.source_dsn, seed + number, stop)
            except psycopg.errors.DeadlockDetected:
                continue

    writers = [threading.Thread(target=tolerant, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def run(pipeline: Pipeline, **options: Any) -> Report:
    return run_verification(
        load(pipeline.source_file), load(pipeline.sink_file), lambda _: None, **options
    )


def corrupt(pipeline: Pipeline) -> None:
    with psycopg.connect(pipeline.replica_dsn) as replica:
        replica.execute("UPDATE orders SET note = 'x', score = -score WHERE id = %s", (HOT + 7,))
        replica.execute("DELETE FROM lines WHERE o = %s", (HOT + 8,))
        replica.execute("INSERT INTO lines VALUES (999999, 'Z', 1)")


PLANTED = {
    ("public.orders", "changed", str({"id": HOT + 7}), ("score", "note")),
    ("public.lines", "missing", str({"o": HOT + 8, "code": chr(65 + (HOT + 8) % 26)}), ()),
    ("public.lines", "extra", str({"o": 999999, "code": "Z"}), ()),
}


def found(report: Report) -> set[tuple[str, str, str, tuple[str, ...]]]:
    return {
        (table.table, difference.kind, str(dict(difference.key)), difference.columns)
        for table in report.tables
        for difference in table.differences
    }


def test_a_replica_is_verified_under_traffic_and_its_corruptions_are_found_and_repaired(
    pipeline: Pipeline,
) -> None:
    with traffic(pipeline):
        for _ in range(5):
            report = run(pipeline, timeout=30)
            assert found(report) == set()
            assert report.verdict == "OK", report.to_json()
            assert report.coverage == 1.0
        corrupt(pipeline)
        report = run(pipeline, timeout=30)
        assert found(report) == PLANTED
        assert report.exit_status == 16

        runner = CliRunner()
        files = [str(pipeline.source_file), str(pipeline.sink_file)]
        told = runner.invoke(app, ["run", *files, "--json", "--mask"])
        assert told.exit_code == 16, told.output
        said = json.loads(told.stdout)
        assert said["verdict"] == "DIFF"
        (orders,) = (t for t in said["tables"] if t["table"] == "public.orders")
        assert orders["differences"] == [
            {
                "key": {"id": HOT + 7},
                "kind": "changed",
                "columns": ["score", "note"],
                "source": {},
                "replica": {},
            }
        ]
        shown = runner.invoke(app, ["run", *files, "--table", "public.lines", "--repair"])
        assert shown.exit_code == 0, shown.output
        assert "was repaired" in shown.stdout

        report = run(pipeline, tables=["public.orders"], repair=True)
        assert report.verdict == "OK"
        assert len(report.tables[0].repaired) == 1
        assert run(pipeline).verdict == "OK"
    pipeline.catch_up()
    for table in ("orders", "lines"):
        assert rows(pipeline.source_dsn, table) == rows(pipeline.replica_dsn, table)


def test_a_capture_that_is_not_running_is_inconclusive(pipeline: Pipeline) -> None:
    pipeline.kill()
    report = run(pipeline, timeout=2)
    assert report.exit_status == 32
    assert "is capture running" in report.tables[0].reason

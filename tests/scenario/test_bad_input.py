"""What a person gets wrong: one line of what, one line of what to do, a documented exit status, and nothing lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.local.cluster import Cluster
from cdc.local.ports import free_ports
from tests.scenario.command import Said, cdc
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal
from tests.scenario.pipeline import Pipeline, wait_for

_PATIENCE = 4
_TABLE = "CREATE TABLE parts (id int PRIMARY KEY, name text)"


@contextmanager
def changed(path: Path, **values: Any) -> Iterator[None]:
    """The connector's file with other values (None leaves one out), put back afterwards."""
    before = path.read_text()
    config = json.loads(before)
    for name, value in values.items():
        name = name.replace("__", ".")
        if value is None:
            del config[name]
        else:
            config[name] = value
    path.write_text(json.dumps(config))
    try:
        yield
    finally:
        path.write_text(before)


def run(pipeline: Pipeline, *options: str) -> Said:
    return cdc("run", pipeline.source_file, pipeline.sink_file, "--patience", _PATIENCE, *options)


@pytest.fixture
def parts(make_pipeline: MakePipeline) -> Pipeline:
    """A pipeline over one table with a row, not started."""
    pipeline = make_pipeline()
    pipeline.on_source(_TABLE, "INSERT INTO parts VALUES (1, 'bolt')")
    return pipeline


def recovers(pipeline: Pipeline) -> None:
    """Set right, the same connector starts, and the replica holds everything."""
    pipeline.start()
    pipeline.catch_up()
    assert pipeline.stop() == 0
    assert_equal(pipeline, ["parts"])


# --- wrong from the first start ------------------------------------------------------------------------------


def test_a_file_that_is_wrong_is_named_before_anything_starts(parts: Pipeline) -> None:
    source, sink = parts.source_file, parts.sink_file
    good = source.read_text()

    def status(*words: str) -> None:
        said = run(parts)
        assert said.status == 2, said
        for word in (*words, source.name):
            assert word in said.what + said.remedy, said

    with changed(source, slot__nmae="x"):
        status("slot.nmae", "slot.name")
    with changed(source, transforms="unwrap"):
        status("transforms", "not supported")
    with changed(source, database__port="fivethousand"):
        status("database.port", "fivethousand")
    with changed(source, database__password="${env:CDC_NO_SUCH_SECRET}"):
        status("CDC_NO_SUCH_SECRET")
    with changed(source, database__password="${file:/nonexistent/secret}"):
        status("/nonexistent/secret")
    with changed(source, **{"connector.class": "org.example.Oracle"}):
        status("org.example.Oracle")
    with changed(source, **{"connector.class": None}):
        status("connector.class")
    with changed(source, database__hostname=None):
        status("database.hostname")
    source.write_text(good[: len(good) // 2])
    status("JSON")
    source.write_text("")
    status("JSON")
    source.write_text(good)
    half = source.with_suffix(".toml")
    half.write_text('name = "x"\n"connector.class" = "cdc.postgres.So')
    said = cdc("run", half, sink)
    assert (said.status, "TOML" in said.what) == (2, True), said
    said = cdc("run", half.with_name("nowhere.json"))
    assert (said.status, "nowhere.json" in said.what) == (2, True), said
    with changed(sink, name=json.loads(good)["name"]):
        said = run(parts)
        assert said.status == 2, said
        assert str(source) in said.what, said
        assert str(sink) in said.what, said
    recovers(parts)


def test_no_such_table(parts: Pipeline) -> None:
    with changed(parts.source_file, table__include__list="public.prats"):
        said = run(parts)
    assert said.status == 2, said
    assert "public.prats" in said.what, said
    recovers(parts)


def test_no_primary_key(parts: Pipeline) -> None:
    parts.on_source("CREATE TABLE keyless (a int, b text)")
    said = run(parts)
    assert said.status == 2, said
    assert "public.keyless has no primary key" in said.what, said
    parts.on_source("DROP TABLE keyless")
    recovers(parts)


def test_a_slot_of_the_same_name_is_not_taken_over(parts: Pipeline) -> None:
    parts.on_source(f"SELECT pg_create_logical_replication_slot('{parts.prefix}', 'pgoutput')")
    said = run(parts)
    assert said.status == 4, said
    assert parts.prefix in said.what, said
    parts.on_source(f"SELECT pg_drop_replication_slot('{parts.prefix}')")
    recovers(parts)


def test_the_log_is_not_logical(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    with Cluster.up(
        tmp_path / "replica-level",
        brokers=0,
        postgres=("source",),
        registry=False,
        settings={"source": {"wal_level": "replica"}},
    ) as own:
        pipeline = make_pipeline(source_dsn=own.source.dsn)
        pipeline.on_source(_TABLE, "INSERT INTO parts VALUES (1, 'bolt')")
        said = run(pipeline)
        assert said.status == 2, said
        assert "wal_level is replica" in said.what, said
        assert "logical" in said.remedy, said
        own.stop("source")
        own.configure("source", {"wal_level": "logical"})
        own.start("source")
        recovers(pipeline)


# --- wrong at a later start: what stands stays, and what came meanwhile is not lost --------------------------


@pytest.fixture
def running(parts: Pipeline) -> Pipeline:
    """A pipeline that ran once, and then got more to do."""
    parts.start()
    parts.catch_up()
    assert parts.stop() == 0
    parts.on_source("INSERT INTO parts VALUES (2, 'nut')")
    return parts


def _with_database(url: str, name: str) -> str:
    return url.rsplit("/", 1)[0] + f"/{name}"


def test_wrong_at_a_later_start(running: Pipeline) -> None:
    source, sink = running.source_file, running.sink_file
    sink_url = json.loads(sink.read_text())["connection.url"]
    nobody = free_ports(1)[0]

    def refused(status: int, *words: str) -> None:
        began = time.monotonic()
        said = run(running)
        assert said.status == status, said
        for word in words:
            assert word in said.what + said.remedy, said
        assert time.monotonic() - began < 40, "patience was ignored"

    with changed(source, database__password="wrong"):
        refused(2, "password authentication failed", "password")
    with changed(sink, connection__password="wrong"):
        refused(2, "password authentication failed", "password")
    with changed(source, database__dbname="nosuchdatabase"):
        refused(2, "nosuchdatabase")
    with changed(sink, connection__url=_with_database(sink_url, "nosuchdatabase")):
        refused(2, "nosuchdatabase")
    with changed(source, database__port=nobody):
        refused(3, str(nobody))
    with changed(sink, schema__registry__url=f"http://127.0.0.1:{nobody}"):
        running.on_source(
            "UPDATE parts SET name = name"
        )  # a sink asks for schemas as it meets them
        refused(3, str(nobody))
    with changed(source, bootstrap__servers=f"127.0.0.1:{nobody}"):
        refused(3, str(nobody))
    with changed(source, slot__name=f"{running.prefix}_other"):
        refused(4, f"{running.prefix}_other")
    recovers(running)


def test_the_registry_is_down_at_the_first_start(parts: Pipeline) -> None:
    nobody = free_ports(1)[0]
    with changed(parts.source_file, schema__registry__url=f"http://127.0.0.1:{nobody}"):
        said = run(parts)
    assert said.status == 3, said
    assert str(nobody) in said.what, said
    recovers(parts)


def test_somebody_else_holds_the_slot(running: Pipeline) -> None:
    with closing(
        psycopg.connect(
            running.source_dsn,
            replication="database",
            autocommit=True,
            application_name="intruder",
        )
    ) as intruder:
        pgconn = intruder.pgconn
        pgconn.exec_(
            f"START_REPLICATION SLOT {running.prefix} LOGICAL 0/0"
            f" (proto_version '1', publication_names '{running.prefix}')".encode()
        )
        said = run(running)
        assert said.status == 3, said
        assert "intruder" in said.what, said
        assert pgconn.status == 0, "the stranger was left alone"
    wait_for("the slot is free", lambda: not _slot_active(running))
    recovers(running)


def _slot_active(pipeline: Pipeline) -> bool:
    with psycopg.connect(pipeline.source_dsn) as connection:
        row = connection.execute(
            "SELECT active FROM pg_replication_slots WHERE slot_name = %s", (pipeline.prefix,)
        ).fetchone()
        return bool(row and row[0])


def test_a_table_that_is_dropped_while_the_connector_is_down_is_told_or_let_go(
    running: Pipeline,
) -> None:
    """What was committed before the drop still reaches the replica."""
    running.on_source("CREATE TABLE other (id int PRIMARY KEY)", "INSERT INTO other VALUES (1)")
    recovers(running)
    running.on_source("INSERT INTO other VALUES (2)", "DROP TABLE other")
    recovers(running)
    with psycopg.connect(running.replica_dsn) as replica:
        assert replica.execute("SELECT id FROM other ORDER BY 1").fetchall() == [(1,), (2,)]


# --- the other commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (lambda p: ("table", "backfill", p.source_file, "--table", "public.nosuch"), 2, "nosuch"),
        (lambda p: ("table", "backfill", p.sink_file, "--table", "public.parts"), 2, "source"),
    ],
)
def test_other_commands(
    parts: Pipeline, arguments: Callable[[Pipeline], tuple[object, ...]], status: int, words: str
) -> None:
    parts.on_source("SELECT 1")
    said = cdc(*arguments(parts))
    assert said.status == status, said
    assert words in said.what + said.remedy, said

"""errors.tolerance=all on real servers: what cannot be applied is set aside with its key, told, and brought back."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import psycopg
import pytest

from cdc.event import Record
from tests.scenario.command import cdc
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal
from tests.scenario.pipeline import Pipeline, rows, wait_for
from tests.scenario.raw_topics import bounds, data_topics, produce

_TABLE = "CREATE TABLE notes (id int PRIMARY KEY, text text)"
_VERIFY = ("-m", "cdc.cli.main", "verify", "run", "--json")
_CHECK = "ALTER TABLE notes ADD CONSTRAINT short CHECK (length(text) < 10)"
_LONG = "a text that is too long for the replica"


def on_replica(pipeline: Pipeline, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(pipeline.replica_dsn, autocommit=True) as replica:
        cursor = replica.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def caught_up(pipeline: Pipeline) -> None:
    lsn = pipeline.fence()
    wait_for(f"the replica passes {lsn}", lambda: pipeline.passed(lsn))


def verified(pipeline: Pipeline, *options: str) -> dict[str, Any]:
    """The table's report; ``cdc`` does not fit, because a difference is no error of the command."""
    done = subprocess.run(
        [sys.executable, *_VERIFY, str(pipeline.source_file), str(pipeline.sink_file), *options],
        capture_output=True,
        text=True,
        timeout=120,
    )
    (table,) = json.loads(done.stdout)["tables"]
    return dict(table)


@pytest.fixture
def notes(make_pipeline: MakePipeline) -> Pipeline:
    """A running pipeline whose replica refuses long texts."""
    pipeline = make_pipeline(sink={"errors.tolerance": "all"})
    pipeline.on_source(_TABLE, "INSERT INTO notes SELECT n, 'note' FROM generate_series(1, 200) n")
    pipeline.start()
    pipeline.catch_up()
    on_replica(pipeline, _CHECK)
    return pipeline


def listed(pipeline: Pipeline, *options: str) -> list[dict[str, Any]]:
    said = cdc("deadletter", "list", pipeline.sink_file, "--json", *options)
    assert said.status == 0, said
    letters: list[dict[str, Any]] = json.loads(said.out)["letters"]
    return letters


def test_a_key_is_parked_told_of_and_replayed_to_equality(notes: Pipeline) -> None:
    notes.on_source(f"UPDATE notes SET text = '{_LONG}' WHERE id IN (7, 8, 9)")
    caught_up(notes)  # else what they come to in the end would be taken, and nothing be amiss
    notes.on_source(
        "UPDATE notes SET text = 'good' WHERE id BETWEEN 1 AND 100 AND id <> 9",
        "DELETE FROM notes WHERE id = 8",
    )
    caught_up(notes)
    assert on_replica(notes, "SELECT text FROM notes WHERE id IN (6, 7, 8) ORDER BY id") == [
        ("good",),
        ("note",),
        ("note",),
    ]
    assert on_replica(notes, "SELECT DISTINCT state FROM cdc.tables") == [("parked",)]
    wait_for("the status tells", lambda: notes.task("sink").get("parked_keys") == 3)
    letters = listed(notes)
    assert [letter["kind"] for letter in letters].count("Rejected") == 3, letters
    assert [letter["kind"] for letter in letters].count("parked") == 3, letters
    assert all(letter["parked"] for letter in letters)
    assert _LONG not in json.dumps(letters), "values are shown on request only"
    assert _LONG not in notes.log.read_text()
    assert _LONG in json.dumps(listed(notes, "--values"))
    table = verified(notes)
    assert (table["verdict"], table["parked"]) == ("DIFF", 3), table

    refused = cdc("deadletter", "replay", notes.sink_file)
    assert (refused.status, "2 keys released" in refused.out) == (1, True), refused
    assert "short" in refused.what, refused
    on_replica(notes, "ALTER TABLE notes DROP CONSTRAINT short")
    replayed = cdc("deadletter", "replay", notes.sink_file, "--json")
    assert replayed.status == 0, replayed
    assert json.loads(replayed.out)["released"] == 1
    again = cdc("deadletter", "replay", notes.sink_file, "--json")
    assert json.loads(again.out)["released"] == 0
    notes.on_source("INSERT INTO notes VALUES (8, 'back'), (300, 'new')")
    notes.catch_up()  # every table is live again
    assert_equal(notes, ["notes"])
    table = verified(notes)
    assert (table["verdict"], table["parked"]) == ("OK", 0), table


@pytest.mark.matrix
def test_a_repair_brings_a_parked_key_back(notes: Pipeline) -> None:
    notes.on_source(f"UPDATE notes SET text = '{_LONG}' WHERE id = 7")
    caught_up(notes)
    notes.on_source("UPDATE notes SET text = 'good' WHERE id = 7")
    caught_up(notes)
    assert on_replica(notes, "SELECT text FROM notes WHERE id = 7") == [("note",)]
    assert verified(notes, "--repair")["verdict"] == "OK"
    notes.catch_up()
    assert_equal(notes, ["notes"])


@pytest.mark.parametrize(
    ("key", "poison"),
    [
        (b"key", b"not avro at all"),
        (b"key", b"\x00\x7f\xff\xff\xff\x02\x02"),
        (None, None),
        (None, b""),
    ],
    ids=["no frame", "unknown schema", "neither key nor value", "empty"],
)
def test_foreign_poison_is_set_aside_and_nothing_is_parked(
    notes: Pipeline, key: bytes | None, poison: bytes | None
) -> None:
    topic = data_topics(notes)[0]
    for number in bounds(notes.kafka, topic):
        produce(notes.kafka, [Record(topic, number, key, poison)])
    notes.on_source("UPDATE notes SET text = 'good'")
    notes.catch_up()
    assert len(listed(notes)) == len(bounds(notes.kafka, topic))
    assert rows(notes.source_dsn, "notes") == rows(notes.replica_dsn, "notes")
    assert on_replica(notes, "SELECT count(*) FROM cdc.parked") == [(0,)]

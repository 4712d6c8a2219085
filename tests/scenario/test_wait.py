"""Read your own writes: a wait returns when the replica holds them, on an idle source too, and says when it does not."""

from __future__ import annotations

import json

import psycopg

from cdc.runtime.waiting import wait_until
from tests.scenario.command import cdc
from tests.scenario.conftest import MakePipeline

_TABLE = "CREATE TABLE notes (id int PRIMARY KEY, text text)"


def test_what_was_written_before_a_wait_is_in_the_replica_after_it(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline()
    pipeline.on_source(_TABLE)
    pipeline.start()
    pipeline.catch_up()
    files = (pipeline.source_file, pipeline.sink_file)
    with (
        psycopg.connect(pipeline.source_dsn, autocommit=True) as source,
        psycopg.connect(pipeline.replica_dsn, autocommit=True) as replica,
    ):

        def written(number: int) -> str:
            source.execute("INSERT INTO notes VALUES (%s, 'x')", (number,))
            row = source.execute("SELECT pg_current_wal_lsn()::text").fetchone()
            assert row is not None
            return str(row[0])

        def there(number: int) -> bool:
            return bool(replica.execute("SELECT 1 FROM notes WHERE id = %s", (number,)).fetchall())

        for number in range(5):
            written(number)
            wait_until(*files)
            assert there(number)
        lsn = written(10)
        said = cdc("wait", *files, "--lsn", lsn, "--json")
        assert (said.status, there(10)) == (0, True), said
        high, low = (int(part, 16) for part in lsn.split("/"))
        assert json.loads(said.out)["held_lsn"] >= high << 32 | low - 8
        said = cdc("wait", *files, "--now")  # nothing has happened since: a fence moves the replica
        assert said.status == 0, said

        said = cdc("wait", *files, "--lsn", "FFFF/0")
        assert (said.status, "not reached" in said.what) == (2, True), said
        said = cdc("wait", *files, "--lsn", "soon")
        assert said.status == 2, said
        said = cdc("wait", *reversed(files))
        assert said.status == 2, said

        assert pipeline.stop() == 0
        written(20)
        said = cdc("wait", *files, "--timeout", 1)
        assert (said.status, there(20)) == (3, False), said

"""At a cut-over the replica hands out values that the source never did."""

from __future__ import annotations

import json

import psycopg

from tests.scenario.command import cdc
from tests.scenario.conftest import MakePipeline

_TABLES = """
CREATE SEQUENCE numbers;
CREATE SEQUENCE downwards INCREMENT -5 START -10 MINVALUE -1000;
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int DEFAULT nextval('numbers'));
CREATE TABLE lines ("odd Id" serial PRIMARY KEY, text text);
"""


def test_sequences_are_moved_forward_only(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    for dsn in (pipeline.source_dsn, pipeline.replica_dsn):
        with psycopg.connect(dsn) as connection:
            connection.execute(_TABLES)
    files = (pipeline.source_file, pipeline.sink_file)
    said = cdc("table", "sync-sequences", *files)
    assert (said.status, "published no table" in said.what) == (2, True), said
    pipeline.on_source(
        f"CREATE PUBLICATION {pipeline.prefix} FOR TABLE orders, lines",
        "INSERT INTO orders DEFAULT VALUES",
        "INSERT INTO orders (n) SELECT 7 FROM generate_series(1, 40)",
        "INSERT INTO lines (text) VALUES ('a'), ('b')",
        "SELECT nextval('downwards'), nextval('downwards')",
    )
    with psycopg.connect(pipeline.replica_dsn, autocommit=True) as replica:
        replica.execute("SELECT setval('numbers', 1000)")
        said = cdc("table", "sync-sequences", *files, "--json")
        assert said.status == 0, said
        found = {one["sequence"]: one for one in json.loads(said.out)["sequences"]}
        assert {name: one["state"] for name, one in found.items()} == {
            "public.orders_id_seq": "moved",
            "public.lines_odd Id_seq": "moved",
            "public.numbers": "ahead",
            "public.downwards": "moved",
        }

        def following(call: str) -> int:
            row = replica.execute(f"SELECT {call}".encode()).fetchone()
            assert row is not None
            return int(row[0])

        assert following("nextval('orders_id_seq')") == 42
        assert following("nextval('downwards')") == -20
        assert following("nextval('numbers')") == 1001
        assert cdc("table", "sync-sequences", *files, "--margin", 100).status == 0
        assert following("nextval('orders_id_seq')") == 142
        assert following("nextval('downwards')") == -520
        replica.execute("DROP SEQUENCE downwards")
        said = cdc("table", "sync-sequences", *files)
        assert (said.status, "public.downwards" in said.what) == (1, True), said

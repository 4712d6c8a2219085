"""Whether the replica is the source, row for row, and whether each change took effect there once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psycopg

from cdc.checkpoint import BackfillProgress
from cdc.kafka.checkpoints import read_checkpoint
from cdc.kafka.client import Cluster
from cdc.table import TableId
from tests.scenario import bank
from tests.scenario.pipeline import Pipeline, rows, wait_for

_WATCH = """
CREATE TABLE effects (tg_op text, id bigint, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION effects_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.effects (tg_op, id) VALUES (TG_OP, NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER effects AFTER INSERT OR UPDATE ON history FOR EACH ROW EXECUTE FUNCTION effects_note();
ALTER TABLE history ENABLE ALWAYS TRIGGER effects;
"""


def start_bank(pipeline: Pipeline) -> None:
    """The bank is made, the pipeline runs, and its first copy is done."""
    bank.create(pipeline.source_dsn)
    pipeline.start()
    pipeline.catch_up()
    wait_for("the source's checkpoint says that all is copied", lambda: copied(pipeline))


def copied(pipeline: Pipeline) -> bool:
    """Whether a restart of the source would copy nothing again."""
    copies = _copies(pipeline)
    return bool(copies) and all(progress.state == "done" for progress in copies.values())


def openings(pipeline: Pipeline) -> dict[TableId, int]:
    """Where in the log the newest copy of each table began, as the source's checkpoint has it; 0 while it waits."""
    return {table: progress.opened for table, progress in _copies(pipeline).items()}


def wait_copied_anew(pipeline: Pipeline, before: Mapping[TableId, int], *tables: str) -> None:
    """Wait until copies of these tables that began later than ``before`` are done, and the replica has them."""
    wanted = {TableId("public", table) for table in tables}
    wait_for(
        "the copies begin",
        lambda: all(openings(pipeline).get(table, 0) > before[table] for table in wanted),
    )
    wait_for("the copies end", lambda: copied(pipeline))
    pipeline.catch_up()


def _copies(pipeline: Pipeline) -> Mapping[TableId, BackfillProgress]:
    cluster = Cluster(pipeline.kafka)
    checkpoint = read_checkpoint(cluster, "cdc.offsets", f"{pipeline.prefix}-source")
    return checkpoint.backfills if checkpoint else {}


def assert_equal(pipeline: Pipeline, tables: Sequence[str] = bank.TABLES) -> None:
    """Every row of these tables is the same on both sides."""
    for table in tables:
        there, here = rows(pipeline.source_dsn, table), rows(pipeline.replica_dsn, table)
        assert here == there, _difference(table, there, here)


def watch_effects(pipeline: Pipeline) -> None:
    """From now on the replica notes each write of a line of the bank's history, in the same transaction.

    Lines are only ever inserted at the source, so each may be written once. The table has to be live.
    """
    with psycopg.connect(pipeline.replica_dsn) as connection:
        connection.execute(_WATCH)


def assert_once(pipeline: Pipeline) -> int:
    """Each line of history that came since `watch_effects` was inserted once and never again; how many came."""
    with psycopg.connect(pipeline.replica_dsn) as connection:
        repeated = connection.execute(
            "SELECT id, array_agg(tg_op ORDER BY at) FROM effects GROUP BY id"
            " HAVING count(*) > 1 OR min(tg_op) <> 'INSERT' LIMIT 5"
        ).fetchall()
        assert not repeated, f"took effect again: {repeated}"
        row = connection.execute("SELECT count(*) FROM effects").fetchone()
        assert row is not None
        return int(row[0])


def _difference(table: str, there: list[tuple[str]], here: list[tuple[str]]) -> str:
    missing, extra = set(there) - set(here), set(here) - set(there)
    shown = [f"{str(row)[:120]}" for row in [*sorted(missing)[:3], *sorted(extra)[:3]]]
    return f"{table}: {len(missing)} rows lack, {len(extra)} are too many: {shown}"

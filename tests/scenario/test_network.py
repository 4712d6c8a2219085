"""Links that break, stall and drag, between capture and source and between sink and replica."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc.local.proxy import Proxy
from tests.scenario import bank
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal, assert_once, start_bank, watch_effects
from tests.scenario.pipeline import Pipeline, wait_for


class Links:
    """A pipeline whose connectors reach their databases through proxies; the test itself does not."""

    def __init__(self, pipeline: Pipeline, source: Proxy, replica: Proxy) -> None:
        self.pipeline = pipeline
        self.source = source
        self.replica = replica


def _port(dsn: str) -> int:
    return int(str(conninfo_to_dict(dsn)["port"]))


@pytest.fixture
def links(make_pipeline: MakePipeline, source_dsn: str, replica_dsn: str) -> Iterator[Links]:
    with Proxy(_port(source_dsn)) as source, Proxy(_port(replica_dsn)) as replica:
        to = conninfo_to_dict(replica_dsn)
        pipeline = make_pipeline(
            source={"database.port": source.port},
            sink={"connection.url": f"postgresql://{to['host']}:{replica.port}/{to['dbname']}"},
        )
        with psycopg.connect(source_dsn, autocommit=True) as connection:
            name = conninfo_to_dict(source_dsn)["dbname"]
            connection.execute(f"ALTER DATABASE \"{name}\" SET wal_sender_timeout = '2s'")
        start_bank(pipeline)
        watch_effects(pipeline)
        yield Links(pipeline, source, replica)
        pipeline.kill()


@contextmanager
def audited(links: Links, seed: int, *, pause: float = 0.002) -> Iterator[bank.Traffic]:
    """Traffic and an auditor; in the end the replica is the source, and each change took effect once."""
    pipeline = links.pipeline
    before = [task["restarts"] for task in pipeline.tasks()]
    with (
        bank.Traffic(pipeline.source_dsn, seed=seed, pause=pause) as writing,
        bank.Auditor(pipeline.replica_dsn) as auditor,
    ):
        yield writing
    pipeline.catch_up()
    assert auditor.audits > 20
    assert [task["restarts"] for task in pipeline.tasks()] == before
    assert_equal(pipeline)
    assert assert_once(pipeline) > 20


def cut_often(links: Links, proxy: Proxy, seed: int, times: int) -> None:
    """Cut the link at random moments, each time after something got through again."""
    chooser = random.Random(seed)
    pipeline = links.pipeline
    for _ in range(times):
        lsn = pipeline.fence()
        wait_for("something gets through", lambda lsn=lsn: pipeline.passed(lsn))  # type: ignore[misc]
        time.sleep(chooser.uniform(0, 0.3))
        proxy.cut()


def test_the_source_is_cut_off(links: Links, seed: int) -> None:
    with audited(links, seed):
        cut_often(links, links.source, seed, 4)


def test_the_replica_is_cut_off_while_it_commits(links: Links, seed: int) -> None:
    """A commit whose answer never came may or may not have taken effect: its checkpoint tells."""
    with audited(links, seed, pause=0.0):
        cut_often(links, links.replica, seed, 8)


def test_the_source_stalls_longer_than_the_server_waits(
    links: Links, seed: int, source_dsn: str
) -> None:
    """Behind a link that is open and delivers nothing the server gives up; capture starts anew once it is healed."""
    with audited(links, seed) as writing:
        links.source.stall()
        with psycopg.connect(source_dsn, autocommit=True) as connection:
            wait_for(
                "the server ends the stream",
                lambda: (
                    connection.execute(
                        "SELECT active FROM pg_replication_slots WHERE slot_name = %s",
                        (links.pipeline.prefix,),
                    ).fetchone()
                    == (False,)
                ),
                30,
            )
        aim = writing.commits + 50
        wait_for("traffic goes on", lambda: writing.commits > aim)
        links.source.heal()
        links.pipeline.catch_up()


def test_both_links_are_slow(links: Links, seed: int) -> None:
    with audited(links, seed) as writing:
        links.source.latency(10)
        links.replica.latency(10)
        aim = writing.commits + 200
        wait_for("traffic goes on", lambda: writing.commits > aim)
        links.pipeline.catch_up()


@pytest.mark.matrix
@pytest.mark.parametrize("round_", range(4))
@pytest.mark.parametrize("side", ["source", "replica"])
@pytest.mark.parametrize("fault", ["cut", "stall", "refuse", "latency"])
def test_faults_of_links(links: Links, seed: int, side: str, fault: str, round_: int) -> None:
    proxy = links.source if side == "source" else links.replica
    chooser = random.Random(seed + round_)
    with audited(links, seed + round_, pause=0.0):
        for _ in range(6):
            if fault == "cut":
                cut_often(links, proxy, chooser.randrange(10_000), 5)
                continue
            if fault == "latency":
                proxy.latency(chooser.uniform(1, 200))
            else:
                getattr(proxy, fault)()
            time.sleep(chooser.uniform(0.1, 5))
            proxy.heal()
            links.pipeline.catch_up()

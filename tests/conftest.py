"""Real servers for every tier that needs them: started once a run, by the first test that asks.

A test gets databases and topic prefixes of its own, so tests do not see each other on the shared servers. A test that
breaks a server asks for a cluster of its own.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.local.cluster import Cluster

_numbers = itertools.count(1)
_ROOT = Path(__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """What is tested is compiled from the sources as they are now, where a compiler is there."""
    if not hasattr(config, "workerinput"):
        subprocess.run(
            [sys.executable, _ROOT / "deploy" / "build_accelerators.py"],
            stdout=subprocess.DEVNULL,
            check=True,
        )


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two PostgreSQL servers, one broker, a registry and Redis, for the whole run."""
    with (
        tempfile.TemporaryDirectory(prefix="cdc-tests-", ignore_cleanup_errors=True) as path,
        Cluster.up(Path(path) / "cluster", redis=True) as running,
    ):
        yield running


def _fresh_database(dsn: str, name: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return make_conninfo(dsn, dbname=name)


def _drop(dsn: str, name: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE database = %s AND active",
            (name,),
        )
        for (slot,) in connection.execute(
            "SELECT slot_name FROM pg_replication_slots WHERE database = %s", (name,)
        ).fetchall():
            connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def source_dsn(cluster: Cluster) -> Iterator[str]:
    """An empty database on the source server."""
    dsn = _fresh_database(cluster.source.dsn, f"s{os.getpid()}_{next(_numbers)}")
    yield dsn
    _drop(cluster.source.dsn, str(conninfo_to_dict(dsn)["dbname"]))


@pytest.fixture
def replica_dsn(cluster: Cluster) -> Iterator[str]:
    """An empty database on the replica server."""
    dsn = _fresh_database(cluster.replica.dsn, f"r{os.getpid()}_{next(_numbers)}")
    yield dsn
    _drop(cluster.replica.dsn, str(conninfo_to_dict(dsn)["dbname"]))


@pytest.fixture(scope="session")
def kafka(cluster: Cluster) -> str:
    """Addresses of the broker."""
    return cluster.bootstrap_servers


@pytest.fixture(scope="session")
def registry_url(cluster: Cluster) -> str:
    """Address of the schema registry."""
    return cluster.schema_registry_url


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test uses."""
    return f"t{os.getpid()}n{next(_numbers)}"


@pytest.fixture
def redis_url(cluster: Cluster) -> str:
    """The Redis server, emptied: each process of a run has one of its own."""
    url = cluster.redis_url
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url

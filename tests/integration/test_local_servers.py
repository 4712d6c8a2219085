"""Local servers serve real clients, keep data and ports over a crash, and never outlive their owner."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from cdc.errors import ConfigError, Failed, Unreachable
from cdc.local.broker_probe import BrokerProbe
from cdc.local.cluster import Cluster, take_down
from cdc.local.ports import free_ports
from cdc.local.postgres import binaries
from cdc.local.processes import Process, running_in, wait_gone
from cdc.local.state import StateDirectory

GONE_SECONDS = 45  # a broker that is told to stop while it starts finishes that first, however busy the machine is


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.up(tmp_path_factory.mktemp("servers")) as cluster:
        yield cluster


def query(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def registry(cluster: Cluster, method: str, path: str, body: object = None) -> object:
    url = urlsplit(cluster.schema_registry_url)
    assert url.hostname is not None
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    content = None if body is None else json.dumps(body)
    connection.request(method, url.path + path, content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert response.status == 200, answer
    return answer


def processes_of(cluster: Cluster) -> list[Process]:
    """Every server, every process below one, and the keeper."""
    found = []
    for pid in cluster.pids.values():
        process = Process.of(pid)
        assert process is not None
        found += process.tree()
    assert len(found) > len(cluster.pids)  # PostgreSQL's own processes are among them
    return list(dict.fromkeys(found))


def test_both_postgres_decode_logically_and_are_different_systems(cluster: Cluster) -> None:
    systems = set()
    for server in (cluster.source, cluster.replica):
        assert query(server.dsn, "SELECT current_database()") == [(server.name,)]
        assert query(server.dsn, "SHOW wal_level") == [("logical",)]
        assert query(server.dsn, "SHOW fsync") == [("on",)]
        query(server.dsn, "SELECT pg_create_logical_replication_slot('probe', 'pgoutput')")
        query(server.dsn, "SELECT pg_drop_replication_slot('probe')")
        systems.add(query(server.dsn, "SELECT system_identifier FROM pg_control_system()")[0])
    assert len(systems) == 2


def test_postgres_wants_the_password(cluster: Cluster) -> None:
    wrong = cluster.source.dsn.replace(cluster.source.password, "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        query(wrong, "SELECT 1")
    assert (cluster.state_dir / "state.json").stat().st_mode & 0o077 == 0


def test_secrets_are_not_in_the_arguments_of_any_process(cluster: Cluster) -> None:
    for process in processes_of(cluster):
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert cluster.source.password.encode() not in arguments


@pytest.mark.parametrize("name", ["source", "replica"])
def test_a_killed_postgres_keeps_its_rows_and_its_port(cluster: Cluster, name: str) -> None:
    server = cluster.postgres(name)
    query(server.dsn, "CREATE TABLE IF NOT EXISTS kept (id int)")
    before = query(server.dsn, "INSERT INTO kept VALUES (1); SELECT count(*) FROM kept")
    cluster.kill(name)
    with pytest.raises(psycopg.OperationalError):
        query(server.dsn, "SELECT 1")
    assert [one.state for one in cluster.status() if one.name == name] == ["down"]
    cluster.start(name)
    assert cluster.postgres(name).dsn == server.dsn
    assert query(server.dsn, "SELECT count(*) FROM kept") != [(0,)], before


def test_a_killed_broker_comes_back_with_its_cluster_and_its_port(cluster: Cluster) -> None:
    address = cluster.bootstrap_servers
    host, port = address.split(":")
    cluster.kill("broker-1")
    with pytest.raises(ConnectionRefusedError), BrokerProbe(host, int(port)):
        pass
    cluster.start("broker-1")
    assert cluster.bootstrap_servers == address
    with BrokerProbe(host, int(port)) as probe:
        assert probe.brokers() == [1]
        assert probe.coordinator("any") == (host, int(port))


def test_a_killed_registry_keeps_its_schemas_and_their_ids(cluster: Cluster) -> None:
    path = "/subjects/kept/versions"
    first = registry(cluster, "POST", path, {"schema": '"string"'})
    cluster.kill("registry")  # at once: what was answered must be on disk
    cluster.start("registry")
    assert registry(cluster, "GET", "/subjects") == ["kept"]
    assert registry(cluster, "POST", path, {"schema": '"string"'}) == first
    assert registry(cluster, "POST", "/subjects/new/versions", {"schema": '"int"'}) != first


def test_a_paused_postgres_answers_nobody_until_it_is_resumed(cluster: Cluster) -> None:
    with psycopg.connect(cluster.source.dsn, autocommit=True) as connection:
        cluster.pause("source")
        try:
            assert "paused" in [one.state for one in cluster.status()]
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(cluster.source.dsn, connect_timeout=2)
        finally:
            cluster.resume("source")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_stopped_server_starts_with_other_settings(cluster: Cluster) -> None:
    cluster.stop("replica")
    cluster.configure("replica", {"wal_level": "replica"})
    cluster.start("replica")
    assert query(cluster.replica.dsn, "SHOW wal_level") == [("replica",)]
    cluster.stop("replica")
    cluster.configure("replica", {})
    cluster.start("replica")
    assert query(cluster.replica.dsn, "SHOW wal_level") == [("logical",)]


def test_a_second_up_joins_the_servers_that_run(cluster: Cluster) -> None:
    cluster.kill("replica")
    cluster.pause("source")
    before = cluster.pids["source"]
    with Cluster.up(cluster.state_dir) as joined:
        assert joined.joined
        assert query(joined.source.dsn, "SELECT 1") == [(1,)]  # what was paused was woken
        assert joined.source.dsn == cluster.source.dsn
    assert query(cluster.replica.dsn, "SELECT 1") == [(1,)]  # what was down was started
    assert cluster.pids["source"] == before


def test_another_shape_is_refused_in_a_used_directory(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match="holds another cluster"):
        Cluster.up(cluster.state_dir, brokers=3)


def owner_of(state_dir: Path, *, owned: bool = True) -> subprocess.Popen[str]:
    """A process that starts a small cluster and then waits, or ends if the cluster is not its own."""
    program = (
        "import pathlib, sys, time; from cdc.local.cluster import Cluster\n"
        f"Cluster.up(pathlib.Path({str(state_dir)!r}), postgres=('source',), brokers={int(owned)}, registry=False, owned={owned})\n"
        f"print('up', flush=True); time.sleep({owned} * 600)"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_no_server_outlives_an_owner_that_is_killed(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        processes = processes_of(Cluster.attach(tmp_path))
        owner.kill()
        began = time.monotonic()
        assert wait_gone(processes, GONE_SECONDS)
        print(f"gone {time.monotonic() - began:.1f} s after the owner")
    with pytest.raises(Unreachable):
        Cluster.attach(tmp_path)


def test_no_server_outlives_an_owner_killed_while_it_starts_them(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner:
        while not (tmp_path / "processes.json").exists():
            time.sleep(0.01)
        time.sleep(1)  # initdb, the format of the broker, or its start
        owner.kill()
    keeper = StateDirectory(tmp_path).read_processes()
    assert keeper is not None
    assert wait_gone([keeper.keeper], GONE_SECONDS)
    known = StateDirectory(tmp_path).read_processes()
    assert known is not None
    assert not any(kept.process.alive() for kept in known.servers.values())
    with Cluster.up(tmp_path, postgres=("source",), registry=False) as cluster:
        assert query(cluster.source.dsn, "SELECT 1") == [(1,)]


def test_no_server_outlives_a_keeper_that_is_killed(tmp_path: Path) -> None:
    with Cluster.up(tmp_path, postgres=("source",), registry=False) as cluster:
        processes = processes_of(cluster)
        os.kill(cluster.pids["keeper"], signal.SIGKILL)
        began = time.monotonic()
        assert wait_gone(processes, GONE_SECONDS)
        print(f"gone {time.monotonic() - began:.1f} s after the keeper")


def test_paused_leftovers_of_a_killed_keeper_are_cleared_and_the_data_is_taken_up(
    tmp_path: Path,
) -> None:
    with Cluster.up(tmp_path, brokers=0, postgres=("source",), registry=False) as cluster:
        query(cluster.source.dsn, "CREATE TABLE kept AS SELECT 1 AS id")
        cluster.pause("source")
        processes = processes_of(cluster)
        keeper = Process.of(cluster.pids["keeper"])
        assert keeper is not None
        keeper.signal(signal.SIGKILL)
        assert wait_gone([keeper], 5)
        with Cluster.up(tmp_path, brokers=0, postgres=("source",), registry=False) as again:
            assert not any(process.alive() for process in processes)
            assert query(again.source.dsn, "SELECT id FROM kept") == [(1,)]


def test_a_detached_cluster_lives_until_it_is_taken_down(tmp_path: Path) -> None:
    with owner_of(tmp_path, owned=False) as owner:
        assert owner.wait(60) == 0
    time.sleep(1)  # time enough for the keeper to miss an owner
    cluster = Cluster.attach(tmp_path)
    processes = processes_of(cluster)
    assert query(cluster.source.dsn, "SELECT 1") == [(1,)]
    assert take_down(tmp_path, purge=True)
    assert not any(process.alive() for process in processes)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert not take_down(tmp_path)


def test_ports_taken_by_others_are_chosen_anew(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = [cluster.source.port, cluster.replica.port]
    offers = [list(taken)]

    def offer(count: int) -> list[int]:
        return offers.pop()[:count] if offers else free_ports(count)

    monkeypatch.setattr("cdc.local.state.free_ports", offer)
    with Cluster.up(tmp_path, brokers=0, registry=False) as second:
        assert not offers
        assert not {second.source.port, second.replica.port} & set(taken)
        assert query(second.source.dsn, "SELECT count(*) FROM pg_class WHERE relname = 'kept'") == [
            (0,)
        ]


def test_three_brokers_serve_with_one_of_them_dead(tmp_path: Path) -> None:
    with Cluster.up(tmp_path, brokers=3, postgres=(), registry=False) as cluster:
        addresses = [address.split(":") for address in cluster.bootstrap_servers.split(",")]
        cluster.kill("broker-2")
        host, port = addresses[0]
        deadline = time.monotonic() + 20
        known: list[int] = []
        while sorted(known) != [1, 3] and time.monotonic() < deadline:
            with BrokerProbe(host, int(port)) as probe:
                known = probe.brokers()
            time.sleep(0.2)
        assert sorted(known) == [1, 3]
        cluster.kill("broker-1")  # no majority is left
        cluster.start("broker-1", "broker-2")
        cluster.kill("broker-1", "broker-2", "broker-3")  # quicker than their leave-taking


def test_a_purge_leaves_no_process_in_the_data_directory(tmp_path: Path) -> None:
    with Cluster.up(tmp_path, brokers=0, postgres=("source",), registry=False) as cluster:
        directory = cluster.source.directory
        assert running_in(binaries() / "postgres", directory)
        cluster.down(purge=True)
        assert not directory.exists()
        assert not running_in(binaries() / "postgres", directory)


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"broker-1 cannot be formatted: .*process\.roles"):
        Cluster.up(
            tmp_path,
            postgres=(),
            registry=False,
            settings={"broker-1": {"process.roles": "nonsense"}},
        )


def test_a_postgres_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    settings = {"source": {"max_connections": "many"}}
    with pytest.raises(Failed, match=r"source ended while starting: .*max_connections"):
        Cluster.up(tmp_path, brokers=0, postgres=("source",), registry=False, settings=settings)
    known = StateDirectory(tmp_path).read_processes()
    assert known is not None
    assert not known.keeper.alive()

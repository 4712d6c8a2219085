"""A state directory remembers a cluster exactly, keeps its secrets, and purges only what is its own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cdc.errors import ConfigError, Failed, Unreachable
from cdc.local.cluster import Cluster, take_down
from cdc.local.ports import free_ports, is_free
from cdc.local.processes import Process
from cdc.local.server import last_words
from cdc.local.state import Kept, Processes, Shape, State, StateDirectory, _cluster_id

SHAPE = Shape(brokers=3, postgres=("source", "replica"), registry=True)


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    directory = StateDirectory(tmp_path / "state")
    directory.create()
    return directory


def test_a_cluster_is_read_back_as_it_was_written(directory: StateDirectory) -> None:
    state = State.new(SHAPE)
    state.settings = {"source": {"work_mem": "8MB"}}
    directory.write(state)
    assert directory.read() == state
    processes = Processes(Process(1, 2), None, {"source": Kept(Process(3, 4), 2, exit_code=-9)})
    directory.write_processes(processes)
    assert directory.read_processes() == processes


def test_every_server_has_a_port_of_its_own_and_secrets_differ() -> None:
    one, other = State.new(SHAPE), State.new(SHAPE)
    assert len(set(one.ports.values())) == len(one.ports) == 2 + 3 + 3 + 1
    assert one.password != other.password
    assert one.cluster_id != other.cluster_id


def test_a_cluster_id_never_reads_as_an_option_of_kafkas_tools() -> None:
    assert not _cluster_id(b"\xff" * 16).startswith("-")


def test_state_is_for_its_owner_only(directory: StateDirectory) -> None:
    directory.write(State.new(SHAPE))
    assert (directory.path / "state.json").stat().st_mode & 0o777 == 0o600
    assert directory.path.stat().st_mode & 0o777 == 0o700


def test_a_torn_state_is_told_not_guessed(directory: StateDirectory) -> None:
    (directory.path / "state.json").write_text('{"shape": ')
    with pytest.raises(Failed, match=r"state\.json cannot be read"):
        directory.read()


def test_purge_leaves_what_it_did_not_make(directory: StateDirectory) -> None:
    directory.write(State.new(SHAPE))
    (directory.data("source")).mkdir()
    (directory.path / "letter.txt").write_text("mine")
    directory.purge()
    assert [path.name for path in directory.path.iterdir()] == ["letter.txt"]


def test_ports_avoid_those_in_use_and_those_of_outgoing_connections() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert not [port for port in ports if low <= port <= high]
    with socket.create_server(("127.0.0.1", ports[0])):
        assert not is_free(ports[0])


def test_nothing_is_made_for_a_directory_that_never_held_servers(tmp_path: Path) -> None:
    path = tmp_path / "never"
    with pytest.raises(Unreachable, match="no local servers run"):
        Cluster.attach(path)
    assert not take_down(path)
    assert not path.exists()


@pytest.mark.parametrize("brokers", [-1, 2, 4])
def test_a_number_of_brokers_without_a_majority_is_refused(tmp_path: Path, brokers: int) -> None:
    with pytest.raises(ConfigError, match="brokers"):
        Cluster.up(tmp_path, brokers=brokers)


@pytest.mark.parametrize("name", ["Source", "a b", "../x", "registry", "keeper", ""])
def test_a_server_name_that_is_no_plain_word_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name"):
        Cluster.up(tmp_path, postgres=(name,))


def test_last_words_leave_stack_frames_out() -> None:
    output = "first\njava.lang.Error: why\n\tat kafka.Kafka.main(Kafka.scala)\n\t... 3 more\nCaused by: x\n"
    assert last_words(output) == "first | java.lang.Error: why | Caused by: x"
    assert last_words("") == "it wrote nothing"

"""A set of throwaway servers: start it, know its addresses, break it, stop it.

    with Cluster.up(tmp_path, brokers=1) as cluster:
        psycopg.connect(cluster.source.dsn)
        cluster.kill("broker-1")
        cluster.start("broker-1")

Servers are named after their databases (``source``, ``replica``), ``broker-1`` to ``broker-3``, ``registry``,
``redis``.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cdc.errors import ConfigError, Unreachable
from cdc.local.broker import Broker
from cdc.local.jars import apicurio_jars, cache_directory, kafka_jars
from cdc.local.keeping import Keeping, end_leftovers
from cdc.local.postgres import PostgresServer
from cdc.local.processes import Process, end, pause_tree, signal_tree
from cdc.local.redis import RedisServer
from cdc.local.registry import Registry
from cdc.local.server import Server
from cdc.local.starting import PortTaken, Progress, await_ready, silent, start
from cdc.local.state import Shape, State, StateDirectory

_STOP_SECONDS = 20
_STANDBY = {"hot_standby_feedback": "on", "sync_replication_slots": "on"}
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server now; ``state`` is up, down or paused, ``memory`` the bytes resident, 0 when down."""

    name: str
    address: str
    state: str
    pid: int | None
    memory: int


class Cluster:
    """The servers of one state directory, whose keeper runs.

    ``joined`` tells that they ran before; leaving a ``with`` block then lets them run on.
    """

    def __init__(
        self, directory: StateDirectory, state: State, keeping: Keeping, *, joined: bool
    ) -> None:
        self.joined = joined
        self._directory = directory
        self._state = state
        self._keeping = keeping
        self._servers = _servers(directory, state)

    @classmethod
    def up(
        cls,
        state_dir: Path,
        *,
        brokers: int = 1,
        postgres: Sequence[str] = ("source", "replica"),
        registry: bool = True,
        redis: bool = False,
        owned: bool = True,
        settings: Mapping[str, Mapping[str, str]] | None = None,
        progress: Progress = silent,
    ) -> Cluster:
        """Start servers, or join those that run, paused ones too; all serve clients on return.

        ``brokers`` is 0, 1 or 3. An *owned* cluster ends with this process, whatever ends it;
        another outlives it until ``down``. Data of a stopped cluster is taken up again.
        ``settings`` are extra PostgreSQL, broker or Redis settings by server name.
        If it fails nothing is left running that it started.
        Raises ConfigError for a shape that cannot be, Failed for a server that does not start.
        """
        shape = Shape(brokers, tuple(postgres), registry, redis)
        _validate(shape)
        _resolve(shape, progress)
        directory = StateDirectory(state_dir)
        directory.create()
        with directory.locked():
            state = directory.read()
            if state is not None and state.shape != shape:
                raise ConfigError(
                    f"{directory.path} holds another cluster: {state.shape}",
                    f"use another --state-dir, or: cdc local down --purge --state-dir {directory.path}",
                )
            running = Keeping.find(directory)
            if state is not None and running is not None:
                return cls._join(directory, state, running, progress)
            state = state or State.new(shape)
            state.settings = {name: dict(own) for name, own in (settings or {}).items()}
            return cls._begin(directory, state, progress, owned=owned)

    @classmethod
    def attach(cls, state_dir: Path) -> Cluster:
        """The cluster that runs in a state directory; raises Unreachable if none does."""
        directory = StateDirectory(state_dir)
        state, keeping = directory.read(), Keeping.find(directory)
        if state is None or keeping is None:
            raise Unreachable(
                f"no local servers run in {directory.path}", "start them: cdc local up"
            )
        return cls(directory, state, keeping, joined=True)

    @classmethod
    def _join(
        cls, directory: StateDirectory, state: State, keeping: Keeping, progress: Progress
    ) -> Cluster:
        cluster = cls(directory, state, keeping, joined=True)
        down = [name for name in cluster.names if cluster._process(name) is None]
        cluster.resume(*cluster.names)
        start(keeping, [cluster._servers[name] for name in down], progress, abandon=lambda: None)
        for name, server in cluster._servers.items():
            if name not in down and (process := cluster._process(name)) is not None:
                log = directory.log(name)
                await_ready(server, process, log, log.stat().st_size)
        return cluster

    @classmethod
    def _begin(
        cls, directory: StateDirectory, state: State, progress: Progress, *, owned: bool
    ) -> Cluster:
        for attempt in range(1, _ATTEMPTS + 1):
            _clear(directory, state)
            directory.write(state)
            keeping = Keeping.start(directory)
            try:
                cluster = cls(directory, state, keeping, joined=False)
                start(keeping, list(cluster._servers.values()), progress, abandon=keeping.end)
                if not owned:
                    keeping.detach()
            except BaseException as error:
                keeping.end()
                if not isinstance(error, PortTaken) or attempt == _ATTEMPTS:
                    raise
                state.choose_ports()
            else:
                return cluster
        raise AssertionError("the last attempt returns or raises")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.joined:
            self.down()

    # Addresses

    @property
    def state_dir(self) -> Path:
        """Where its data, logs and state are."""
        return self._directory.path

    @property
    def source(self) -> PostgresServer:
        """The PostgreSQL server named ``source``."""
        return self.postgres("source")

    @property
    def replica(self) -> PostgresServer:
        """The PostgreSQL server named ``replica``."""
        return self.postgres("replica")

    def postgres(self, name: str) -> PostgresServer:
        """A PostgreSQL server by name; its ``dsn`` is a libpq URL."""
        server = self._server(name)
        if not isinstance(server, PostgresServer):
            raise ConfigError(f"{name} is not a PostgreSQL server")
        return server

    @property
    def bootstrap_servers(self) -> str:
        """What Kafka clients are given: ``host:port``, separated by commas."""
        brokers = [server for server in self._servers.values() if isinstance(server, Broker)]
        return ",".join(broker.address for broker in brokers)

    @property
    def schema_registry_url(self) -> str:
        """The base URL of the schema registry; empty where there is none."""
        return self._servers["registry"].address if "registry" in self._servers else ""

    @property
    def redis_url(self) -> str:
        """The URL of the Redis server; empty where there is none."""
        return self._servers["redis"].address if "redis" in self._servers else ""

    @property
    def names(self) -> list[str]:
        """The names of its servers."""
        return list(self._servers)

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the servers that run, and of their keeper."""
        known = self._directory.read_processes()
        if known is None:
            return {}
        running = {name: kept.process for name, kept in known.servers.items()}
        running["keeper"] = known.keeper
        return {name: process.pid for name, process in running.items() if process.alive()}

    def status(self) -> list[ServerStatus]:
        """Every server as it is now."""
        return [self._status(server) for server in self._servers.values()]

    # Faults, each on one or several servers at once. The keeper restarts nothing by itself.

    def kill(self, *names: str) -> None:
        """SIGKILL servers with all their processes, as a crash of the machine would.

        They are gone on return; one that is down already is not an error.
        """
        self._end(names, lambda process, _server: end(process, signal.SIGKILL, grace=0))

    def stop(self, *names: str) -> None:
        """Stop servers in order, by force after 20 seconds; they are gone on return."""
        self._end(
            names,
            lambda process, server: end(process, server.command().stop_signal, _STOP_SECONDS),
        )

    def start(self, *names: str) -> None:
        """Start servers that are down, on their ports and with their data; they serve clients on return.

        Two brokers of three are needed before one of them serves: start them together.
        """
        down = [self._server(name) for name in names if self._process(name) is None]
        start(self._keeping, down, silent, abandon=lambda: None)

    def pause(self, *names: str) -> None:
        """SIGSTOP servers and all their processes: connections stay open and nothing answers.

        All of them have stopped on return.
        """
        for name in names:
            if (process := self._process(name)) is not None:
                pause_tree(process)

    def resume(self, *names: str) -> None:
        """Wake paused servers."""
        for name in names:
            if (process := self._process(name)) is not None:
                signal_tree(process, signal.SIGCONT)

    def configure(self, name: str, settings: Mapping[str, str]) -> None:
        """Replace a server's extra settings; its next start obeys them, whoever starts it."""
        self._server(name)
        self._state.settings[name] = dict(settings)
        self._directory.write(self._state)
        self._servers = _servers(self._directory, self._state)

    def follow(self, standby: str, primary: str) -> None:
        """Make one PostgreSQL server the standby of another, with a fresh copy of its data; it serves reads on return.

        Failover slots of the primary are kept in step there.
        """
        self.stop(standby)
        self.postgres(standby).copy_from(self.postgres(primary))
        self.configure(standby, {**self._state.settings.get(standby, {}), **_STANDBY})
        self.start(standby)

    # Its end

    def down(self, *, purge: bool = False) -> None:
        """Stop every server; with ``purge`` delete the data too.

        Nothing runs on return. May be repeated.
        """
        with self._directory.locked():
            self._keeping.end()
            _clear(self._directory, self._state)
            if purge:
                self._directory.purge()

    def wait(self) -> None:
        """Return when the keeper is gone; for a holder in the foreground."""
        while self._keeping.alive:
            time.sleep(0.2)

    def _end(self, names: Sequence[str], act: Callable[[Process, Server], None]) -> None:
        found = [(self._process(name), self._servers[name]) for name in names]
        with ThreadPoolExecutor(max_workers=max(1, len(found))) as pool:
            ends = [pool.submit(act, process, server) for process, server in found if process]
            for one in ends:
                one.result()

    def _server(self, name: str) -> Server:
        if name not in self._servers:
            raise ConfigError(
                f"no local server is named {name}", f"there are: {', '.join(self._servers)}"
            )
        return self._servers[name]

    def _process(self, name: str) -> Process | None:
        self._server(name)
        known = self._directory.read_processes()
        kept = None if known is None else known.servers.get(name)
        return kept.process if kept is not None and kept.process.alive() else None

    def _status(self, server: Server) -> ServerStatus:
        process = self._process(server.name)
        if process is None:
            return ServerStatus(server.name, server.address, "down", None, 0)
        state = "paused" if process.paused() else "up"
        return ServerStatus(server.name, server.address, state, process.pid, process.memory())


def take_down(state_dir: Path, *, purge: bool = False) -> bool:
    """Stop whatever runs in a state directory, a cluster whose keeper was killed too.

    Returns whether there was a cluster, running or stopped. Nothing runs on return.
    """
    directory = StateDirectory(state_dir)
    if not directory.path.is_dir():
        return False
    with directory.locked():
        if (keeping := Keeping.find(directory)) is not None:
            keeping.end()
        state = directory.read()
        if state is not None:
            _clear(directory, state)
        if purge:
            directory.purge()
    return state is not None


def _clear(directory: StateDirectory, state: State) -> None:
    """Kill what outlived a keeper that is gone."""
    end_leftovers(directory)
    for server in _servers(directory, state).values():
        if isinstance(server, PostgresServer):
            server.end_leftovers()


def _validate(shape: Shape) -> None:
    if shape.brokers not in (0, 1, 3):
        raise ConfigError(
            f"a local cluster has 0, 1 or 3 brokers, not {shape.brokers}", "use --brokers 1 or 3"
        )
    for name in shape.postgres:
        if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in (
            "registry",
            "keeper",
            "postgres",
            "redis",
        ):
            raise ConfigError(
                f"{name!r} cannot name a PostgreSQL server", "use lower case letters and digits"
            )


def _resolve(shape: Shape, progress: Progress) -> None:
    if shape.brokers:
        progress("broker-1", "resolving")
        kafka_jars(cache_directory())
    if shape.registry:
        progress("registry", "resolving")
        apicurio_jars(cache_directory())


def _servers(directory: StateDirectory, state: State) -> dict[str, Server]:
    """Every server of a cluster by its name."""
    shape, ports = state.shape, state.ports
    found: dict[str, Server] = {}
    for name in shape.postgres:
        settings = state.settings.get(name, {})
        found[name] = PostgresServer(
            name, ports[name], state.password, directory.data(name), directory.log(name), settings
        )
    controllers = {node: ports[f"controller-{node}"] for node in range(1, shape.brokers + 1)}
    for node in controllers:
        name = f"broker-{node}"
        found[name] = Broker(
            node,
            ports[name],
            controllers,
            state.cluster_id,
            directory.data(name),
            directory.log(name),
            state.settings.get(name, {}),
        )
    if shape.registry:
        found["registry"] = Registry(
            "registry", ports["registry"], directory.data("registry"), directory.log("registry")
        )
    if shape.redis:
        found["redis"] = RedisServer(
            "redis",
            ports["redis"],
            directory.data("redis"),
            directory.log("redis"),
            state.settings.get("redis", {}),
        )
    return found

"""A set of throwaway servers: start it, know its addresses, break it, stop it.

    with Cluster.up(tmp_path, brokers=1) as cluster:
        psycopg.connect(cluster.source.dsn)
        cluster.kill("broker-1")
        cluster.start("broker-1")

Servers are named after their databases (``source``, ``replica``), ``broker-1`` to ``broker-3``, ``registry``.
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

from cdc.errors import ConfigError, Failed, Unreachable
from cdc.local.broker import Broker
from cdc.local.jars import apicurio_jars, cache_directory, kafka_jars
from cdc.local.keeping import Keeping, end_leftovers
from cdc.local.postgres import PostgresServer
from cdc.local.processes import Process, end, signal_tree
from cdc.local.registry import Registry
from cdc.local.server import Server
from cdc.local.state import Shape, State, StateDirectory

Progress = Callable[[str, str], None]

_READY_SECONDS = 90
_STOP_SECONDS = 20
_ATTEMPTS = 3
_PORT_TAKEN = re.compile(r"already in use|in use by another process|could not bind", re.IGNORECASE)


class PortTaken(Failed):
    """A server found another one on its port."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server now; ``state`` is up, down or paused, ``memory`` the bytes resident, 0 when down."""

    name: str
    address: str
    state: str
    pid: int | None
    memory: int


class Cluster:
    """The servers of one state directory, whose keeper runs."""

    def __init__(self, directory: StateDirectory, state: State, keeping: Keeping) -> None:
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
        owned: bool = True,
        settings: Mapping[str, Mapping[str, str]] | None = None,
        progress: Progress = lambda _name, _phase: None,
    ) -> Cluster:
        """Start servers, or join those that run; every one of them serves clients on return.

        ``brokers`` is 0, 1 or 3. An *owned* cluster ends with this process, whatever ends it;
        another outlives it until ``down``. Data of a stopped cluster is taken up again.
        ``settings`` are PostgreSQL settings by server name. ``progress`` is told (server, phase), the phases
        being resolving, preparing, starting and ready, from several threads.
        Whatever fails, nothing is left running. Raises ConfigError for a shape that cannot be,
        Failed for a server that does not start.
        """
        shape = Shape(brokers, tuple(postgres), registry)
        _validate(shape)
        directory = StateDirectory(state_dir)
        directory.create()
        with directory.locked():
            state = directory.read()
            if state is not None and state.shape != shape:
                raise ConfigError(
                    f"{directory.path} holds another cluster: {state.shape}",
                    f"choose another --state-dir, or: cdc local down --purge --state-dir {directory.path}",
                )
            _resolve(shape, progress)
            found = Keeping.find(directory)
            if state is not None and found is not None:
                cluster = cls(directory, state, found)
                cluster._start_all(cluster._down(), progress)
                return cluster
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
        return cls(directory, state, keeping)

    @classmethod
    def _begin(
        cls, directory: StateDirectory, state: State, progress: Progress, *, owned: bool
    ) -> Cluster:
        for attempt in range(1, _ATTEMPTS + 1):
            end_leftovers(directory)
            directory.write(state)
            keeping = Keeping.start(directory)
            try:
                cluster = cls(directory, state, keeping)
                cluster._start_all(list(cluster._servers), progress)
                if not owned:
                    keeping.detach()
            except PortTaken:
                keeping.end()
                if attempt == _ATTEMPTS:
                    raise
                state.choose_ports()
            except BaseException:
                keeping.end()
                raise
            else:
                return cluster
        raise AssertionError("unreachable")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        return ",".join(
            server.address for server in self._servers.values() if isinstance(server, Broker)
        )

    @property
    def schema_registry_url(self) -> str:
        """The base URL of the schema registry; empty where there is none."""
        return self._servers["registry"].address if "registry" in self._servers else ""

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

    # Faults. The keeper restarts nothing by itself.

    def kill(self, name: str) -> None:
        """SIGKILL a server with all its processes, as a crash of its machine would; it is gone on return."""
        if (process := self._process(name)) is not None:
            end(process, signal.SIGKILL, grace=0)

    def stop(self, name: str) -> None:
        """Stop a server in order, by force after 20 seconds; it is gone on return."""
        if (process := self._process(name)) is not None:
            end(process, self._servers[name].command().stop_signal, _STOP_SECONDS)

    def start(self, name: str) -> None:
        """Start a server that is down, on its port and with its data; it serves clients on return."""
        if self._process(name) is None:
            self._start(self._server(name), lambda _name, _phase: None)

    def pause(self, name: str) -> None:
        """SIGSTOP a server and all its processes: its connections stay open and nothing answers."""
        if (process := self._process(name)) is not None:
            signal_tree(process, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Wake a paused server."""
        if (process := self._process(name)) is not None:
            signal_tree(process, signal.SIGCONT)

    # Its end

    def down(self, *, purge: bool = False) -> None:
        """Stop every server; with ``purge`` delete the data too. Nothing runs on return; may be repeated."""
        with self._directory.locked():
            self._keeping.end()
            if purge:
                self._directory.purge()

    def wait(self) -> None:
        """Return when the keeper is gone; for a holder in the foreground."""
        while self._keeping.alive:
            time.sleep(0.2)

    def _start_all(self, names: Sequence[str], progress: Progress) -> None:
        with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
            starts = [pool.submit(self._start, self._servers[name], progress) for name in names]
            try:
                for start in starts:
                    start.result()
            except BaseException:
                # The others notice at once that theirs is gone.
                self._keeping.end()
                raise

    def _start(self, server: Server, progress: Progress) -> None:
        progress(server.name, "preparing")
        if isinstance(server, PostgresServer):
            server.end_leftovers()
        server.prepare()
        progress(server.name, "starting")
        command = server.command()
        logged = command.log.stat().st_size if command.log.exists() else 0
        process = self._keeping.run(server.name, command)
        _await_ready(server, process, command.log, logged)
        progress(server.name, "ready")

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

    def _down(self) -> list[str]:
        return [name for name in self._servers if self._process(name) is None]


def _await_ready(server: Server, process: Process, log: Path, logged: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            server.check()
        except Unreachable as error:
            reason = error
        else:
            # Whoever took the port first might be what answered.
            if process.alive():
                return
        if not process.alive():
            raise _ended(server.name, log, logged)
        if time.monotonic() > deadline:
            raise Failed(
                f"{server.name} is not ready after {_READY_SECONDS} s: {reason.what}", f"see {log}"
            )
        time.sleep(0.1)


def _ended(name: str, log: Path, logged: int) -> Failed:
    with log.open("rb") as written:
        written.seek(logged)
        text = written.read().decode(errors="replace")
    if _PORT_TAKEN.search(text):
        return PortTaken(
            f"{name} found its port taken", "end what listens there, or stop all and start again"
        )
    last = " | ".join(line.strip() for line in text.splitlines()[-3:]) or "it wrote nothing"
    return Failed(f"{name} ended while starting: {last}", f"see {log}")


def _validate(shape: Shape) -> None:
    if shape.brokers not in (0, 1, 3):
        raise ConfigError(
            f"a local cluster has 0, 1 or 3 brokers, not {shape.brokers}", "use --brokers 1 or 3"
        )
    for name in shape.postgres:
        if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in ("registry", "keeper", "postgres"):
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
    shape, ports = state.shape, state.ports
    found: dict[str, Server] = {}
    for name in shape.postgres:
        found[name] = PostgresServer(
            name,
            ports[name],
            state.password,
            directory.data(name),
            directory.log(name),
            state.settings.get(name, {}),
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
        )
    if shape.registry:
        found["registry"] = Registry(
            "registry", ports["registry"], directory.data("registry"), directory.log("registry")
        )
    return found

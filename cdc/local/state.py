"""What a state directory remembers: which servers it holds, their ports and secrets, and who runs.

Layout: ``state.json`` (shape, ports, password; written by whoever starts the cluster), ``processes.json``
(the keeper and its servers; written by the keeper only), ``keeper.sock``, ``data/NAME``, ``logs/NAME.log``.
Both files hold one JSON object, are replaced whole, and are readable by their owner only.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cdc.errors import Failed
from cdc.local.ports import free_ports
from cdc.local.processes import Process

_OURS = ("data", "logs", "state.json", "processes.json", "keeper.sock")


def default_directory() -> Path:
    """``cdc/local`` below ``$XDG_STATE_HOME`` or ``~/.local/state``."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home, "cdc", "local").absolute()


@dataclass(frozen=True, slots=True)
class Shape:
    """Which servers a cluster has; it cannot change while its data is kept."""

    brokers: int
    postgres: tuple[str, ...]
    registry: bool
    redis: bool = False

    def __str__(self) -> str:
        parts = [*self.postgres, f"{self.brokers} broker{'s' if self.brokers != 1 else ''}"]
        parts += ["registry"] if self.registry else []
        return ", ".join([*parts, "redis"] if self.redis else parts)


@dataclass(slots=True)
class State:
    """The content of ``state.json``; ``settings`` are extra settings by server."""

    shape: Shape
    password: str
    cluster_id: str
    ports: dict[str, int] = field(default_factory=dict)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def new(cls, shape: Shape) -> State:
        """A cluster that never ran, with new secrets and ports."""
        state = cls(
            shape,
            password=secrets.token_hex(16),
            cluster_id=_cluster_id(uuid.uuid4().bytes),
        )
        state.choose_ports()
        return state

    def choose_ports(self) -> None:
        """Give every server a port that is free now."""
        nodes = range(1, self.shape.brokers + 1)
        names = [*self.shape.postgres, *(f"broker-{node}" for node in nodes)]
        names += [f"controller-{node}" for node in nodes]
        names += ["registry"] if self.shape.registry else []
        names += ["redis"] if self.shape.redis else []
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))


def _cluster_id(random: bytes) -> str:
    """16 bytes as Kafka writes an id; never with a leading hyphen, which would read as an option."""
    return urlsafe_b64encode(bytes([random[0] & 0x7F]) + random[1:]).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Kept:
    """A server as its keeper knows it; ``exit_code`` is set once it ended, negative for a signal."""

    process: Process
    stop_signal: int
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Processes:
    """The content of ``processes.json``; ``owner`` is None for a cluster that outlives its starter."""

    keeper: Process
    owner: Process | None
    servers: Mapping[str, Kept]


class StateDirectory:
    """Access to one state directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def create(self) -> None:
        """Make it, for its owner's eyes only."""
        (self.path / "data").mkdir(parents=True, exist_ok=True)
        (self.path / "logs").mkdir(exist_ok=True)
        self.path.chmod(0o700)

    def data(self, name: str) -> Path:
        """Where a server keeps its data."""
        return self.path / "data" / name

    def log(self, name: str) -> Path:
        """Where a server's output goes."""
        return self.path / "logs" / f"{name}.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory, so that two processes do not start or stop its servers at once."""
        with (self.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self) -> State | None:
        """The cluster it holds, or None if it holds none."""
        found = self._load("state.json")
        if found is None:
            return None
        shape = Shape(**{**found["shape"], "postgres": tuple(found["shape"]["postgres"])})
        return State(**{**found, "shape": shape})

    def write(self, state: State) -> None:
        """Remember a cluster."""
        self._store("state.json", asdict(state))

    def read_processes(self) -> Processes | None:
        """The keeper that ran here last and its servers; any of them may be gone."""
        found = self._load("processes.json")
        if found is None:
            return None
        servers = {
            name: Kept(**{**kept, "process": Process(**kept["process"])})
            for name, kept in found["servers"].items()
        }
        owner = None if found["owner"] is None else Process(**found["owner"])
        return Processes(Process(**found["keeper"]), owner, servers)

    def write_processes(self, processes: Processes) -> None:
        """Remember who runs; for the keeper."""
        self._store("processes.json", asdict(processes))

    def purge(self) -> None:
        """Delete what we made here, and nothing else: the directory was chosen by the user."""
        for name in _OURS:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _load(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Failed(
                f"{path} cannot be read: {error}", "cdc local down --purge starts afresh"
            ) from error
        return loaded

    def _store(self, name: str, content: Mapping[str, Any] | Sequence[Any]) -> None:
        partial = self.path / f"{name}.partial"
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
        partial.replace(self.path / name)

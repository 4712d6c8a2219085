"""The schema registry: Apicurio, which speaks Confluent's protocol, version 7.

Its schemas are in an H2 file, written through at once, so that they and their ids survive SIGKILL.
Unlike Confluent's it starts with compatibility NONE; whoever needs another level sets it per subject.
"""

from __future__ import annotations

import http.client
import signal
from dataclasses import dataclass
from pathlib import Path

from cdc.errors import Failed, Unreachable
from cdc.local.jars import apicurio_jars, cache_directory
from cdc.local.java import find_java
from cdc.local.ports import LOOPBACK
from cdc.local.server import Command

_PATH = "/apis/ccompat/v7"


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry; ``directory`` holds its database."""

    name: str
    port: int
    directory: Path
    log: Path

    @property
    def address(self) -> str:
        """The base URL that registry clients are given."""
        return f"http://{LOOPBACK}:{self.port}{_PATH}"

    def prepare(self) -> None:
        """Make its directory."""
        self.directory.mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        """Its command line."""
        jars = apicurio_jars(cache_directory())
        program = next(jars.glob("*-runner.jar"), None)
        if program is None:
            raise Failed(
                f"{jars} holds no schema registry", "delete that directory and start again"
            )
        properties = {
            "quarkus.http.host": LOOPBACK,
            "quarkus.http.port": self.port,
            "quarkus.log.level": "WARN",
            "quarkus.datasource.jdbc.url": f"jdbc:h2:file:{self.directory / 'schemas'};WRITE_DELAY=0",
            "quarkus.datasource.jdbc.initial-size": 2,
            "quarkus.datasource.jdbc.min-size": 2,
            "java.io.tmpdir": self.directory,
        }
        return Command(
            (
                str(find_java()),
                *("-Xmx256m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1"),
                *(f"-D{name}={value}" for name, value in properties.items()),
                *("-jar", str(program)),
            ),
            self.directory,
            self.log,
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGKILL,
        )

    def check(self) -> None:
        """Return once it lists its subjects; raises Unreachable before that."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            connection.request("GET", f"{_PATH}/subjects")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.name} does not answer yet: {error}") from error
        finally:
            connection.close()
        if status != http.client.OK:
            raise Unreachable(f"{self.name} answers HTTP {status}")

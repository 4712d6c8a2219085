"""``cdc run`` with the two connector files of deploy/connectors, started and watched from outside.

It is one more process of the servers' keeper: whatever ends the demonstration ends it too.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg

from cdc.errors import Failed
from cdc.fence import FENCE_PREFIX, Fence, Snapshot
from cdc.local.cluster import Cluster
from cdc.local.keeping import Keeping
from cdc.local.processes import Process, end
from cdc.local.server import Command, last_words
from cdc.local.state import StateDirectory

PREFIX = "flights"
_ROOT = Path(__file__).parents[2]
SOURCE_FILE = _ROOT / "deploy" / "connectors" / "flights-source.toml"
SINK_FILE = _ROOT / "deploy" / "connectors" / "flights-replica.toml"

CDC = Path(sys.executable).with_name("cdc")
_FILES = (str(SOURCE_FILE), str(SINK_FILE))
_STOP_SECONDS = 60
_LIVE = "SELECT count(*) FROM cdc.tables WHERE source = %s AND state = 'live'"
_PASSED = "SELECT max(commit_lsn) FROM cdc.checkpoints WHERE source = %s"
_MARK = "SELECT pg_logical_emit_message(false, %s, %s::bytea, true) - '0/0'::pg_lsn"


class Pipeline:
    """One source and one sink connector over a cluster's two databases."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._directory = StateDirectory(cluster.state_dir)
        self._process: Process | None = None
        self.log = self._directory.log("pipeline")
        self.environment = cluster.state_dir / "data" / "environment.sh"
        self._status = cluster.state_dir / "data" / "status.json"

    def start(self) -> None:
        """Start it; returns at once."""
        self._write_environment()
        keeping = Keeping.find(self._directory)
        if keeping is None:
            raise Failed("the local servers are gone", f"see {self._directory.log('keeper')}")
        self._process = keeping.run(
            "pipeline",
            Command(
                self._command("run", *_FILES, "--status", str(self._status)),
                _ROOT,
                self.log,
                stop_signal=signal.SIGINT,
                death_signal=signal.SIGTERM,
            ),
        )

    def stop(self) -> None:
        """Let it drain, store its checkpoints and end."""
        if self._process is not None:
            end(self._process, signal.SIGINT, _STOP_SECONDS)
            self._process = None

    def abandon(self) -> None:
        """End it at once; what it leaves undone is not wanted any more."""
        if self._process is not None:
            end(self._process, signal.SIGKILL, grace=0)
            self._process = None

    def check(self) -> None:
        """Raise Failed if it ended by itself, with what the task said that failed."""
        if self._process is None or self._process.alive():
            return
        for role in ("source", "sink"):
            if error := self.task(role).get("error"):
                raise Failed(f"the pipeline ended: {role}: {error}", f"see {self.log}")
        said = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        raise Failed(f"the pipeline ended: {last_words(said)}", f"see {self.log}")

    def task(self, role: str) -> dict[str, Any]:
        """The source's or the sink's task as its supervisor saw it last; empty before the first time."""
        try:
            tasks = json.loads(self._status.read_text(encoding="utf-8"))["tasks"]
        except FileNotFoundError:
            return {}
        return next((task for task in tasks if task["role"] == role), {})

    def verify(self, *options: str) -> tuple[int, dict[str, Any]]:
        """``cdc verify run --json``: its exit status and its report, kept in ``logs/verify.log`` too.

        Raises Failed when it gives none.
        """
        answer = subprocess.run(
            self._command("verify", "run", *_FILES, "--json", *options),
            capture_output=True,
            text=True,
            check=False,
            cwd=_ROOT,
        )
        try:
            report: dict[str, Any] = json.loads(answer.stdout)
        except ValueError as error:
            raise Failed(
                f"cdc verify run ended with status {answer.returncode}: {last_words(answer.stderr)}",
                f"see {self.log}",
            ) from error
        with self._directory.log("verify").open("a", encoding="utf-8") as log:
            log.write(answer.stdout)
        return answer.returncode, report

    def wait(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        """Return once the condition holds; Failed when it does not in time, or the pipeline ended."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise Failed(f"waited {seconds:.0f} s in vain: {what}", f"see {self.log}")
            time.sleep(0.02)

    def catch_up(self, seconds: float) -> None:
        """Return when the replica holds everything that is committed in the source now."""
        mark = self._mark()
        self.wait("the replica catches up", lambda: self._reached(_PASSED) >= mark - 1, seconds)

    def live_tables(self) -> int:
        """How many tables the replica holds whole."""
        return self._reached(_LIVE)

    def _command(self, *words: str) -> tuple[str, ...]:
        """``cdc`` with these words; the secrets stand in a file that a shell reads, not in the command line."""
        return ("/bin/sh", "-c", '. "$0" && exec "$@"', str(self.environment), str(CDC), *words)

    def _mark(self) -> int:
        """Put a fence behind all that is committed; its LSN."""
        everything = Snapshot(1 << 62, 1 << 62, frozenset())
        fence = Fence(f"mark-{time.monotonic_ns()}", "mark", PREFIX, None, everything)
        with psycopg.connect(self._cluster.source.dsn, autocommit=True) as connection:
            row = connection.execute(_MARK, (FENCE_PREFIX, fence.to_message())).fetchone()
            assert row is not None
            return int(row[0])

    def _reached(self, query: str) -> int:
        with psycopg.connect(self._cluster.replica.dsn, autocommit=True) as connection:
            made = connection.execute("SELECT to_regclass('cdc.tables')").fetchone()
            if made == (None,):
                return 0
            row = connection.execute(query.encode(), [PREFIX]).fetchone()
            return int(row[0] or 0) if row else 0

    def _write_environment(self) -> None:
        """What the connector files refer to, for a shell to read; for its owner's eyes only."""
        source = urlsplit(self._cluster.source.dsn)
        values = {
            "BOOTSTRAP_SERVERS": self._cluster.bootstrap_servers,
            "SCHEMA_REGISTRY_URL": self._cluster.schema_registry_url,
            "SOURCE_HOST": source.hostname,
            "SOURCE_PORT": source.port,
            "SOURCE_USER": source.username,
            "SOURCE_PASSWORD": unquote(source.password or ""),
            "SOURCE_DATABASE": source.path[1:],
            "REPLICA_URL": self._cluster.replica.dsn,
        }
        lines = [f"export {name}={shlex.quote(str(value))}\n" for name, value in values.items()]
        self.environment.touch(mode=0o600)
        self.environment.write_text("".join(lines), encoding="utf-8")

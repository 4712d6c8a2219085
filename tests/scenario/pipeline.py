"""A whole pipeline under test: ``cdc run`` over a source database and a replica database, as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict

from cdc.fence import FENCE_PREFIX, Fence, Snapshot


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return once the condition holds; fail with ``what`` when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.05)


class Pipeline:
    """One source and one sink connector under a supervisor, in a folder of their own."""

    def __init__(
        self,
        folder: Path,
        *,
        source_dsn: str,
        replica_dsn: str,
        kafka: str,
        registry_url: str,
        prefix: str,
        source: dict[str, Any] | None = None,
        sink: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.prefix = prefix
        self.source_dsn = source_dsn
        self.replica_dsn = replica_dsn
        self.kafka = kafka
        self.registry_url = registry_url
        self.source_file = folder / "source.json"
        self.sink_file = folder / "sink.json"
        self.log = folder / "log.txt"
        self._status = folder / "status.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        servers = {"bootstrap.servers": kafka, "schema.registry.url": registry_url}
        at = conninfo_to_dict(source_dsn)
        self._write(
            self.source_file,
            {
                "name": f"{prefix}-source",
                "connector.class": "cdc.postgres.Source",
                **servers,
                "topic.prefix": prefix,
                "database.hostname": at["host"],
                "database.port": at["port"],
                "database.user": at["user"],
                "database.password": at["password"],
                "database.dbname": at["dbname"],
                "slot.name": prefix,
                "publication.name": prefix,
                **(source or {}),
            },
        )
        to = conninfo_to_dict(replica_dsn)
        self._write(
            self.sink_file,
            {
                "name": f"{prefix}-replica",
                "connector.class": "cdc.postgres.Sink",
                **servers,
                "topic.prefix": prefix,
                "connection.url": f"postgresql://{to['host']}:{to['port']}/{to['dbname']}",
                "connection.username": to["user"],
                "connection.password": to["password"],
                **(sink or {}),
            },
        )

    def _write(self, path: Path, config: dict[str, Any]) -> None:
        """A property of None is left out."""
        given = {name: value for name, value in config.items() if value is not None}
        path.write_text(json.dumps(given), encoding="utf-8")

    def change(self, path: Path, values: dict[str, Any]) -> None:
        """Other values in a connector's file; the next start obeys them."""
        self._write(path, {**json.loads(path.read_text(encoding="utf-8")), **values})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    # --- its life --------------------------------------------------------------------------------------------

    def start(self, *, env: dict[str, str] | None = None, files: Sequence[Path] = ()) -> None:
        """Start ``cdc run``; returns at once."""
        self._status.unlink(missing_ok=True)
        command = [sys.executable, "-m", "cdc.cli.main", "run"]
        paths = [str(path) for path in files or (self.source_file, self.sink_file)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *paths, "--status", str(self._status)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def stop(self) -> int:
        """Ctrl-C; the exit status once everything has drained."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(60)
        self._process = None
        return code

    def wait(self, seconds: float = 60.0) -> int:
        """Wait until it ends by itself; the exit status."""
        assert self._process is not None
        code = self._process.wait(seconds)
        self._process = None
        return code

    def kill(self) -> None:
        """SIGKILL the supervisor and every task, at once."""
        if self._process is not None:
            pids = [pid for task in self.tasks() if (pid := task["pid"]) is not None]
            for pid in [self._process.pid, *pids]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._process.wait()
            self._process = None

    def tasks(self) -> list[dict[str, Any]]:
        """Every task's status as the supervisor wrote it last."""
        try:
            tasks: list[dict[str, Any]] = json.loads(self._status.read_text())["tasks"]
        except FileNotFoundError:
            return []
        return tasks

    def task(self, role: str) -> dict[str, Any]:
        """The source's or the sink's task."""
        return next((task for task in self.tasks() if task["role"] == role), {"pid": None})

    def signal_task(self, role: str, number: signal.Signals) -> int:
        """Send a signal to the source's or the sink's process; its pid."""
        wait_for(f"the {role} runs", lambda: self.task(role).get("state") == "running")
        pid = int(self.task(role)["pid"])
        self._restarts = int(self.task(role)["restarts"])
        os.kill(pid, number)
        return pid

    def wait_running(self) -> None:
        """Wait until every task of `start` runs."""
        self._wait(
            "every task runs",
            lambda: bool(self.tasks()) and all(t["state"] == "running" for t in self.tasks()),
            60,
        )

    def wait_restarted(self, role: str) -> None:
        """Wait until the task runs again after `signal_task` ended it."""
        wait_for(
            f"the {role} is started again",
            lambda: (
                self.task(role)["restarts"] > self._restarts
                and self.task(role)["state"] == "running"
            ),
        )

    @property
    def pid(self) -> int | None:
        """The supervisor's process id while it runs."""
        return None if self._process is None else self._process.pid

    def alive(self) -> bool:
        """Whether the supervisor runs."""
        return self._process is not None and self._process.poll() is None

    # --- the two databases -----------------------------------------------------------------------------------

    def on_source(self, *statements: str) -> None:
        """Run statements, each in its own transaction."""
        with psycopg.connect(self.source_dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def fence(self) -> int:
        """Emit a mark behind everything that is committed; its LSN."""
        snapshot = Snapshot(1 << 62, 1 << 62, frozenset())
        mark = Fence(f"mark-{time.monotonic_ns()}", "mark", self.prefix, None, snapshot)
        with psycopg.connect(self.source_dsn, autocommit=True) as connection:
            row = connection.execute(
                "SELECT pg_logical_emit_message(false, %s, %s::bytea, true) - '0/0'::pg_lsn",
                (FENCE_PREFIX, mark.to_message()),
            ).fetchone()
            assert row is not None
            return int(row[0])

    def passed(self, lsn: int) -> bool:
        """Whether the replica holds everything below this LSN."""
        with psycopg.connect(self.replica_dsn, autocommit=True) as connection:
            found = connection.execute("SELECT to_regclass('cdc.checkpoints')").fetchone()
            if found is None or found[0] is None:
                return False
            row = connection.execute(
                "SELECT commit_lsn FROM cdc.checkpoints WHERE source = %s", (self.prefix,)
            ).fetchone()
            return row is not None and row[0] is not None and int(row[0]) >= lsn - 1

    def catch_up(self, seconds: float = 90.0) -> None:
        """Wait until the replica holds all that is committed now, and every table is live."""
        lsn = self.fence()
        self._wait(f"the replica passes {lsn}", lambda: self.passed(lsn), seconds)
        self._wait("every table is live", self.live, seconds)

    def _wait(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        def holds() -> bool:
            assert self.alive(), f"cdc run has ended: {self.log.read_text()[-2000:]}"
            return condition()

        wait_for(f"{what} ({self.log})", holds, seconds)

    def live(self) -> bool:
        """Whether the replica holds tables, and calls every one of them live."""
        with psycopg.connect(self.replica_dsn, autocommit=True) as connection:
            states = [row[0] for row in connection.execute("SELECT state FROM cdc.tables")]
        return bool(states) and set(states) == {"live"}


def rows(dsn: str, table: str) -> list[tuple[Any, ...]]:
    """Every row of the table as text, in order."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(f"SELECT t::text FROM {table} t ORDER BY 1")
        return cursor.fetchall()

"""Runs connectors' tasks, each in its own process, starts again what died, and ends them all together.

A task that fails for a reason that stays (its exit status says so) is not started again: the others are drained and the
supervisor ends with its status. A task that was killed is started again and resumes from its checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdc.config import ConnectorConfig
from cdc.errors import EXIT_OK, EXIT_UNREACHABLE
from cdc.runtime.tasks import task_count

log = logging.getLogger(__name__)

_STEADY_SECONDS = 30.0
_LONGEST_WAIT = 30.0
_TURN = 0.1
_STUCK_SECONDS = 10.0
_DRAIN_SECONDS = 30.0
_LOOK_SECONDS = 0.1


@dataclass(slots=True)
class TaskStatus:
    """A task as its supervisor knows it. ``said`` is what the task itself reported last."""

    name: str
    role: str
    state: str = "starting"
    pid: int | None = None
    restarts: int = 0
    said: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Stable keys, lower_snake_case."""
        return {
            "name": self.name,
            "role": self.role,
            "state": self.state,
            "pid": self.pid,
            "restarts": self.restarts,
            "rss_mb": _resident_mb(self.pid),
            "since": self.said.get("since"),
            "error": self.said.get("error"),
            "remedy": self.said.get("remedy"),
            "events": self.said.get("events", 0),
            "transactions": self.said.get("transactions", 0),
            "position": self.said.get("position"),
            "lag_seconds": self.said.get("lag_seconds"),
            "missing_rows": self.said.get("missing_rows", 0),
            "mismatched_rows": self.said.get("mismatched_rows", 0),
            "waiting": self.said.get("waiting"),
            "parked_keys": self.said.get("parked_keys", 0),
        }


class Supervisor:
    """The tasks of these connector files (already checked). `run` blocks; `status` is for any thread.

    A task that reaches no server within ``patience`` seconds of its first start counts as failed (0: it waits for
    ever); one that ran before waits for ever. ``status_file`` is kept up to date with every task's status, in JSON.
    """

    def __init__(
        self,
        connectors: Sequence[tuple[Path, ConnectorConfig]],
        *,
        log_level: str,
        patience: float,
        status_file: Path | None,
    ) -> None:
        self._tasks = [
            _Task(path, config, log_level, patience)
            for path, config in connectors
            for _ in range(task_count(config))
        ]
        self._status_file = status_file
        self._turned = time.monotonic()

    def alive(self) -> bool:
        """Whether `run` looks after its tasks; for any thread."""
        return time.monotonic() - self._turned < _STUCK_SECONDS

    @property
    def status(self) -> list[TaskStatus]:
        """Every task as it is now."""
        return [task.status for task in self._tasks]

    def run(self, stop: Callable[[], bool], hurry: Callable[[], bool] = lambda: False) -> int:
        """Keep the tasks running until ``stop`` or until one fails for good; the exit status.

        On return every task has drained and ended (by force after half a minute, or as soon as ``hurry`` says so:
        what it had not stored, the next start does again).
        """
        status = EXIT_OK
        try:
            while not stop() and status == EXIT_OK:
                self._turned = time.monotonic()
                for task in self._tasks:
                    status = task.look() or status
                self._write_status()
                time.sleep(_TURN)
        finally:
            for task in self._tasks:
                task.let_go()
            self._write_status()
            for task in self._tasks:
                task.end(hurry)
            self._write_status()
        return status

    def _write_status(self) -> None:
        if self._status_file is not None:
            text = json.dumps({"pid": os.getpid(), "tasks": [s.to_json() for s in self.status]})
            fresh = self._status_file.with_suffix(".new")
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(self._status_file)


class _Task:
    """One task: its process, and the waits between its starts."""

    def __init__(
        self, path: Path, config: ConnectorConfig, log_level: str, patience: float
    ) -> None:
        self._deadline = time.monotonic() + patience if patience else None
        self.status = TaskStatus(config.name, config.role)
        self._command = [sys.executable, "-m", "cdc.runtime.task", str(path), log_level]
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._started = 0.0
        self._wait = 1.0
        self._not_before = 0.0
        self._failed: dict[str, Any] = {}

    def look(self) -> int:
        """Start the task, or see how it is. The exit status it failed with for good, else 0."""
        if self._process is None:
            if time.monotonic() >= self._not_before:
                self._start()
            return EXIT_OK
        code = self._process.poll()
        if code is None:
            self.status.state = self.status.said.get("state", "starting")
            return self._patience_ended()
        self._collect()
        if code > 0:
            self.status.state = "failed"
            return code
        self._died(code)
        return EXIT_OK

    def _patience_ended(self) -> int:
        if self.status.state == "running":
            self._deadline = None
        elif self._deadline is not None and time.monotonic() > self._deadline:
            if self.status.state == "unreachable":
                self.status.state = "failed"
                self._failed = self.status.said
                return EXIT_UNREACHABLE
            self._deadline = time.monotonic() + _TURN
        return EXIT_OK

    def let_go(self) -> None:
        """Tell the task to drain and stop."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            if self.status.state != "failed":
                self.status.state = "stopping"

    def end(self, hurry: Callable[[], bool]) -> None:
        """Wait for the task's end, by force in the end."""
        if self._process is None:
            return
        deadline = time.monotonic() + _DRAIN_SECONDS
        while not _ended(self._process, _LOOK_SECONDS):
            if hurry() or time.monotonic() > deadline:
                log.warning("%s has not stopped yet and is killed", self.status.name)
                self._process.kill()
                break
        self._collect()
        if self.status.state == "failed":
            self.status.said = self._failed or self.status.said  # why, not that it then stopped
        else:
            self.status.state = "stopped"

    def _start(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the supervisor, which lets its tasks drain
        )
        self._started = time.monotonic()
        self.status.pid = self._process.pid
        self.status.said = {}  # what a dead process said is not this one's
        self.status.state = "starting"
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                self.status.said = json.loads(line)

    def _collect(self) -> None:
        assert self._process is not None
        self._process.wait()
        if self._listener is not None:
            self._listener.join(5)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        self.status.pid = None

    def _died(self, code: int) -> None:
        steady = time.monotonic() - self._started > _STEADY_SECONDS
        self._wait = 1.0 if steady else min(self._wait * 2, _LONGEST_WAIT)
        self._not_before = time.monotonic() + self._wait / 2
        self.status.restarts += 1
        self.status.state = "restarting"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else "ended unasked"
        log.warning("%s %s and is started again", self.status.name, how)


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def failure(tasks: Sequence[TaskStatus]) -> tuple[str, str]:
    """What failed and what to do about it, of the first task that failed for good."""
    for task in tasks:
        if task.state == "failed":
            return (
                f"{task.name}: {task.said.get('error') or 'ended unexpectedly; its log tells more'}",
                task.said.get("remedy") or "",
            )
    return "", ""


def _resident_mb(pid: int | None) -> float | None:
    if pid is None:
        return None
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGESIZE") / (1 << 20), 1)

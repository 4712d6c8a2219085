"""``cdc run``: connectors in the foreground."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cdc.config import ConnectorConfig
from cdc.errors import CdcError, ConfigError
from cdc.runtime.config_files import load
from cdc.runtime.metrics_server import MetricsServer
from cdc.runtime.supervisor import Supervisor, TaskStatus, failure

_Files = Annotated[
    list[Path], typer.Argument(help="Connector files (TOML or JSON).", metavar="FILE...")
]

_STYLES = {
    "running": "green",
    "unreachable": "yellow",
    "restarting": "yellow",
    "stopping": "yellow",
    "failed": "red",
}
_RATE_SECONDS = 3.0


def run(
    files: _Files,
    *,
    patience: Annotated[
        float,
        typer.Option(help="Seconds to wait for servers at the first start; 0 waits for ever."),
    ] = 60.0,
    status: Annotated[
        Path | None, typer.Option(help="Keep every task's status in this JSON file.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(help="Serve /metrics and /health here; default: metrics.port of the files."),
    ] = None,
) -> None:
    """Run connectors in the foreground, each task in its own process, until Ctrl-C.

    Ctrl-C drains, stores the checkpoints and stops; the next start resumes there. A second Ctrl-C stops at once:
    nothing is lost, but the next start does again what was not stored.
    """
    connectors = _load(files)
    if status is not None and not status.absolute().parent.is_dir():
        raise ConfigError(
            f"{status.parent} is no folder", "name a status file in one that is there"
        )
    level = logging.getLevelName(min(logging.getLogger().level, logging.INFO))
    supervisor = Supervisor(connectors, log_level=level, patience=patience, status_file=status)
    port = metrics_port or _metrics_port(connectors)
    stop, hurry = threading.Event(), threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        (hurry if stop.is_set() else stop).set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    with (
        MetricsServer(port, lambda: supervisor.status, supervisor.alive) if port else nullcontext()
    ):
        if sys.stdout.isatty():
            view = _View(supervisor, stop.is_set)
            with Live(get_renderable=view.shown, refresh_per_second=2, console=Console()):
                code = supervisor.run(stop.is_set, hurry.is_set)
        else:
            code = supervisor.run(stop.is_set, hurry.is_set)
    if code:
        what, remedy = failure(supervisor.status)
        error = CdcError(what, remedy)
        error.exit_status = code  # type: ignore[misc]  # the task's own status, passed on
        raise error


def _metrics_port(connectors: list[tuple[Path, ConnectorConfig]]) -> int:
    ports = {config["metrics.port"] for _, config in connectors if config["metrics.port"]}
    if len(ports) > 1:
        raise ConfigError(
            f"the files name several values of metrics.port: {', '.join(map(str, sorted(ports)))}",
            "one cdc run serves the metrics of all its tasks: name one port, or give --metrics-port",
        )
    return int(ports.pop()) if ports else 0


def _load(files: list[Path]) -> list[tuple[Path, ConnectorConfig]]:
    connectors = [(path, load(path)) for path in files]
    seen: dict[str, Path] = {}
    for path, config in connectors:
        if config.name in seen:
            raise ConfigError(
                f"{seen[config.name]} and {path} both name the connector {config.name}",
                "give each its own name: checkpoints are kept under it",
            )
        seen[config.name] = path
    return connectors


def _waits(task: TaskStatus) -> str:
    """What a task waits for, and since when (UTC); empty when it waits for nothing."""
    if task.state == "unreachable" and (why := task.said.get("error")):
        since = time.strftime("%H:%M:%S", time.gmtime(task.said.get("since") or time.time()))
        return f"{task.name} waits since {since}Z: {why}"
    if task.state in ("starting", "running") and (why := task.said.get("waiting")):
        return f"{task.name}: {why}"
    return ""


class _View:
    """The tasks as a table that refreshes itself, and below it what they wait for."""

    def __init__(self, supervisor: Supervisor, stopping: Callable[[], bool]) -> None:
        self._supervisor = supervisor
        self._stopping = stopping
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def shown(self) -> Group:
        """The screen now."""
        tasks = self._supervisor.status
        lines = [Text(line, style="yellow") for task in tasks if (line := _waits(task))]
        if any(task.state == "stopping" for task in tasks):
            lines.append(Text("storing what is done; Ctrl-C again stops at once", style="dim"))
        elif not self._stopping():
            lines.append(Text("Ctrl-C stops", style="dim"))
        return Group(self._table(tasks), *lines)

    def _table(self, tasks: Sequence[TaskStatus]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("connector", "state", "events", "events/s", "transactions", "lag", "MiB"):
            table.add_column(name, justify="left" if name in ("connector", "state") else "right")
        for task in tasks:
            table.add_row(*self._row(task))
        return table

    def _row(self, task: TaskStatus) -> list[Text | str]:
        said = task.to_json()
        lag = said["lag_seconds"]
        return [
            task.name,
            Text(task.state, style=_STYLES.get(task.state, "")),
            f"{said['events']:,}",
            f"{self._rate(task.name, said['events']):,.0f}",
            f"{said['transactions']:,}",
            "" if lag is None or task.pid is None else f"{lag:,.1f} s",
            "" if said["rss_mb"] is None else f"{said['rss_mb']:.0f}",
        ]

    def _rate(self, name: str, events: int) -> float:
        """Events a second over the last few seconds: a task tells its numbers twice a second only."""
        now = time.monotonic()
        seen = self._seen.setdefault(name, deque())
        seen.append((now, events))
        while now - seen[0][0] > _RATE_SECONDS:
            seen.popleft()
        then, before = seen[0]
        return max(0.0, (events - before) / (now - then)) if now > then else 0.0

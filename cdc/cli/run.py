"""``cdc run``: connectors in the foreground."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cdc.config import ConnectorConfig
from cdc.errors import CdcError, ConfigError
from cdc.runtime.config_files import load
from cdc.runtime.supervisor import Supervisor, TaskStatus, failure

_Files = Annotated[
    list[Path], typer.Argument(help="Connector files (TOML or JSON).", metavar="FILE...")
]

_STYLES = {"running": "green", "unreachable": "yellow", "restarting": "yellow", "failed": "red"}


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
) -> None:
    """Run connectors in the foreground, each task in its own process, until Ctrl-C.

    Ctrl-C drains, stores the checkpoints and stops; the next start resumes there.
    """
    connectors = _load(files)
    level = logging.getLevelName(min(logging.getLogger().level, logging.INFO))
    supervisor = Supervisor(connectors, log_level=level, patience=patience, status_file=status)
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    if sys.stdout.isatty():
        view = _View(supervisor)
        with Live(get_renderable=view.table, refresh_per_second=2, console=Console()):
            code = supervisor.run(stop.is_set)
    else:
        code = supervisor.run(stop.is_set)
    if code:
        what, remedy = failure(supervisor.status)
        error = CdcError(what, remedy)
        error.exit_status = code  # type: ignore[misc]  # the task's own status, passed on
        raise error


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


class _View:
    """The tasks as a table that refreshes itself."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._last: dict[str, tuple[float, int]] = {}

    def table(self) -> Table:
        """The table now; rates are since the last call."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("connector", "state", "events", "events/s", "transactions", "lag", "MiB"):
            table.add_column(name, justify="left" if name in ("connector", "state") else "right")
        for task in self._supervisor.status:
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
            "" if lag is None else f"{lag:,.1f} s",
            "" if said["rss_mb"] is None else f"{said['rss_mb']:.0f}",
        ]

    def _rate(self, name: str, events: int) -> float:
        now = time.monotonic()
        then, before = self._last.get(name, (now, events))
        self._last[name] = (now, events)
        return max(0.0, (events - before) / (now - then)) if now > then else 0.0

"""``cdc local``: throwaway PostgreSQL servers, Kafka and a schema registry for a trial and for tests."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cdc.errors import ConfigError, Unreachable
from cdc.local.cluster import Cluster, ServerStatus, take_down
from cdc.local.state import default_directory

app = typer.Typer(
    name="local",
    help="Throwaway PostgreSQL x2, Kafka and schema registry on this machine.",
    no_args_is_help=True,
)

_StateDir = Annotated[
    Path | None,
    typer.Option(
        help="Where data, logs and state are kept. Default: $XDG_STATE_HOME/cdc/local or ~/.local/state/cdc/local.",
        show_default=False,
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.command()
def up(
    state_dir: _StateDir = None,
    *,
    brokers: Annotated[int, typer.Option(help="Kafka brokers: 1, or 3 with three replicas.")] = 1,
    extra: Annotated[
        list[str] | None, typer.Option("--with", help="A further server: redis. May be repeated.")
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Hold the servers until Ctrl-C, then stop them.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Start the servers, or show those that run; data of an earlier run is kept."""
    if brokers not in (1, 3):
        raise ConfigError(f"there can be 1 or 3 brokers, not {brokers}", "use --brokers 1 or 3")
    for name in extra or ():
        if name != "redis":
            raise ConfigError(f"there is no local server {name!r} to add", "use --with redis")
    with _Spinners() as spinners:
        cluster = Cluster.up(
            state_dir or default_directory(),
            brokers=brokers,
            redis="redis" in (extra or ()),
            owned=foreground,
            progress=spinners.show,
        )
    if as_json:
        _print_json(_addresses(cluster))
    else:
        _print_addresses(cluster, foreground=foreground)
    if not foreground or cluster.joined:
        return
    try:
        cluster.wait()
    except KeyboardInterrupt:
        Console(stderr=True).print("stopping")
    finally:
        cluster.down()


@app.command()
def down(
    state_dir: _StateDir = None,
    *,
    purge: Annotated[bool, typer.Option("--purge", help="Delete data and logs too.")] = False,
    as_json: _Json = False,
) -> None:
    """Stop the servers; their data is kept for the next start unless --purge is given."""
    path = (state_dir or default_directory()).absolute()
    found = take_down(path, purge=purge)
    if as_json:
        _print_json({"state_dir": str(path), "found": found, "purged": purge})
    elif found:
        Console().print(f"stopped{' and deleted' if purge else ''}: {path}", soft_wrap=True)
    else:
        Console().print(f"there are no local servers in {path}", soft_wrap=True)


@app.command()
def status(state_dir: _StateDir = None, *, as_json: _Json = False) -> None:
    """Show each server, its process, address and memory; exit status 3 if any is not up."""
    cluster = Cluster.attach(state_dir or default_directory())
    servers = cluster.status()
    if as_json:
        _print_json(
            {"state_dir": str(cluster.state_dir), "servers": [_row(one) for one in servers]}
        )
    else:
        _print_status(servers)
    waiting = [one.name for one in servers if one.state != "up"]
    if waiting:
        raise Unreachable(f"not up: {', '.join(waiting)}", "start what is down: cdc local up")


def _addresses(cluster: Cluster) -> dict[str, Any]:
    return {
        "source_dsn": cluster.source.dsn,
        "replica_dsn": cluster.replica.dsn,
        "bootstrap_servers": cluster.bootstrap_servers,
        "schema_registry_url": cluster.schema_registry_url,
        **({"redis_url": cluster.redis_url} if cluster.redis_url else {}),
        "state_dir": str(cluster.state_dir),
        "pids": cluster.pids,
    }


def _row(status: ServerStatus) -> dict[str, Any]:
    return {
        "name": status.name,
        "state": status.state,
        "pid": status.pid,
        "address": status.address,
        "memory_bytes": status.memory,
    }


def _print_json(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content))


def _print_addresses(cluster: Cluster, *, foreground: bool) -> None:
    console = Console()
    if cluster.joined:
        console.print("[bold]already running[/bold]")
    for name, value in _addresses(cluster).items():
        if name != "pids":
            # Whole lines, so that an address can be copied from a narrow terminal.
            console.print(f"{name:20} {value}", soft_wrap=True, highlight=False, markup=False)
    if foreground and not cluster.joined:
        console.print("[dim]Ctrl-C stops the servers[/dim]")
    else:
        chosen = (
            "" if default_directory() == cluster.state_dir else f" --state-dir {cluster.state_dir}"
        )
        console.print(f"[dim]stop them: cdc local down{chosen}[/dim]", soft_wrap=True)


def _print_status(servers: list[ServerStatus]) -> None:
    table = Table("server", "state", "pid", "address", "memory", box=None)
    for one in servers:
        table.add_row(
            one.name,
            one.state,
            str(one.pid or "-"),
            one.address,
            f"{one.memory / 2**20:.0f} MiB" if one.pid else "-",
        )
    Console().print(table)


class _Spinners:
    """One line per server on standard error, while it starts; nothing where that is no terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]:heavy_check_mark:[/green]"),
            TextColumn("{task.description:10}"),
            TextColumn("{task.fields[phase]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = Lock()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def show(self, name: str, phase: str) -> None:
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=1, phase=phase)
            self._bars.update(self._tasks[name], phase=phase, completed=int(phase == "ready"))

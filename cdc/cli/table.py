"""``cdc table``: the tables of a source connector, and copies of them made anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cdc.errors import ConfigError, Failed
from cdc.runtime import tables
from cdc.runtime.config_files import load
from cdc.runtime.table_list import include
from cdc.runtime.verification import run_verification
from cdc.table import TableId

app = typer.Typer(name="table", help="Tables of a source connector.", no_args_is_help=True)

_File = Annotated[Path, typer.Argument(help="The source connector's file.", metavar="FILE")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.command(name="list")
def list_tables(file: _File, *, as_json: _Json = False) -> None:
    """The captured tables, and how far the first copy of each has come."""
    states = tables.states(load(file))
    if as_json:
        typer.echo(json.dumps({"tables": [state.to_json() for state in states]}))
        return
    if not states:
        Console(stderr=True).print("no table is captured yet: cdc run starts the connector")
        return
    view = Table(box=None, pad_edge=False, header_style="bold")
    view.add_column("table")
    view.add_column("copy")
    view.add_column("rows copied", justify="right")
    for state in states:
        view.add_row(str(state.table), state.state, f"{state.rows:,}")
    Console().print(view)


@app.command()
def backfill(
    file: _File,
    table: Annotated[
        list[str], typer.Option(help="schema.table; repeat it for several.", metavar="TABLE")
    ],
) -> None:
    """Copy tables anew through the running connector, chunk by chunk beside the stream.

    The request travels in the source's own log: it is done even if the connector is down now.
    """
    names = [_parsed(name) for name in table]
    for name in tables.backfill(load(file), names):
        typer.echo(f"backfill of {name} is requested")


@app.command()
def add(
    file: _File,
    table: Annotated[str, typer.Option(help="schema.table.", metavar="TABLE")],
    *,
    sink: Annotated[
        Path | None,
        typer.Option(
            help="A sink's file: its replica of the table is verified, once it is copied."
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for the copy; 0 does not wait.")
    ] = 600.0,
) -> None:
    """Have a connector capture one more table: into its file's list, the publication, and a copy beside the stream.

    The running connector takes it in without a restart. With a sink the table is verified; the exit status is then that
    of cdc verify.
    """
    name = _parsed(table)
    config = load(file)
    if not tables.selects(config, name):
        include(file, name)
        config = load(file)
        typer.echo(f"{file} selects {name} now")
    joined = tables.join(config, name)
    for joining in joined:
        typer.echo(f"{joining} joins")
    if name not in joined:
        typer.echo(f"{name} is captured already")
    if not timeout:
        return
    for state in tables.await_copy(config, name, timeout):
        last = state
    typer.echo(f"{name} is copied: {last.rows:,} rows")
    if sink is not None:
        report = run_verification(config, load(sink), lambda _: None, tables=[str(name)])
        typer.echo(f"{report.verdict}  {report.rows_compared:,} rows compared")
        raise typer.Exit(report.exit_status)


@app.command(name="sync-sequences")
def sync_sequences(
    source: Annotated[
        Path, typer.Argument(help="The source connector's file.", metavar="SOURCE_FILE")
    ],
    sink: Annotated[Path, typer.Argument(help="The sink connector's file.", metavar="SINK_FILE")],
    *,
    margin: Annotated[
        int, typer.Option(help="Steps to go further than the source, for what it still hands out.")
    ] = 0,
    as_json: _Json = False,
) -> None:
    """Move the replica's sequences to where the source's stand; for a cut-over, once writing has ended.

    Those of identity and serial columns, and in the same schemas those of no column. They only move forward.
    Exit status: 0 all are at the source's or past it, 1 some are missing in the replica.
    """
    moves = tables.sync_sequences(load(source), load(sink), margin)
    if as_json:
        typer.echo(json.dumps({"sequences": [move._asdict() for move in moves]}))
    else:
        view = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("sequence", "state", "source's next", "replica's next"):
            view.add_column(name)
        for move in moves:
            after = "" if move.after is None else str(move.after)
            view.add_row(move.sequence, move.state, str(move.source_next), after)
        Console().print(view)
    missing = [move.sequence for move in moves if move.state == "missing"]
    if missing:
        raise Failed(
            f"{len(missing)} sequences are missing in the replica: {', '.join(missing[:5])}",
            "make them there (ALTER TABLE ... ALTER ... ADD GENERATED BY DEFAULT AS IDENTITY), and run this again",
        )


def _parsed(name: str) -> TableId:
    try:
        return TableId.parse(name)
    except ValueError as error:
        raise ConfigError(str(error), "name tables as cdc table list does") from error

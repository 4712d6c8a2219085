"""``cdc verify``: does the replica hold the source's rows, and if not, which ones differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cdc.runtime.config_files import load
from cdc.runtime.verification import run_verification
from cdc.verify.report import Difference, Report, TableReport
from cdc.verify.settings import OnProgress
from cdc.verify.settings import Progress as Step

app = typer.Typer(
    name="verify",
    help="Compare a replica with its source while both keep changing.",
    no_args_is_help=True,
)

_SHOWN = 20
_WIDEST = 60
_STYLES = {"OK": "green", "DIFF": "bold red", "INCONCLUSIVE": "yellow", "SKIPPED": "dim"}
_PHASES = {"digest": "comparing", "rows": "looking closer", "repair": "repairing"}


@app.callback()
def verify() -> None:
    """Compare a replica with its source while both keep changing."""


@app.command()
def run(
    source: Annotated[
        Path, typer.Argument(help="The source connector's file.", metavar="SOURCE_FILE")
    ],
    sink: Annotated[Path, typer.Argument(help="The sink connector's file.", metavar="SINK_FILE")],
    *,
    table: Annotated[
        list[str] | None,
        typer.Option(help="Only this table (schema.table); repeat it for several."),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Have differing rows sent again through the stream."),
    ] = False,
    mask: Annotated[
        bool, typer.Option("--mask", help="Report keys and columns, but no values.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for a fence, and for the replica to reach it.")
    ] = 60.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
) -> None:
    """Compare every captured table, or those given; both connectors must be running.

    Exit status: 0 all OK; else the sum of 16 (a difference), 32 (something could not be decided), 64 (a table was
    skipped). A difference that was repaired, and found equal then, counts as OK.
    """
    with _shown_progress() as on_progress:
        report = run_verification(
            load(source),
            load(sink),
            on_progress,
            tables=table or (),
            repair=repair,
            mask=mask,
            timeout=timeout,
        )
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        _show(report, Console(highlight=False))
    raise typer.Exit(report.exit_status)


@contextmanager
def _shown_progress() -> Iterator[OnProgress]:
    """A bar per table on standard error, where that is a terminal."""
    console = Console(stderr=True)
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} rows"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    known: dict[str, TaskID] = {}

    def on_progress(step: Step) -> None:
        if step.table not in known:
            known[step.table] = bars.add_task(step.table, total=step.estimate or None)
        bars.update(
            known[step.table],
            completed=step.rows,
            total=max(step.estimate, step.rows) or None,
            description=f"{step.table}: {_PHASES[step.phase]}",
        )

    with bars:
        yield on_progress


def _show(report: Report, console: Console) -> None:
    view = Table(box=None, pad_edge=False, header_style="bold")
    view.add_column("table", no_wrap=True)
    view.add_column("verdict", no_wrap=True)
    for name in ("rows", "coverage", "differ", "repaired", "seconds"):
        view.add_column(name, justify="right", no_wrap=True)
    for table in report.tables:
        view.add_row(
            Text(table.table),
            Text(table.verdict, style=_STYLES[table.verdict]),
            f"{table.rows_compared:,}",
            f"{table.coverage:.1%}",
            str(len(table.differences)),
            str(len(table.repaired)),
            f"{table.seconds:.1f}",
        )
    if report.tables:
        console.print(view)
    else:
        console.print("no table is captured yet: start the source connector first")
    for reason, names in _reasons(report).items():
        console.print(Text(f"{', '.join(names)}: {reason}"))
    for table in report.tables:
        if table.columns_skipped:
            columns = ", ".join(table.columns_skipped)
            console.print(Text(f"{table.table}: not compared, being masked: {columns}"))
        _show_differences(table, table.differences, "differs", console)
        _show_differences(table, table.repaired, "was repaired", console)
    console.print(
        Text(report.verdict, style=_STYLES[report.verdict])
        + Text(
            f"  {report.rows_compared:,} rows compared, {report.coverage:.1%} covered, in {report.seconds:.1f} s"
        )
    )


def _reasons(report: Report) -> dict[str, list[str]]:
    """Tables by the reason that they share, in the report's order."""
    found: dict[str, list[str]] = {}
    for table in report.tables:
        if table.reason:
            found.setdefault(table.reason, []).append(table.table)
    return found


def _show_differences(
    table: TableReport, differences: tuple[Difference, ...], what: str, console: Console
) -> None:
    if not differences:
        return
    view = Table(
        title=f"\n{table.table}: what {what}",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for name in ("key", "kind", "column", "source", "replica"):
        view.add_column(name, header_style="bold", overflow="fold")
    for difference in differences[:_SHOWN]:
        columns = difference.columns or ("",)
        for place, column in enumerate(columns):
            first = place == 0
            view.add_row(
                Text(_key(difference.key) if first else ""),
                Text(difference.kind if first else ""),
                Text(column),
                _value(difference.source, column),
                _value(difference.replica, column),
            )
    console.print(view)
    if len(differences) > _SHOWN:
        console.print(f"... and {len(differences) - _SHOWN:,} more: --json lists them all")


def _key(key: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in key.items())


def _value(values: Mapping[str, str | None], column: str) -> Text:
    if not values or column not in values:
        return Text("")
    value = values[column]
    if value is None:
        return Text("NULL", style="dim")
    return Text(value if len(value) <= _WIDEST else f"{value[: _WIDEST - 1]}…")

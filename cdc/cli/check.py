"""``cdc check``: everything that connectors need, with what to do about what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cdc.errors import EXIT_OK
from cdc.findings import Severity
from cdc.runtime.check import Checked, check_files

_STYLES: dict[Severity, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def check(
    files: Annotated[
        list[Path], typer.Argument(help="Connector files (TOML or JSON).", metavar="FILE...")
    ],
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
) -> None:
    """Look at everything that connectors need: settings, grants, slot, publication, tables, topics, registry, replica.

    Nothing is changed. Exit status: 0 when nothing fails (warnings may stand), else that with which a start would end:
    2 configuration, 3 a component cannot be reached, 4 changes would be lost; the highest of all findings.
    """
    found = list(check_files(files))
    status = max((one.finding.exit_status for one in found), default=EXIT_OK)
    if as_json:
        verdict = "fail" if status else "ok"
        typer.echo(json.dumps({"verdict": verdict, "findings": [one.to_json() for one in found]}))
    else:
        _show(found, Console(highlight=False))
    raise typer.Exit(status)


def _show(found: Sequence[Checked], console: Console) -> None:
    view = Table(box=None, pad_edge=False, header_style="bold")
    view.add_column("", no_wrap=True)
    view.add_column("connector", no_wrap=True)
    view.add_column("of", no_wrap=True)
    view.add_column("finding", overflow="fold")
    for one in found:
        finding = one.finding
        said = Text(finding.what)
        if finding.remedy:
            said += Text(f"\ndo: {finding.remedy}", style="dim")
        severity = Text(finding.severity, style=_STYLES[finding.severity])
        view.add_row(severity, Text(one.connector or one.file.name), Text(finding.subject), said)
    console.print(view)
    count = {kind: sum(one.finding.severity == kind for one in found) for kind in _STYLES}
    console.print(f"{count['fail']} failed, {count['warn']} warnings, {count['ok']} in order")

"""``cdc checkpoint``: how far a connector has come, and how to set it back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from cdc.config import ConnectorConfig
from cdc.errors import ConfigError
from cdc.runtime import rewinding, rewinding_sinks
from cdc.runtime.config_files import load

app = typer.Typer(name="checkpoint", help="How far a connector has come.", no_args_is_help=True)

_File = Annotated[Path, typer.Argument(help="A connector's file, of either side.", metavar="FILE")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.command()
def show(file: _File, *, as_json: _Json = False) -> None:
    """What stands in a connector's checkpoint: for a source on its topic, for a sink in the replica."""
    config = load(file)
    found = (
        rewinding_sinks.shown_sink(config)
        if config.role == "sink"
        else rewinding.shown_source(config)
    )
    if as_json:
        typer.echo(json.dumps(found))
    elif not found:
        typer.echo("no checkpoint yet: cdc run starts the connector", err=True)
    else:
        for name, value in found.items():
            typer.echo(f"{name}: {value if isinstance(value, str | int) else json.dumps(value)}")


@app.command()
def rewind(
    file: _File,
    *,
    new_generation: Annotated[
        bool,
        typer.Option(
            help="Begin a new history: for a source whose log was lost, then for each sink of it."
        ),
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            help="Source: send again what was committed behind this LSN (X/X or decimal)."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: _Json = False,
) -> None:
    """Set a connector's checkpoint back. The connector must not run; a sink that does is stopped by it.

    A source: --new-generation, or --to LSN. A sink: --new-generation, or neither: it reads its topics from their
    first records again, and skips what the replica holds.
    """
    config = load(file)
    if to is not None and (new_generation or config.role == "sink"):
        raise ConfigError("--to belongs to a source, and alone", "leave out one of the two")
    if config.role == "source" and not new_generation and to is None:
        raise ConfigError("it is not said how far to go back", "give --to LSN or --new-generation")
    if not yes:
        typer.confirm(_question(config, to, new_generation=new_generation), abort=True, err=True)
    result, following = _rewound(config, to, new_generation=new_generation)
    if as_json:
        typer.echo(json.dumps({**result, "next": following}))
        return
    typer.echo(", ".join(f"{name} {value}" for name, value in result.items()))
    for number, step in enumerate(following, 1):
        typer.echo(f"{number}. {step}")


def _question(config: ConnectorConfig, to: str | None, *, new_generation: bool) -> str:
    if not new_generation:
        return f"{config.name} goes back{f' to {to}' if to else ''}: go on?"
    if config.role == "source":
        return f"{config.name} begins a new history, and every table is copied again: go on?"
    return f"{config.name} follows the new history; its tables are stale until copied and repaired: go on?"


def _rewound(
    config: ConnectorConfig, to: str | None, *, new_generation: bool
) -> tuple[dict[str, Any], list[str]]:
    """What stands now, and what is to be done next, in order."""
    if config.role == "source":
        if to is not None:
            return {"lsn": rewinding.rewind_source(config, _lsn(to)).lsn}, ["cdc run FILE"]
        begun = rewinding.begin_generation(config)
        return {"generation": begun.generation}, [
            "cdc checkpoint rewind SINK_FILE --new-generation, for each of its sinks",
            "cdc run SOURCE_FILE SINK_FILE: every table is copied again",
            "cdc verify run SOURCE_FILE SINK_FILE --repair, when the copies are done: it removes what was deleted",
        ]
    if new_generation:
        return {"generation": rewinding_sinks.follow_generation(config)}, [
            "cdc run SOURCE_FILE SINK_FILE",
            "cdc verify run SOURCE_FILE SINK_FILE --repair, when the copies are done: it removes what was deleted",
        ]
    return {"partitions": rewinding_sinks.rewind_sink(config)}, ["cdc run FILE"]


def _lsn(text: str) -> int:
    if text.isdigit():
        return int(text)
    if match := re.fullmatch(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", text):
        return (int(match[1], 16) << 32) | int(match[2], 16)
    raise ConfigError(f"{text} is no LSN", "give it as PostgreSQL does (0/16B3748), or in decimal")

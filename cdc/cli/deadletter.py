"""``cdc deadletter``: what a sink could not apply, and bringing it back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cdc.errors import ConfigError, Failed
from cdc.pipeline.replay import Place
from cdc.runtime.config_files import load
from cdc.runtime.letter_box import LetterBox, Listed

app = typer.Typer(
    name="deadletter",
    help="What a sink could not apply (errors.tolerance=all), and bringing it back.",
    no_args_is_help=True,
)

_PLACE = re.compile(r"(.+):(\d+):(\d+)")
_File = Annotated[Path, typer.Argument(help="The sink connector's file.", metavar="SINK_FILE")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
_Values = Annotated[bool, typer.Option("--values", help="Show keys and values too.")]


@app.command(name="list")
def list_letters(file: _File, *, values: _Values = False, as_json: _Json = False) -> None:
    """Every dead letter of the sink, and whether the replica still keeps its change out."""
    with LetterBox(load(file)) as box:
        letters = box.letters(values=values)
    if as_json:
        typer.echo(json.dumps({"letters": [letter.to_json() for letter in letters]}))
        return
    if not letters:
        Console(stderr=True).print("no dead letters")
        return
    view = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("record", "kind", "parked", "message", *(("key",) if values else ())):
        view.add_column(name, overflow="fold")
    for letter in letters:
        key = (str(letter.to_json()["key"]),) if values else ()
        parked = "yes" if letter.parked else ""
        view.add_row(_name(letter), letter.letter.kind, parked, letter.letter.message, *key)
    Console(highlight=False).print(view)


@app.command()
def show(
    file: _File,
    record: Annotated[
        str, typer.Argument(help="topic:partition:offset of the record.", metavar="RECORD")
    ],
    *,
    values: _Values = False,
    as_json: _Json = False,
) -> None:
    """All that a letter says of one record."""
    place = _parsed(record)
    with LetterBox(load(file)) as box:
        for letter in box.letters(values=values):
            at = letter.letter.record
            if (at.topic, at.partition, at.offset) == place:
                break
        else:
            raise ConfigError(
                f"there is no letter of {record}", "cdc deadletter list shows all there are"
            )
    if as_json:
        typer.echo(json.dumps(letter.to_json()))
        return
    for name, value in letter.to_json().items():
        typer.echo(f"{name:>9}: {value}")


@app.command()
def replay(
    file: _File,
    *,
    table: Annotated[
        list[str] | None,
        typer.Option(help="Only keys of this table (schema.table); repeat it for several."),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave this record (topic:partition:offset) out for good: verify with --repair then."
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Apply the letters of parked keys in the source's order, then let their changes through again.

    The sink may be running. Exit status: 0 no chosen key is parked any more, 1 some could not be brought back.
    """
    with LetterBox(load(file)) as box:
        done = box.replay(set(table or ()), {_parsed(text) for text in skip or ()})
    if as_json:
        failed = [
            {
                "table": parked.collection,
                "topic": place[0],
                "partition": place[1],
                "offset": place[2],
                "error": error.what,
                "remedy": error.remedy,
            }
            for parked, place, error in done.failed
        ]
        typer.echo(
            json.dumps({"released": len(done.released), "events": done.events, "failed": failed})
        )
    else:
        typer.echo(f"{len(done.released)} keys released, {done.events} changes applied")
    if done.failed:
        _, (topic, partition, offset), error = done.failed[0]
        raise Failed(
            f"{len(done.failed)} keys stay parked; the first one for {topic}:{partition}:{offset}: {error.what}",
            error.remedy,
        )


def _name(listed: Listed) -> str:
    record = listed.letter.record
    return f"{record.topic}:{record.partition}:{record.offset}"


def _parsed(text: str) -> Place:
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"{text!r} names no record", "give topic:partition:offset, as cdc deadletter list does"
        )
    return found[1], int(found[2]), int(found[3])

"""``cdc wait``: read your own writes from a replica."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Annotated

import typer

from cdc.errors import ConfigError
from cdc.runtime.config_files import load
from cdc.runtime.waiting import ReplicaWait

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def wait(
    source: Annotated[
        Path, typer.Argument(help="The source connector's file.", metavar="SOURCE_FILE")
    ],
    sink: Annotated[Path, typer.Argument(help="The sink connector's file.", metavar="SINK_FILE")],
    *,
    lsn: Annotated[
        str | None,
        typer.Option(
            help="Wait for all that committed at or below this LSN: 16/B374D848, or as a number."
        ),
    ] = None,
    now: Annotated[
        bool,
        typer.Option("--now", help="Wait for all that is committed by now; so too without --lsn."),
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 60.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
) -> None:
    """Return when the replica holds a given position of its source; both connectors must be running.

    Exit status: 0 it does, 3 it did not within the timeout, 2 for an LSN that the source itself has not reached.
    """
    if now and lsn is not None:
        raise ConfigError("--now and --lsn are both given", "give one of them")
    began = time.monotonic()
    with ReplicaWait(load(source), load(sink)) as replica:
        held = replica.until(None if lsn is None else _parsed(lsn), timeout)
    if as_json:
        typer.echo(json.dumps({"held_lsn": held, "seconds": round(time.monotonic() - began, 3)}))


def _parsed(text: str) -> int:
    if text.isdecimal():
        return int(text)
    if (parts := _LSN.fullmatch(text)) is None:
        raise ConfigError(f"{text!r} is no LSN", "give it as 16/B374D848, or as a number of bytes")
    return int(parts[1], 16) << 32 | int(parts[2], 16)

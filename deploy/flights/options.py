"""The options of ``deploy/demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy.flights.data import ROWS
from deploy.flights.demo import Options
from deploy.flights.servers import default_folder

_SECONDS = 50.0
_QUICK_SECONDS = 16.0
_QUICK_FLIGHTS = 20_000


def options() -> Options:
    """Read the command line; ends the process with status 2 where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="deploy/demo",
        description="A year of flights from New York: replicated on real servers, disturbed, verified, repaired.",
        epilog="Exit status: 0 every check held; 1 one did not; 2 usage; 3 a component cannot be reached; 130 Ctrl-C.",
    )
    parser.add_argument(
        "--keep", action="store_true", help="let the servers and the pipeline run on, and say where"
    )
    parser.add_argument(
        "--seconds", type=_positive, help=f"of live traffic, at least (default: {_SECONDS:.0f})"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{_QUICK_FLIGHTS:,} flights and less traffic"
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=default_folder(),
        help="where data and logs are kept while it runs (default: %(default)s)",
    )
    given = parser.parse_args()
    return Options(
        folder=given.state_dir.absolute(),
        keep=given.keep,
        seconds=given.seconds or (_QUICK_SECONDS if given.quick else _SECONDS),
        flights=_QUICK_FLIGHTS if given.quick else ROWS["flights"],
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 86_400:
        raise argparse.ArgumentTypeError("a number of seconds from 1 to 86400 is expected")
    return value

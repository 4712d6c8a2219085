"""The servers of a demonstration, always new: what an earlier one left in its folder is ended and deleted first."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdc.errors import CdcError, ConfigError
from cdc.local.cluster import Cluster, take_down
from cdc.local.starting import Progress

_LOCK = "flights.lock"


def default_folder() -> Path:
    """``cdc/flights`` below ``$XDG_STATE_HOME`` or ``~/.local/state``."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home, "cdc", "flights").absolute()


@contextmanager
def folder_of_its_own(path: Path) -> Iterator[Path]:
    """Hold the folder for this demonstration. ConfigError when it is another's, or another one runs in it."""
    if (path / "state.json").exists() and not (path / _LOCK).exists():
        raise ConfigError(
            f"{path} holds local servers that no demonstration started", "give another --state-dir"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / _LOCK).open("w")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be used: {error.strerror}", "give another --state-dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another demonstration runs in {path}",
                "wait for its end, or give another --state-dir",
            ) from error
        yield path


@contextmanager
def new_servers(path: Path, *, keep: bool, progress: Progress) -> Iterator[Cluster]:
    """Two PostgreSQL servers, a broker and a registry, with no data; ended and deleted at the end.

    With ``keep`` they run on if the block ends well.
    """
    take_down(path, purge=True)
    try:
        cluster = Cluster.up(path, owned=not keep, progress=progress)
        yield cluster
    except BaseException as error:
        # Its error may send the reader to a log: that stays until the next run.
        take_down(path, purge=not isinstance(error, CdcError))
        raise
    if not keep:
        take_down(path, purge=True)

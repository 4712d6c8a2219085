"""Unix sockets at paths of any length: the address itself may have 107 bytes only."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def listen(path: Path) -> Iterator[socket.socket]:
    """A socket that listens at ``path``; one left behind there is replaced."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with _short(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen()
        yield listener


@contextmanager
def connect(path: Path, timeout: float) -> Iterator[socket.socket]:
    """A connection to who listens at ``path``; raises OSError if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        with _short(path) as address:
            connection.connect(address)
        yield connection


@contextmanager
def _short(path: Path) -> Iterator[str]:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)

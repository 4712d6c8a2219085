"""Starting servers side by side, and telling why one did not start."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cdc.errors import Failed, Unreachable
from cdc.local.keeping import Keeping
from cdc.local.postgres import PostgresServer
from cdc.local.processes import Process
from cdc.local.server import Server, last_words

Progress = Callable[[str, str], None]
"""Told (server, phase) from several threads: resolving, preparing, starting, ready."""

_READY_SECONDS = 90
_POLL_SECONDS = 0.1
_PORT_TAKEN = re.compile(r"already in use|in use by another process|could not bind", re.IGNORECASE)


class PortTaken(Failed):
    """A server found another one on its port."""


def silent(_name: str, _phase: str) -> None:
    """A progress that nobody watches."""


def start(
    keeping: Keeping, servers: Sequence[Server], progress: Progress, abandon: Callable[[], None]
) -> None:
    """Start servers at once; all of them serve clients on return.

    The first that fails calls ``abandon`` and its error is raised when the other starts have ended too.
    Raises PortTaken if one found its port taken.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
        starts = [pool.submit(_start, keeping, server, progress) for server in servers]
        try:
            for one in starts:
                one.result()
        except BaseException:
            abandon()
            raise


def _start(keeping: Keeping, server: Server, progress: Progress) -> None:
    progress(server.name, "preparing")
    if isinstance(server, PostgresServer):
        server.end_leftovers()
    server.prepare()
    progress(server.name, "starting")
    command = server.command()
    logged = command.log.stat().st_size if command.log.exists() else 0
    process = keeping.run(server.name, command)
    await_ready(server, process, command.log, logged)
    progress(server.name, "ready")


def await_ready(server: Server, process: Process, log: Path, logged: int) -> None:
    """Return when a server serves clients; ``logged`` is the size that its log had before.

    Raises PortTaken or Failed if it ends instead, Failed if it takes longer than 90 seconds.
    """
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            server.check()
        except Unreachable as error:
            reason = error.what
        else:
            if process.alive():  # else whoever has its port answered in its place
                return
        if not process.alive():
            raise _ended(server.name, log, logged)
        if time.monotonic() > deadline:
            raise Failed(
                f"{server.name} is not ready after {_READY_SECONDS} s: {reason}", f"see {log}"
            )
        time.sleep(_POLL_SECONDS)


def _ended(name: str, log: Path, logged: int) -> Failed:
    with log.open("rb") as written:
        written.seek(logged)
        text = written.read().decode(errors="replace")
    if _PORT_TAKEN.search(text):
        return PortTaken(f"{name} found its port taken", "end what listens there, then start again")
    return Failed(f"{name} ended while starting: {last_words(text)}", f"see {log}")

"""The keeper: a small process that is the parent of a cluster's servers, and stops them when it should.

It stops them when it is told to (SIGTERM), and when its owner is gone; a detached cluster has no owner.
If the keeper itself is killed, the kernel sends each server its death signal.
It restarts nothing: a test that kills a server wants it dead.

Run as ``python -m cdc.local.keeper STATE_DIRECTORY OWNER_PID OWNER_STARTED``; it takes requests on
``keeper.sock``, one JSON line each way.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cdc.local.processes import Process, end
from cdc.local.state import Kept, Processes, StateDirectory
from cdc.local.unix_socket import listen

_TICK_SECONDS = 0.2
_GRACE_SECONDS = 8
_PR_SET_PDEATHSIG = 1


class Keeper:
    """Starts servers on request, remembers them in ``processes.json``, stops them all at its end."""

    def __init__(self, directory: StateDirectory, owner: Process) -> None:
        self._directory = directory
        self._owner: Process | None = owner
        self._servers: dict[str, tuple[subprocess.Popen[bytes], Kept]] = {}
        self._asked_to_stop = False

    def run(self) -> None:
        """Serve until told to stop or orphaned; every server has ended on return."""
        signal.signal(signal.SIGTERM, self._stop)
        with listen(self._directory.path / "keeper.sock") as listener:
            listener.settimeout(_TICK_SECONDS)
            self._remember()
            try:
                while not self._asked_to_stop and (self._owner is None or self._owner.alive()):
                    with suppress(TimeoutError):
                        self._answer(listener.accept()[0])
                    self._reap()
            finally:
                self._end_servers()

    def _stop(self, *_: object) -> None:
        self._asked_to_stop = True

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rw", encoding="utf-8") as stream:
            connection.settimeout(5)
            with suppress(OSError, ValueError):  # who asked is gone: nobody waits for the answer
                request = json.loads(stream.readline())
                try:
                    answer = self._obey(request)
                except OSError as error:
                    answer = {"error": str(error)}
                stream.write(json.dumps(answer) + "\n")

    def _obey(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "detach":
            self._owner = None
            self._remember()
            return {}
        name = str(request["name"])
        if name in self._servers and self._servers[name][0].poll() is None:
            return {"error": f"{name} is running"}
        with Path(request["log"]).open("ab") as log:
            server = subprocess.Popen(
                request["arguments"],
                cwd=request["directory"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent(int(request["death_signal"])),  # noqa: PLW1509 - one thread only
            )
        process = Process.of(server.pid) or Process(server.pid, 0)
        self._servers[name] = server, Kept(process, int(request["stop_signal"]))
        self._remember()
        return {"pid": process.pid, "started": process.started}

    def _reap(self) -> None:
        ended = False
        for name, (server, kept) in self._servers.items():
            if kept.exit_code is None and server.poll() is not None:
                self._servers[name] = (
                    server,
                    Kept(kept.process, kept.stop_signal, server.returncode),
                )
                ended = True
        if ended:
            self._remember()

    def _remember(self) -> None:
        own = Process.of(os.getpid())
        assert own is not None
        servers = {name: kept for name, (_, kept) in self._servers.items()}
        self._directory.write_processes(Processes(own, self._owner, servers))

    def _end_servers(self) -> None:
        # At once, not in turn: brokers wait for each other when they leave.
        ends = [
            threading.Thread(target=end, args=(kept.process, kept.stop_signal, _GRACE_SECONDS))
            for _, kept in self._servers.values()
        ]
        for one in ends:
            one.start()
        for one in ends:
            one.join()
        self._reap()


def _die_with_parent(number: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None)  # loaded before the fork
    keeper = os.getpid()

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != keeper:  # it died before the tie was made
            os._exit(1)

    return tie


def main() -> None:
    """Keep the cluster of the command line."""
    path, pid, started = sys.argv[1:]
    os.chdir("/")  # the caller's directory may be unmounted or deleted meanwhile
    Keeper(StateDirectory(Path(path)), Process(int(pid), int(started))).run()


if __name__ == "__main__":
    main()

"""The other end of the keeper: start one, ask it for things, end it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

from cdc.errors import Failed, Unreachable
from cdc.local.processes import Process, end, wait_gone
from cdc.local.server import Command
from cdc.local.state import StateDirectory
from cdc.local.unix_socket import connect

_START_SECONDS = 15
_STOP_SECONDS = 30


class Keeping:
    """A running keeper, as seen by whoever started it or found it in the state directory."""

    def __init__(self, directory: StateDirectory, keeper: Process) -> None:
        self._directory = directory
        self._keeper = keeper

    @classmethod
    def start(cls, directory: StateDirectory) -> Keeping:
        """Start a keeper that this process owns: it ends, with all its servers, when we do."""
        log = directory.log("keeper")
        own = Process.of(os.getpid())
        assert own is not None
        pid = os.posix_spawn(
            sys.executable,
            [
                sys.executable,
                "-P",
                "-m",
                "cdc.local.keeper",
                str(directory.path),
                str(own.pid),
                str(own.started),
            ],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,  # Ctrl-C in our terminal is for us
        )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            keeper = Process.of(pid)
            if keeper is None:
                break
            known = directory.read_processes()
            if known is not None and known.keeper == keeper:
                return cls(directory, keeper)
            time.sleep(0.02)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise Failed("the keeper of the local servers did not start", f"see {log}")

    @classmethod
    def find(cls, directory: StateDirectory) -> Keeping | None:
        """The keeper that runs in a state directory, if one does."""
        known = directory.read_processes()
        return cls(directory, known.keeper) if known is not None and known.keeper.alive() else None

    @property
    def alive(self) -> bool:
        """Whether the keeper runs."""
        return self._keeper.alive()

    def run(self, name: str, command: Command) -> Process:
        """Start a server and return its process; it may still end at once.

        Raises Failed if it cannot be executed, or a server of that name runs already.
        """
        answer = self._ask(
            {
                "do": "run",
                "name": name,
                "arguments": command.arguments,
                "directory": str(command.directory),
                "log": str(command.log),
                "stop_signal": command.stop_signal,
                "death_signal": command.death_signal,
            }
        )
        return Process(int(answer["pid"]), int(answer["started"]))

    def detach(self) -> None:
        """Let the servers outlive this process."""
        self._ask({"do": "detach"})

    def end(self) -> None:
        """Stop all servers and the keeper; nothing of them runs on return."""
        self._keeper.signal(signal.SIGTERM)
        if not wait_gone([self._keeper], _STOP_SECONDS):
            self._keeper.signal(signal.SIGKILL)
        with suppress(ChildProcessError):  # it is someone else's child
            os.waitpid(self._keeper.pid, 0)
        end_leftovers(self._directory)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            with (
                connect(self._directory.path / "keeper.sock", timeout=10) as connection,
                connection.makefile("rw", encoding="utf-8") as stream,
            ):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                answer: dict[str, Any] = json.loads(stream.readline())
        except (OSError, ValueError) as error:
            raise Unreachable(
                "the keeper of the local servers is gone", "cdc local up starts anew"
            ) from error
        if "error" in answer:
            raise Failed(
                f"a local server cannot be started: {answer['error']}", "see cdc local status"
            )
        return answer


def end_leftovers(directory: StateDirectory) -> None:
    """Kill servers that outlived their keeper; for a state directory whose keeper is gone."""
    known = directory.read_processes()
    if known is not None:
        for kept in known.servers.values():
            end(kept.process, signal.SIGKILL, grace=5)

"""Processes by identity: a pid together with its start time, so that a reused pid is never signalled.

Reads ``/proc``; Linux only, as the death signal that ties servers to their keeper is.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from cdc.errors import Failed

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process that ran on this machine; ``started`` is in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Identify ``pid``, or return None where no such process runs (a zombie does not run)."""
        stat = _stat(pid)
        return None if stat is None else cls(pid, stat.started)

    def alive(self) -> bool:
        """Whether it still runs; stopped by SIGSTOP counts as running, a zombie does not."""
        return Process.of(self.pid) == self

    def paused(self) -> bool:
        """Whether it runs but is stopped by a signal."""
        stat = _stat(self.pid)
        return stat is not None and stat.started == self.started and stat.state in "Tt"

    def signal(self, number: int) -> None:
        """Send a signal if it still runs; one that is gone is not an error."""
        if not self.alive():
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def descendants(self) -> list[Process]:
        """Its children, their children and so on, parents first."""
        if not self.alive():
            return []
        children: dict[int, list[Process]] = {}
        for pid in _pids():
            if (stat := _stat(pid)) is not None:
                children.setdefault(stat.parent, []).append(Process(pid, stat.started))
        found: list[Process] = []
        queue = [self.pid]
        while queue:
            below = children.get(queue.pop(), [])
            found += below
            queue += [child.pid for child in below]
        return found

    def tree(self) -> list[Process]:
        """Itself and its descendants."""
        return [self, *self.descendants()]

    def memory(self) -> int:
        """Bytes resident in its tree; pages that its processes share count once."""
        return sum(_resident(process.pid) for process in self.tree())


def signal_tree(process: Process, number: int) -> list[Process]:
    """Send a signal to a process and all below it, the parent first; returns whom it was meant for.

    The parent goes first so that it cannot answer the death of a child by starting another.
    """
    tree = process.tree()
    for member in tree:
        member.signal(number)
    return tree


def pause_tree(process: Process) -> None:
    """SIGSTOP a process and all below it, children born meanwhile too; none of them runs on return.

    Raises Failed if one is still running after 10 seconds.
    """
    deadline = time.monotonic() + 10
    while running := [m for m in process.tree() if m.alive() and not m.paused()]:
        if time.monotonic() >= deadline:
            raise Failed(f"process {process.pid} does not stop", "look for a hung disk")
        for member in running:
            member.signal(signal.SIGSTOP)
        time.sleep(0.01)


def wait_gone(processes: list[Process], seconds: float) -> bool:
    """Wait until none of them runs; False if some still do after ``seconds``."""
    end = time.monotonic() + seconds
    while any(process.alive() for process in processes):
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return True


def end(process: Process, number: int, grace: float) -> None:
    """Ask a process to end, and kill what is left of its tree after ``grace`` seconds.

    It is woken first: one that was paused could not answer.
    Raises Failed if something survives SIGKILL for 10 seconds.
    """
    tree = process.tree()
    process.signal(number)
    for member in tree:
        member.signal(signal.SIGCONT)
    if wait_gone(tree, grace):
        return
    left = {*tree, *process.tree()}
    for member in left:
        member.signal(signal.SIGKILL)
    if not wait_gone(list(left), 10):
        raise Failed(
            f"process {process.pid} does not end", "look for a hung disk; it ignores SIGKILL"
        )


def running_in(executable: Path, directory: Path) -> list[Process]:
    """Processes of one executable whose working directory is ``directory``."""
    found = []
    for pid in _pids():
        try:
            same = (_PROC / str(pid) / "cwd").readlink() == directory and (
                (_PROC / str(pid) / "exe").readlink() == executable
            )
        except OSError:
            continue  # gone meanwhile, or of another user
        if same and (process := Process.of(pid)) is not None:
            found.append(process)
    return found


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command name, second of the fields, is in brackets and may itself hold brackets and blanks.
    fields = text[text.rindex(")") + 2 :].split()
    state, threads = fields[0], int(fields[17])
    # A killed program shows as a zombie while its other threads, and with them its sockets, still end.
    if state == "X" or (state == "Z" and threads <= 1):
        return None
    return _Stat(state, int(fields[1]), int(fields[19]))


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _resident(pid: int) -> int:
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            text = (_PROC / str(pid) / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0

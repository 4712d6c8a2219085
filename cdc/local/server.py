"""What every kind of server has in common: a name, a command line, a health check."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Command:
    """How the keeper runs a server.

    ``stop_signal`` asks it to end in order; ``death_signal`` is what the kernel sends it when
    the keeper dies.
    """

    arguments: tuple[str, ...]
    directory: Path
    log: Path
    stop_signal: int
    death_signal: int


class Server(Protocol):
    """One server of a cluster, running or not; knows its own port and directories."""

    @property
    def name(self) -> str:
        """Its name in the cluster: ``source``, ``broker-1``, ..."""

    @property
    def address(self) -> str:
        """Where clients reach it, without secrets."""

    def prepare(self) -> None:
        """Make its directories and files; what is already there stays. Run before every start."""

    def command(self) -> Command:
        """Its command line."""

    def check(self) -> None:
        """Return if it serves clients now; raise Unreachable if it does not yet."""


def last_words(output: str) -> str:
    """The end of what a program wrote, in one line; a Java stack trace is reduced to its causes."""
    lines = [line.strip() for line in output.splitlines()]
    telling = [
        line for line in lines if line and not re.match(r"at [\w.$/<>]+\(|\.\.\. \d+ more", line)
    ]
    return " | ".join(telling[-3:]) or "it wrote nothing"

"""One tree of errors, sorted by what happens next.

An error says in one line what is wrong, and in one line what to do about it (its *remedy*).
Each kind has the exit status that the command line ends with; a driver's own error is translated once,
at the edge that met it, and stays as the ``__cause__``.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_REFUSED = 4


class CdcError(Exception):
    """Any failure that has a sentence for its reader.

    ``what`` is one line; ``remedy`` is one line, or empty where nothing can be advised.
    """

    exit_status: ClassVar[int] = EXIT_FAILED

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what} ({self.remedy})" if self.remedy else self.what

    def __reduce__(self) -> tuple[type[CdcError], tuple[str, str]]:
        # Errors cross process boundaries, from a task to its supervisor.
        return type(self), (self.what, self.remedy)


class Failed(CdcError):
    """Stop: it will fail again in the same way until someone changes something."""


class ConfigError(CdcError):
    """Stop before anything starts: the configuration or the command line is wrong."""

    exit_status = EXIT_USAGE


class Unreachable(CdcError):
    """Try again with patience: a server is away, and is expected back. Nothing was lost."""

    exit_status = EXIT_UNREACHABLE


class Refused(CdcError):
    """Stop: to go on would lose or falsify data. A person has to decide."""

    exit_status = EXIT_REFUSED


class Incompatible(Refused):
    """The registry does not take a table's new row schema, by its subject's compatibility rule."""


class Fenced(CdcError):
    """Stop this owner at once: a newer one has taken its place. Nothing it began takes effect."""


class Gone(Failed):
    """What was asked for is not there any more: a table that was dropped, renamed, or taken out of the publication."""


class Rejected(CdcError):
    """A record that can never be applied: dead letter and parked key, or stop, by policy."""

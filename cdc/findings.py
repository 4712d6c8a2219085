"""What a check found: one line of what, one line of what to do. A start insists on that nothing fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from cdc.errors import (
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    CdcError,
    ConfigError,
    Refused,
    Unreachable,
)

Severity = Literal["ok", "warn", "fail"]

_ERRORS: dict[int, type[CdcError]] = {EXIT_UNREACHABLE: Unreachable, EXIT_REFUSED: Refused}


@dataclass(frozen=True, slots=True)
class Finding:
    """``subject`` is what was looked at. ``exit_status`` is that of the error which a start would end with."""

    subject: str
    severity: Severity
    what: str
    remedy: str = ""
    exit_status: int = EXIT_OK

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {
            "subject": self.subject,
            "severity": self.severity,
            "what": self.what,
            "remedy": self.remedy,
        }


def ok(subject: str, what: str) -> Finding:
    """As it must be."""
    return Finding(subject, "ok", what)


def warn(subject: str, what: str, remedy: str) -> Finding:
    """It will run, and somebody should know this."""
    return Finding(subject, "warn", what, remedy)


def fail(subject: str, what: str, remedy: str, exit_status: int = EXIT_USAGE) -> Finding:
    """It would not run, or would lose changes."""
    return Finding(subject, "fail", what, remedy, exit_status)


def of_error(subject: str, error: CdcError) -> Finding:
    """What a start would end with."""
    return fail(subject, error.what, error.remedy, error.exit_status)


def guarded(subject: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings as they come; an error that ends them is the last one."""
    try:
        yield from findings
    except CdcError as error:
        yield of_error(subject, error)


def insist(findings: Iterable[Finding]) -> None:
    """Raise the first failure as the error that it stands for."""
    for finding in findings:
        if finding.severity == "fail":
            kind = _ERRORS.get(finding.exit_status, ConfigError)
            raise kind(finding.what, finding.remedy)

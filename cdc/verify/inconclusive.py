"""Why something could not be decided, or was not looked at: never a difference, and never silence."""

from __future__ import annotations


class Inconclusive(Exception):
    """Ends the verification of one table; what was decided before stays decided. ``reason`` goes to the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Standstill(Inconclusive):
    """Capture or the sink did not answer in time: the tables that follow would wait for it in vain as well."""


class Skipped(Exception):
    """The table is not to be compared at all. ``reason`` goes to the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

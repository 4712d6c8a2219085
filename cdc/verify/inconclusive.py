"""Why something could not be decided, or was not looked at: never a difference, and never silence."""

from __future__ import annotations


class Inconclusive(Exception):
    """Ends the verification of one table; what was decided before stays decided. ``reason`` goes to the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Skipped(Exception):
    """The table is not to be compared at all. ``reason`` goes to the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

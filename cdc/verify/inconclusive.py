"""Why something could not be decided: never a difference, and never silence."""

from __future__ import annotations


class Inconclusive(Exception):
    """Ends the verification of one table; what was decided before stays decided. ``reason`` goes to the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

"""How values are represented in events: the modes that Debezium's properties choose among.

The defaults are Debezium's, apart from intervals, whose count of microseconds loses months and days.
Whatever a form cannot carry stands beside the row (`cdc.exact_row`), so no mode takes anything from a replica.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

Decimals = Literal["precise", "double", "string"]
Times = Literal[
    "adaptive",
    "adaptive_time_microseconds",
    "connect",
    "isostring",
    "microseconds",
    "nanoseconds",
]
Intervals = Literal["string", "numeric"]
Binaries = Literal["bytes", "base64", "base64-url-safe", "hex"]
Hstores = Literal["json", "map"]

PLACEHOLDER: Final = b"__debezium_unavailable_value"


@dataclass(frozen=True, slots=True)
class Handling:
    """One choice of each mode. ``placeholder`` stands in events for a value that the log left out as unchanged."""

    decimals: Decimals = "precise"
    times: Times = "adaptive"
    intervals: Intervals = "string"
    binaries: Binaries = "bytes"
    hstores: Hstores = "json"
    money_digits: int = 2
    placeholder: bytes = PLACEHOLDER

    @property
    def of_keys(self) -> Handling:
        """The same for columns of a key, which tells rows apart: every form is exact by itself, and has one spelling."""
        return replace(
            self,
            decimals="precise" if self.decimals == "double" else self.decimals,
            times="adaptive" if self.times in ("connect", "nanoseconds") else self.times,
            intervals="string",
            hstores="json",
            money_digits=max(self.money_digits, 2),
        )


DEFAULT: Final = Handling()

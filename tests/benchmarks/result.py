"""A benchmark's figures, and the run that stands for several."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Throughput:
    """``limit_per_s`` is what ``limit`` reached in the same run on the same data; ``details`` are printed as they are."""

    benchmark: str
    events: int
    seconds: float
    limit: str
    limit_per_s: float
    cpu_s: dict[str, float]
    peak_rss_mb: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def events_per_s(self) -> float:
        """Events each second."""
        return self.events / self.seconds

    @property
    def ratio(self) -> float:
        """Of the limit."""
        return self.events_per_s / self.limit_per_s

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        plain = asdict(self)
        details, settings = plain.pop("details"), plain.pop("settings")
        return {
            **plain,
            "seconds": round(self.seconds, 3),
            "limit_per_s": round(self.limit_per_s),
            "events_per_s": round(self.events_per_s),
            "ratio": round(self.ratio, 3),
            **details,
            "settings": {"cpus": len(os.sched_getaffinity(0)), **settings},
        }

    def summary(self) -> str:
        """One line for people."""
        cpu = ", ".join(f"{name} {used:.1f}" for name, used in self.cpu_s.items())
        rss = ", ".join(f"{name} {peak:.0f}" for name, peak in self.peak_rss_mb.items())
        return (
            f"{self.benchmark}: {self.events:,} events in {self.seconds:.2f} s, {self.events_per_s:,.0f}/s,"
            f" {self.ratio:.2f} of {self.limit} ({self.limit_per_s:,.0f}/s); CPU s: {cpu}; peak MB: {rss}"
        )


def median(runs: Sequence[Throughput]) -> dict[str, Any]:
    """The run with the median ratio (of an even number the lower), beside all ratios."""
    ordered = sorted(runs, key=lambda run: run.ratio)
    found = ordered[(len(ordered) - 1) // 2].to_json()
    if len(runs) > 1:
        found["ratios"] = [round(run.ratio, 3) for run in runs]
    return found


def to_line(found: dict[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(found, ensure_ascii=False)

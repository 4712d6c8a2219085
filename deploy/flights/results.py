"""The short table that the demonstration ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.flights.kills import Kill
from deploy.flights.latency import Percentiles, Sample, percentiles
from deploy.flights.traffic import Totals

_NAME = 15
"""Width of the table's names."""


@dataclass(slots=True)
class Results:
    """What was measured; ``running`` says where what still runs is reached, or that all was stopped."""

    rows: int = 0
    backfilled: int = 0
    backfill_seconds: float = 0.0
    traffic: Totals = field(default_factory=Totals)
    captured_per_s: float = 0.0
    applied_per_s: float = 0.0
    samples: Sequence[Sample] = ()
    kills: list[Kill] = field(default_factory=list)
    planted: int = 0
    found: int = 0
    repaired: int = 0
    left: int = 0
    running: Sequence[tuple[str, str]] = ()

    def show(self, console: Console) -> None:
        """Print the table; no line of it is broken where standard output is no terminal."""
        console.print()
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True, width=_NAME)
        table.add_column(overflow="fold")
        for name, value in self.lines():
            if console.is_terminal:
                table.add_row(name, value)
            else:
                console.print(f"{name:{_NAME}}  {value}", soft_wrap=True, highlight=False)
        if console.is_terminal:
            console.print(table, highlight=False)
        for name, value in self.running:  # whole lines, to be copied from a narrow terminal
            shown = Text(f"{name:{_NAME}}  ", style="bold") + Text(value, style="not bold")
            console.print(shown, soft_wrap=True)

    def lines(self) -> list[tuple[str, str]]:
        """Names and values."""
        calm, worst = without_kills(self.samples, self.kills)
        killed = ", ".join(
            f"{kill.what} moved again after {kill.seconds:.1f} s" for kill in self.kills
        )
        rate = self.backfilled / self.backfill_seconds if self.backfill_seconds else 0
        return [
            ("rows", f"{self.rows:,} in source and replica"),
            (
                "transactions",
                (
                    f"{self.traffic.committed:,} committed with {self.traffic.rows:,} rows,"
                    f" {self.traffic.large:,} of them large; {self.traffic.rolled_back:,} rolled back"
                ),
            ),
            (
                "events/s",
                (
                    f"{rate:,.0f} rows copied in the backfill;"
                    f" {self.captured_per_s:,.0f} captured and {self.applied_per_s:,.0f} applied under traffic"
                ),
            ),
            (
                "latency",
                (
                    f"p50 {calm.p50 * 1000:,.0f} ms, p99 {calm.p99 * 1000:,.0f} ms from commit to replica"
                    f" ({calm.samples:,} samples); at most {worst:.1f} s over a kill"
                ),
            ),
            ("kills survived", f"{len(self.kills)} of 2 ({killed or 'none'})"),
            (
                "differences",
                f"{self.planted} planted, {self.found} found, {self.repaired} repaired, {self.left} left",
            ),
        ]


def without_kills(samples: Sequence[Sample], kills: Sequence[Kill]) -> tuple[Percentiles, float]:
    """The percentiles of commits made while both tasks ran, and the longest wait of the others, in seconds."""
    calm, over_a_kill = [], [0.0]
    for sample in samples:
        shown = sample.committed + sample.latency
        # One that was on its way when a task was killed waited for the successor too.
        if any(sample.committed <= kill.ended and shown >= kill.began for kill in kills):
            over_a_kill.append(sample.latency)
        else:
            calm.append(sample)
    return percentiles(calm), max(over_a_kill)

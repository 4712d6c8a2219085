"""How long a commit takes to be visible in the replica: one row that is updated here and watched there.

One process, one monotonic clock: the time runs from the return of the source's COMMIT to the return of the replica's
first query that shows it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple, Self

import psycopg

from cdc.errors import Failed
from cdc.testing.alongside import Alongside

_PLANE = "PROBE"
_ADD = "INSERT INTO planes (tailnum, model) VALUES (%s, '0') ON CONFLICT DO NOTHING"
_SEND = "UPDATE planes SET model = %s WHERE tailnum = %s"
_LOOK = "SELECT model::int FROM planes WHERE tailnum = %s"
_EVERY = 0.04  # seconds
_POLL = 0.001


class Sample(NamedTuple):
    """One commit, in seconds: when, by the monotonic clock, and how long it took to be visible."""

    committed: float
    latency: float


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of so many samples, in seconds."""

    p50: float
    p99: float
    worst: float
    samples: int


class Probe(Alongside):
    """Sends and watches from ``with`` to its end."""

    def __init__(self, source_dsn: str, replica_dsn: str) -> None:
        super().__init__(self._send, self._watch)
        self.samples: list[Sample] = []
        self._source_dsn = source_dsn
        self._replica_dsn = replica_dsn
        self._sent: dict[int, float] = {}

    def __enter__(self) -> Self:
        with psycopg.connect(self._source_dsn) as connection:
            connection.execute(_ADD, [_PLANE])
        return super().__enter__()

    def check(self) -> None:
        """Raise Failed if one of its sessions failed."""
        for error in self.errors:
            raise Failed(f"the latency probe failed: {error}") from error

    def seen_since(self, moment: float) -> float | None:
        """When the first commit made after ``moment`` was visible; None while it is not."""
        return next((c + latency for c, latency in self.samples if c >= moment), None)

    def _send(self) -> None:
        with psycopg.connect(self._source_dsn, autocommit=True) as connection:
            number = 0
            while not self.stopping.wait(_EVERY):
                number += 1
                connection.execute(_SEND, [str(number), _PLANE])
                self._sent[number] = time.monotonic()

    def _watch(self) -> None:
        with psycopg.connect(self._replica_dsn, autocommit=True) as connection:
            seen = 0
            while not self.stopping.wait(_POLL):
                found = connection.execute(_LOOK, [_PLANE]).fetchone()
                now = time.monotonic()
                if found is None:
                    continue
                # A commit may be visible there before the COMMIT has returned here: it is noted next time.
                for number in range(seen + 1, found[0] + 1):
                    if number not in self._sent:
                        break
                    committed = self._sent.pop(number)
                    self.samples.append(Sample(committed, max(0.0, now - committed)))
                    seen = number


def percentiles(samples: list[Sample]) -> Percentiles:
    """Of these samples; all zero when there are none."""
    latencies = sorted(sample.latency for sample in samples)
    if not latencies:
        return Percentiles(0.0, 0.0, 0.0, 0)

    def at(part: float) -> float:
        return latencies[min(len(latencies) - 1, int(part * len(latencies)))]

    return Percentiles(at(0.5), at(0.99), latencies[-1], len(latencies))

"""What a process says of itself: its log, on standard error, and its counters and gauges.

Metrics are written from hot loops, a batch at a time, and read by a status command or the /metrics endpoint.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_REMEMBERED = 1_000

Labels = tuple[tuple[str, str], ...]


def start_logging(level: str = "INFO") -> None:
    """Send the log to standard error, one line an entry; times are UTC. A second call changes the level only."""
    root = logging.getLogger()
    root.setLevel(level)
    if any(getattr(handler, "_of_cdc", False) for handler in root.handlers):
        return
    formatter = logging.Formatter(_FORMAT)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler._of_cdc = True  # type: ignore[attr-defined]  # noqa: SLF001 - the mark by which a second call knows it
    root.addHandler(handler)


class QuietRepeats(logging.Filter):
    """Lets the same message through once in ``seconds``; the next one tells how many were left out.

    Two messages are the same when their logger, level and text are. Attach it to a logger or a handler.
    """

    def __init__(self, seconds: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; adds the count of those that were not to its text."""
        text = record.getMessage()
        identity = (record.name, record.levelno, text)
        now = self._clock()
        with self._lock:
            since, left_out = self._seen.get(identity, (-self._seconds, 0))
            if now - since < self._seconds:
                self._seen[identity] = (since, left_out + 1)
                return False
            self._forget_old(now)
            self._seen[identity] = (now, 0)
        if left_out:
            record.msg, record.args = "%s [%d times more]", (text, left_out)
        return True

    def _forget_old(self, now: float) -> None:
        if len(self._seen) < _REMEMBERED:
            return
        for identity, (since, _) in list(self._seen.items()):
            if now - since >= self._seconds:
                del self._seen[identity]
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()


class Sample(NamedTuple):
    """A metric at one moment."""

    name: str
    kind: str
    doc: str
    labels: Labels
    value: float


def exposition(samples: Iterable[Sample]) -> str:
    """In Prometheus' text format, https://prometheus.io/docs/instrumenting/exposition_formats."""
    lines: list[str] = []
    last = ""
    for name, kind, doc, labels, value in sorted(samples, key=lambda s: (s.name, s.labels)):
        if name != last:
            lines += [f"# HELP {name} {doc}", f"# TYPE {name} {kind}"]
            last = name
        listed = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
        lines.append(f"{name}{{{listed}}} {value:.17g}" if listed else f"{name} {value:.17g}")
    return "".join(f"{line}\n" for line in lines)


class Metric:
    """One number. A counter only grows (``add``); a gauge is ``set``. Safe from several threads."""

    __slots__ = ("_lock", "_value", "doc", "kind", "labels", "name")

    def __init__(
        self,
        name: str,
        kind: Literal["counter", "gauge"],
        doc: str,
        labels: tuple[tuple[str, str], ...],
    ) -> None:
        self.name = name
        self.kind = kind
        self.doc = doc
        self.labels = labels
        self._value = 0.0
        self._lock = threading.Lock()

    @property
    def value(self) -> float:
        """The number now."""
        return self._value

    def add(self, amount: float = 1) -> None:
        """Count ``amount`` more."""
        with self._lock:
            self._value += amount

    def set(self, value: float) -> None:
        """Replace the number; gauges only."""
        self._value = value


class Metrics:
    """The counters and gauges of a process. Asking for one again returns the same one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics: dict[tuple[str, tuple[tuple[str, str], ...]], Metric] = {}

    def counter(self, name: str, doc: str, labels: Mapping[str, str] | None = None) -> Metric:
        """The counter with this name and these labels."""
        return self._metric(name, "counter", doc, labels)

    def gauge(self, name: str, doc: str, labels: Mapping[str, str] | None = None) -> Metric:
        """The gauge with this name and these labels."""
        return self._metric(name, "gauge", doc, labels)

    def samples(self) -> list[Sample]:
        """All of them as they are now."""
        with self._lock:
            metrics = list(self._metrics.values())
        return [Sample(m.name, m.kind, m.doc, m.labels, m.value) for m in metrics]

    def _metric(
        self,
        name: str,
        kind: Literal["counter", "gauge"],
        doc: str,
        labels: Mapping[str, str] | None,
    ) -> Metric:
        identity = (name, tuple(sorted((labels or {}).items())))
        with self._lock:
            metric = self._metrics.setdefault(identity, Metric(name, kind, doc, identity[1]))
        if metric.kind != kind:
            raise ValueError(f"{name} is a {metric.kind}, not a {kind}")
        return metric


METRICS = Metrics()
"""Those of this process."""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

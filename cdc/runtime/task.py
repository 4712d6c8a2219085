"""One task in a process of its own: ``python -m cdc.runtime.task FILE``.

Its supervisor holds the other end of its standard input: when that closes, in whatever way, the task drains and stops.
It says how it is on standard output, a JSON object a line; its log goes to standard error.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cdc.errors import EXIT_FAILED, EXIT_OK, CdcError, Unreachable
from cdc.pipeline.apply import ApplyStatus
from cdc.pipeline.capture import Capture, CaptureStatistics
from cdc.pipeline.resume import Owner
from cdc.runtime.config_files import load
from cdc.runtime.patience import keep_on
from cdc.runtime.plugins import acceleration, plugins
from cdc.runtime.sink_task import apply_events
from cdc.runtime.source_task import capture_once
from cdc.telemetry import METRICS, start_logging

log = logging.getLogger(__name__)

Numbers = Mapping[str, int | float | str | None]

_REPORT_SECONDS = 0.5
_OUTAGES = METRICS.counter("cdc_outages_total", "How often a server went away and was waited for.")
_AWAY = "it goes on by itself; check that the servers are up and that their addresses are right"


class Report:
    """What the task says of itself, written at every change of state and twice a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = "starting"
        self._error: CdcError | None = None
        self._numbers: Callable[[], Numbers] = dict
        self._away: Callable[[], str] = str
        self._since: tuple[str, float] = ("", 0.0)

    @property
    def state(self) -> str:
        """starting, running, unreachable, stopped or failed."""
        return self._state

    def running(self, numbers: Callable[[], Numbers], away: Callable[[], str]) -> None:
        """The work has begun; ``numbers`` tells how far it is, and ``away`` for whom it waits, from any thread."""
        with self._lock:
            self._state, self._error = "running", None
            self._numbers, self._away = numbers, away
        self.write()

    def waits(self, what: str) -> None:
        """The work cannot begin yet; said in the log once."""
        with self._lock:
            before, self._numbers = self._numbers(), lambda: {"waiting": what}
        if "waiting" not in before:
            log.warning("%s", what)

    def away(self, error: CdcError) -> None:
        """A server is away; the task waits for it."""
        with self._lock:
            if self._state != "unreachable":
                _OUTAGES.add()
            self._state, self._error = "unreachable", error
        self.write()

    def ended(self, error: CdcError | None) -> None:
        """The task is over: stopped as asked, or failed for good."""
        with self._lock:
            self._state, self._error = ("failed" if error else "stopped"), error
        self.write()

    def write(self) -> None:
        """Put the current state on standard output; a supervisor that is gone does not matter."""
        with self._lock:
            state, error = self._now()
            line = json.dumps(
                {
                    "state": state,
                    "since": self._entered(state),
                    "pid": os.getpid(),
                    "error": error.what if error else None,
                    "remedy": error.remedy if error else None,
                    **self._numbers(),
                    "metrics": METRICS.samples(),
                }
            )
            try:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            except OSError:
                return

    def _now(self) -> tuple[str, CdcError | None]:
        """The state as it is told: a task that waits for brokers or registry cannot be called running."""
        if self._state == "running" and (why := self._away()):
            return "unreachable", Unreachable(why, _AWAY)
        return self._state, self._error

    def _entered(self, state: str) -> float:
        """When it came into this state, seconds since 1970."""
        if state != self._since[0]:
            self._since = (state, time.time())
        return self._since[1]

    def keep_writing(self, stop: threading.Event) -> None:
        """Write twice a second until ``stop``; the body of a thread."""
        while not stop.wait(_REPORT_SECONDS):
            self.write()


def run(path: Path) -> int:
    """Run the task of this connector file until its supervisor lets go; the exit status."""
    stop = threading.Event()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_until_let_go, args=(stop,), daemon=True).start()
    report = Report()
    written = threading.Event()
    threading.Thread(target=report.keep_writing, args=(written,), daemon=True).start()
    try:
        _work(path, stop, report)
    except CdcError as error:
        written.set()
        report.ended(error)
        return error.exit_status
    written.set()
    report.ended(None)
    return EXIT_OK


def _work(path: Path, stop: threading.Event, report: Report) -> None:
    config = load(path)
    plugin = plugins()[config.plugin]
    log.info("%s", acceleration())
    if config.role == "sink":
        apply_events(
            config, plugin, stop.is_set, lambda status, away: _follow(report, status, away)
        )
        return
    owner = Owner()
    keep_on(
        lambda: capture_once(
            load(path),  # anew each time: a table may have joined meanwhile, and its file says so
            plugin,
            owner,
            stop.is_set,
            lambda capture, away: report.running(_source_numbers(capture), away),
            report.waits,
            lambda: report.running(dict, str),
        ),
        stop.is_set,
        report.away,
    )


def _follow(report: Report, status: ApplyStatus, away: Callable[[], str]) -> None:
    """Take over what apply says of itself."""
    if status.state == "away":
        report.away(Unreachable(status.trouble, status.remedy))
    elif status.state == "running" and report.state != "running":
        report.running(lambda: _sink_numbers(status), away)


def _sink_numbers(status: ApplyStatus) -> Numbers:
    return {
        "events": status.events,
        "transactions": status.transactions,
        "position": status.position.commit_lsn if status.position else None,
        "lag_seconds": status.lag_seconds(time.time()),
        "missing_rows": sum(status.faults.missing.values()),
        "mismatched_rows": sum(status.faults.mismatched.values()),
        "parked_keys": sum(status.parked.values()),
        "bytes_held": status.bytes_held,
    }


def _source_numbers(capture: Capture) -> Callable[[], Numbers]:
    statistics: CaptureStatistics = capture.statistics

    def numbers() -> Numbers:
        lag = time.time() - statistics.commit_us / 1e6 if statistics.commit_us else 0.0
        return {
            "events": statistics.events + statistics.backfilled,
            "backfilled": statistics.backfilled,
            "transactions": statistics.transactions,
            "position": statistics.lsn,
            "lag_seconds": max(0.0, lag),
            "waiting": statistics.waiting or None,
        }

    return numbers


def _until_let_go(stop: threading.Event) -> None:
    while os.read(
        sys.stdin.fileno(), 4096
    ):  # unbuffered: a reader's lock would outlive the interpreter
        pass
    stop.set()


def main() -> int:
    """The process: arguments are the connector's file and the log level."""
    start_logging(sys.argv[2] if len(sys.argv) > 2 else "INFO")
    # What flows through is freed by reference counts: looking for cycles in it finds none, and took a tenth of the time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        return run(Path(sys.argv[1]))
    except Exception:
        log.exception("the task met a defect of its own")
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())

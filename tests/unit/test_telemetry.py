"""Repeated lines are counted, not repeated; metrics add up and read as Prometheus expects."""

from __future__ import annotations

import logging

import pytest

from cdc.telemetry import Metrics, QuietRepeats, exposition


def line(text: str) -> logging.LogRecord:
    return logging.LogRecord("log", logging.ERROR, "", 0, "%s", (text,), None)


def test_the_same_line_passes_once_in_30_seconds_and_then_tells_how_many_were_left_out() -> None:
    now = [100.0]
    quiet = QuietRepeats(clock=lambda: now[0])
    assert [quiet.filter(line("refused")) for _ in range(4)] == [True, False, False, False]
    assert quiet.filter(line("another"))
    now[0] += 29.9
    assert not quiet.filter(line("refused"))
    now[0] += 0.2
    again = line("refused")
    assert quiet.filter(again)
    assert again.getMessage() == "refused [4 times more]"
    now[0] += 30
    fresh = line("refused")
    assert quiet.filter(fresh)
    assert fresh.getMessage() == "refused"


def test_memory_of_lines_is_bounded() -> None:
    quiet = QuietRepeats()
    for number in range(5_000):
        quiet.filter(line(f"line {number}"))
    assert len(quiet._seen) <= 1_000


def test_metrics_add_up_and_are_exposed_by_name_and_labels() -> None:
    metrics = Metrics()
    metrics.counter("cdc_events", "Events.", {"table": 'a"b'}).add(2)
    metrics.counter("cdc_events", "Events.", {"table": 'a"b'}).add(3)
    metrics.gauge("cdc_lag", "Seconds.").set(1.5)
    assert exposition(metrics.samples()) == (
        "# HELP cdc_events Events.\n"
        "# TYPE cdc_events counter\n"
        'cdc_events{table="a\\"b"} 5\n'
        "# HELP cdc_lag Seconds.\n"
        "# TYPE cdc_lag gauge\n"
        "cdc_lag 1.5\n"
    )
    with pytest.raises(ValueError, match="is a gauge"):
        metrics.counter("cdc_lag", "Seconds.")

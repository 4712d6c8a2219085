"""The pure parts of the demonstration: which rows it takes, how it counts, what it calls a find."""

from __future__ import annotations

import io
from datetime import timedelta

from rich.console import Console

from deploy.flights.corruption import Corruption, named
from deploy.flights.kills import Kill
from deploy.flights.latency import Sample, percentiles
from deploy.flights.load import blocks
from deploy.flights.rates import EventCount
from deploy.flights.replay import later
from deploy.flights.results import without_kills
from deploy.flights.screen import Screen


def test_a_limited_file_gives_just_its_first_lines() -> None:
    found = list(blocks(io.BytesIO(b"a,1\nb,2\nc,3\n"), 2))
    assert found == [(b"a,1\nb,2\n", 2)]


def test_a_whole_file_gives_every_byte_over_many_blocks() -> None:
    content = b"".join(b"%06d,flight\n" % number for number in range(60_000))
    found = list(blocks(io.BytesIO(content), None))
    assert len(found) > 1
    assert b"".join(block for block, _ in found) == content
    assert sum(rows for _, rows in found) == 60_000


def test_a_flight_moves_to_the_same_day_of_the_week_and_keeps_its_nulls() -> None:
    row = {"year": "2013", "month": "12", "day": "31", "time_hour": "2014-01-01T04:00:00Z"}
    moved = later({**row, "dep_time": None}, timedelta(weeks=52))
    assert (moved["year"], moved["month"], moved["day"]) == ("2014", "12", "30")
    assert moved["time_hour"] == "2014-12-31T04:00:00+00:00"
    assert moved["dep_time"] is None


def test_a_task_that_died_begins_to_count_anew_and_nothing_is_counted_twice() -> None:
    count = EventCount()
    for events in (10, 25, 25, 0, 5, 5):
        count.saw(events)
    assert count.events == 30


def test_percentiles_are_of_the_sorted_latencies() -> None:
    found = percentiles([Sample(0.0, latency / 100) for latency in range(100, 0, -1)])
    assert (found.p50, found.p99, found.worst, found.samples) == (0.51, 1.0, 1.0, 100)
    assert percentiles([]).samples == 0


def test_a_commit_that_waited_for_a_killed_task_is_not_a_sample_of_calm() -> None:
    kill = Kill("the sink", 1, began=10.0, ended=12.0)
    before, on_its_way, during, after = (
        Sample(9.0, 0.1),
        Sample(9.9, 2.1),
        Sample(11.0, 1.0),
        Sample(13.0, 0.2),
    )
    calm, worst = without_kills([before, on_its_way, during, after], [kill])
    assert (calm.samples, calm.worst, worst) == (2, 0.2, 2.1)


def test_a_report_names_its_rows_by_table_kind_and_key() -> None:
    report = {
        "tables": [
            {
                "table": "public.weather",
                "differences": [{"key": {"id": 7}, "kind": "missing"}],
                "repaired": [],
            },
            {"table": "public.planes", "differences": [], "repaired": []},
        ]
    }
    assert named(report) == {Corruption("public.weather", "missing", "7")}
    assert named(report, "repaired") == frozenset()


def test_a_check_that_failed_is_a_line_and_is_remembered() -> None:
    written = io.StringIO()
    screen = Screen(Console(file=written, width=40))
    with screen.stage("repair") as stage:
        screen.check("what had to hold", held=False, found="something that is longer than the line")
        screen.check("another", held=True)
        stage.text = "over"
    assert screen.failed == ["what had to hold"]
    assert written.getvalue().splitlines() == [
        "    ✘ what had to hold: something that is longer than the line",
        "    ✔ another",
        "✔ repair: over  0 s",
    ]

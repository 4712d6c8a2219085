"""One endpoint tells of all tasks: their own metrics, how they are, and whether the supervisor turns."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cdc.errors import ConfigError
from cdc.runtime.metrics_server import MetricsServer
from cdc.runtime.supervisor import TaskStatus


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_and_health_of_all_tasks() -> None:
    missing = ["cdc_sink_missing_rows_total", "counter", "Missing.", [["table", "s.t"]], 3.0]
    sink = TaskStatus("replica", "sink", "running")
    sink.said = {"events": 7, "lag_seconds": 0.5, "metrics": [missing]}
    source = TaskStatus("source", "source", "unreachable")
    source.said = {"error": "the server is away", "since": 1.0}
    alive = True
    with MetricsServer(0, lambda: [sink, source], lambda: alive) as server:
        status, text = get(server.port, "/metrics")
        assert status == 200
        lines = text.splitlines()
        of_sink = 'connector="replica",role="sink",task="0"'
        assert f'cdc_sink_missing_rows_total{{{of_sink},table="s.t"}} 3' in lines
        assert f"cdc_events_total{{{of_sink}}} 7" in lines
        assert f"cdc_lag_seconds{{{of_sink}}} 0.5" in lines
        assert 'cdc_task_up{connector="source",role="source",task="0"} 0' in lines
        assert lines.count("# TYPE cdc_task_up gauge") == 1
        status, text = get(server.port, "/health/ready")
        assert (status, json.loads(text)["tasks"][1]["error"]) == (503, "the server is away")
        source.state = "running"
        assert get(server.port, "/health/ready")[0] == 200
        assert get(server.port, "/health/live")[0] == 200
        alive = False
        assert get(server.port, "/health/live")[0] == 503
        assert get(server.port, "/else")[0] == 404
        with pytest.raises(ConfigError, match=r"metrics\.port"):
            MetricsServer(server.port, list, lambda: True)


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    root = Path(__file__).parents[2]
    board = json.loads((root / "deploy/dashboards/cdc.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\bcdc_\w+", target["expr"])
    }
    told = set(re.findall(r"`(cdc_\w+)", (root / "README.md").read_text()))
    assert asked <= told, asked - told
    source = "".join(path.read_text() for path in (root / "cdc").rglob("*.py"))
    assert [name for name in told if f'"{name}"' not in source] == []

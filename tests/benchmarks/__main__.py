"""``python -m tests.benchmarks NAME [--events N] [--runs K] [--json]``: one benchmark on real servers of its own.

Prints one JSON object (the median run), or a line for each run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cdc.local.cluster import Cluster
from tests.benchmarks import apply, backfill, drain, latency, memory, scale, verify
from tests.benchmarks.result import Throughput, median, to_line
from tests.benchmarks.stage import servers

_THROUGHPUT: dict[str, tuple[Callable[[Cluster, Path, int], Throughput], int, int]] = {
    "drain": (drain.run, 300_000, 3),
    "backfill": (backfill.run, 300_000, 3),
    "backfill-2": (partial(backfill.run, readers=2), 600_000, 3),
    "apply": (apply.run, 200_000, 3),
    "verify": (verify.run, 1_000_000, 3),
}
"""How to run it, and how many events and runs make it last less than two minutes on two cores."""

_LATENCY_SECONDS = 15.0
_MEMORY_EVENTS = 300_000


def main() -> int:
    """Run the benchmark that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("name", choices=[*_THROUGHPUT, "latency", "memory", "scale"])
    parser.add_argument("--events", type=int, help="events, or rows, of one run")
    parser.add_argument("--runs", type=int, help="runs to take the median of")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wanted = parser.parse_args()
    with servers() as cluster, tempfile.TemporaryDirectory(prefix="cdc-bench-") as path:
        found = _measure(wanted, cluster, Path(path))
    if wanted.json:
        print(to_line(found))
    return 0


def _measure(wanted: argparse.Namespace, cluster: Cluster, folder: Path) -> dict[str, Any]:
    to = sys.stderr if wanted.json else sys.stdout
    if wanted.name == "latency":
        seconds = wanted.events / 1000 if wanted.events else _LATENCY_SECONDS
        found = latency.run(cluster, folder / "latency", seconds)
        print(latency.summary(found), file=to)
        return found
    if wanted.name == "memory":
        found = memory.run(cluster, folder / "memory", wanted.events or _MEMORY_EVENTS)
        print(memory.summary(found), file=to)
        return found
    if wanted.name == "scale":
        found = scale.run(cluster, folder)
        print(scale.summary(found), file=to)
        return found
    run, events, runs = _THROUGHPUT[wanted.name]
    all_runs = []
    for number in range(wanted.runs or runs):
        all_runs.append(run(cluster, folder / str(number), wanted.events or events))
        print(all_runs[-1].summary(), file=to, flush=True)
    return median(all_runs)


if __name__ == "__main__":
    sys.exit(main())

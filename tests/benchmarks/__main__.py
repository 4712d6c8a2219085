"""``python -m tests.benchmarks NAME [--events N] [--runs K] [--json]``: one benchmark on real servers of its own.

Prints one JSON object (medians over the runs), or one line for people.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from cdc.local.cluster import Cluster
from tests.benchmarks import drain
from tests.benchmarks.result import Throughput, median, to_line
from tests.benchmarks.stage import servers

Run = Callable[[Cluster, Path, int], Throughput]

_THROUGHPUT: dict[str, tuple[Run, int, int]] = {
    "drain": (drain.run, 300_000, 3),
}
"""How to run it, and how many events and runs make it last less than two minutes on two cores."""


def main() -> int:
    """Run the benchmark that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("name", choices=[*_THROUGHPUT])
    parser.add_argument("--events", type=int, help="events, or rows, of one run")
    parser.add_argument("--runs", type=int, help="runs to take the median of")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wanted = parser.parse_args()
    with servers() as cluster, tempfile.TemporaryDirectory(prefix="cdc-bench-") as path:
        run, events, runs = _THROUGHPUT[wanted.name]
        found = []
        for number in range(wanted.runs or runs):
            found.append(run(cluster, Path(path) / str(number), wanted.events or events))
            print(found[-1].summary(), file=sys.stderr if wanted.json else sys.stdout, flush=True)
    if wanted.json:
        print(to_line(median(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

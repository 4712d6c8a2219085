"""Writers that commit one-row transactions at times fixed beforehand, whether or not the last one was quick.

So a pause of anything delays what follows and shows in the figures: nothing waits politely (coordinated omission).
pgbench writes: it takes little of the machine that is measured, and logs when each COMMIT returned.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cdc.local.postgres import binaries

CLIENTS = 8
SPAN = 1_000_000
"""Ids that one client has to itself, counted up from their beginning."""

_SCRIPT = f"""
\\set n :n + 1
\\set id :first + :client_id * {SPAN} + :n
INSERT INTO bench_orders SELECT (bench_order(:id)).*;
"""


@dataclass(frozen=True, slots=True)
class Written:
    """When COMMIT returned, by id, in the order of the commits, and the most that a commit began behind its time.

    Nanoseconds, since 1970.
    """

    commit_ns: Mapping[int, int]
    behind_ns: int


def write(dsn: str, folder: Path, rate: int, seconds: float, first: int) -> Callable[[], Written]:
    """Begin to write ``rate`` rows a second; the returned function waits for the end.

    Client c's ids begin at ``first + c * SPAN + 1``. ``folder`` is made, and takes the log.
    """
    folder.mkdir()
    script = folder / "script.sql"
    script.write_text(_SCRIPT, encoding="utf-8")
    process = subprocess.Popen(
        [
            *(str(binaries() / "pgbench"), "--no-vacuum", "--protocol=prepared"),
            *(f"--client={CLIENTS}", "--jobs=1", f"--rate={rate}"),
            *(f"--transactions={written(rate, seconds) // CLIENTS}", f"--file={script}"),
            *("--define=n=0", f"--define=first={first}"),
            *("--log", f"--log-prefix={folder / 'log'}", dsn),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )

    def result() -> Written:
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
        lines = [line for log in folder.glob("log.*") for line in log.read_text().splitlines()]
        return _read(lines, first)

    return result


def written(rate: int, seconds: float) -> int:
    """How many rows are written: the same number by each client."""
    return int(rate * seconds) // CLIENTS * CLIENTS


def _read(lines: list[str], first: int) -> Written:
    """Lines: client, its transaction's number, time taken, script, seconds, microseconds, schedule lag."""
    counts = [0] * CLIENTS
    commits: list[tuple[int, int]] = []
    behind = 0
    for line in lines:
        client, _, _, _, seconds, microseconds, lag = map(int, line.split())
        counts[client] += 1
        id_ = first + client * SPAN + counts[client]
        commits.append(((seconds * 1_000_000 + microseconds) * 1000, id_))
        behind = max(behind, lag * 1000)
    return Written({id_: at for at, id_ in sorted(commits)}, behind)

"""Writers that commit one-row transactions at times fixed beforehand, whether or not the last one was quick.

So a pause of anything delays what follows and shows in the figures: nothing waits politely (coordinated omission).
Writers live in a process of their own, so that they do not wait for the watcher's interpreter.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

import psycopg

CONNECTIONS = 8
_INSERT = "INSERT INTO bench_orders SELECT (bench_order(%s)).*"


@dataclass(frozen=True, slots=True)
class Written:
    """When COMMIT returned, by id, and the most that a commit came behind its time; monotonic nanoseconds."""

    commit_ns: Mapping[int, int]
    behind_ns: int


def write(dsn: str, rate: int, seconds: float, first: int) -> Callable[[], Written]:
    """Begin to write ids from ``first`` on, ``rate`` a second; the returned function waits for the end."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_process, args=(there, dsn, rate, int(rate * seconds), first), daemon=True
    )
    process.start()

    def result() -> Written:
        commits, behind = here.recv()
        process.join()
        return Written(commits, behind)

    return result


def _process(there: Connection, dsn: str, rate: int, count: int, first: int) -> None:
    commits: dict[int, int] = {}
    behind = [0] * CONNECTIONS
    began = time.monotonic_ns() + 500_000_000

    def writer(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as connection:
            cursor = connection.cursor()
            for event in range(number, count, CONNECTIONS):
                due = began + event * 1_000_000_000 // rate
                now = time.monotonic_ns()
                if due > now:
                    time.sleep((due - now) / 1e9)
                else:
                    behind[number] = max(behind[number], now - due)
                cursor.execute(_INSERT, (first + event,))
                commits[first + event] = time.monotonic_ns()

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there.send((commits, max(behind)))

"""Fenced reads in processes of their own, so that the stream goes on meanwhile.

Only capture's one producer writes data topics (a reader that produced by itself would write below positions already
sent): a reader process hands its encoded rows over a pipe, then lets its fence go; capture sends the rows when it meets
the fence in the log.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

from cdc.config import ConnectorConfig
from cdc.errors import CdcError, Unreachable
from cdc.event import Rows
from cdc.protocols import FencedReader
from cdc.table import KeyRange, TableId

OpenReader = Callable[[ConnectorConfig], FencedReader]

_HANDING_OVER = 30.0
_SLICE = 0.001
_WHOLE = KeyRange()


@dataclass(frozen=True, slots=True)
class Job:
    """One fenced read: of a range (``keys`` None), or of these keys. ``fence`` names the job and its fence.

    With ``parts`` it is no read and has no fence: keys that divide the table so are wanted.
    """

    fence: str
    table: TableId
    range: KeyRange = _WHOLE
    limit: int = 0
    keys: tuple[bytes, ...] | None = None
    parts: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """A job's rows (its fence follows in the log), or the error for which no fence follows.

    The error may come behind the rows, where the read went well and its fence did not.
    """

    job: Job
    rows: Rows | None
    error: CdcError | None = None


class Readers(Protocol):
    """Takes jobs, gives reads. A read's rows are on their way before its fence can be met in the log.

    ``count`` is how many jobs can run at once.
    """

    count: int

    def idle(self) -> bool:
        """Whether a job given now would start at once."""
        ...

    def give(self, job: Job) -> None:
        """Start the job. Only when `idle`."""
        ...

    def collect(self, met: str = "") -> list[Read]:
        """What has come in since the last call, in the order of its fences. Raises Unreachable if a reader died.

        ``met`` is a fence that was met in the log: its job's read, if there is one, is waited for.
        """
        ...

    def close(self) -> None:
        """End every reader. Safe to repeat."""
        ...


class ReaderProcesses:
    """`Readers` in ``count`` processes, started with the first job."""

    def __init__(self, open_reader: OpenReader, config: ConnectorConfig, count: int) -> None:
        self._open_reader = open_reader
        self._config = config
        self.count = count
        self._processes: list[_ReaderProcess] = []

    def idle(self) -> bool:
        return len(self._processes) < self.count or any(p.free for p in self._processes)

    def give(self, job: Job) -> None:
        process = next((p for p in self._processes if p.free), None)
        if process is None:
            process = _ReaderProcess(self._open_reader, self._config)
            self._processes.append(process)
        process.give(job)

    def collect(self, met: str = "") -> list[Read]:
        return [read for process in self._processes for read in process.collect(met)]

    def close(self) -> None:
        while self._processes:
            self._processes.pop().close()


class _ReaderProcess:
    """One process, the pipe to it, and a thread that keeps the pipe empty.

    The thread matters: a reader lets its fence go once its rows are handed over, and handing them over must not wait
    for capture's loop.
    """

    def __init__(self, open_reader: OpenReader, config: ConnectorConfig) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, open_reader, config), daemon=True, name="cdc-reader"
        )
        self._process.start()
        theirs.close()
        self._arrived: deque[Read | None] = deque()
        self._busy: set[str] = set()
        self._thread = threading.Thread(target=self._receive, daemon=True, name="cdc-reader-pipe")
        self._thread.start()

    @property
    def free(self) -> bool:
        return not self._busy

    def give(self, job: Job) -> None:
        self._busy.add(job.fence)
        try:
            self._pipe.send(job)
        except OSError as error:
            raise Unreachable("a backfill reader process has ended") from error

    def collect(self, met: str) -> list[Read]:
        """See `Readers`. The log can be quicker than the pipe: the rows are in it, and soon received."""
        deadline = time.monotonic() + _HANDING_OVER
        reads: list[Read] = []
        while True:
            reads += self._take()
            if met not in self._busy:
                return reads
            if time.monotonic() > deadline:
                raise Unreachable("a backfill reader process does not hand over what it read")
            time.sleep(_SLICE)

    def _take(self) -> list[Read]:
        reads = []
        while self._arrived:
            read = self._arrived.popleft()
            if read is None:
                raise Unreachable("a backfill reader process has ended")
            self._busy.discard(read.job.fence)
            reads.append(read)
        return reads

    def close(self) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._thread.join()

    def _receive(self) -> None:
        while True:
            try:
                self._arrived.append(self._pipe.recv())
            except (EOFError, OSError):
                self._arrived.append(None)
                return


def _serve(pipe: Connection, open_reader: OpenReader, config: ConnectorConfig) -> None:
    """A reader process: job by job until the pipe closes, which it does when capture ends in whatever way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; capture decides
    reader: FencedReader | None = None
    while True:
        try:
            job: Job = pipe.recv()
        except (EOFError, OSError):
            break
        try:
            reader = reader or open_reader(config)
            _read(pipe, reader, job)
        except CdcError as error:
            if reader is not None:
                reader.close()
                reader = None
            if not _sent(pipe, Read(job, None, error)):
                break
        except BrokenPipeError:
            break
    if reader is not None:
        reader.close()


def _sent(pipe: Connection, read: Read) -> bool:
    """Whether capture is still there to take it."""
    try:
        pipe.send(read)
    except BrokenPipeError:
        return False
    return True


def _read(pipe: Connection, reader: FencedReader, job: Job) -> None:
    if job.parts:
        pipe.send(Read(job, reader.split(job.table, job.parts)))
        return
    block = (
        reader.read_range(job.table, job.range, job.limit, job.fence)
        if job.keys is None
        else reader.read_keys(job.table, job.keys, job.fence)
    )
    with block as rows:
        pipe.send(Read(job, rows))


__all__ = ["Job", "OpenReader", "Read", "ReaderProcesses", "Readers"]

"""Reader processes: the log can be quicker than the pipe on which the rows come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest

from cdc.config import ConnectorConfig
from cdc.errors import Unreachable
from cdc.event import Rows
from cdc.pipeline.reading import Job, ReaderProcesses
from cdc.protocols import FencedReader
from cdc.table import Column, KeyRange, Table, TableId

_ID = TableId("public", "t")
_CONFIG = ConnectorConfig("c", "p", "source", "x", {})


class _Reader:
    """Rows enough to keep a pipe busy; the fence would be in the log when the block ends."""

    @contextmanager
    def read_range(
        self, table: TableId, keys: KeyRange, limit: int, fence: str, most_bytes: int = 0
    ) -> Iterator[Rows]:
        if table.name == "dies":
            raise SystemExit(1)
        row = b"x" * 1000
        shape = Table(table, (Column("id", "int", nullable=False),), ("id",))
        yield Rows(shape, [(b"%d" % n, row) for n in range(limit)], None)

    @contextmanager
    def read_keys(
        self, table: TableId, keys: Sequence[bytes], fence: str, most_bytes: int = 0
    ) -> Iterator[Rows]:
        yield Rows(Table(table, (), ()), [], None)

    def split(self, table: TableId, parts: int) -> Rows:
        return Rows(Table(table, (), ()), [(b"%d" % n, b"") for n in range(1, parts)], None)

    def close(self) -> None:
        """Nothing is held."""


def open_reader(config: ConnectorConfig) -> FencedReader:
    return _Reader()


def test_the_rows_of_a_fence_that_is_met_are_waited_for() -> None:
    with closing(ReaderProcesses(open_reader, _CONFIG, 1)) as readers:
        readers.give(Job("f", _ID, KeyRange(), 5_000))
        assert readers.collect("another") == []
        (read,) = readers.collect("f")
        assert read.rows is not None
        assert len(read.rows.rows) == 5_000


def test_a_reader_that_died_is_told_not_waited_for() -> None:
    with closing(ReaderProcesses(open_reader, _CONFIG, 1)) as readers:
        readers.give(Job("f", TableId("public", "dies"), KeyRange(), 1))
        with pytest.raises(Unreachable, match="has ended"):
            readers.collect("f")

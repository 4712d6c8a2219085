"""A verification run over the tables of one source and one replica."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence

from cdc.errors import ConfigError
from cdc.protocols import EventDecoder, ReplicaSide, SourceSide, TopicReader
from cdc.table import Table
from cdc.verify.fences import FenceLog
from cdc.verify.inconclusive import Inconclusive
from cdc.verify.parts import Parts
from cdc.verify.report import Report, TableReport
from cdc.verify.settings import OnProgress, Progress, VerifySettings
from cdc.verify.table_run import TableRun
from cdc.verify.window import DataWindow

OpenTopics = Callable[[], TopicReader]
"""Opens a reader of any topics; each is closed by who opened it."""


def _silent(_: Progress) -> None:
    """No progress is shown."""


def verify(
    source: SourceSide,
    replica: ReplicaSide,
    open_topics: OpenTopics,
    decoder: EventDecoder,
    settings: VerifySettings,
    on_progress: OnProgress = _silent,
) -> Report:
    """Compare every table (or those asked for) and repair what differs if that is asked for.

    Both sides may keep changing. Reads only, but for fences in the source's log and, for a repair, a signal there.
    Raises ConfigError for a table that is not captured; what cannot be decided is in the report, not raised.
    """
    run = f"verify-{uuid.uuid4().hex[:16]}"
    started_us = time.time_ns() // 1000
    started = time.monotonic()
    tables = _chosen(source.tables(), settings.tables)
    window = DataWindow(open_topics(), decoder, settings.timeout)
    watermarks = open_topics()
    try:
        fences = FenceLog(watermarks, decoder, settings.source, run, settings.timeout)
        parts = Parts(run, source, replica, fences, window, decoder, settings)
        reports = _verified(parts, tables, on_progress)
    except Inconclusive as why:
        reports = [_undecided(table, why.reason) for table in tables]
    finally:
        watermarks.close()
        window.close()
    return Report(run, started_us, time.monotonic() - started, tuple(reports))


def _verified(parts: Parts, tables: Sequence[Table], on_progress: OnProgress) -> list[TableReport]:
    """One table after the other, until capture or the sink stands still: that is waited for once, not for each."""
    reports: list[TableReport] = []
    standstill = ""
    for table in tables:
        if standstill:
            reports.append(_undecided(table, standstill))
            continue
        run = TableRun(parts, table, on_progress)
        reports.append(run.run())
        standstill = run.standstill
    return reports


def _undecided(table: Table, reason: str) -> TableReport:
    return TableReport(str(table.id), "INCONCLUSIVE", reason, 0, 0.0, 0.0)


def _chosen(captured: Sequence[Table], wanted: Sequence[str]) -> list[Table]:
    if not wanted:
        return list(captured)
    by_name = {str(table.id): table for table in captured}
    for name in wanted:
        if name not in by_name:
            raise ConfigError(
                f"table {name} is not captured by this source",
                f"one of: {', '.join(sorted(by_name)) or '(none)'}",
            )
    return [by_name[name] for name in dict.fromkeys(wanted)]

"""One table's verification: digests of everything, hashes of what differs, single keys of what is left."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

from cdc.errors import CdcError
from cdc.protocols import Bucket
from cdc.table import KeyRange, Table
from cdc.verify.ahead import Ahead
from cdc.verify.compare import RowDifference, Suspect, compare_buckets, differing_keys, merged
from cdc.verify.exact import settle
from cdc.verify.inconclusive import Inconclusive, Skipped, Standstill
from cdc.verify.parts import Fencing, Parts
from cdc.verify.plan import Pace
from cdc.verify.repair import repair
from cdc.verify.report import Difference, TableReport, Verdict
from cdc.verify.settings import OnProgress, Phase, Progress

_BUCKETS_AT_ONCE = 20  # of which row hashes are held in memory on both sides
_PARTS_AT_ONCE = 50


class _Chunk(NamedTuple):
    """What the source digested under one fence."""

    after: bytes | None
    buckets: list[Bucket]
    fence: str


@dataclass(slots=True)
class _Tally:
    """How far the table has come; what an early end leaves is still reported."""

    rows: int = 0
    equal_rows: int = 0
    complete: bool = False
    unsettled: int = 0
    differing: dict[bytes, RowDifference] = field(default_factory=dict)
    repaired: dict[bytes, RowDifference] = field(default_factory=dict)
    stopped: str = ""


class TableRun:
    """Verifies one table; ``run`` returns its report and raises nothing but what is no verdict."""

    def __init__(self, parts: Parts, table: Table, on_progress: OnProgress) -> None:
        self._parts = parts
        self._table = table
        self._on_progress = on_progress
        self._tally = _Tally()
        self._estimate = 0
        self._fencing: Fencing | None = None
        self.standstill = ""
        """Why the tables that follow cannot be verified either; empty when they can."""

    def run(self) -> TableReport:
        """All passes, then the repair if it is asked for."""
        started = time.monotonic()
        if not self._table.key:
            return self._report(started, skipped="the table has no key")
        if why_not := self._parts.source.incomparable(self._table):
            return self._report(started, skipped=why_not)
        undecided = ""
        try:
            self._estimate = self._parts.source.estimate(self._table)
            fencing = self._fencing = Fencing(self._parts, self._table)
            self._rows_pass(fencing, self._digest_pass(fencing))
            if self._tally.unsettled:
                undecided = f"{self._tally.unsettled} keys changed at every look"
            if self._parts.settings.repair and self._tally.differing:
                self._repair(fencing)
                undecided = undecided or self._tally.stopped
        except Skipped as why:
            return self._report(started, skipped=why.reason)
        except Inconclusive as why:
            undecided = why.reason
            self.standstill = why.reason if isinstance(why, Standstill) else ""
        except CdcError as error:
            undecided = error.what
        return self._report(started, undecided=undecided)

    def _digest_pass(self, fencing: Fencing) -> list[Suspect]:
        """Digest every range on both sides; the ranges that differ."""
        suspects: list[Suspect] = []
        steps = self._parts.settings.read_ahead
        if steps:
            with Ahead(lambda: self._source_chunks(fencing), steps) as chunks:
                for chunk in chunks:
                    suspects += self._compare(fencing, chunk)
        else:
            with closing(self._source_chunks(fencing)) as chunks:
                for chunk in chunks:
                    suspects += self._compare(fencing, chunk)
        self._tally.complete = True
        return suspects

    def _source_chunks(self, fencing: Fencing) -> Generator[_Chunk, None, None]:
        settings = self._parts.settings
        pace = Pace(settings.chunk_seconds, settings.bucket_rows)
        after: bytes | None = None
        while True:
            fence = fencing.new_id()
            began = time.monotonic()
            with self._parts.source.read(self._table, fence, fencing.opened) as (reader, _):
                whole = KeyRange(after, None)
                buckets = list(reader.digest(whole, settings.bucket_rows, pace.row_limit))
            pace.took(sum(bucket.row_count for bucket in buckets), time.monotonic() - began)
            yield _Chunk(after, buckets, fence)
            after = buckets[-1].upto
            if after is None:
                return

    def _compare(self, fencing: Fencing, chunk: _Chunk) -> list[Suspect]:
        # Whether the fence is void does not matter here: equal sums are equal rows.
        fencing.await_replica(fencing.published(chunk.fence))
        upto = chunk.buckets[-1].upto
        with fencing.replica_read() as (reader, _):
            theirs = reader.digest_at(
                KeyRange(chunk.after, upto), [bucket.upto for bucket in chunk.buckets]
            )
        compared = compare_buckets(chunk.after, chunk.buckets, theirs)
        self._tally.rows += compared.rows
        self._tally.equal_rows += compared.equal_rows
        self._progress("digest")
        return compared.suspects

    def _rows_pass(self, fencing: Fencing, suspects: list[Suspect]) -> None:
        settings = self._parts.settings
        most = _BUCKETS_AT_ONCE * settings.bucket_rows
        open_rows = sum(suspect.rows for suspect in suspects)
        for suspect in merged(suspects, most):
            for key_range in self._pieces(fencing, suspect, most):
                keys = self._unequal_keys(fencing, key_range)
                for first in range(0, len(keys), settings.keys_at_once):
                    if self._enough():
                        return
                    settled = settle(fencing, keys[first : first + settings.keys_at_once])
                    self._tally.differing.update(settled.differing)
                    self._tally.unsettled += len(settled.unsettled)
                self._progress("rows")
            open_rows -= suspect.rows
            self._tally.equal_rows = max(self._tally.equal_rows, self._tally.rows - open_rows)

    def _pieces(self, fencing: Fencing, suspect: Suspect, most: int) -> Iterator[KeyRange]:
        """The range in parts of which each side has about ``most`` rows: the replica may have many more in it."""
        after, upto = suspect.key_range
        if suspect.rows <= most:
            yield suspect.key_range
            return
        while True:
            with fencing.replica_read() as (reader, _):
                buckets = reader.digest(KeyRange(after, upto), most, _PARTS_AT_ONCE * most)
            for bucket in buckets:
                yield KeyRange(after, bucket.upto)
                after = bucket.upto
            if after == upto:
                return

    def _unequal_keys(self, fencing: Fencing, key_range: KeyRange) -> list[bytes]:
        fence = fencing.new_id()
        with self._parts.source.read(self._table, fence, fencing.opened) as (reader, _):
            ours = reader.hashes(key_range)
        fencing.await_replica(fencing.published(fence))
        with fencing.replica_read() as (reader, _):
            theirs = reader.hashes(key_range)
        return differing_keys(ours, theirs)

    def _enough(self) -> bool:
        most = self._parts.settings.max_differences
        if len(self._tally.differing) < most:
            return False
        self._tally.stopped = (
            f"stopped after {len(self._tally.differing)} differences; there may be more"
        )
        return True

    def _repair(self, fencing: Fencing) -> None:
        self._progress("repair")
        found = self._tally.differing
        settled = repair(fencing, list(found))
        self._tally.differing = settled.differing
        self._tally.unsettled += len(settled.unsettled)
        still = settled.differing.keys() | set(settled.unsettled)
        self._tally.repaired = {key: how for key, how in found.items() if key not in still}

    def _progress(self, phase: Phase) -> None:
        self._on_progress(Progress(str(self._table.id), phase, self._tally.rows, self._estimate))

    def _report(self, started: float, *, undecided: str = "", skipped: str = "") -> TableReport:
        tally = self._tally
        differences = self._differences(tally.differing)
        parked = self._fencing.parked if self._fencing else 0
        verdict: Verdict = "DIFF" if differences else "INCONCLUSIVE" if undecided else "OK"
        return TableReport(
            table=str(self._table.id),
            verdict="SKIPPED" if skipped else verdict,
            reason=skipped or undecided or tally.stopped or _of_parked(parked),
            rows_compared=tally.rows,
            coverage=0.0 if skipped else self._coverage(),
            seconds=time.monotonic() - started,
            differences=differences,
            repaired=self._differences(tally.repaired),
            parked=parked,
            columns_skipped=tuple(self._parts.source.not_compared(self._table)),
        )

    def _coverage(self) -> float:
        tally = self._tally
        if not tally.complete:
            return tally.equal_rows / max(self._estimate, tally.rows, 1)
        if not tally.rows:
            return 1.0
        return max(0.0, (tally.equal_rows - tally.unsettled) / tally.rows)

    def _differences(self, found: dict[bytes, RowDifference]) -> tuple[Difference, ...]:
        mask = self._parts.settings.mask
        return tuple(
            Difference(
                key=self._parts.decoder.key_values(self._table, key),
                kind=how.kind,
                columns=how.columns,
                source={} if mask else how.source,
                replica={} if mask else how.replica,
                raw_key=key,
            )
            for key, how in found.items()
        )


def _of_parked(keys: int) -> str:
    return (
        f"{keys} parked keys: cdc deadletter replay, or --repair, brings them back" if keys else ""
    )

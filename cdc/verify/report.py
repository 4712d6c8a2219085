"""What verification found: verdicts, differences, coverage; as JSON and as an exit status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["OK", "DIFF", "INCONCLUSIVE", "SKIPPED"]
Kind = Literal["missing", "extra", "changed"]

EXIT_DIFF = 16
EXIT_INCONCLUSIVE = 32
EXIT_SKIPPED = 64

_BITS: Mapping[Verdict, int] = {
    "OK": 0,
    "DIFF": EXIT_DIFF,
    "INCONCLUSIVE": EXIT_INCONCLUSIVE,
    "SKIPPED": EXIT_SKIPPED,
}
_WORST_FIRST: Sequence[Verdict] = ("DIFF", "INCONCLUSIVE", "SKIPPED", "OK")


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not in the replica as the source has it.

    ``missing`` in the replica, ``extra`` there, or ``changed`` in ``columns``. ``source`` and ``replica`` hold these
    columns' text forms (for missing and extra: every compared column); both empty where values are to be masked.
    ``raw_key`` is the Avro key record.
    """

    key: Mapping[str, Any]
    kind: Kind
    columns: tuple[str, ...]
    source: Mapping[str, str | None]
    replica: Mapping[str, str | None]
    raw_key: bytes

    def to_json(self) -> dict[str, Any]:
        """JSON's shape."""
        return {
            "key": {name: _plain(value) for name, value in self.key.items()},
            "kind": self.kind,
            "columns": list(self.columns),
            "source": dict(self.source),
            "replica": dict(self.replica),
        }


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table's verdict.

    ``reason`` says why it is INCONCLUSIVE or SKIPPED, or what a DIFF leaves out. ``coverage`` is the part of its rows
    that was decided; ``columns_skipped`` are captured columns that were not looked at, being masked in a way that the
    source's server cannot repeat. ``repaired`` are differences that a repair removed: seen again, and equal. ``parked``
    counts keys that the sink keeps out of the replica.
    """

    table: str
    verdict: Verdict
    reason: str
    rows_compared: int
    coverage: float
    seconds: float
    differences: tuple[Difference, ...] = ()
    repaired: tuple[Difference, ...] = ()
    parked: int = 0
    columns_skipped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON's shape."""
        return {
            "table": self.table,
            "verdict": self.verdict,
            "reason": self.reason,
            "rows_compared": self.rows_compared,
            "coverage": self.coverage,
            "seconds": round(self.seconds, 3),
            "differences": [difference.to_json() for difference in self.differences],
            "repaired": [difference.to_json() for difference in self.repaired],
            "columns_skipped": list(self.columns_skipped),
            "parked": self.parked,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The verdicts of one run. ``started_us`` is in microseconds since 1970, UTC."""

    run: str
    started_us: int
    seconds: float
    tables: tuple[TableReport, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of the tables' verdicts; SKIPPED when there is no table at all."""
        found = {table.verdict for table in self.tables}
        return next((verdict for verdict in _WORST_FIRST if verdict in found), "SKIPPED")

    @property
    def exit_status(self) -> int:
        """0 when all is OK; else the bits 16 (DIFF), 32 (INCONCLUSIVE), 64 (SKIPPED) of all verdicts that occur.

        A column that was not looked at counts as SKIPPED too.
        """
        status = 0
        for table in self.tables:
            status |= _BITS[table.verdict]
            if table.columns_skipped:
                status |= EXIT_SKIPPED
        return status if self.tables else EXIT_SKIPPED

    @property
    def rows_compared(self) -> int:
        """Over all tables."""
        return sum(table.rows_compared for table in self.tables)

    @property
    def coverage(self) -> float:
        """The mean of the tables' coverages: a large table does not hide a small one that was left out."""
        if not self.tables:
            return 0.0
        return sum(table.coverage for table in self.tables) / len(self.tables)

    def to_json(self) -> dict[str, Any]:
        """JSON's shape: a contract, keys are only ever added."""
        return {
            "run": self.run,
            "started_us": self.started_us,
            "verdict": self.verdict,
            "coverage": self.coverage,
            "rows_compared": self.rows_compared,
            "seconds": round(self.seconds, 3),
            "tables": [table.to_json() for table in self.tables],
        }


def _plain(value: object) -> object:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, bytes):
        return value.hex()
    return str(value)

"""What a verification run is asked to do, and how much it may cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple


def _any_topic(_: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """``source`` is the source's topic prefix, ``sink`` the name under which the replica keeps its checkpoint.

    ``tables`` (``schema.table``) limits the run; empty means every captured table. ``timeout`` bounds, in seconds,
    each wait for a fence and for the replica. A digest of a chunk takes about ``chunk_seconds`` on the source.
    After ``max_differences`` a table's remaining suspects are not looked at any more.
    ``reads`` says whether the sink reads a topic: the tables of other topics are skipped.
    ``read_ahead`` is how many chunks the source may be ahead of the replica; 0 reads them in turn.
    """

    source: str
    sink: str
    tables: Sequence[str] = ()
    repair: bool = False
    mask: bool = False
    timeout: float = 60.0
    chunk_seconds: float = 0.5
    bucket_rows: int = 1000
    max_differences: int = 1000
    keys_at_once: int = 500
    attempts: int = 5
    read_ahead: int = 2
    reads: Callable[[str], bool] = _any_topic


Phase = Literal["digest", "rows", "repair"]


class Progress(NamedTuple):
    """``rows`` of about ``estimate`` have been digested; 0 when there is no estimate."""

    table: str
    phase: Phase
    rows: int
    estimate: int


OnProgress = Callable[[Progress], None]

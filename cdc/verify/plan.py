"""How large the next chunk is: what the source does in the time budget, by a moving average."""

from __future__ import annotations

_WEIGHT = 0.5  # of the newest measurement
_MOST_BUCKETS = 500
_GROWTH = 4  # at most, from one chunk to the next: the first ones are read from disk


class Pace:
    """Sizes chunks, in whole buckets, so that each takes about ``seconds`` on the source."""

    def __init__(self, seconds: float, bucket_rows: int) -> None:
        self._seconds = seconds
        self._bucket_rows = bucket_rows
        self._rate = 0.0
        self._buckets = min(10, _MOST_BUCKETS)

    @property
    def row_limit(self) -> int:
        """Rows of the next chunk."""
        return self._buckets * self._bucket_rows

    def took(self, rows: int, seconds: float) -> None:
        """A chunk of so many rows was read in so many seconds."""
        if rows <= 0:
            return
        rate = rows / max(seconds, 1e-6)
        self._rate = rate if not self._rate else _WEIGHT * rate + (1 - _WEIGHT) * self._rate
        wanted = int(self._rate * self._seconds / self._bucket_rows)
        self._buckets = max(1, min(wanted, self._buckets * _GROWTH, _MOST_BUCKETS))

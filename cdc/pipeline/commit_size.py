"""How many bytes one commit takes: learnt from what commits cost, a share that is the same for each and one per byte.

Over a slow line most of a commit's time is round trips, however little it carries: making it smaller would only make
more of them. So a commit may last as long as wished, or as long as keeps that share at a fifth, whichever is more.
"""

from __future__ import annotations

_LEAST = 64 * 1024
_FADES = 0.9
"""What an observation counts for after the next one."""
_CARRYING = 4.0
"""How many times the time of its round trips a commit should carry bytes for."""
_GROWTH = 4.0
"""How many times larger than any commit seen of late the next one may be: beyond that nothing is known."""


class CommitSize:
    """``most`` bytes at most; ``seconds`` is how long a commit should last where round trips cost little."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._weight = self._size = self._took = self._size_size = self._size_took = 0.0
        self._largest = float(most)
        self.bytes = most

    def learn(self, size: int, seconds: float) -> None:
        """A commit of so many bytes took so long."""
        self._weight = self._weight * _FADES + 1
        self._size = self._size * _FADES + size
        self._took = self._took * _FADES + seconds
        self._size_size = self._size_size * _FADES + size * size
        self._size_took = self._size_took * _FADES + size * seconds
        self._largest = max(self._largest * _FADES, size)
        each, per_byte = self._costs()
        if per_byte > 0:
            wished = max(self._seconds - each, _CARRYING * each) / per_byte
            self.bytes = int(max(_LEAST, min(wished, self._largest * _GROWTH, self._most)))

    def _costs(self) -> tuple[float, float]:
        """Seconds of any commit, and of each byte: the line of least squares, with neither of them below zero."""
        size, took = self._size / self._weight, self._took / self._weight
        spread = self._size_size / self._weight - size * size
        together = self._size_took / self._weight - size * took
        if spread > 0.01 * size * size and together > 0:
            per_byte = together / spread
            each = took - per_byte * size
            if each >= 0:
                return each, per_byte
        # Commits of one size do not tell the two apart: as if all were per byte, the next ones are of another size.
        return 0.0, took / size if size else 0.0

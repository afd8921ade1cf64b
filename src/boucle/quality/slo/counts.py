"""Good and total per minute, over a window: sums that may be made anywhere and added up in any order."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["MINUTE_MS", "Cell", "Minutes", "minutes_between"]

MINUTE_MS = 60_000

Cell = tuple[int, int, int]
"""A minute since 1970, and how many of how many were good in it (rows, or ms of time)."""


class Minutes:
    """The last `size` minutes; the newest one that was told of is the last of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.newest = -1
        """The newest minute; -1 before the first."""
        self.first = -1
        """The oldest minute that was ever told of, even where it is forgotten."""
        self._cells: NDArray[np.int64] = np.zeros((size, 2), np.int64)
        self._running: NDArray[np.int64] | None = None
        """Sums up to each minute, the oldest first; None: to be made anew."""

    def add(self, minute: int, good: int, total: int) -> None:
        """Count; what is older than the window is forgotten."""
        if not total:
            return
        if self.newest < 0 or minute > self.newest:
            self._advance(minute)
        self.first = minute if self.first < 0 else min(self.first, minute)
        if minute > self.newest - self.size:
            self._cells[minute % self.size] += (good, total)
        self._running = None

    def _advance(self, minute: int) -> None:
        if self.newest < 0 or minute - self.newest >= self.size:
            self._cells[:] = 0
        else:
            self._cells[np.arange(self.newest + 1, minute + 1) % self.size] = 0
        self.newest = minute

    def merge(self, other: "Minutes") -> None:
        """Count what `other` counted."""
        for cell in other.cells():
            self.add(*cell)
        if other.first >= 0:
            self.first = other.first if self.first < 0 else min(self.first, other.first)

    def between(self, first: int, last: int) -> tuple[int, int]:
        """Good and total of the minutes from `first` to `last`, both included."""
        oldest = self.newest - self.size + 1
        first, last = max(first, oldest, 0), min(last, self.newest)
        if self.newest < 0 or last < first:
            return 0, 0
        if self._running is None:
            self._running = np.zeros((self.size + 1, 2), np.int64)
            ordered = self._cells[np.arange(oldest, self.newest + 1) % self.size]
            np.cumsum(ordered, axis=0, out=self._running[1:])
        good, total = (self._running[last - oldest + 1] - self._running[first - oldest]).tolist()
        return good, total

    def cells(self) -> Iterator[Cell]:
        """Every minute in which something was counted, the oldest first."""
        if self.newest < 0:
            return
        minutes = np.arange(max(0, self.newest - self.size + 1), self.newest + 1)
        cells = self._cells[minutes % self.size]
        told = cells[:, 1] != 0
        for minute, (good, total) in zip(minutes[told].tolist(), cells[told].tolist(), strict=True):
            yield minute, good, total


def minutes_between(start: int, until: int, end: int) -> Iterator[Cell]:
    """The time from `start` to `end` (ms), of which what lies before `until` was good, minute by minute."""
    at = start
    while at < end:
        minute = at // MINUTE_MS
        after = min(end, (minute + 1) * MINUTE_MS)
        yield minute, max(0, min(after, until) - at), after - at
        at = after

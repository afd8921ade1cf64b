"""Each row with the row of another stream that was in force at its time."""

import heapq
from collections import deque
from typing import Any, Literal

from msgspec import Struct, msgpack

from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.ports import Traced
from boucle.product.duration import seconds
from boucle.stream.join.sides import LEFT, RIGHT, By, Join
from boucle.stream.origin import Inputs, joined

__all__ = ["AsOfJoin"]


class _Waits(Struct, array_like=True):
    """A left row that waits for the next right one."""

    at: Nanos
    key: bytes
    until: Nanos
    candidate: int


class AsOfJoin(Join):
    """Each left row with one right row of its key: the last at or before it, the first at or after, or the nearest.

    At most `tolerance` away (bound included); forward and nearest need one, it says how long to wait.
    Of several right rows at one instant backward takes the last in canonical order, forward the first; nearest
    prefers the earlier of two equally far. `at` is the left row's, `right_at` that of what was found.
    """

    def __init__(
        self,
        stream: str,
        *,
        left: str,
        right: str,
        by: By,
        tolerance: str | float | None = None,
        direction: Literal["backward", "forward", "nearest"] = "backward",
        kind: Literal["inner", "left"] = "left",
        time: str = "at",
        idle: str | float | None = None,
    ) -> None:
        super().__init__(stream, left=left, right=right, by=by, kind=kind, time=time, idle=idle)
        if direction not in ("backward", "forward", "nearest"):
            fix = "backward, forward or nearest"
            raise BoucleError("B220", f"{stream}: direction {direction!r}", fix=fix)
        if tolerance is None and direction != "backward":
            fix = "give tolerance: a duration"
            raise BoucleError("B220", f"{stream}: {direction} would wait without end", fix=fix)
        self._direction = direction
        self._tolerance = None if tolerance is None else round(seconds(tolerance) * SECOND)
        self._last: dict[bytes, tuple[Nanos, int, int]] = {}
        """Per key the newest instant of the right: when, its first row, its last row."""
        self._waiting: dict[int, _Waits] = {}
        self._by_key: dict[bytes, list[int]] = {}
        self._ends: list[tuple[Nanos, int]] = []
        self._ages: deque[tuple[Nanos, bytes]] = deque()

    @classmethod
    def trace(
        cls, inputs: Inputs, *, left: str, right: str, by: By, time: str = "at", **declared: Any
    ) -> Traced:
        """The columns of both sides; keys and times decide which rows meet."""
        says = f"the {declared.get('direction', 'backward')} row as of its time"
        return joined(inputs, left, right, by, time, both_times=cls.both_times, says=says)

    def on_row(self, side: int, row: int, at: Nanos, key: bytes | None) -> None:
        """A right row is the newest of its key; a left row finds its partner or waits."""
        if key is None:
            if side == LEFT:
                self.found(row, -1, at)
        elif side == RIGHT:
            for left in self._by_key.pop(key, ()):
                if left in self._waiting:
                    self.found(left, row, self._waiting.pop(left).at)
            last = self._last.get(key)
            self._last[key] = (at, last[1] if last and last[0] == at else row, row)
            if self._tolerance is not None:
                self._ages.append((at, key))
        else:
            self._find(row, at, key)

    def _find(self, row: int, at: Nanos, key: bytes) -> None:
        last = self._last.get(key)
        if last and self._tolerance is not None and at - last[0] > self._tolerance:
            last = None
        if self._direction == "backward" or (last and last[0] == at):
            first = self._direction == "forward"
            self.found(row, last[1 if first else 2] if last else -1, at)
            return
        assert self._tolerance is not None
        if self._direction == "forward" or last is None:
            wait = _Waits(at, key, at + self._tolerance, -1)
        else:
            # Equally far is not nearer.
            wait = _Waits(at, key, at + (at - last[0]) - 1, last[2])
        self._waiting[row] = wait
        self._by_key.setdefault(key, []).append(row)
        heapq.heappush(self._ends, (wait.until, row))

    def expire(self, now: Nanos) -> None:
        """Tell left rows that waited in vain; forget right rows that are too old for any."""
        while self._ends and self._ends[0][0] < now:
            _, row = heapq.heappop(self._ends)
            wait = self._waiting.pop(row, None)
            if wait is not None:
                self._by_key[wait.key].remove(row)
                if not self._by_key[wait.key]:
                    del self._by_key[wait.key]
                self.found(row, wait.candidate, wait.at)
        while self._ages and self._tolerance is not None and self._ages[0][0] + self._tolerance < now:
            at, key = self._ages.popleft()
            if key in self._last and self._last[key][0] == at:
                del self._last[key]

    def owed(self) -> Nanos:
        """The time of the oldest left row that waits."""
        waits = next(iter(self._waiting.values()), None)
        return self._sequencer.watermark if waits is None else waits.at

    def tidy(self) -> None:
        """Put away rows that are neither the newest of a key, nor waiting, nor about to be given."""
        found, waits = self._found, self._waiting
        if self._shelves[RIGHT].full(len(self._last) * 2 + len(waits) + len(found)):
            newest = {row for _, first, last in self._last.values() for row in (first, last)}
            candidates = {wait.candidate for wait in waits.values()} | {right for _, right, _ in found}
            self._shelves[RIGHT].keep((newest | candidates) - {-1})
        if self._shelves[LEFT].full(len(waits) + len(found)):
            self._shelves[LEFT].keep([*waits, *(left for left, _, _ in found)])

    def save(self) -> Any:
        """The newest right rows, and the left rows that wait."""
        return list(self._last.items()), list(self._waiting.items()), list(self._ages)

    def load(self, own: Any) -> None:
        """The same; ends and keys follow from the rows that wait."""
        kind = tuple[
            list[tuple[bytes, tuple[int, int, int]]], list[tuple[int, _Waits]], list[tuple[int, bytes]]
        ]
        last, waiting, ages = msgpack.decode(own, type=kind)
        self._last, self._waiting, self._ages = dict(last), dict(waiting), deque(ages)
        self._ends = sorted((wait.until, row) for row, wait in waiting)
        self._by_key = {}
        for row, wait in waiting:
            self._by_key.setdefault(wait.key, []).append(row)

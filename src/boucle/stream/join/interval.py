"""Pairs of rows whose times lie close."""

from collections import deque
from typing import Any, Literal

from msgspec import msgpack

from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.ports import Traced
from boucle.product.duration import seconds
from boucle.stream.join.sides import LEFT, By, Join
from boucle.stream.origin import Inputs, joined

__all__ = ["IntervalJoin"]


def _signed(bound: str | float) -> Nanos:
    if isinstance(bound, str) and bound.startswith("-"):
        return -round(seconds(bound[1:]) * SECOND)
    return round(seconds(bound) * SECOND)


class IntervalJoin(Join):
    """Pairs of rows with equal keys and `lower <= right.at - left.at <= upper`.

    `at` is the later of the two times, `left_at` and `right_at` are theirs. `kind: left` also gives left rows
    that found none, when none can come any more: at left.at + upper (left.at if that is earlier).
    Bounds are durations or seconds, before is negative: `lower: -5s`, `upper: 0`.
    """

    both_times = True

    def __init__(
        self,
        stream: str,
        *,
        left: str,
        right: str,
        by: By,
        lower: str | float,
        upper: str | float,
        kind: Literal["inner", "left"] = "inner",
        time: str = "at",
        idle: str | float | None = None,
    ) -> None:
        super().__init__(stream, left=left, right=right, by=by, kind=kind, time=time, idle=idle)
        self._lower, self._upper = (_signed(bound) for bound in (lower, upper))
        if self._lower > self._upper:
            raise BoucleError(
                "B220", f"{stream}: lower {lower} is above upper {upper}", fix="turn them round"
            )
        # How long a row of each side can still find a partner.
        self._stay = (max(-self._lower, 0), max(self._upper, 0))
        self._queues: tuple[deque[tuple[Nanos, int, bytes | None]], ...] = (deque(), deque())
        self._by_key: tuple[dict[bytes, deque[tuple[Nanos, int]]], ...] = ({}, {})
        self._matched: set[int] = set()

    @classmethod
    def trace(
        cls, inputs: Inputs, *, left: str, right: str, by: By, time: str = "at", **declared: Any
    ) -> Traced:
        """The columns of both sides; keys and times decide which rows meet."""
        says = f"right within {declared.get('lower')} to {declared.get('upper')} of left"
        return joined(inputs, left, right, by, time, both_times=cls.both_times, says=says)

    def on_row(self, side: int, row: int, at: Nanos, key: bytes | None) -> None:
        """Pair the row with the other side's, and keep it for those to come."""
        if key is not None:
            low, high = (self._lower, self._upper) if side == LEFT else (-self._upper, -self._lower)
            for other_at, other in self._by_key[1 - side].get(key, ()):
                if other_at > at + high:
                    break
                if other_at >= at + low:
                    left, right = (row, other) if side == LEFT else (other, row)
                    self._matched.add(left)
                    self.found(left, right, at)
            self._by_key[side].setdefault(key, deque()).append((at, row))
        if key is not None or side == LEFT:
            self._queues[side].append((at, row, key))

    def expire(self, now: Nanos) -> None:
        """Forget rows that nothing to come can match; tell left rows that stayed alone."""
        for side, queue in enumerate(self._queues):
            while queue and queue[0][0] + self._stay[side] < now:
                at, row, key = queue.popleft()
                if key is not None:
                    own = self._by_key[side][key]
                    own.popleft()
                    if not own:
                        del self._by_key[side][key]
                if side == LEFT and row not in self._matched:
                    self.found(row, -1, at + self._stay[side])
                elif side == LEFT:
                    self._matched.discard(row)

    def owed(self) -> Nanos:
        """Nothing: a row is given as soon as the watermark has passed its `at`."""
        return self._sequencer.watermark

    def tidy(self) -> None:
        """Put away rows that are in no queue and not about to be given."""
        for side, queue in enumerate(self._queues):
            if self._shelves[side].full(len(queue) + len(self._found)):
                given = {one[0 if side == LEFT else 1] for one in self._found} - {-1}
                self._shelves[side].keep([*(row for _, row, _ in queue), *given])

    def save(self) -> Any:
        """Queues, and who has a partner."""
        return [list(queue) for queue in self._queues], sorted(self._matched)

    def load(self, own: Any) -> None:
        """Queues; the rows by key follow from them."""
        kind = tuple[list[list[tuple[int, int, bytes | None]]], list[int]]
        queues, matched = msgpack.decode(own, type=kind)
        self._queues, self._matched = tuple(deque(queue) for queue in queues), set(matched)
        self._by_key = ({}, {})
        for side, queue in enumerate(self._queues):
            for at, row, key in queue:
                if key is not None:
                    self._by_key[side].setdefault(key, deque()).append((at, row))

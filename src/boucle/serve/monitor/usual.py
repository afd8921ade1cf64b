"""What is usual for a figure, from its own past: the limits move with it, and chance does not cross them."""

import math
import statistics
from collections import deque

from msgspec import Struct

from boucle.serve.monitor.figures import Figure

__all__ = ["Limits", "Usual"]

_LEAST = 5
"""Windows before anything is called unusual."""
_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""


class Limits(Struct, frozen=True):
    """Between what a figure is usual."""

    low: float
    high: float

    def broken(self, value: float) -> bool:
        """Whether a value lies outside."""
        return value < self.low or value > self.high


class Usual:
    """Median and spread of the last windows; a window that was itself unusual does not widen them."""

    def __init__(self, *, history: int, sigmas: float, effect: float, share: float = 0.0) -> None:
        self._past: deque[float] = deque(maxlen=history)
        self._sigmas, self._effect, self._share = sigmas, effect, share

    def limits(self, figure: Figure) -> Limits | None:
        """Where a figure of this standard error may lie; None while too little is known.

        The greatest of these: `sigmas` times the spread of the past and what sampling does at this many rows,
        `effect`, below which nobody wants to be woken, and `share` of what is usual.
        """
        if len(self._past) < _LEAST:
            return None
        middle = statistics.median(self._past)
        spread = _TO_SIGMA * statistics.median(abs(one - middle) for one in self._past)
        by_chance = 0.0 if math.isnan(figure.error) else figure.error
        chance = self._sigmas * math.hypot(spread, by_chance)
        room = max(chance, self._effect, self._share * abs(middle))
        return Limits(middle - room, middle + room)

    def learn(self, figure: Figure) -> None:
        """A complete window's figure; what lies outside is held to the limit, so that a new level is learnt slowly."""
        if math.isnan(figure.value):
            return
        limits = self.limits(figure)
        value = figure.value
        self._past.append(value if limits is None else min(max(value, limits.low), limits.high))

    def save(self) -> list[float]:
        return list(self._past)

    def load(self, saved: list[float]) -> None:
        self._past.extend(saved)

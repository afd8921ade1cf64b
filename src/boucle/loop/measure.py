"""Rates and durations of the running loop: columns of numbers, never a span per row."""

import math
import threading
import time
from collections import deque

import numpy as np

from boucle.loop.view import Latency

__all__ = ["Meter", "Percentiles"]


class Percentiles:
    """Percentiles over the last `size` values; adding costs a fraction of a microsecond."""

    def __init__(self, size: int = 2048) -> None:
        self._values = np.zeros(size)
        self._count = 0

    def add(self, value: float) -> None:
        """Remember one value."""
        self._values[self._count % len(self._values)] = value
        self._count += 1

    @property
    def count(self) -> int:
        """How many values there ever were."""
        return self._count

    def at(self, *percents: float) -> tuple[float, ...]:
        """The percentiles of the remembered values; NaN when there are none."""
        known = self._values[: min(self._count, len(self._values))]
        if len(known) == 0:
            return tuple(math.nan for _ in percents)
        return tuple(float(value) for value in np.percentile(known, percents))

    def latency(self) -> Latency:
        """p50 and p99, for values given in milliseconds."""
        p50, p99 = self.at(50, 99)
        return Latency(p50, p99, self._count)


class Meter:
    """Rows in and out of one place, their rate over the last seconds, and the time each Block took."""

    def __init__(self) -> None:
        self.rows_in = 0
        self.rows_out = 0
        self.blocks = 0
        self.busy_s = 0.0
        self.micros = Percentiles()
        self._marks: deque[tuple[float, int]] = deque(maxlen=8)
        self._lock = threading.Lock()

    def add(self, rows_in: int, rows_out: int, seconds: float) -> None:
        """One Block was worked on."""
        self.rows_in += rows_in
        self.rows_out += rows_out
        self.blocks += 1
        self.busy_s += seconds
        self.micros.add(seconds * 1e6)

    def rate(self) -> float:
        """Rows in per second of the wall, over the last few seconds."""
        now = time.monotonic()
        with self._lock:
            if not self._marks or now - self._marks[-1][0] >= 0.5:
                self._marks.append((now, self.rows_in))
            (then, rows) = self._marks[0]
            return (self.rows_in - rows) / (now - then) if now - then > 0.2 else 0.0

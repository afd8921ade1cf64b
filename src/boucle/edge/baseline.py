"""What is normal for one sensor, learned from its first windows.

A press strikes about every 1.5 s, so some one-second windows hold a stroke and others none: the
levels have two heaps, and a spread taken around the median alone (MAD) would call the smaller heap
abnormal. The spread here is the distance between the 10th and 90th percentile, which spans both.
"""

import math

import numpy as np
from msgspec import Struct

__all__ = ["Baseline"]

_NORMAL_10_90 = 2.5631
"""Distance between the 10th and 90th percentile of a normal distribution, in standard deviations."""


class Baseline(Struct):
    """A level learned once from `size` values and then kept; `values` is empty once it is learned."""

    size: int
    values: list[float]
    centre: float = math.nan
    spread: float = math.nan

    @property
    def learned(self) -> bool:
        """Whether the level is known."""
        return not math.isnan(self.centre)

    def score(self, value: float, least_spread: float) -> float | None:
        """Robust standard deviations of `value` from the level; None while it is being learned."""
        if not self.learned:
            self.values.append(value)
            if len(self.values) >= self.size:
                low, centre, high = np.percentile(self.values, [10, 50, 90])
                self.centre, self.spread = float(centre), float(high - low) / _NORMAL_10_90
                self.values = []
            return None
        return (value - self.centre) / max(self.spread, least_spread)

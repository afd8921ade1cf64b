"""Evidence that one model is better than another, which may be looked at after every row.

Each observation is a difference of losses within [-1, 1], the acting model's minus the challenger's. A bet on
"the challenger is better by more than the margin" multiplies a capital of 1 by 1 + λ(difference - margin), where λ
depends on the past only. If the challenger is not better, the capital is a non-negative supermartingale, and by
Ville's inequality it ever reaches 1/α with probability α at most, however often one looks (Waudby-Smith and Ramdas,
"Estimating means of bounded random variables by betting", JRSS B 86, 2024; Howard, Ramdas, McAuliffe and Sekhon,
"Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49, 2021). The bet is their
aGRAPA; the interval is their predictable plug-in empirical Bernstein confidence sequence.
"""

import math
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.compiled import compiled

__all__ = ["Evidence"]

Floats = NDArray[np.float64]

_COUNT, _SUM, _SQUARES, _BETTER, _WORSE, _LAMBDAS, _WEIGHTED, _VARIANCE, _PEAK, _TROUGH = range(10)
_MOST = 0.5
"""The largest share of the capital that is put at risk at a time."""


@compiled
def _bet(state: Any, differences: Any, margin: float, alpha: float, limit: float) -> int:
    """Take differences one by one; how many until a capital reached its limit, all when none did.

    State: count, sum and sum of squares; logarithm of the capitals that bet on better and on worse; sums of the
    interval's weights, of weight × difference, and of its variance; the highest each capital ever was.
    """
    for place in range(len(differences)):
        difference = differences[place]
        count = state[_COUNT]
        mean = state[_SUM] / (count + 1.0)
        variance = (0.25 + state[_SQUARES]) / (count + 1.0) - mean * mean
        variance = max(variance, 1e-6)
        for side in range(2):
            sign = 1.0 if side == 0 else -1.0
            edge = sign * mean - margin
            share = edge / (variance + edge * edge) if edge > 0.0 else 0.0
            share = min(share, _MOST)
            at = _BETTER if side == 0 else _WORSE
            state[at] += math.log1p(share * (sign * difference - margin))
            peak = _PEAK if side == 0 else _TROUGH
            state[peak] = max(state[peak], state[at])
        # The interval: differences as x in [0, 1].
        x, centre = (difference + 1.0) / 2.0, (mean + 1.0) / 2.0
        spread = max(variance / 4.0, 1e-6)
        weight = math.sqrt(2.0 * math.log(2.0 / alpha) / (spread * (count + 1.0) * math.log(count + 2.0)))
        weight = min(weight, _MOST)
        state[_LAMBDAS] += weight
        state[_WEIGHTED] += weight * x
        state[_VARIANCE] += 4.0 * (x - centre) ** 2 * (-math.log1p(-weight) - weight) / 4.0
        state[_COUNT] = count + 1.0
        state[_SUM] += difference
        state[_SQUARES] += difference * difference
        if max(state[_BETTER], state[_WORSE]) >= limit:
            return place + 1
    return len(differences)


class Evidence(Struct):
    """What was seen so far of one pair of models; ten numbers, however many rows."""

    alpha: float
    margin: float = 0.0
    state: list[float] = []

    def add(self, differences: Floats) -> int:
        """Look at each difference; how many were taken until the evidence sufficed (all when it does not)."""
        state = np.array(self.state or [0.0] * 10)
        taken = int(
            _bet(state, np.ascontiguousarray(differences, np.float64), self.margin, self.alpha, self.limit)
        )
        self.state = state.tolist()
        return taken

    @property
    def limit(self) -> float:
        """What the logarithm of a capital must reach."""
        return math.log(1.0 / self.alpha)

    @property
    def verdict(self) -> str:
        """`better` or `worse` (the challenger), or nothing while the evidence does not suffice."""
        if not self.state:
            return ""
        if self.state[_PEAK] >= self.limit:
            return "better"
        return "worse" if self.state[_TROUGH] >= self.limit else ""

    @property
    def count(self) -> int:
        """Differences seen."""
        return int(self.state[_COUNT]) if self.state else 0

    def interval(self) -> tuple[float, float]:
        """Where the mean difference lies with probability 1 - α, at all times at once."""
        if not self.state or self.state[_LAMBDAS] <= 0:
            return -1.0, 1.0
        weights = self.state[_LAMBDAS]
        centre = self.state[_WEIGHTED] / weights
        radius = (math.log(2.0 / self.alpha) + self.state[_VARIANCE]) / weights
        return max(-1.0, 2.0 * (centre - radius) - 1.0), min(1.0, 2.0 * (centre + radius) - 1.0)

    def told(self) -> dict[str, float | int]:
        """For a person, and for the registry's history."""
        low, high = self.interval()
        return {
            "pairs": self.count,
            "mean_difference": self.state[_SUM] / self.count if self.count else 0.0,
            "low": low,
            "high": high,
            "alpha": self.alpha,
            "margin": self.margin,
            "log_capital_better": self.state[_PEAK] if self.state else 0.0,
            "log_capital_worse": self.state[_TROUGH] if self.state else 0.0,
        }

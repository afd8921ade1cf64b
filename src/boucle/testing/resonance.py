"""What a blow does to steel: a damped resonance, and the trains of blows that make it ring."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

__all__ = ["Array", "ImpulseTrain", "Resonance", "Wide"]

Array = NDArray[np.float32]
Wide = NDArray[np.float64]


class Resonance:
    """A lightly damped mode: a unit blow answers with h[k] = r^k sin(ω k), k in samples.

    Two poles r·exp(±iω), r = exp(-2π·f·ζ/rate); the state is carried from chunk to chunk.
    """

    def __init__(self, frequency: float, damping: float, rate: float) -> None:
        omega = 2 * math.pi * frequency / rate
        radius = math.exp(-omega * damping)
        self._b = np.array([0.0, radius * math.sin(omega)], dtype=np.float32)
        self._a = np.array([1.0, -2 * radius * math.cos(omega), radius**2], dtype=np.float32)
        self._state: Any = np.zeros(2, dtype=np.float32)

    def ring(self, blows: Array) -> Array:
        """The answer to this chunk's blows and to what still rings of the last ones."""
        answer, self._state = lfilter(self._b, self._a, blows, zi=self._state)
        # Below this it is silence, and denormal numbers would make it slow.
        self._state[np.abs(self._state) < 1e-12] = 0
        rung: Array = answer
        return rung


class ImpulseTrain:
    """The blows of one bearing defect: `order` a shaft turn, each rolling element a little late or early.

    Intervals are independent, (1 + slip)/order turns with slip of 1.5 % r.m.s.: the random-walk model of
    Antoni & Randall (2003), *A stochastic model for simulation and diagnostics of rolling element bearings
    with localized faults*; see Randall & Antoni (2011), *Rolling element bearing diagnostics - a tutorial*,
    MSSP 25, §3.
    """

    slip = 0.015

    def __init__(self, order: float, rng: np.random.Generator) -> None:
        self.order = order
        self._rng = rng
        self._next = float(rng.uniform(0, 1 / order))

    def blows(self, turns: Wide, end: float) -> tuple[NDArray[np.intp], Wide, Wide]:
        """The blows of a chunk: sample index, height (near 1), position in shaft turns.

        `turns` is the shaft angle at every sample, counted from the start of the chunk; `end` where the
        next chunk begins.
        """
        expected = max(0, math.ceil((end - self._next) * self.order * 1.15) + 4)
        intervals = (1 + self.slip * self._rng.standard_normal(expected)) / self.order
        at = self._next + np.concatenate(([0.0], np.cumsum(intervals)))
        inside = int(np.searchsorted(at, end))
        self._next = float(at[inside]) - end
        at = at[:inside]
        heights = 1 + 0.15 * self._rng.standard_normal(inside)
        index = np.minimum(np.searchsorted(turns, at), len(turns) - 1)
        return index, heights, at

"""Where samples and windows lie on the time axis."""

from fractions import Fraction

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.product.duration import seconds

__all__ = ["Grid"]

Ints = NDArray[np.int64]
_LEAST = 16


class Grid(Struct, frozen=True):
    """Where samples and windows lie on the time axis: window n holds samples n·hop … n·hop + size - 1."""

    num: int
    den: int
    """Samples per second, as a fraction."""
    size: int
    """Samples per window."""
    hop: int
    """Samples from the start of a window to the start of the next."""

    @classmethod
    def of(cls, rate_hz: float, window: str | float, every: str | float | None = None) -> "Grid":
        """The grid of a rate and a window, aligned to the epoch; B220 unless both hold whole samples."""
        rate = Fraction(rate_hz).limit_denominator(1000)
        size = _samples(rate, seconds(window))
        hop = size if every is None else _samples(rate, seconds(every))
        if hop > size or hop < 1:
            raise BoucleError(
                "B220",
                f"a window of {window} every {every} leaves samples out",
                fix="let every be at most the window",
            )
        return cls(rate.numerator, rate.denominator, size, hop)

    def sample(self, at: Nanos) -> int:
        """The number of the sample nearest to `at`, in whole numbers so that no precision is lost."""
        return (2 * at * self.num + self.den * SECOND) // (2 * self.den * SECOND)

    def start(self, number: int) -> Nanos:
        """When window `number` begins."""
        return (2 * number * self.hop * self.den * SECOND + self.num) // (2 * self.num)

    def starts(self, numbers: Ints) -> Ints:
        """`start` of many windows."""
        step, rest = divmod(self.hop * self.den * SECOND, self.num)
        if not rest:
            return numbers * step
        return np.array([self.start(number) for number in numbers.tolist()], np.int64)

    def first_open(self, watermark: Nanos) -> int:
        """The first window that does not end by `watermark`."""
        return (watermark * self.num // (self.den * SECOND) - self.size) // self.hop + 1


def _samples(rate: Fraction, length_s: float) -> int:
    size = rate * Fraction(length_s).limit_denominator(1_000_000)
    if size.denominator != 1 or size < _LEAST:
        raise BoucleError(
            "B220",
            f"a window of {length_s} s at {float(rate)} Hz holds {float(size)} samples",
            why="every window must hold the same whole number of samples, 16 or more",
            fix="choose a window that is a whole number of sampling periods",
        )
    return int(size)

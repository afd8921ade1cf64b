"""How far two models agree, row by row, in counts that can be added up: over Blocks, restarts and machines."""

import math
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

__all__ = ["Agreement"]

_BASE = 1.05
"""Ratio of one class of differences to the next: a quantile is right within 5 %."""
_LEAST, _CLASSES = 1e-9, 1024


class Agreement(Struct):
    """Differences of one output between the model that acts and the one in the shadow."""

    tolerance: float = 1e-6
    threshold: float | None = None
    rows: int = 0
    agreed: int = 0
    """Rows whose difference is within the tolerance."""
    raised: int = 0
    """Rows that only the shadow puts at or above the threshold."""
    lowered: int = 0
    """Rows that only the acting model puts at or above the threshold."""
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Of the differences, shadow minus acting, and of their squares."""
    largest: float = 0.0
    classes: dict[int, int] = {}
    """Class of the absolute difference → rows; the class grows by 5 % a step."""

    def add(self, acting: NDArray[np.float64], shadow: NDArray[np.float64]) -> None:
        """Compare the same rows of both."""
        difference = shadow - acting
        size = np.abs(difference)
        self.rows += len(size)
        self.agreed += int((size <= self.tolerance).sum())
        self.sums[0] += float(difference.sum())
        self.sums[1] += float((difference * difference).sum())
        self.largest = max(self.largest, float(size.max(initial=0.0)))
        if self.threshold is not None:
            before, after = acting >= self.threshold, shadow >= self.threshold
            self.raised += int((after & ~before).sum())
            self.lowered += int((before & ~after).sum())
        places = np.ceil(np.log(np.maximum(size, _LEAST) / _LEAST) / math.log(_BASE)).astype(np.int64)
        for place, rows in zip(*np.unique(np.minimum(places, _CLASSES), return_counts=True), strict=True):
            self.classes[int(place)] = self.classes.get(int(place), 0) + int(rows)

    def copy(self) -> "Agreement":
        """The same counts, to be added to."""
        return msgspec.convert(msgspec.to_builtins(self), Agreement)

    def merge(self, other: "Agreement") -> None:
        """Add the rows of another comparison of the same two models."""
        for name in ("rows", "agreed", "raised", "lowered"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.sums = [one + more for one, more in zip(self.sums, other.sums, strict=True)]
        self.largest = max(self.largest, other.largest)
        for place, rows in other.classes.items():
            self.classes[place] = self.classes.get(place, 0) + rows

    def quantile(self, share: float) -> float:
        """The absolute difference that `share` of the rows do not exceed, within 5 %; NaN without rows."""
        if not self.rows:
            return math.nan
        left = math.ceil(share * self.rows)
        for place in sorted(self.classes):
            left -= self.classes[place]
            if left <= 0:
                return 0.0 if place == 0 else min(self.largest, _LEAST * _BASE**place)
        return self.largest

    def told(self) -> dict[str, Any]:
        """For a person."""
        if not self.rows:
            return {"rows": 0}
        return {
            "rows": self.rows,
            "agreement": self.agreed / self.rows,
            "mean_difference": self.sums[0] / self.rows,
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
            "largest": self.largest,
            "raised": self.raised,
            "lowered": self.lowered,
        }

"""What is kept of the scores of one window: counts that can be added, merged and taken back, never the rows.

Scores lie in 512 bins of equal width, cut once more at the threshold, so that whatever is decided there is
exact; the area under the ROC curve is known to within the pairs that share a bin. All sums are integers (a
score counts in steps of 2^-20), so that no order of arrival and no correction leaves a trace in the last bits.
"""

from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["Binary", "Bins", "Errors", "Tally"]

Counts = NDArray[np.int64]

_BINS = 512
_STEP = 2**20


class Bins:
    """The bins of scores in 0 to 1; a score equal to the threshold lies above it."""

    def __init__(self, threshold: float) -> None:
        self.edges = np.unique(np.append(np.linspace(0, 1, _BINS + 1), threshold))
        self.count = len(self.edges) - 1
        self.above = int(np.searchsorted(self.edges, threshold))
        """The first bin that is decided positive."""

    def of(self, scores: NDArray[np.float64]) -> Counts:
        """The bin of each score; scores are within 0 and 1."""
        found = np.searchsorted(self.edges, scores, side="right") - 1
        return np.minimum(found, self.count - 1).astype(np.int64)


class Binary(Struct):
    """A classifier's scores: how many in each bin, and of those with a label how many were positive."""

    scored: Any
    labelled: Any
    positive: Any
    brier: int = 0
    """Sum of the squared errors of the labelled, in steps of 2^-40."""

    @classmethod
    def empty(cls, bins: int) -> "Binary":
        return cls(np.zeros(bins, np.int64), np.zeros(bins, np.int64), np.zeros(bins, np.int64))

    def score(self, where: Counts) -> None:
        """Count scores by their bins."""
        self.scored += np.bincount(where, minlength=len(self.scored))

    def label(
        self, where: Counts, scores: NDArray[np.float64], truth: NDArray[np.float64], sign: int
    ) -> None:
        """Count labels (0 or 1) of scores, or take them back with sign -1."""
        known = np.bincount(where, minlength=len(self.scored))
        positive = np.bincount(where[truth > 0], minlength=len(self.scored))
        self.labelled += sign * known
        self.positive += sign * positive
        off = np.rint(scores * _STEP).astype(np.int64) - truth.astype(np.int64) * _STEP
        self.brier += sign * int((off * off).sum())

    def add(self, other: "Binary", sign: int = 1) -> None:
        """Both together; with sign -1 the other is taken out."""
        self.scored += sign * other.scored
        self.labelled += sign * other.labelled
        self.positive += sign * other.positive
        self.brier += sign * other.brier

    @property
    def rows(self) -> int:
        return int(self.scored.sum())

    @property
    def known(self) -> int:
        """Rows with a label."""
        return int(self.labelled.sum())

    @property
    def mean_square(self) -> float:
        """The Brier score of the labelled rows; NaN without any."""
        return self.brier / _STEP**2 / self.known if self.known else float("nan")

    def save(self) -> tuple[bytes, bytes, bytes, int]:
        return self.scored.tobytes(), self.labelled.tobytes(), self.positive.tobytes(), self.brier

    @classmethod
    def load(cls, saved: Any) -> "Binary":
        scored, labelled, positive = (np.frombuffer(one, np.int64).copy() for one in saved[:3])
        return cls(scored, labelled, positive, saved[3])


class Errors(Struct):
    """A regression's errors: prediction less truth, in the label's unit."""

    rows: int = 0
    known: int = 0
    total: float = 0.0
    absolute: float = 0.0
    square: float = 0.0

    def score(self, where: Counts) -> None:
        self.rows += len(where)

    def label(
        self, where: Counts, scores: NDArray[np.float64], truth: NDArray[np.float64], sign: int
    ) -> None:
        """Count errors, or take them back with sign -1."""
        del where
        off = scores - truth
        self.known += sign * len(off)
        self.total += sign * float(off.sum())
        self.absolute += sign * float(np.abs(off).sum())
        self.square += sign * float((off * off).sum())

    def add(self, other: "Errors") -> None:
        """Both together."""
        self.rows += other.rows
        self.known += other.known
        self.total += other.total
        self.absolute += other.absolute
        self.square += other.square

    def save(self) -> tuple[int, int, float, float, float]:
        return self.rows, self.known, self.total, self.absolute, self.square

    @classmethod
    def load(cls, saved: Any) -> "Errors":
        return cls(*saved)


Tally = Binary | Errors

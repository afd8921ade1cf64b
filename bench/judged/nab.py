"""How the Numenta Anomaly Benchmark judges a detector (Lavin & Ahmad 2015, §III; numenta/NAB, `sweeper` and `scorer`).

Every row from the probationary period on has a worth: inside a window of a true anomaly a detection earns by how early
it is, and only the first one counts; outside it costs, less right after a window than far from one. One threshold for
all files is chosen for the highest total, as NAB does, and the total is placed between telling nothing (0) and
perfection (100).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["PROFILES", "Judged", "Series", "best", "judge", "probation"]

PROFILES = {"standard": (0.11, 1.0), "low_fp": (0.22, 1.0), "low_fn": (0.11, 2.0)}
"""Cost of a false alarm and of a miss; a detection earns up to 1."""


class Series(Struct):
    """One file: its detector's score a row (0 to 1, or any order), and the windows as (first, last) row, inclusive."""

    scores: Any
    windows: Sequence[tuple[int, int]]


class Judged(Struct, frozen=True):
    """The normalised score at one threshold, and what became of the windows and the alarms."""

    score: float
    threshold: float
    found: int
    windows: int
    alarms: int
    """Runs of rows at or above the threshold, after probation."""
    true_alarms: int
    """Those that touch a window."""

    @property
    def precision(self) -> float:
        """Share of the alarms that touch a window; 1 when there are none."""
        return self.true_alarms / self.alarms if self.alarms else 1.0


def probation(rows: int) -> int:
    """Rows that teach and are not judged: 15 % of the file, at most 750."""
    return min(math.floor(0.15 * rows), math.floor(0.15 * 5000))


def sigmoid(place: float) -> float:
    """Worth at a place relative to a window: -1 its start, 0 its end, beyond 0 after it."""
    return -1.0 if place > 3 else 2 / (1 + math.exp(5 * place)) - 1


def worth(rows: int, windows: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Per row: what a detection earns inside a window (1 at its start), or what a false alarm costs (-1 to 0)."""
    found = np.full(rows, -1.0)
    for place, (first, last) in enumerate(windows):
        width = last - first + 1
        until = windows[place + 1][0] if place + 1 < len(windows) else rows
        for row in range(last + 1, until):
            found[row] = sigmoid((row - last) / (width - 1)) if width > 1 else -1.0
    for first, last in windows:
        for row in range(first, last + 1):
            found[row] = sigmoid(-(last - row + 1) / (last - first + 1)) / sigmoid(-1.0)
    return found


class _Prepared(Struct):
    scores: Any
    costs: Any
    """Per row outside windows, else 0; 0 in probation."""
    inside: Any
    """Number of the window, or -1."""
    worth: Any
    windows: int


def _prepare(series: Series) -> _Prepared:
    scores = np.asarray(series.scores, np.float64).copy()
    scores[: probation(len(scores))] = -np.inf
    value = worth(len(scores), series.windows)
    inside = np.full(len(scores), -1)
    for number, (first, last) in enumerate(series.windows):
        inside[first : last + 1] = number
    return _Prepared(scores, np.where(inside < 0, value, 0.0), inside, value, len(series.windows))


def _at(prepared: Sequence[_Prepared], threshold: float, profile: str) -> Judged:
    false, missed = PROFILES[profile]
    total = found = windows = alarms = true = 0.0
    for one in prepared:
        told = one.scores >= threshold
        total += false * float(one.costs[told].sum())
        starts = np.flatnonzero(told & ~np.r_[False, told[:-1]])
        ends = np.flatnonzero(told & ~np.r_[told[1:], False])
        alarms += len(starts)
        true += sum(bool((one.inside[a : b + 1] >= 0).any()) for a, b in zip(starts, ends, strict=True))
        for number in range(one.windows):
            hits = np.flatnonzero(told & (one.inside == number))
            total += float(one.worth[hits[0]]) if len(hits) else -missed
            found += bool(len(hits))
        windows += one.windows
    score = 100 * (total + missed * windows) / ((1 + missed) * windows) if windows else 0.0
    return Judged(score, threshold, int(found), int(windows), int(alarms), int(true))


def judge(series: Sequence[Series], threshold: float, profile: str = "standard") -> Judged:
    """All files at one threshold: an alarm is a score at or above it."""
    return _at([_prepare(one) for one in series], threshold, profile)


def best(series: Sequence[Series], profile: str = "standard", steps: int = 400) -> Judged:
    """The threshold with the highest score, among `steps` of the scores that occur, the high ones closest."""
    prepared = [_prepare(one) for one in series]
    seen = np.unique(np.concatenate([one.scores[np.isfinite(one.scores)] for one in prepared]))[::-1]
    places = (np.unique(np.geomspace(1, max(1, len(seen)), steps).astype(np.int64)) - 1)[: len(seen)]
    tried = [_at(prepared, float(seen[place]), profile) for place in places]
    return max([*tried, _at(prepared, math.inf, profile)], key=lambda one: one.score)

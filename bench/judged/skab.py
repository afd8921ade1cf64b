"""How SKAB judges: outliers row by row, change points by windows that open at each of them.

Written from the definitions of the data set's authors (waico/SKAB, README and notebooks; the scorer they use is part of
TSAD, `chp_score(metric="nab", window_width="60s", anomaly_window_destination="righter")`).
"""

import math
from collections.abc import Sequence

from msgspec import Struct

__all__ = ["PROFILES", "Outliers", "change_points", "outliers", "windows"]

PROFILES = {"standard": (1.0, -0.11, -1.0), "low_fp": (1.0, -0.22, -1.0), "low_fn": (1.0, -0.11, -2.0)}
"""Weights of a detection, a false alarm and a miss (Lavin & Ahmad 2015, as TSAD has them)."""


class Outliers(Struct, frozen=True):
    """F1, and the shares of good rows called bad (FAR) and of bad rows not called (MAR)."""

    f1: float
    far: float
    mar: float


def outliers(truth: Sequence[Sequence[bool]], called: Sequence[Sequence[bool]]) -> Outliers:
    """All rows of all files together, one sequence a file."""
    pairs = [
        (bool(t), bool(c))
        for one, two in zip(truth, called, strict=True)
        for t, c in zip(one, two, strict=True)
    ]
    hit, false = pairs.count((True, True)), pairs.count((False, True))
    missed, quiet = pairs.count((True, False)), pairs.count((False, False))
    return Outliers(
        hit / (hit + (false + missed) / 2) if hit + false + missed else 1.0,
        false / (false + quiet) if false + quiet else 0.0,
        missed / (hit + missed) if hit + missed else 0.0,
    )


def windows(points: Sequence[float], width: float) -> list[tuple[float, float]]:
    """The window after each change point; one that the window before reaches into begins where that ends."""
    found: list[tuple[float, float]] = []
    for point in points:
        begin = max(point, found[-1][1]) if found else point
        found.append((begin, max(point + width, begin)))
    return found


def change_points(
    truth: Sequence[Sequence[float]], told: Sequence[Sequence[float]], profile: str, width: float = 60.0
) -> float:
    """The score of all files together, 0 for telling nothing and 100 for telling each point at once.

    Times in seconds, rising, one sequence a file. The first detection in a window earns from 1 at its start to the
    price of a false alarm at its end, along a tanh; others in it neither earn nor cost.
    """
    hit, false, missed = PROFILES[profile]
    score = 0.0
    for points, alarms in zip(truth, told, strict=True):
        open_ = windows(points, width)
        score += false * sum(not any(low <= at <= high for low, high in open_) for at in alarms)
        for low, high in open_:
            first = next((at for at in alarms if low <= at <= high), None)
            score += missed if first is None else _earned((first - low) / ((high - low) or 1.0), hit, false)
    count = sum(len(points) for points in truth)
    return 100 * (score - missed * count) / ((hit - missed) * count) if count else 0.0


def _earned(share: float, hit: float, false: float) -> float:
    """What a detection earns at a share of its window: `hit` at 0, `false` at 1."""
    across = math.tanh(math.pi * (share - 0.5)) / math.tanh(math.pi / 2)
    return (hit + false) / 2 - (hit - false) / 2 * across

"""Residual charts: when a drift began, and how much of what moved is nobody's.

Cumulative sums (Page 1954) run over the residuals of every slow value, of the common factor of every axis and of what
did not come. A sum grows with what is more than its allowance and falls back to zero otherwise, so the last second at
which it was zero is where the drift began, long before it was big enough to be told (Montgomery, *Introduction to
Statistical Quality Control*, 9.1).

The squared prediction error is what of all shifts together chance does not explain (Q or SPE; MacGregor & Kourti 1995),
each in its own standard deviations; Hotelling's T² is the part of it along the direction in which the load moves
pressure, current and mesh (`boucle.drift.shares`), which is no fault. Without one sensor the error is worked out again
with a limit of its own (Dunia & Qin 1998: identified by reconstruction; contributions smear): when only one sensor's
absence brings it back below its limit, that sensor is the suspect, whatever rule fits or does not.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.clock import SECOND, Nanos
from boucle.drift.evidence import Evidence
from boucle.drift.hypothesis import mesh_band
from boucle.drift.reading import SLOW, Reading, Reference
from boucle.drift.shares import MESH, Shares

__all__ = ["Chart", "Sum", "chart", "cumulate", "onset"]

Wide = NDArray[np.float64]

_LEAST_SHIFT = 0.03
"""ln of amplitude; what a band moves by while the speed wanders."""
_MOST = 60.0
"""A sum grows no further: when a fault ends, its chart should not remember it for hours."""
_ALLOWED = {"slow": 1.0, "axis": 0.05, "lost": 0.01}
"""What passes for chance in one second: standard deviations, ln of amplitude, share of the samples."""


class Sum(Struct):
    """A two-sided cumulative sum, and the last second at which each side was zero."""

    up: float = 0.0
    down: float = 0.0
    up_since: Nanos = 0
    down_since: Nanos = 0

    def add(self, residual: float, allowed: float, at: Nanos) -> None:
        """One more second; one that was not measured changes nothing."""
        if math.isnan(residual):
            return
        self.up = min(max(0.0, self.up + residual - allowed), _MOST * allowed)
        self.down = min(max(0.0, self.down - residual - allowed), _MOST * allowed)
        self.up_since = self.up_since if self.up else at
        self.down_since = self.down_since if self.down else at


def cumulate(sums: dict[str, Sum], reading: Reading, reference: Reference) -> None:
    """Add one second at a known operating point to the sums of every residual."""
    at = reading.at
    for index, name in enumerate(SLOW):
        spread = max(reference.slow_spread[index], 1e-6)
        residual = (reading.slow[index] - reference.slow[index]) / spread
        sums.setdefault(name, Sum()).add(residual, _ALLOWED["slow"], at)
        heard = reference.heard[index]
        lost = 1 - reading.heard[index] / heard if heard else math.nan
        sums.setdefault(f"{name} lost", Sum()).add(lost, _ALLOWED["lost"], at)
    normal = reference.arrays
    weights = normal["weight"]
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = 0.5 * np.log(np.array(reading.bands)) - normal["level"]
        common = ((weights * levels).sum(axis=1) / weights.sum(axis=1)).tolist()
    for axis, (shift, count) in enumerate(zip(common, reading.count, strict=True)):
        whole = abs(count / reference.count - 1) < 0.005
        sums.setdefault(f"{axis}", Sum()).add(shift if whole else math.nan, _ALLOWED["axis"], at)
        sums.setdefault(f"{axis} lost", Sum()).add(1 - count / reference.count, _ALLOWED["lost"], at)


def onset(sums: Mapping[str, Sum], residuals: Sequence[str], at: Nanos) -> Nanos:
    """When the drift of these residuals began: the second after the last zero of the earliest sum that stands.

    `at` where none does.
    """
    begun = [
        since + SECOND
        for name in residuals
        if name in sums
        for height, since in ((sums[name].up, sums[name].up_since), (sums[name].down, sums[name].down_since))
        if height and since
    ]
    return min(begun, default=at)


class Chart(Struct, frozen=True):
    """How much of all that moved is left unexplained at one moment."""

    left: float
    """Squared prediction error over its limit; above 1 something is no chance."""
    load: float
    """T² along the direction of the load, over its limit."""
    without: dict[str, float]
    """Sensor → what is left without it, over the limit without it."""

    @property
    def suspects(self) -> list[str]:
        """The sensors any of which, alone at fault, would explain everything."""
        return [name for name, left in self.without.items() if left <= 1] if self.left > 1 else []

    def numbers(self) -> dict[str, Any]:
        """For the verdict's evidence: everything over its limit, rounded."""
        without = {name: round(left, 2) for name, left in self.without.items()}
        return {"all": round(self.left, 2), "load": round(self.load, 2), "without": without}


def chart(evidence: Evidence, shares: Shares, axes: Sequence[str]) -> Chart:
    """The charts of the moment; `axes` names the sensors of the evidence's axes."""
    sensors, moved, along = _scaled(evidence, shares, axes)
    known = np.isfinite(moved)
    sensors, moved, along = sensors[known], moved[known], along[known]
    if not len(moved):
        return Chart(0.0, 0.0, {})
    left, load = _split(moved, along)
    without = {
        str(name): _split(moved[sensors != name], along[sensors != name])[0]
        for name in dict.fromkeys(sensors)
    }
    return Chart(left, load, without)


def _scaled(e: Evidence, shares: Shares, axes: Sequence[str]) -> tuple[Any, Wide, Wide]:
    """Whose each residual is, how many standard deviations it moved, and how many a load twice as great moves it."""
    chance = np.maximum(e.noise, _LEAST_SHIFT)
    along = np.zeros_like(e.shift)
    place = mesh_band(e)
    along[place] = math.exp(shares[MESH][0]) / chance[place]
    slow_chance = {name: e.slow_limit[name] / 5 for name in SLOW}
    slow_along = {
        name: e.slow_before[name] * math.exp(shares[name][0]) / slow_chance[name] if name in shares else 0.0
        for name in SLOW
    }
    sensors = np.array([*np.repeat(axes, e.shift.shape[1]), *axes, *SLOW])
    moved = [
        (e.shift / chance).ravel(),
        8 * e.mean / e.mean_limit,
        [e.slow[name] / slow_chance[name] for name in SLOW],
    ]
    towards = [along.ravel(), np.zeros(len(axes)), [slow_along[name] for name in SLOW]]
    return sensors, np.concatenate(moved), np.concatenate(towards)


def _split(moved: Wide, along: Wide) -> tuple[float, float]:
    """What is left of the residuals beside the direction of the load, and what lies along it; each over its limit."""
    length = float(along @ along)
    load = float(moved @ along) ** 2 / length if length else 0.0
    left = max(0.0, float(moved @ moved) - load)
    return left / _limit(max(1, len(moved) - 1)), load / _limit(1)


def _limit(number: int) -> float:
    """What chance exceeds once in a million moments (chi squared; Wilson & Hilferty 1931)."""
    spread = 2 / (9 * number)
    return number * (1 - spread + 4.75 * math.sqrt(spread)) ** 3

"""What has moved since the machine was normal: the witnesses, in numbers, before any judgement."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.drift.kernels import rounded, weighed
from boucle.drift.reading import QUIET, SLOW, Reading, Reference, stacked

__all__ = ["SMOOTH", "Evidence", "chance_slow", "least_slow", "weigh"]

SMOOTH = 6
"""Seconds that are looked at together: four strokes at 40 strokes/min, three at 30."""

Wide = NDArray[np.float64]


class Evidence(Struct, frozen=True):
    """The witnesses at one moment. Arrays: first axis the sensor's axes (x, y, z).

    `shift` is the change of ln amplitude per band (0.1 is about 10 %), `noise` its standard deviation
    when nothing has changed; both are NaN for an axis without a whole window in the last seconds.
    """

    shift: Any
    noise: Any
    before: Any
    """ln amplitude per band in the reference."""
    lines: Any
    """(axes, 2) outer and inner race, mean of the last seconds."""
    lines_before: Any
    mean: Any
    """Change of the mean of the raw signal, g."""
    mean_limit: Any
    """Change that is more than chance and more than a sixth of the vibration itself, g."""
    missing: Any
    """Share of the samples that did not come, 0-1."""
    gaps: Any
    """Seconds with samples missing."""
    skew: Any
    """Samples too many (+) or too few (-) per sample, median of the whole seconds."""
    level: Any
    """Present r.m.s. over that of the reference; 0 for a signal that does not move."""
    slow: dict[str, float]
    """Change of each slow value in its unit; NaN when it is not measured."""
    slow_limit: dict[str, float]
    slow_chance: dict[str, float]
    """A standard deviation of each change when nothing happened, in its unit."""
    slow_before: dict[str, float]
    """Each slow value in the reference, in its unit."""
    rough: dict[str, float]
    """The noise of each slow value over that of the reference; 0 for one that stands still."""
    unheard: dict[str, float]
    """Share of the readings of each slow value that did not come, 0-1."""

    def moved(self, name: str) -> bool:
        """Whether a slow value changed by more than chance."""
        return abs(self.slow[name]) > self.slow_limit[name]

    def has_moved(self) -> bool:
        """Whether any band of any axis changed by far more than chance."""
        with np.errstate(invalid="ignore"):
            return bool((np.abs(self.shift) > np.maximum(6 * self.noise, 0.25)).any())

    def numbers(self, axes: Sequence[str]) -> dict[str, Any]:
        """For the verdict's evidence: the numbers as JSON, rounded; null where not measured."""
        width = self.shift.shape[1]
        slow = np.array([*self.slow.values(), *self.slow_limit.values()])
        flat, known = rounded(self.shift, self.lines, self.missing, self.mean, self.skew, slow)
        told = flat.tolist() if known else [one if math.isfinite(one) else None for one in flat.tolist()]
        end, size = len(told) - len(slow), width + self.lines.shape[1] + 3
        rows = [told[begin : begin + size] for begin in range(0, end, size)]
        values = iter(told[end:])
        return {
            "shift": {axis: row[:width] for axis, row in zip(axes, rows, strict=True)},
            "outer_line": {axis: row[width] for axis, row in zip(axes, rows, strict=True)},
            "inner_line": {axis: row[width + 1] for axis, row in zip(axes, rows, strict=True)},
            "mean_shift_g": {axis: row[-2] for axis, row in zip(axes, rows, strict=True)},
            "missing": {axis: row[-3] for axis, row in zip(axes, rows, strict=True)},
            "skew_ppm": {axis: row[-1] for axis, row in zip(axes, rows, strict=True)},
            "slow": {name: next(values) for name in self.slow},
            "slow_limit": {name: next(values) for name in self.slow_limit},
        }


_LEAST = (QUIET, 0.012)
"""g² that has a logarithm, and the least standard deviation of a level: a second of a steady machine's."""
_LEAST_SLOW = {
    "bearing_temperature": 0.8,
    "oil_temperature": 0.8,
    "hydraulic_pressure": 4.0,
    "motor_current": 0.4,
}
"""°C, bar, A: a change smaller than this is nobody's evidence, however steady the value was."""


def weigh(readings: Sequence[Reading], reference: Reference) -> Evidence:
    """Compare the last seconds with the reference; `readings` oldest first, a dozen or so."""
    seen, normal = stacked(readings), reference.arrays
    before = normal["level"]
    shift, noise, lines, mean, slow, noise_now, heard, missing, gaps, skew, last = weighed(
        seen.bands, seen.lines, seen.mean, seen.count, seen.slow, seen.noise, seen.heard, reference.count, SMOOTH,
        before, normal["level_spread"], _LEAST,
    )  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        rough = noise_now / normal["noise"]
        unheard = np.maximum(0, 1 - heard / normal["heard"])
    return Evidence(
        shift=shift,
        noise=noise,
        before=before,
        lines=lines,
        lines_before=normal["lines"],
        mean=mean - normal["mean"],
        mean_limit=normal["mean_limit"],
        missing=missing,
        gaps=gaps,
        skew=skew,
        level=np.sqrt(last / normal["loud"]),
        slow=dict(zip(SLOW, (slow - normal["slow"]).tolist(), strict=True)),
        slow_limit=least_slow(reference),
        slow_chance=chance_slow(reference),
        slow_before=dict(zip(SLOW, reference.slow, strict=True)),
        rough=dict(zip(SLOW, rough.tolist(), strict=True)),
        unheard=dict(zip(SLOW, unheard.tolist(), strict=True)),
    )


_QUIETEST = {
    "bearing_temperature": 0.05,
    "oil_temperature": 0.05,
    "hydraulic_pressure": 0.4,
    "motor_current": 0.1,
}
"""°C, bar, A: what a dozen seconds know of a mean at best; the speed wanders more slowly than they show."""


def chance_slow(reference: Reference) -> dict[str, float]:
    """A standard deviation of the mean of some seconds against the reference, in the unit of each slow value."""
    return {
        name: max(_QUIETEST[name], spread / math.sqrt(SMOOTH) * math.sqrt(1.5))
        for name, spread in zip(SLOW, reference.slow_spread, strict=True)
    }


def least_slow(reference: Reference) -> dict[str, float]:
    """The least change of each slow value that is evidence, in its unit."""
    return {
        name: max(_LEAST_SLOW[name], 5 * spread / math.sqrt(SMOOTH))
        for name, spread in zip(SLOW, reference.slow_spread, strict=True)
    }

"""Means and medians of a dozen seconds, compiled: forty calls on tiny arrays cost more than the rest of a verdict."""

import numpy as np
from numpy.typing import NDArray

from boucle.compiled import compiled

__all__ = ["weighed"]

Wide = NDArray[np.float64]

_WHOLE = 0.005
"""Share of the samples a window may lack (or have too many of) and still tell levels."""
_NEARLY, _SKEWED = 0.98, 0.02


@compiled
def weighed(
    bands: Wide,
    lines: Wide,
    mean: Wide,
    count: Wide,
    slow: Wide,
    noise: Wide,
    heard: Wide,
    full: float,
    recent: int,
) -> tuple[Wide, ...]:
    """Of the seconds (first axis) of `boucle.drift.reading.Seconds`; `recent` of them are the last ones.

    Per axis and band the mean energy of the recent whole windows, NaN where there was none, and how many there were;
    recent means of the lines, means and slow values; the middle of the recent noises; mean number of readings; and
    per axis the share of samples missing, the seconds with gaps, the median of samples too many per sample, and the
    energy of the louder of the last two seconds.
    """
    first = max(0, len(bands) - recent)
    energy, seconds, last = _energies(bands, count, full, first)
    missing, gaps, skew = _samples(count, full)
    told = np.empty(lines.shape[1:])
    for line in range(lines.shape[2]):
        told[:, line] = _means(lines[first:, :, line])
    quiet = np.empty(slow.shape[1])
    for value in range(len(quiet)):
        quiet[value] = _ordered(noise[first:, value])[(len(noise) - first - 1) // 2]
    means, values = _means(mean[first:]), _means(slow[first:])
    return energy, seconds, told, means, values, quiet, _means(heard), missing, gaps, skew, last


@compiled
def _energies(bands: Wide, count: Wide, full: float, first: int) -> tuple[Wide, Wide, Wide]:
    number, axes, width = bands.shape
    energy, seconds, last = np.zeros((axes, width)), np.zeros(axes), np.zeros(axes)
    for axis in range(axes):
        for second in range(first, number):
            if abs(count[second, axis] / full - 1) < _WHOLE and np.isfinite(bands[second, axis]).all():
                seconds[axis] += 1
                energy[axis] += bands[second, axis]
        if seconds[axis]:
            energy[axis] /= seconds[axis]
        else:
            energy[axis] = np.nan
        last[axis] = bands[number - 1, axis].sum()
        before = bands[max(0, number - 2), axis].sum()
        if before > last[axis] or np.isnan(before):
            last[axis] = before
    return energy, seconds, last


@compiled
def _samples(count: Wide, full: float) -> tuple[Wide, Wide, Wide]:
    number, axes = count.shape
    missing, gaps, skew = np.zeros(axes), np.zeros(axes), np.zeros(axes)
    off = np.empty(number)
    for axis in range(axes):
        known = 0
        for second in range(number):
            share = count[second, axis] / full
            missing[axis] += max(0.0, 1 - share)
            gaps[axis] += share < _NEARLY
            if abs(share - 1) < _SKEWED:
                off[known] = share - 1
                known += 1
        if 2 * known >= number:
            ordered = _ordered(off[:known])
            skew[axis] = (ordered[(known - 1) // 2] + ordered[known // 2]) / 2
    return missing / number, gaps, skew


@compiled
def _means(values: Wide) -> Wide:
    """Per column the mean of what is known, NaN where nothing is."""
    found = np.empty(values.shape[1])
    for column in range(values.shape[1]):
        total, known = 0.0, 0
        for row in range(len(values)):
            if np.isfinite(values[row, column]):
                total += values[row, column]
                known += 1
        found[column] = total / known if known else np.nan
    return found


@compiled
def _ordered(values: Wide) -> Wide:
    """From the least to the largest, what is not known last."""
    found = values.copy()
    for place in range(1, len(found)):
        value, index = found[place], place
        while index > 0 and (
            found[index - 1] > value or (np.isnan(found[index - 1]) and not np.isnan(value))
        ):
            found[index] = found[index - 1]
            index -= 1
        found[index] = value
    return found

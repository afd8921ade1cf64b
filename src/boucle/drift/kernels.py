"""Means and medians of a dozen seconds, compiled: forty calls on tiny arrays cost more than the rest of a verdict."""

import numpy as np
from numpy.typing import NDArray

from boucle.compiled import compiled

__all__ = ["alone", "rounded", "weighed"]

Wide = NDArray[np.float64]

_WHOLE = 0.005
"""Share of the samples a window may lack (or have too many of) and still tell levels."""
_NEARLY, _SKEWED = 0.98, 0.02
_HOPS, _STANDS = 0.05, 0.03
"""ln of amplitude: by how much a band moves at least when a tone leaves or enters it, and what both together may."""


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
    level: Wide,
    spread: Wide,
    least: tuple[float, float],
) -> tuple[Wide, ...]:
    """Of the seconds (first axis) of `boucle.drift.reading.Seconds`; `recent` of them are the last ones.

    Per axis and band how far the recent level lies from `level`, NaN where no window was whole, and its standard
    deviation from `spread`, that of one second; `least` are the least energy and deviation. Recent means of the lines,
    means and slow values; the middle of the recent noises; mean number of readings; and per axis the share of samples
    missing, the seconds with gaps, the median of samples too many per sample, and the energy of the louder of the last
    two seconds.
    """
    first = max(0, len(bands) - recent)
    energy, seconds, last = _energies(bands, count, full, first)
    missing, gaps, skew = _samples(count, full)
    shift, chance = np.empty(level.shape), np.empty(level.shape)
    for axis in range(len(level)):
        for band in range(level.shape[1]):
            shift[axis, band] = 0.5 * np.log(_at_least(energy[axis, band], least[0])) - level[axis, band]
            # Seconds that dropouts spoiled are not there to be averaged.
            one = spread[axis, band] / np.sqrt(max(seconds[axis], 1.0))
            chance[axis, band] = _at_least(one, least[1]) * np.sqrt(1.5)
    _over_edges(shift, level)
    told = np.empty(lines.shape[1:])
    for line in range(lines.shape[2]):
        told[:, line] = _means(lines[first:, :, line])
    quiet = np.empty(slow.shape[1])
    for value in range(len(quiet)):
        # The middle second: a second with two strokes in it is rougher than its neighbours.
        quiet[value] = _ordered(noise[first:, value])[(len(noise) - first - 1) // 2]
    means, values = _means(mean[first:]), _means(slow[first:])
    return shift, chance, told, means, values, quiet, _means(heard), missing, gaps, skew, last


@compiled
def rounded(shift: Wide, lines: Wide, missing: Wide, mean: Wide, skew: Wide, slow: Wide) -> tuple[Wide, bool]:
    """Everything an evidence tells in one row, and whether all of it was measured.

    Per axis the shifts, lines and share missing, with three digits, mean with four and skew with one; then `slow`.
    """
    axes, width = shift.shape
    row = width + lines.shape[1] + 3
    out = np.empty(axes * row + len(slow))
    for axis in range(axes):
        begin = axis * row
        for band in range(width):
            out[begin + band] = np.rint(shift[axis, band] * 1e3) / 1e3
        for line in range(lines.shape[1]):
            out[begin + width + line] = np.rint(lines[axis, line] * 1e3) / 1e3
        out[begin + row - 3] = np.rint(missing[axis] * 1e3) / 1e3
        out[begin + row - 2] = np.rint(mean[axis] * 1e4) / 1e4
        out[begin + row - 1] = np.rint(skew[axis] * 1e7) / 1e1
    for value in range(len(slow)):
        out[axes * row + value] = np.rint(slow[value] * 1e3) / 1e3
    known = True
    for value in out:
        known &= np.isfinite(value)
    return out, known


@compiled
def alone(shift: Wide, noise: Wide, least: float, still: float) -> int:
    """The axis that moved by more than `least` while the others stood `still` in the bands it moved in; -1: none."""
    axes, width = shift.shape
    suspect, peak = 0, 0.0
    size = np.zeros((axes, width))
    for axis in range(axes):
        for band in range(width):
            moved = abs(shift[axis, band])
            if moved > _at_least(5 * noise[axis, band], 0.08):
                size[axis, band] = moved
                if moved > peak:
                    suspect, peak = axis, moved
    if not peak > least:
        return -1
    for axis in range(axes):
        for band in range(width):
            beside = abs(shift[axis, band]) - 2 * noise[axis, band]
            if axis != suspect and size[suspect, band] >= 0.5 * peak and beside >= still * peak:
                return -1
    return suspect


@compiled
def _at_least(value: float, least: float) -> float:
    """What is not known stays so."""
    return max(value, least)


@compiled
def _over_edges(shift: Wide, level: Wide) -> None:
    """A tone that lies on the edge of two bands hops between them as the speed wanders: only their sum says anything.

    So it is taken where neighbours move against each other on every axis while what they hold together stands still.
    """
    axes, width = shift.shape
    together = np.empty(axes)
    for band in range(width - 1):
        hops = 0
        for axis in range(axes):
            one, other = shift[axis, band], shift[axis, band + 1]
            both = np.exp(2 * level[axis, band]), np.exp(2 * level[axis, band + 1])
            now = both[0] * np.exp(2 * one) + both[1] * np.exp(2 * other)
            together[axis] = 0.5 * np.log(now / (both[0] + both[1]))
            apart = one * other < 0 and max(abs(one), abs(other)) > _HOPS
            if np.isnan(together[axis]) or (apart and abs(together[axis]) < _STANDS):
                hops += 1
        if hops == axes:
            shift[:, band], shift[:, band + 1] = together, together


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

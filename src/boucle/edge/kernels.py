"""The inner loops of the edge, compiled: one pass over a window where NumPy would take five.

Sums may be taken in any order, though always in the same one on one machine. Loops count from 0 over
a slice: only those are turned into vector instructions (six times as fast, measured with numba 0.68).
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from boucle.compiled import compiled

__all__ = ["centre", "energies", "line_ratios", "line_spectrum", "moments", "powers", "squared_envelope"]

Array = NDArray[np.float32]
Wide = NDArray[np.float64]
Complex = NDArray[np.complex64]

_compiled = partial(compiled, reorder=True)
_SLIPS = 9
_FLOOR_SIDE = 12


@_compiled
def powers(
    spectrum: Complex,
    present: Array,
    scale: np.float32,
    band: tuple[int, int],
    edges: NDArray[np.int64],
    velocity_band: tuple[int, int],
    integral: Array,
) -> tuple[Array, Wide, Wide, Wide]:
    """From the transforms (n, bins): power per bin, r.m.s. within `band`, energy per band, velocity r.m.s.

    `present` (n,) makes up for gaps; `integral` turns a bin of Hann-windowed power into velocity².
    """
    rows, bins = spectrum.shape
    power = np.empty((rows, bins), dtype=np.float32)
    rms, velocity = np.empty(rows), np.empty(rows)
    bands = np.zeros((rows, len(edges) - 1))
    for row in range(rows):
        factor = scale * present[row]
        for k in range(bins):
            value = spectrum[row, k]
            power[row, k] = (value.real * value.real + value.imag * value.imag) * factor
        total = 0.0
        for k in range(band[0], band[1]):
            total += np.float64(power[row, k])
        rms[row] = np.sqrt(total)
        for index in range(len(edges) - 1):
            energy = 0.0
            for k in range(edges[index], edges[index + 1]):
                energy += np.float64(power[row, k])
            bands[row, index] = energy
        total = 0.0
        low = velocity_band[0]
        for k in range(low, velocity_band[1]):
            left, middle, right = spectrum[row, k - 1], spectrum[row, k], spectrum[row, k + 1]
            real = np.float32(0.5) * middle.real - np.float32(0.25) * (left.real + right.real)
            imag = np.float32(0.5) * middle.imag - np.float32(0.25) * (left.imag + right.imag)
            total += np.float64((real * real + imag * imag) * integral[k - low])
        velocity[row] = np.sqrt(total * np.float64(present[row]))
    return power, rms, bands, velocity


@_compiled
def centre(
    samples: Array,
    filled: NDArray[np.uint8],
    rows: NDArray[np.int64],
    covered: NDArray[np.int64],
    wanted: bool,
    higher: bool,
    centred: Array,
    out: Wide,
) -> None:
    """Of each of the `rows`: mean, least and largest sample; with `wanted` the samples less their mean.

    With `higher` also the mean 2nd, 3rd and 4th power of those, and the largest magnitude (columns 3 to 6 of
    `out`). Samples that are not `filled` are left out and 0 in `centred`.
    """
    for place in range(len(rows)):
        held, marks, number = samples[rows[place]], filled[rows[place]], covered[place]
        if number < len(held):
            _quieten(held, marks)
        low, high = _extremes(held.view(np.int32))
        mean = _sum(held, marks, number) / number
        out[place, 0], out[place, 1], out[place, 2] = mean, low, high
        if wanted:
            apart = centred[place]
            for k in range(len(held)):
                apart[k] = np.float32(held[k] - mean)
            if number < len(held):
                for k in range(len(held)):
                    apart[k] *= np.float32(marks[k])
        if higher:
            second, third, fourth = _powers(centred[place])
            out[place, 3], out[place, 4], out[place, 5] = second / number, third / number, fourth / number
            out[place, 6] = max(high - mean, mean - low)


@_compiled
def _quieten(held: Array, marks: NDArray[np.uint8]) -> None:
    """Put a sample that is there into the gaps, which hold anything: it does not move least and largest."""
    known = held[np.argmax(marks)]
    for k in range(len(held)):
        if marks[k] == 0:
            held[k] = known


@_compiled
def _sum(held: Array, marks: NDArray[np.uint8], number: int) -> float:
    total = 0.0
    if number < len(held):
        for k in range(len(held)):
            total += np.float64(held[k]) * np.float64(marks[k])
    else:
        for k in range(len(held)):
            total += np.float64(held[k])
    return total


@_compiled
def _powers(apart: Array) -> tuple[float, float, float]:
    """Sums of squares, third and fourth powers."""
    second, third, fourth = 0.0, 0.0, 0.0
    for k in range(len(apart)):
        value = np.float64(apart[k])
        square = value * value
        second += square
        third += square * value
        fourth += square * square
    return second, third, fourth


@_compiled
def _extremes(bits: NDArray[np.int32]) -> tuple[float, float]:
    """Least and largest of finite float32, as whole numbers of the same order: many comparisons at once."""
    least, most = np.int32(2**31 - 1), np.int32(-(2**31))
    for k in range(len(bits)):
        ordered = np.int32(bits[k] ^ ((bits[k] >> 31) & 0x7FFFFFFF))
        least = min(ordered, least)
        most = max(ordered, most)
    found = np.array([least, most], np.int32)
    found ^= (found >> 31) & 0x7FFFFFFF
    told = found.view(np.float32)
    return np.float64(told[0]), np.float64(told[1])


@_compiled
def energies(
    spectrum: Complex, lows: NDArray[np.int64], highs: NDArray[np.int64], scales: Wide, out: Wide
) -> None:
    """Of each transform the sum of |X|² of the bins from low to high, times its scale."""
    for row in range(spectrum.shape[0]):
        bins = spectrum[row].view(np.float32)
        for band in range(len(lows)):
            inside, energy = bins[2 * lows[band] : 2 * highs[band]], 0.0
            for k in range(len(inside)):
                energy += np.float64(inside[k] * inside[k])
            out[row, band] = energy * scales[row]


@_compiled
def moments(signal: Array) -> tuple[Wide, Wide, Wide]:
    """Of each row (n, size): the largest magnitude, the mean square and the mean fourth power."""
    rows, size = signal.shape
    peak, second, fourth = np.empty(rows), np.empty(rows), np.empty(rows)
    for row in range(rows):
        most = np.float32(0)
        squares, fourths = 0.0, 0.0
        for k in range(size):
            square = signal[row, k] * signal[row, k]
            most = max(most, square)
            squares += np.float64(square)
            fourths += np.float64(square * square)
        peak[row] = np.sqrt(np.float64(most))
        second[row] = squares / size
        fourth[row] = fourths / size
    return peak, second, fourth


@_compiled
def squared_envelope(analytic: Complex) -> Array:
    """|analytic|² less its mean, per row."""
    rows, size = analytic.shape
    squared = np.empty((rows, size), dtype=np.float32)
    for row in range(rows):
        total = 0.0
        for k in range(size):
            value = analytic[row, k]
            square = value.real * value.real + value.imag * value.imag
            squared[row, k] = square
            total += np.float64(square)
        mean = np.float32(total / size)
        for k in range(size):
            squared[row, k] -= mean
    return squared


@_compiled
def line_spectrum(lines: Complex, scale: np.float32) -> Array:
    """Amplitude of the Hann-windowed transform, first and last bin 0."""
    rows, bins = lines.shape
    amplitude = np.zeros((rows, bins), dtype=np.float32)
    for row in range(rows):
        for k in range(1, bins - 1):
            left, middle, right = lines[row, k - 1], lines[row, k], lines[row, k + 1]
            real = np.float32(0.5) * middle.real - np.float32(0.25) * (left.real + right.real)
            imag = np.float32(0.5) * middle.imag - np.float32(0.25) * (left.imag + right.imag)
            amplitude[row, k] = np.sqrt(real * real + imag * imag) * scale
    return amplitude


@_compiled
def line_ratios(envelope: Array, centres: Wide, slip: float, orders: NDArray[np.int64]) -> Wide:
    """Per row the geometric mean over `orders` harmonics of line over local floor, at the slip that fits best.

    `centres` are the lines' frequencies in bins; 0 without harmonics or where there is no envelope at all.
    """
    rows, last = envelope.shape[0], envelope.shape[1] - 1
    best = np.zeros(rows)
    near = np.empty(2 * (_FLOOR_SIDE + 2), dtype=np.float32)
    for row in range(rows):
        logs = np.zeros(_SLIPS)
        alive = orders[row] > 0
        for order in range(1, orders[row] + 1):
            at = order * centres[row]
            inner = int(np.ceil(slip * at)) + 3
            count = 0
            first = max(2, int(np.rint(at)) - inner - _FLOOR_SIDE)
            for k in range(first, min(int(np.rint(at)) + inner + _FLOOR_SIDE, last) + 1):
                if abs(k - at) >= inner and count < len(near):
                    near[count] = envelope[row, k]
                    count += 1
            floor = _median(near, count)
            if not floor > 0:
                alive = False
                break
            for index in range(_SLIPS):
                slipped = 1 + slip * (2.0 * index / (_SLIPS - 1) - 1)
                line = np.float64(envelope[row, int(np.rint(slipped * at))])
                logs[index] += np.log(max(line / floor, 1e-3))
        if alive:
            best[row] = np.exp(logs.max() / orders[row])
    return best


@_compiled
def _median(values: Array, count: int) -> float:
    for index in range(1, count):
        value = values[index]
        place = index
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value
    return (np.float64(values[(count - 1) // 2]) + np.float64(values[count // 2])) / 2

"""The inner loops of the edge, compiled: one pass over a window where NumPy would take five.

Sums may be taken in any order, though always in the same one on one machine.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from boucle.compiled import compiled

__all__ = ["line_ratios", "line_spectrum", "moments", "powers", "squared_envelope"]

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
def line_ratios(envelope: Array, centre: float, slip: float, orders: int) -> Wide:
    """Geometric mean over `orders` harmonics of line over local floor, at the slip that fits best.

    `centre` is the line's frequency in bins; 0 where there is no envelope at all.
    """
    rows, last = envelope.shape[0], envelope.shape[1] - 1
    best = np.zeros(rows)
    near = np.empty(2 * (_FLOOR_SIDE + 2), dtype=np.float32)
    for row in range(rows):
        logs = np.zeros(_SLIPS)
        alive = True
        for order in range(1, orders + 1):
            at = order * centre
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
            best[row] = np.exp(logs.max() / orders)
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

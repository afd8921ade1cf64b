r"""What the edge would tell of a sound second, drawn without its waveform.

A sound press is tones (shaft, gear mesh), the ring of one stroke at most, and white noise. So the transform of a
second is known, bin by bin, but for the noise, whose bins are independent complex Gaussians. With S the transform of
what is no noise, N samples and σ the noise's r.m.s., a band of K bins has, exactly,

    energy = σ²/N · χ'²(2K, λ),  λ = N/σ² · 2/N² · Σ|S|²        one normal and one gamma number

**S.** A tone's phase is known at every moment (`motion`). Moved down by a whole number of Hz it is slow, and a short
transform of 250 points gives its bins near by; it folds the leakage of the window's ends, which is taken out by its
closed form, 1/x - (π/M)/sin(πx/M), and far bins are that leakage alone, J·(1/2 + cot(πx/N)/2i)/N with J what jumps
there. The stroke's ring is a recursion of two poles: its transform over a window is exact, with what rings over the
window's ends. Above 2 kHz, where there is no tone, every tenth bin stands for its neighbours.

**Envelope lines.** The squared envelope's transform is a sum of 2 500 products of Gaussian bins: by the central limit
theorem a complex Gaussian of variance 2500 - q at bin q; a stroke adds a pulse. The ratio of line to floor is then
taken by the edge's own `line_ratio`.

Seconds with samples missing are few; they are worked out from a waveform, by the edge's own `Analyser` (`waveform`).
"""

import math
from functools import cache, partial
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
from msgspec import Struct
from numpy.typing import NDArray

from bench.attribution.motion import TICKS, Build, Moved
from boucle.compiled import compiled
from boucle.edge.spectrum import line_ratio
from boucle.testing.machine import (
    _FLOOR,
    _GEAR,
    _SHAFT,
    BPFI,
    BPFO,
    FRAME,
    GEAR_TEETH,
    RATE,
    SHAFT_PER_STROKE,
)

__all__ = ["BANDS", "Spectra", "drawn", "tones", "waveform"]

BANDS = (10, 27, 80, 300, 600, 1000, 2000, 3600, 4500)
"""Edges in Hz, a bin each: the default of `boucle.edge.Reduce`."""
_SIZE = round(RATE)
_PIECES = 250
"""Points of the short transforms: pieces of 40 samples, so that a tick is 25 of them."""
_NEAR = 120
_LOW, _HIGH = 600, 2000
"""Bins up to which the shaft's tones, and gear and stroke, are told bin by bin."""
_STEP = 10
"""Bins from one to the next above, where only leakage is."""
_ENVELOPE = (2000, 4500)
_LINES = 460
"""Bins of the envelope spectrum that a line or its floor can lie in: three times BPFI at 41 strokes/min."""
_TONES = 5
"""Three harmonics of the shaft, the gear mesh and its harmonic."""

Wide = NDArray[np.float64]
Complex = NDArray[np.complex128]


class Spectra(Struct, frozen=True):
    """Of each second: (n, axes, 8) g², (n, axes) means in g, and (n, axes, 2) line ratios."""

    bands: Any
    mean: Any
    lines: Any


class _Ring(Struct, frozen=True):
    """The frame's mode: its recursion, and what follows from it bin by bin."""

    gain: float
    back: tuple[float, float]
    answer: Any
    """1/(1 + a1 w + a2 w²) per bin."""
    pulse: Any
    """Σ P[k + q]·P*[k] over the envelope's band, P the transform of a blow of 1 g at 0."""


compiled_freely = partial(compiled, reorder=True)


@cache
def _ring() -> _Ring:
    frequency, damping = FRAME
    omega = 2 * math.pi * frequency / RATE
    radius = math.exp(-omega * damping)
    gain, back = radius * math.sin(omega), (-2 * radius * math.cos(omega), radius**2)
    w = np.exp(-2j * np.pi * np.arange(_SIZE // 2) / _SIZE)
    answer = 1 / (1 + back[0] * w + back[1] * w * w)
    low, high = _ENVELOPE
    blow = (gain * w * answer)[low:high]
    pulse = np.array([np.vdot(blow[: len(blow) - q], blow[q:]) for q in range(_LINES)])
    return _Ring(gain, back, answer, pulse)


def drawn(press: Build, seconds: Moved, seed: int) -> Spectra:
    """What the edge tells of whole seconds of a sound press."""
    rng = np.random.default_rng(seed)
    energy, mean = tones(press, seconds)
    relative = (seconds.before + seconds.after) / 2 / press.nominal
    noise = ((_FLOOR * (0.4 + 0.6 * relative)) ** 2).mean(axis=1)
    widths = np.diff(BANDS)
    centre = np.sqrt(energy * (_SIZE / noise)[:, None, None])
    chi = (rng.standard_normal(energy.shape) + centre) ** 2
    chi += 2 * rng.standard_gamma(np.broadcast_to(widths - 0.5, energy.shape))
    bands = chi * (noise / _SIZE)[:, None, None]
    mean = mean + rng.standard_normal(mean.shape) * np.sqrt(noise / _SIZE)[:, None]
    return Spectra(bands, mean, _lines(press, seconds, noise, rng))


def _lines(press: Build, seconds: Moved, noise: Wide, rng: np.random.Generator) -> Wide:
    """Ratio of the defect lines to their floor, as the edge takes them."""
    count, axes = len(noise), len(press.transmission)
    low, high = _ENVELOPE
    products = rng.standard_normal((count, axes, _LINES), dtype=np.float32) + np.complex64(
        1j
    ) * rng.standard_normal((count, axes, _LINES), dtype=np.float32)
    products *= np.sqrt((high - low - np.arange(_LINES)) / 2).astype(np.float32)
    struck = np.flatnonzero(seconds.struck >= 0)
    turned = np.exp(-2j * np.pi * np.outer(seconds.struck[struck], np.arange(_LINES)) / _SIZE)
    pulse = _ring().pulse
    for axis, frame in enumerate(press.transmission[:, 2]):
        # In units of the noise's energy per bin: the blow with itself, and with the noise around it.
        blow = (frame * seconds.blow[struck]) ** 2 / (_SIZE * noise[struck])
        beside = np.sqrt(2 * blow * pulse[0].real) * rng.standard_normal(len(struck))
        products[struck, axis] += turned * (blow[:, None] * pulse + beside[:, None])
    products[:, :, 0] = 0  # the mean is taken off
    flat = products.reshape(count * axes, _LINES)
    amplitude = np.zeros((count * axes, _LINES), np.float32)
    amplitude[:, 1:-1] = np.abs(flat[:, 1:-1] / 2 - (flat[:, :-2] + flat[:, 2:]) / 4)
    shaft = np.nan_to_num(np.repeat(seconds.speed, axes)) / 60 * SHAFT_PER_STROKE
    told = [line_ratio(amplitude, 1.0, order * shaft) for order in (BPFO, BPFI)]
    ratios: Wide = np.stack(told, axis=-1).reshape(count, axes, 2)
    ratios[np.isnan(seconds.speed)] = np.nan
    return ratios


def tones(press: Build, seconds: Moved) -> tuple[Wide, Wide]:
    """Energy per axis and band (g²), and mean (g), of everything but the noise."""
    count, axes = len(seconds.struck), len(press.transmission)
    slow = np.empty((count, _TONES, _PIECES), np.complex128)
    ends = np.empty((count, _TONES, 2), np.complex128)
    at, off = np.empty((count, _TONES)), np.empty((count, _TONES, 2))
    _slow_tones(
        seconds.before, seconds.after, seconds.crank, seconds.load, press.nominal, slow, ends, at, off
    )
    near = scipy.fft.fft(slow, axis=-1, overwrite_x=True) / _PIECES
    ring = _ring()
    weights = np.empty((axes, _TONES), np.complex128)
    weights[:, :3] = press.transmission[:, :1] * np.array(_SHAFT) * np.exp(-1j * press.phases)
    weights[:, 3:] = press.transmission[:, 1:2] * np.array(_GEAR)
    energy, mean = np.zeros((count, axes, len(BANDS) - 1)), np.zeros((count, axes))
    _energies(
        near, ends, at, off, weights, press.transmission[:, 2].copy(), seconds.struck, seconds.blow,
        seconds.rings, ring.gain, np.array(ring.back), ring.answer, np.array(BANDS), energy, mean,
    )  # fmt: skip
    return energy, mean


@compiled
def _slow_tones(
    before: Wide,
    after: Wide,
    crank: Wide,
    load: Wide,
    nominal: float,
    slow: Complex,
    ends: Complex,
    at: Wide,
    off: Wide,
) -> None:
    """The tones moved down to 0 Hz by `at` Hz each, `off` how far from it they are; and their values at both ends."""
    pieces = _PIECES // TICKS
    for second in range(len(before)):
        turned = 0.0
        for tick in range(TICKS):
            turned += (before[second, tick] + after[second, tick]) / 2 / TICKS / 60 * SHAFT_PER_STROKE
        shaft, mesh = np.rint(turned), np.rint(turned * GEAR_TEETH)
        first, last = before[second, 0] / 60 * SHAFT_PER_STROKE, after[second, -1] / 60 * SHAFT_PER_STROKE
        for tone in range(_TONES):
            order = tone + 1 if tone < 3 else tone - 2
            times = order if tone < 3 else order * GEAR_TEETH
            at[second, tone] = order * (shaft if tone < 3 else mesh)
            off[second, tone, 0] = times * first - at[second, tone]
            off[second, tone, 1] = times * last - at[second, tone]
        for tick in range(TICKS):
            begun, ended = before[second, tick] / 60, after[second, tick] / 60
            relative = (begun + ended) * 30 / nominal
            for place in range(-1, pieces + 1):
                if (place < 0 and tick > 0) or (place == pieces and tick < TICKS - 1):
                    continue
                # Seconds since the tick began: the middle of a piece, or an end of the window.
                t = min(max(place + 0.5, 0.0), float(pieces)) / _PIECES
                angle = crank[second, tick] + begun * t + (ended - begun) * TICKS / 2 * t * t
                time = tick / TICKS + t
                unit = np.exp(2j * np.pi * (SHAFT_PER_STROKE * angle - shaft * time))
                one = relative**2 * unit
                gear = np.exp(2j * np.pi * (SHAFT_PER_STROKE * GEAR_TEETH * angle - mesh * time))
                strength = relative * (0.4 + 0.6 * load[second, tick]) * (1 + 0.2 * np.cos(2 * np.pi * angle))
                values = (one, one * unit, one * unit * unit, strength * gear, strength * gear * gear)
                for tone in range(_TONES):
                    if place < 0:
                        ends[second, tone, 0] = values[tone]
                    elif place == pieces:
                        ends[second, tone, 1] = values[tone]
                    else:
                        slow[second, tone, tick * pieces + place] = values[tone]


@compiled_freely
def _leaks(
    first: complex, last: complex, begun: float, ended: float, out: Complex, start: int, step: int
) -> None:
    """Adds what the window's ends leak of a tone that is `first` and `last` there, at `begun` and `ended` Hz.

    `out` are the bins from `start` on, `step` apart. Each end is J·(1/2 + cot(πx/N)/2i)/N at x bins.
    """
    half = (first - last) / (2 * _SIZE)
    turn = np.pi / _SIZE
    for k in range(len(out)):
        one, other = start + step * k - begun, start + step * k - ended
        # Only while the speed changes by a lot within the second does an end lie so near to a far bin.
        one = turn * (max(one, 0.5) if one > 0 else min(one, -0.5))
        other = turn * (max(other, 0.5) if other > 0 else min(other, -0.5))
        early = (1 / one - one * (1 / 3 + one * one * (1 / 45 + one * one * (2 / 945)))) / (2 * _SIZE)
        late = (1 / other - other * (1 / 3 + other * other * (1 / 45 + other * other * (2 / 945)))) / (
            2 * _SIZE
        )
        real = first.imag * early - last.imag * late + half.real
        imag = last.real * late - first.real * early + half.imag
        out[k] += real + 1j * imag


@compiled
def _bins(near: Complex, ends: Complex, at: float, off: Wide, half: Complex, out: Complex) -> None:
    """Adds a tone's transform, over N, to the bins of `out`, which begin at 0 Hz."""
    middle, first, last = int(at), ends[0], ends[1]
    low, high = max(middle - _NEAR, 0), min(middle + _NEAR, len(out))
    if low > 0:
        _leaks(first, last, at + off[0], at + off[1], out[:low], 0, 1)
    if high < len(out):
        _leaks(first, last, at + off[0], at + off[1], out[max(high, 0) :], max(high, 0), 1)
    jump, mean = first - last, (off[0] + off[1]) / 2
    for k in range(low, high):
        q = k - middle
        x = q - mean
        # The pieces' middles lie half a piece after their starts.
        value = near[q % _PIECES] * half[q % _PIECES]
        if abs(x) > 1e-4:
            folded = 1 / x - (np.pi / _PIECES) / np.sin(np.pi * x / _PIECES)
            value += jump * folded / (2j * np.pi)
        out[k] += value + 0.5 * jump / _SIZE


@compiled
def _energies(
    near: Complex,
    ends: Complex,
    at: Wide,
    off: Wide,
    weights: Complex,
    frame: Wide,
    struck: NDArray[np.int64],
    blow: Wide,
    rings: Wide,
    gain: float,
    back: Wide,
    answer: Complex,
    edges: NDArray[np.int64],
    energy: Wide,
    mean: Wide,
) -> None:
    axes = len(frame)
    shaft, images = np.zeros((3, _LOW), np.complex128), np.zeros((3, _LOW), np.complex128)
    gear, ring = np.zeros(_HIGH, np.complex128), np.zeros(_HIGH, np.complex128)
    far = np.zeros((edges[-1] - _HIGH) // _STEP, np.complex128)
    far_ring = np.zeros_like(far)
    w = np.exp(-2j * np.pi * np.arange(_SIZE) / _SIZE)
    turned = np.arange(_PIECES)
    half = np.exp(-1j * np.pi * np.where(turned > _PIECES // 2, turned - _PIECES, turned) / _PIECES)
    ratio = (weights[0, 4] / weights[0, 3]).real
    for second in range(len(struck)):
        shaft[:], images[:], gear[:], far[:] = 0, 0, 0, 0
        for tone in range(_TONES):
            scale = 1.0 if tone < 4 else ratio
            tone_ends, tone_at, tone_off = ends[second, tone] * scale, at[second, tone], off[second, tone]
            out = shaft[tone] if tone < 3 else gear
            _bins(near[second, tone] * scale, tone_ends, tone_at, tone_off, half, out)
            # The conjugate half of a real tone, at minus its frequency, leaks as well.
            image = images[tone] if tone < 3 else gear
            first, last = np.conj(tone_ends[0]), np.conj(tone_ends[1])
            _leaks(first, last, -tone_at - tone_off[0], -tone_at - tone_off[1], image, 0, 1)
            if tone >= 3:
                _leaks(
                    tone_ends[0],
                    tone_ends[1],
                    tone_at + tone_off[0],
                    tone_at + tone_off[1],
                    far,
                    _HIGH,
                    _STEP,
                )
                _leaks(first, last, -tone_at - tone_off[0], -tone_at - tone_off[1], far, _HIGH, _STEP)
        lost = rings[second, 0] - rings[second, 1]
        _ring_bins(struck[second], blow[second], lost, gain, back, answer, w, 0, 1, ring)
        _ring_bins(struck[second], blow[second], lost, gain, back, answer, w, _HIGH, _STEP, far_ring)
        for axis in range(axes):
            total = ring[0].real * frame[axis] + weights[axis, 3].real * gear[0].real / 2
            for tone in range(3):
                total += (weights[axis, tone] * shaft[tone, 0]).real
            mean[second, axis] = total
        _low_bands(shaft, images, gear, ring, weights, frame, edges, energy[second])
        _high_bands(gear, ring, weights, frame, edges, energy[second])
        for band in range(len(edges) - 3, len(edges) - 1):
            begin, end = (edges[band] - _HIGH) // _STEP, (edges[band + 1] - _HIGH) // _STEP
            for axis in range(axes):
                value = weights[axis, 3].real / 2 * far[begin:end] + frame[axis] * far_ring[begin:end]
                energy[second, axis, band] = 2 * _STEP * (np.abs(value) ** 2).sum()


@compiled_freely
def _low_bands(
    shaft: Complex,
    images: Complex,
    gear: Complex,
    ring: Complex,
    weights: Complex,
    frame: Wide,
    edges: NDArray[np.int64],
    energy: Wide,
) -> None:
    for axis in range(len(frame)):
        one, two, three = weights[axis, 0] / 2, weights[axis, 1] / 2, weights[axis, 2] / 2
        strength = weights[axis, 3].real / 2
        for band in range(len(edges) - 5):
            found = 0.0
            for k in range(edges[band], edges[band + 1]):
                value = strength * gear[k] + frame[axis] * ring[k]
                value += one * shaft[0, k] + two * shaft[1, k] + three * shaft[2, k]
                value += (
                    np.conj(one) * images[0, k] + np.conj(two) * images[1, k] + np.conj(three) * images[2, k]
                )
                found += value.real * value.real + value.imag * value.imag
            energy[axis, band] = 2 * found


@compiled_freely
def _high_bands(
    gear: Complex, ring: Complex, weights: Complex, frame: Wide, edges: NDArray[np.int64], energy: Wide
) -> None:
    """Where no tone of the shaft is, axes only differ by how much of gear and frame they feel."""
    for band in range(len(edges) - 5, len(edges) - 3):
        own, rung, both = 0.0, 0.0, 0.0
        for k in range(edges[band], edges[band + 1]):
            own += gear[k].real * gear[k].real + gear[k].imag * gear[k].imag
            rung += ring[k].real * ring[k].real + ring[k].imag * ring[k].imag
            both += gear[k].real * ring[k].real + gear[k].imag * ring[k].imag
        for axis in range(len(frame)):
            strength, feels = weights[axis, 3].real / 2, frame[axis]
            energy[axis, band] = 2 * (strength**2 * own + feels**2 * rung + 2 * strength * feels * both)


@compiled
def _ring_bins(
    struck: int,
    blow: float,
    lost: Wide,
    gain: float,
    back: Wide,
    answer: Complex,
    w: Complex,
    start: int,
    wide: int,
    out: Complex,
) -> None:
    """The frame's transform over the window, over N: its blow, what rang before less what rings on."""
    if struck < 0 and lost[0] == 0 and lost[1] == 0:
        out[:] = 0
        return
    constant = -back[0] * lost[0] - back[1] * lost[1]
    height = gain * blow if struck >= 0 else 0.0
    place, step = 0, 0
    if struck >= 0:
        place, step = start * (struck + 1) % _SIZE, wide * (struck + 1) % _SIZE
    for index in range(len(out)):
        k = start + wide * index
        out[index] = answer[k] * (height * w[place] + constant - back[1] * lost[0] * w[k]) / _SIZE
        place += step
        if place >= _SIZE:
            place -= _SIZE


def waveform(
    press: Build, seconds: Moved, which: int, noise: np.random.Generator | None
) -> NDArray[np.float32]:
    """The 10 kHz waveform (axes, samples) of one second, as `Machine` makes it; without `noise` only its tones."""
    t = np.arange(_SIZE // TICKS) / RATE
    begun, ended = seconds.before[which, :, None], seconds.after[which, :, None]
    crank = seconds.crank[which, :, None] + (begun * t + (ended - begun) * TICKS / 2 * t * t) / 60
    relative = np.broadcast_to((begun + ended) / 2 / press.nominal, crank.shape).ravel()
    load = np.broadcast_to(seconds.load[which, :, None], crank.shape).ravel()
    angle = 2 * np.pi * crank.ravel()
    blows = np.zeros(_SIZE)
    if seconds.struck[which] >= 0:
        blows[seconds.struck[which]] = seconds.blow[which]
    ring = _ring()
    left = seconds.rings[which, 0]
    state = [-ring.back[0] * left[0] - ring.back[1] * left[1], -ring.back[1] * left[0]]
    rung, _ = scipy.signal.lfilter([0.0, ring.gain], [1.0, *ring.back], blows, zi=np.array(state))
    strength = relative * (0.4 + 0.6 * load) * (1 + 0.2 * np.cos(angle))
    mesh = GEAR_TEETH * SHAFT_PER_STROKE * angle
    gear = strength * (_GEAR[0] * np.cos(mesh) + _GEAR[1] * np.cos(2 * mesh))
    made = []
    for axis, (shaft, gears, frame, _) in enumerate(press.transmission):
        turns = sum(
            amplitude * np.cos((harmonic + 1) * SHAFT_PER_STROKE * angle - press.phases[axis, harmonic])
            for harmonic, amplitude in enumerate(_SHAFT)
        )
        made.append(shaft * relative**2 * turns + gears * gear + frame * rung)
    wave = np.array(made)
    if noise is not None:
        wave += noise.standard_normal(wave.shape) * _FLOOR * (0.4 + 0.6 * relative)
    return wave.astype(np.float32)

"""The analysis the tests hold the physics against: plain NumPy, one long window."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boucle.testing.machine import RATE, Machine
from boucle.testing.scenario import Fault, Scenario

Signal = NDArray[Any]


def press(*faults: Fault, seed: int = 1, speed: float = 40.0, load: float = 1.0) -> Machine:
    """A press that has run at `speed` long enough to have settled."""
    machine = Machine("press-1", 0, Scenario(machines=("press-1",), faults=faults, load=load), seed)
    machine.setpoint = speed
    for _ in range(100):
        machine.step(1000)
    return machine


def worn(kind: Any, severity: float, growth: float = 0) -> Fault:
    return Fault(machine="press-1", kind=kind, onset=0, severity=severity, growth=growth)


def waves(machine: Machine, seconds: float = 6) -> Signal:
    """x, y, z in g."""
    return np.concatenate([machine.step(1000)[0] for _ in range(round(seconds * 10))], axis=1)


def power(signal: Signal) -> tuple[Signal, Signal]:
    """Frequencies and one-sided power per bin; its sum is the mean square."""
    count = signal.shape[-1]
    spectrum = np.fft.rfft(signal - signal.mean(-1, keepdims=True))
    return np.fft.rfftfreq(count, 1 / RATE), 2 * np.abs(spectrum) ** 2 / count**2


def velocity(signal: Signal) -> Signal:
    """mm/s r.m.s., 10-1000 Hz, of acceleration in g (ISO 20816)."""
    frequency, bins = power(signal)
    inside = (frequency >= 10) & (frequency <= 1000)
    scale = (9.80665 * 1000 / (2 * np.pi * frequency[inside])) ** 2
    level: Signal = np.sqrt((bins[..., inside] * scale).sum(-1))
    return level


def band(signal: Signal, low: float, high: float) -> Signal:
    """r.m.s. between two frequencies, g."""
    frequency, bins = power(signal)
    level: Signal = np.sqrt(bins[..., (frequency >= low) & (frequency < high)].sum(-1))
    return level


def envelope(signal: Signal, low: float = 2000, high: float = 4500) -> tuple[Signal, Signal]:
    """The spectrum of the squared envelope of a band."""
    count = signal.shape[-1]
    spectrum = np.fft.fft(signal)
    frequency = np.fft.fftfreq(count, 1 / RATE)
    spectrum[(frequency < low) | (frequency > high)] = 0
    squared = np.abs(np.fft.ifft(2 * spectrum)) ** 2
    return np.fft.rfftfreq(count, 1 / RATE), np.abs(np.fft.rfft(squared - squared.mean()))


def rms(signal: Signal) -> Signal:
    level: Signal = np.sqrt((signal.astype(float) ** 2).mean(-1))
    return level

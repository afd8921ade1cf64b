"""A sensor between the machine and its number: what it adds when it goes wrong.

With x the true signal, r the ramp 0…1 of the fault and `to` its size at r = 1:

    gain      x·(1 + (to - 1)·r)              a charge amplifier or crystal that loses sensitivity
    offset    x + to·r                        a bias that shifts, in the sensor's unit
    stuck     the last value, for ever        a frozen converter
    noise     x + to·r·N(0, 1)                a broken shield; `to` in the sensor's unit, r.m.s.
    dropout   a fraction to·r of the chunks is missing, about three in a row: a bad connector
    loose     (1 - r·to)·x + r·to·m(x)        a stud that works loose: the mounting resonance falls from
              tens of kHz to 900 Hz, so m is a resonant 2-pole low-pass (Q = 3) of x with rattle on it,
              noise of a third of |m|; ISO 5348 describes mounting resonances
    clock     timestamps run to·r parts per million too fast; the skew adds up and stays

They apply in the order loose, gain, offset, noise, stuck, dropout, clock: what happens at the mounting
comes before what happens in the electronics. The value a clock fault gives is right; its time is not.
"""

import math
from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.signal import lfilter

from boucle.testing.machine import RATE
from boucle.testing.scenario import Fault

__all__ = ["Instrument", "Reading"]

Signal: TypeAlias = NDArray[Any]
"""float32 samples of a chunk, or one float64 value of a scan."""

_ORDER = ("loose", "gain", "offset", "noise", "stuck", "dropout", "clock")
_MOUNTING = (900.0, 3.0)  # Hz, Q
_GAP = 3.0  # mean chunks missing in a row


class Reading(Struct, frozen=True):
    """What came out of a sensor for one chunk or scan; `shift` is its clock error in nanoseconds."""

    values: Signal
    shift: int


class Instrument:
    """One sensor of one machine, with the faults the scenario gives it."""

    def __init__(self, faults: list[Fault], rng: np.random.Generator) -> None:
        self.faults = sorted(faults, key=lambda fault: _ORDER.index(fault.kind))
        self._rng = rng
        self._last: float | None = None
        self._missing = False
        self._skew = 0.0  # s
        self._loose = np.zeros(2)

    def gain(self, at: float) -> float:
        """The true gain at `at` seconds: 1 is sound."""
        gains = [1 + (_to(f) - 1) * f.ramp(at) for f in self.faults if f.kind == "gain"]
        return math.prod(gains)

    def measure(self, at: float, seconds: float, values: Signal) -> Reading | None:
        """What the sensor says of the true `values` of a chunk that starts `at` seconds; None: nothing.

        `values` is not changed.
        """
        for fault in self.faults:
            ramp = fault.ramp(at + seconds / 2)
            if ramp > 0 and fault.kind not in {"dropout", "clock"}:
                values = self._falsify(fault, ramp, values)
        self._last = float(values[-1])
        dropped = False
        for fault in self.faults:
            if fault.kind == "dropout":
                dropped |= self._dropped(fault, at)
            if fault.kind == "clock":
                self._skew += _to(fault) * 1e-6 * fault.ramp(at) * seconds
        return None if dropped else Reading(values, round(self._skew * 1e9))

    def _falsify(self, fault: Fault, ramp: float, values: Signal) -> Signal:
        kind = values.dtype.type
        match fault.kind:
            case "gain":
                values = values * kind(1 + (_to(fault) - 1) * ramp)
            case "offset":
                values = values + kind(_to(fault) * ramp)
            case "noise":
                noise = self._rng.standard_normal(len(values)).astype(kind)
                values = values + kind(_to(fault) * ramp) * noise
            case "stuck":
                values = np.full_like(values, values[0] if self._last is None else self._last)
            case _:
                values = self._rattle(_to(fault) * ramp, values)
        return values

    def _rattle(self, looseness: float, values: Signal) -> Signal:
        frequency, quality = _MOUNTING
        omega = 2 * math.pi * frequency / RATE
        alpha = math.sin(omega) / (2 * quality)
        low = (1 - math.cos(omega)) / 2
        b = np.array([low, 2 * low, low]) / (1 + alpha)
        a = np.array([1 + alpha, -2 * math.cos(omega), 1 - alpha]) / (1 + alpha)
        moved, self._loose = lfilter(b, a, values, zi=self._loose)
        moved = moved + np.abs(moved) * self._rng.standard_normal(len(values)) / 3
        loose: Signal = ((1 - looseness) * values + looseness * moved).astype(values.dtype)
        return loose

    def _dropped(self, fault: Fault, at: float) -> bool:
        """A two-state chain: gaps of three chunks on average, and `to` of the time in a gap."""
        share = min(0.99, _to(fault) * fault.ramp(at))
        if share <= 0:
            self._missing = False
            return False
        chance = 1 - 1 / _GAP if self._missing else min(1.0, share / (1 - share) / _GAP)
        self._missing = float(self._rng.uniform()) < chance
        return self._missing


def _to(fault: Fault) -> float:
    return 1.0 if fault.to is None else fault.to

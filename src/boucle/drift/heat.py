"""What a temperature should read while it still follows a change: a model fitted to the way it has come so far.

A temperature goes to its new level as a first-order lag (T = a + b·exp(-t/τ)), and takes a hundred times as long as
anything else. Its level there, its way and its lag are fitted to the seconds since the change, by least squares over a
grid of lags; what comes is held against what the fit foretells. An instrument that drifts leaves that curve. The last
seconds are never part of the fit, and nothing is from the moment on in which a value left its curve: a model that is
fitted to a fault foretells it.
"""

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from boucle.drift.evidence import SMOOTH, Evidence
from boucle.drift.reading import Reading

__all__ = ["HEAT", "Heat", "arrived", "foretold", "on_curves"]

HEAT = ("bearing_temperature", "oil_temperature")
_PLACE = {"bearing_temperature": 0, "oil_temperature": 1}
"""Where `boucle.drift.reading.SLOW` has them."""
_MOST = 240
"""Seconds that are kept; enough of any way."""
_LEAST = 12
"""Seconds from which a curve is fitted."""
_LAG = 10
"""The newest seconds, which are judged and not learned from."""
_QUIETEST = 0.03
"""°C; no mean of a second is known better."""
_STANDS = 0.1
"""°C in a dozen seconds: one that has less to go than this is there, but for a quarter of a degree."""
_LAGS = np.array([0.08, 0.12, 0.2, 0.3, 0.45, 0.7, 1.0])
"""Lags that are tried, as shares of the time that temperatures take to follow."""

Wide = NDArray[np.float64]


class Heat(Struct):
    """The temperatures since the operating point last moved."""

    seen: list[tuple[float, float]] = []
    sound: int = 0
    """So many of them, from the first, followed their curves."""
    lawful: bool = True
    """Whether they follow a change at all that was made at once: the air of a hall goes its own way."""

    age: int = 0
    """Seconds since then, however many are kept."""

    def note(self, reading: Reading) -> None:
        """One more second of the way; the first ones are the speed's, which is not quite there yet."""
        self.age += 1
        if self.age <= SMOOTH:
            return
        self.seen = [*self.seen[-(_MOST - 1) :], (reading.slow[0], reading.slow[1])]


def arrived(seen: Sequence[tuple[float, float]], apart: int = _LEAST) -> bool:
    """Whether neither temperature has gone any way worth mentioning in the last seconds; both means are of six."""
    if len(seen) < apart + SMOOTH:
        return True
    values = np.array(seen)
    way = values[-SMOOTH:].mean(axis=0) - values[-apart - SMOOTH : -apart].mean(axis=0)
    return not bool((np.abs(way) * _LEAST / apart > _STANDS).any())


def foretold(heat: Heat, evidence: Evidence, thermal: int) -> dict[str, tuple[float, float]]:
    """Temperature → how far it lies off its curve, and the standard deviation of that, °C.

    Empty while too little is known. `thermal`: the seconds that temperatures take to follow. Says to `heat` up to where
    the way was sound.
    """
    heat.sound = max(heat.sound, min(len(heat.seen) - _LAG, _LEAST))
    if heat.sound < _LEAST or not heat.lawful:
        return {}
    off = {}
    for name in HEAT:
        values = np.array([both[_PLACE[name]] for both in heat.seen])
        told = _curve(values, heat.sound, thermal * _LAGS)
        if told is not None:
            off[name] = float(np.mean(values[-SMOOTH:])) - told[0], told[1]
    if all(abs(by) < max(3 * chance, 0.5 * evidence.slow_limit[name]) for name, (by, chance) in off.items()):
        heat.sound = max(heat.sound, len(heat.seen) - _LAG)
    return off


def _curve(values: Wide, sound: int, lags: Wide) -> tuple[float, float] | None:
    """What the mean of the last seconds should be, and its standard deviation; None where it cannot be known."""
    seconds = np.flatnonzero(np.isfinite(values[:sound]))
    if len(seconds) < _LEAST or not np.isfinite(values[-SMOOTH:]).all():
        return None
    known = values[seconds]
    way = np.exp(-seconds / lags[:, None])
    there = np.exp(-np.arange(len(values) - SMOOTH, len(values)) / lags[:, None]).mean(axis=1)
    middle, level = way.mean(axis=1), float(known.mean())
    centred = way - middle[:, None]
    spread = (centred**2).sum(axis=1)
    slope = centred @ (known - level) / spread
    left = ((known - level - slope[:, None] * centred) ** 2).sum(axis=1)
    said = level + slope * (there - middle)
    best = int(np.argmin(left))
    noise = max(_QUIETEST, math.sqrt(left[best] / (len(known) - 3)))
    plausible = said[left <= left[best] + 4 * noise**2]
    unsure = noise**2 * (1 / len(known) + (there[best] - middle[best]) ** 2 / spread[best] + 1 / SMOOTH)
    return float(said[best]), math.hypot(math.sqrt(unsure), float(np.ptp(plausible)) / 4)


def on_curves(evidence: Evidence, off: dict[str, tuple[float, float]]) -> Evidence:
    """The evidence with the temperatures held to their curves instead of to a level they have not reached."""
    slow, limit, chance, before = (
        dict(one) for one in (evidence.slow, evidence.slow_limit, evidence.slow_chance, evidence.slow_before)
    )
    for name, (by, doubt) in off.items():
        if abs(slow[name]) <= limit[name]:
            continue  # where it stands at this point is no drift, however it came there
        before[name] += slow[name] - by
        slow[name], chance[name] = by, max(chance[name], doubt)
        limit[name] = max(limit[name], 5 * doubt)
    return structs.replace(evidence, slow=slow, slow_limit=limit, slow_chance=chance, slow_before=before)

"""A day of sound presses in one hall, as a plant has it: what was asked of each, and what the network lost.

Three shifts. Each press makes some products in turn, each with a speed and load of its own. Between two jobs it stands
for the change of tools and is inched before it runs; within a job there are short stops, coils that are a little
thicker or thinner, and operators who slow it down for a while. The hall is warmest in the afternoon, wanders, and loses
some degrees when the gate is opened. Now and then a message of waveform is lost, the PLC is silent, the gateway is
away, or the loop is restarted and goes on from its checkpoint.
"""

import math
from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from bench.attribution.motion import TICKS

__all__ = ["DAY", "RATES", "Day", "Lost", "day"]

DAY = 24 * 3600

RATES = {
    "products of a press": "3 to 6, 26 to 41 strokes/min, load 0.85 to 1.15",
    "jobs": "2.5 h on average, 8 to 25 min of change over, 30 to 120 s of inching at 60 %",
    "short stops": "1.5 an hour, 40 s in the middle",
    "coils": "every 40 min, load within 1 % r.m.s.",
    "operator slows down": "every 2 h, to 85 to 97 %",
    "hall": "2 to 5 °C up and down over the day, 0.3 °C r.m.s. of wander, 5 openings of the gate (1 to 4 °C)",
    "lost messages of waveform": "one in 3 h and press",
    "PLC silent": "once in 12 h, 20 s on average",
    "gateway away": "once in 12 h, 30 s on average",
    "loop restarted from its checkpoint": "once in 12 h",
}
"""What is assumed of a plant, for people."""

_HOUR = 3600.0
_WANDER_S = 1800.0
_MACHINES = 2

Wide = NDArray[np.float64]
Draw = np.random.Generator


class Lost(Struct, frozen=True):
    """Ticks of a second whose waveform never came."""

    second: int
    ticks: tuple[int, ...]


class Day(Struct, frozen=True):
    """One hall. Lists have an entry per press; arrays one per tick, or per second where it says so."""

    seconds: int
    setpoint: list[Wide]
    load: list[Wide]
    warmer: Wide
    """°C the hall is warmer than at the presses' start."""
    heard: NDArray[np.bool_]
    """Whether the PLC is heard."""
    away: NDArray[np.bool_]
    """Per second: whether nothing at all arrives, now or later."""
    lost: list[list[Lost]]
    restarts: tuple[int, ...]
    """Seconds at which the loop goes on from its checkpoint."""


def day(seed: int, seconds: int = DAY, machines: int = _MACHINES) -> Day:
    """A day, or its first `seconds`; the same every time."""
    rng = np.random.default_rng([seed, 1])
    ticks = seconds * TICKS
    asked = [_asked(rng, ticks) for _ in range(machines)]
    heard, away = np.ones(ticks, bool), np.zeros(seconds, bool)
    for at in _moments(rng, 12 * _HOUR, seconds):
        heard[round(at * TICKS) : round((at + rng.exponential(20)) * TICKS)] = False
    for at in _moments(rng, 12 * _HOUR, seconds):
        away[int(at) : int(at + 1 + rng.exponential(30))] = True
    lost = [
        [Lost(int(at), (int(rng.integers(TICKS)),)) for at in _moments(rng, 3 * _HOUR, seconds)]
        for _ in range(machines)
    ]
    restarts = tuple(int(at) for at in _moments(rng, 12 * _HOUR, seconds))
    return Day(
        seconds=seconds,
        setpoint=[setpoint for setpoint, _ in asked],
        load=[load for _, load in asked],
        warmer=_hall(rng, seconds),
        heard=heard,
        away=away,
        lost=lost,
        restarts=restarts,
    )


def _moments(rng: Draw, every: float, until: float) -> Iterator[float]:
    """Moments in seconds, `every` so many on average, by chance."""
    at = float(rng.exponential(every))
    while at < until:
        yield at
        at += float(rng.exponential(every))


def _asked(rng: Draw, ticks: int) -> tuple[Wide, Wide]:
    """Set-point and load of a press."""
    count = int(rng.integers(3, 7))
    products = list(zip(rng.uniform(26, 41, count), rng.uniform(0.85, 1.15, count), strict=True))
    setpoint, load = np.zeros(ticks), np.zeros(ticks)
    begun = 0
    while begun < ticks:
        speed, force = products[int(rng.integers(count))]
        ended = min(ticks, begun + round(max(1200.0, rng.exponential(2.5 * _HOUR)) * TICKS))
        setpoint[begun:ended], load[begun:ended] = speed, force
        if begun:
            setpoint[begun : begun + round(float(rng.uniform(30, 120)) * TICKS)] *= 0.6
        length = (ended - begun) / TICKS
        for at in _moments(rng, 2400, length):
            load[begun + round(at * TICKS) : ended] = force * (1 + 0.01 * float(rng.standard_normal()))
        for at in _moments(rng, 2 * _HOUR, length):
            slowed = begun + round(at * TICKS)
            until = min(ended, slowed + round(float(rng.exponential(1200)) * TICKS))
            setpoint[slowed:until] = np.minimum(
                setpoint[slowed:until], speed * float(rng.uniform(0.85, 0.97))
            )
        for at in _moments(rng, _HOUR / 1.5, length):
            stop = begun + round(at * TICKS)
            setpoint[
                stop : min(ended, stop + round(min(600.0, 40 * math.exp(rng.standard_normal())) * TICKS))
            ] = 0
        changed = min(ticks, ended + round(float(rng.uniform(480, 1500)) * TICKS))
        load[ended:changed] = force
        begun = changed
    return setpoint, load


def _hall(rng: Draw, seconds: int) -> Wide:
    """°C against the first moment, per tick."""
    at = np.arange(seconds, dtype=np.float64)
    clock = float(rng.uniform(0, DAY))
    warmest = 15 * _HOUR
    swing = float(rng.uniform(1, 2.5))
    warmer = swing * np.cos(2 * np.pi * (at + clock - warmest) / DAY)
    keep = math.exp(-60 / _WANDER_S)
    steps = 0.3 * math.sqrt(1 - keep**2) * rng.standard_normal(seconds // 60 + 2)
    wander = np.zeros(len(steps))
    for minute in range(1, len(steps)):
        wander[minute] = keep * wander[minute - 1] + steps[minute]
    warmer += np.interp(at, 60.0 * np.arange(len(steps)), wander)
    for opened in _moments(rng, DAY / 5, seconds):
        cold, open_s = float(rng.uniform(1, 4)), float(rng.uniform(60, 600))
        since = at - opened
        falling = 1 - np.exp(-np.clip(since, 0, open_s) / 180)
        rising = np.exp(-np.clip(since - open_s, 0, None) / 900)
        warmer -= cold * np.where(since > 0, falling * rising, 0)
    return np.repeat(warmer - warmer[0], TICKS)

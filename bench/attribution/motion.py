"""How a sound press moves and what its PLC reads, second by second: the recursions of `boucle.testing`, compiled.

The same steps of a tenth of a second as `boucle.testing.machine` and `process` take, and the same means, steps and
counts as the press's features make of the readings; only the random numbers are others.
"""

import math
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.compiled import compiled
from boucle.testing.machine import _SPEED_LAG, _STROKE, _WANDER, _WANDER_TIME, FRAME, RATE, Machine
from boucle.testing.process import _BEARING_LAG, _OIL_LAG
from boucle.testing.scenario import Scenario

__all__ = ["TICKS", "Build", "Moved", "build", "moved"]

TICKS = 10
"""Steps in a second; each is a chunk of waveform and a scan of the PLC."""

_STEP = 1 / TICKS
_NO_STROKE = -1
_SPEED_KEEP, _WANDER_KEEP = math.exp(-_STEP / _SPEED_LAG), math.exp(-_STEP / _WANDER_TIME)
_WANDER_STEP = _WANDER * math.sqrt(1 - _WANDER_KEEP**2)
_BEARING_KEEP, _OIL_KEEP = math.exp(-_STEP / _BEARING_LAG), math.exp(-_STEP / _OIL_LAG)
_SAMPLES = round(RATE)

Wide = NDArray[np.float64]


class Build(Struct, frozen=True):
    """What differs from press to press: as it left the factory."""

    nominal: float
    """Strokes/min that speeds are relative to."""
    transmission: Any
    """(axes, 4): shaft, gear, frame, housing."""
    phases: Any
    """(axes, harmonics of the shaft), rad."""
    crank: float
    """Where it stands at the start, turns."""
    ambient: float
    """Its corner of the hall, °C."""


def build(scenario: Scenario, seed: int, index: int = 0) -> Build:
    """The press that `PressLine` would build for this seed."""
    one = Machine(scenario.machines[index], index, scenario, seed)
    return Build(
        nominal=one.nominal,
        transmission=one._transmission,  # noqa: SLF001 - the simulator is not changed for its benchmark
        phases=one._phases,  # noqa: SLF001
        crank=one._crank,  # noqa: SLF001
        ambient=one._process._ambient,  # noqa: SLF001
    )


class Moved(Struct, frozen=True):
    """What happened in each second; first axis the second, and where there is a second one the tick."""

    before: Any
    """Speed at the start of each tick and `after` at its end, strokes/min."""
    after: Any
    crank: Any
    """Crank angle at the start of each tick, turns in [0, 1)."""
    load: Any
    struck: Any
    """Sample at which the stroke's blow fell, -1 for none."""
    blow: Any
    """Its height, g."""
    rings: Any
    """(seconds, 2, 2): what the frame says of a blow at the last two samples before the second, and in it."""
    speed: Any
    """What the PLC said in the middle of the second, and of the set-point."""
    setpoint: Any
    slow: Any
    """(seconds, 4): mean of the readings of the second that ends in the middle; `noise`: quartile of their steps."""
    noise: Any
    heard: Any
    """(seconds,) readings there were."""


def moved(
    press: Build, setpoint: Wide, load: Wide, warmer: Wide, heard: NDArray[np.bool_], seed: int
) -> Moved:
    """Seconds of a press; set-point, load, °C the hall is warmer, and whether the PLC is heard, per tick.

    It starts warm and at its set-point, as `Machine` does.
    """
    seconds = len(setpoint) // TICKS
    parts = [np.empty((seconds, TICKS)) for _ in range(3)]
    struck, blow = np.full(seconds, _NO_STROKE, np.int64), np.zeros(seconds)
    speed, ordered, number = np.empty(seconds), np.empty(seconds), np.zeros(seconds)
    slow, noise = np.empty((seconds, 4)), np.empty((seconds, 4))
    _move(
        np.random.default_rng(seed), press.nominal, press.crank, press.ambient, setpoint, load, warmer, heard,
        *parts, struck, blow, speed, ordered, slow, noise, number,
    )  # fmt: skip
    rings = _rings(struck, blow)
    before, after, crank = parts
    return Moved(
        before=before,
        after=after,
        crank=crank,
        load=load.reshape(seconds, TICKS),
        struck=struck,
        blow=blow,
        rings=rings,
        speed=speed,
        setpoint=ordered,
        slow=slow,
        noise=noise,
        heard=number,
    )


def _rings(struck: NDArray[np.int64], blow: Wide) -> Wide:
    """A blow is forgotten within a tenth of a second, so only the second before can still ring."""
    frequency, damping = FRAME
    omega = 2 * math.pi * frequency / RATE
    since = _SAMPLES - 1 - struck[:, None] + np.array([0, -1])
    left = np.where(
        struck[:, None] >= 0, blow[:, None] * np.exp(-omega * damping * since) * np.sin(omega * since), 0.0
    )
    return np.stack([np.concatenate([np.zeros((1, 2)), left[:-1]]), left], axis=1)


@compiled
def _move(
    rng: Any,
    nominal: float,
    crank: float,
    ambient: float,
    setpoints: Wide,
    loads: Wide,
    warmer: Wide,
    is_heard: NDArray[np.bool_],
    before: Wide,
    after: Wide,
    cranks: Wide,
    struck: NDArray[np.int64],
    blow: Wide,
    speed_told: Wide,
    setpoint_told: Wide,
    slow: Wide,
    noise: Wide,
    number: Wide,
) -> None:
    steady, wander = setpoints[0], 0.0
    bearing = ambient + warmer[0] + 24 * (steady / nominal) * (0.5 + 0.5 * loads[0])
    oil = ambient + warmer[0] + 17 * steady / nominal
    readings = np.full((TICKS, 4), np.nan)
    last = np.full(4, np.nan)
    heard_speed, heard_setpoint, silent = np.nan, np.nan, 0
    half = TICKS // 2
    for tick in range(len(setpoints)):
        second, place = tick // TICKS, tick % TICKS
        ordered, load = setpoints[tick], loads[tick]
        begun = steady * (1 + wander)
        steady = ordered + (steady - ordered) * _SPEED_KEEP
        wander = wander * _WANDER_KEEP + _WANDER_STEP * rng.standard_normal()
        ended = steady * (1 + wander)
        before[second, place], after[second, place], cranks[second, place] = begun, ended, crank
        relative = (begun + ended) / 2 / nominal
        end = crank + (begun + ended) / 2 * _STEP / 60
        bottom = np.ceil(crank - 0.5) + 0.5
        if bottom < end:
            height = 1 + 0.04 * rng.standard_normal()
            # The first sample at or after it, on the parabola the angle follows within a tick.
            rise, bend = begun / 60, (ended - begun) / (2 * _STEP) / 60
            root = np.sqrt(max(rise * rise + 4 * bend * (bottom - crank), 0.0))
            at = 2 * (bottom - crank) / (rise + root)
            sample = min(int(np.ceil(at * _SAMPLES - 1e-9)), _SAMPLES // TICKS - 1)
            struck[second] = min(place * (_SAMPLES // TICKS) + sample, _SAMPLES - 2)
            blow[second] = _STROKE * load * relative * height
        crank = end - np.floor(end)
        own = ended / nominal
        to = ambient + warmer[tick] + 24 * own * (0.5 + 0.5 * load)
        bearing = to + (bearing - to) * _BEARING_KEEP
        to = ambient + warmer[tick] + 17 * own
        oil = to + (oil - to) * _OIL_KEEP
        stroke = np.exp(-(((crank - 0.5) / 0.06) ** 2)) if own > 0 else 0.0
        if is_heard[tick]:
            row = readings[tick % TICKS]
            row[0] = bearing + 0.1 * rng.standard_normal()
            row[1] = oil + 0.1 * rng.standard_normal()
            row[2] = 150 * (0.6 + 0.4 * load) + 30 * load * stroke + 0.6 * rng.standard_normal()
            row[3] = 62 * (0.35 * min(1.0, own * 10) + 0.65 * load * own) + 0.4 * rng.standard_normal()
            last[:] = row
            heard_speed, heard_setpoint, silent = ended, ordered, 0
        else:
            readings[tick % TICKS] = np.nan
            silent += 1
        if place == half - 1:
            number[second] = _told(readings, (tick + 1) % TICKS, last, slow[second], noise[second])
            speed_told[second], setpoint_told[second] = heard_speed, heard_setpoint
            if silent > 30 * TICKS:  # what nothing was heard of for half a minute is not known
                speed_told[second] = setpoint_told[second] = number[second] = np.nan
                slow[second] = np.nan


@compiled
def _told(readings: Wide, oldest: int, last: Wide, mean: Wide, noise: Wide) -> float:
    """Mean and lower quartile of the steps of each value in the last second; and how many readings there were."""
    steps = np.empty(TICKS)
    number = 0
    for value in range(4):
        total, number, count, earlier = 0.0, 0, 0, np.nan
        for place in range(TICKS):
            reading = readings[(oldest + place) % TICKS, value]
            if np.isnan(reading):
                continue
            total += reading
            number += 1
            if not np.isnan(earlier):
                steps[count] = abs(reading - earlier)
                count += 1
            earlier = reading
        mean[value] = total / number if number else last[value]
        noise[value] = np.sort(steps[:count])[count // 4] if count else np.nan
    return float(number)

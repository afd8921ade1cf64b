"""One second of one machine as the drift room sees it, and what was normal for it."""

import math
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.clock import Nanos

__all__ = [
    "BANDS",
    "QUIET",
    "SLOW",
    "Reading",
    "Reference",
    "Seconds",
    "energies",
    "learn",
    "levels",
    "stacked",
]

BANDS = 8
SLOW = ("bearing_temperature", "oil_temperature", "hydraulic_pressure", "motor_current")

QUIET = 1e-16
"""g²; no accelerometer is quieter, and its logarithm is finite."""

Wide = NDArray[np.float64]


class Reading(Struct, frozen=True, dict=True):
    """A feature row as numbers, NaN where it holds none. First axis of the lists: the sensor's axes."""

    at: Nanos
    speed: float
    setpoint: float
    slow: tuple[float, ...]
    noise: tuple[float, ...]
    """Per slow value how far one reading lies from the next; 0: it stands still."""
    heard: tuple[float, ...]
    """Per slow value the number of readings."""
    bands: tuple[tuple[float, ...], ...]
    """g²."""
    lines: tuple[tuple[float, float], ...]
    """Outer and inner race, ratio to the envelope's noise floor."""
    mean: tuple[float, ...]
    count: tuple[int, ...]

    @cached_property
    def flat(self) -> Wide:
        """Everything that is weighed in one row, made once: a second is looked at again for a dozen seconds."""
        flat = [value for axis in self.bands for value in axis]
        flat += [value for axis in self.lines for value in axis]
        return np.array([*flat, *self.mean, *self.count, *self.slow, *self.noise, *self.heard])

    @classmethod
    def of(cls, at: Nanos, row: Mapping[str, Any], axes: Sequence[str]) -> "Reading":
        """From a row of `features` as a mapping."""
        values = [math.nan if value is None else float(value) for value in map(row.get, _names(tuple(axes)))]
        slow, rest = len(SLOW), 2 + 3 * len(SLOW)
        parts = [values[begin : begin + _OF_AXIS] for begin in range(rest, len(values), _OF_AXIS)]
        return cls(
            at=at,
            speed=values[0],
            setpoint=values[1],
            # A value nobody read in this second is not measured, whatever is in force.
            slow=tuple(
                math.nan if heard == 0 else value
                for value, heard in zip(values[2 : 2 + slow], values[2 + 2 * slow : rest], strict=True)
            ),
            noise=tuple(values[2 + slow : 2 + 2 * slow]),
            heard=tuple(values[2 + 2 * slow : rest]),
            bands=tuple(tuple(part[:BANDS]) for part in parts),
            lines=tuple((part[BANDS], part[BANDS + 1]) for part in parts),
            mean=tuple(part[BANDS + 2] for part in parts),
            count=tuple(int(row.get(f"{axis}_count") or 0) for axis in axes),
        )


_OF_AXIS = BANDS + 3


@cache
def _names(axes: tuple[str, ...]) -> list[str]:
    """The columns of a reading in order, but for the counts, which are whole."""
    names = [
        "speed",
        "setpoint",
        *SLOW,
        *(f"{name}_noise" for name in SLOW),
        *(f"{name}_count" for name in SLOW),
    ]
    for axis in axes:
        names += [f"{axis}_band_{band}" for band in range(BANDS)]
        names += [f"{axis}_bpfo", f"{axis}_bpfi", f"{axis}_mean"]
    return names


class Seconds(Struct, frozen=True):
    """Some readings as arrays, first axis the second; as `Reading` has them."""

    bands: Any
    lines: Any
    mean: Any
    count: Any
    slow: Any
    noise: Any
    heard: Any


def stacked(readings: Sequence[Reading]) -> Seconds:
    """Readings side by side; views of one array."""
    rows = np.array([reading.flat for reading in readings])
    number, axes, slow = len(rows), len(readings[0].mean), len(SLOW)
    sizes = (axes * BANDS, axes * 2, axes, axes, slow, slow, slow)
    parts, begin = [], 0
    for size in sizes:
        parts.append(rows[:, begin : begin + size])
        begin += size
    bands, lines, *others = parts
    return Seconds(bands.reshape(number, axes, BANDS), lines.reshape(number, axes, 2), *others)


class Reference(Struct, frozen=True, dict=True):
    """What was normal for a machine at one operating point."""

    setpoint: float
    speed: float
    count: float
    """Samples in a full window."""
    level: list[list[float]]
    """ln of the amplitude per axis and band: half the ln of the mean energy."""
    level_spread: list[list[float]]
    """Standard deviation of one second's level."""
    lines: list[list[float]]
    mean: list[float]
    mean_spread: list[float]
    slow: list[float]
    slow_spread: list[float]
    noise: list[float]
    heard: list[float]
    tainted: bool = False
    """Learned while a verdict stood: shifts against it would hide the fault."""
    load: int = 0
    """Which load it was learned under, by number: nobody measures it."""

    @cached_property
    def arrays(self) -> dict[str, Wide]:
        """The lists as arrays, made once: every second is held against them."""
        names = ("level", "level_spread", "lines", "mean", "mean_spread", "slow", "noise", "heard")
        arrays = {name: np.array(getattr(self, name)) for name in names}
        level, spread = arrays["level"], arrays["mean_spread"]
        # More than chance and more than a sixth of the vibration itself.
        arrays["mean_limit"] = np.maximum(8 * spread, np.exp(level).max(axis=1) / 6)
        arrays["loud"] = np.exp(2 * level).sum(axis=1)
        arrays["weight"] = 1 / np.maximum(arrays["level_spread"], 0.012) ** 2
        return arrays


def energies(bands: Wide, counts: Wide, full: float) -> tuple[Wide, Wide]:
    """Mean energy per axis and band over the seconds whose window was whole, NaN where none was; and their number.

    Energies are averaged, not their logarithms: a press strikes every second or two, so single
    seconds hold one stroke or two, but a few of them together always hold the same number.
    """
    whole = np.abs(counts / full - 1) < 0.005
    used = whole & np.isfinite(bands).all(axis=2)
    total = np.where(used[:, :, None], bands, 0.0).sum(axis=0)
    seconds = used.sum(axis=0)[:, None]
    mean: Wide = np.divide(total, seconds, out=np.full_like(total, np.nan), where=seconds > 0)
    return mean, seconds


def levels(energy: Wide) -> Wide:
    """Ln of the amplitude: half the ln of the energy."""
    level: Wide = 0.5 * np.log(np.maximum(energy, QUIET))
    return level


def learn(readings: Sequence[Reading], *, tainted: bool = False, load: int = 0) -> Reference:
    """The reference of a stretch of seconds in which the machine is taken for normal."""
    seen = stacked(readings)
    counts = seen.count
    full = float(np.median(counts[counts > 0])) if (counts > 0).any() else 1.0
    return Reference(
        setpoint=_median(np.array([reading.setpoint for reading in readings])),
        speed=_median(np.array([reading.speed for reading in readings])),
        count=full,
        level=levels(energies(seen.bands, counts, full)[0]).tolist(),
        level_spread=_spread(levels(seen.bands)).tolist(),
        lines=_mean(seen.lines).tolist(),
        mean=_mean(seen.mean).tolist(),
        mean_spread=_spread(seen.mean).tolist(),
        slow=_mean(seen.slow).tolist(),
        slow_spread=_spread(seen.slow).tolist(),
        noise=_mean(seen.noise).tolist(),
        heard=_mean(seen.heard).tolist(),
        tainted=tainted,
        load=load,
    )


def _median(values: Wide) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _mean(values: Wide) -> Wide:
    """Mean over the first axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    total, number = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
    mean: Wide = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return mean


def _spread(values: Wide) -> Wide:
    centred = values - _mean(values)
    spread: Wide = np.sqrt(_mean(centred**2))
    return spread

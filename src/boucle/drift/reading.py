"""One second of one machine as the drift room sees it, and what was normal for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.clock import Nanos

__all__ = ["BANDS", "SLOW", "Reading", "Reference", "energies", "learn"]

BANDS = 8
SLOW = ("bearing_temperature", "oil_temperature", "hydraulic_pressure", "motor_current")

_QUIET = 1e-16
"""g²; no accelerometer is quieter, and its logarithm is finite."""

Wide = NDArray[np.float64]


class Reading(Struct, frozen=True):
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

    @classmethod
    def of(cls, at: Nanos, row: Mapping[str, Any], axes: Sequence[str]) -> "Reading":
        """From a row of `features` as a mapping."""

        def number(name: str) -> float:
            value = row.get(name)
            return float("nan") if value is None else float(value)

        return cls(
            at=at,
            speed=number("speed"),
            setpoint=number("setpoint"),
            slow=tuple(number(name) for name in SLOW),
            noise=tuple(number(f"{name}_noise") for name in SLOW),
            heard=tuple(number(f"{name}_count") for name in SLOW),
            bands=tuple(tuple(number(f"{axis}_band_{band}") for band in range(BANDS)) for axis in axes),
            lines=tuple((number(f"{axis}_bpfo"), number(f"{axis}_bpfi")) for axis in axes),
            mean=tuple(number(f"{axis}_mean") for axis in axes),
            count=tuple(int(row.get(f"{axis}_count") or 0) for axis in axes),
        )


class Reference(Struct, frozen=True):
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


def energies(readings: Sequence[Reading], full: float) -> tuple[Wide, Wide]:
    """Mean energy per axis and band over the seconds whose window was whole, NaN where none was; and their number.

    Energies are averaged, not their logarithms: a press strikes every second or two, so single
    seconds hold one stroke or two, but a few of them together always hold the same number.
    """
    bands = np.array([reading.bands for reading in readings])
    counts = np.array([reading.count for reading in readings])
    whole = np.abs(counts / full - 1) < 0.005
    used = whole & np.isfinite(bands).all(axis=2)
    total = np.where(used[:, :, None], bands, 0.0).sum(axis=0)
    seconds = used.sum(axis=0)[:, None]
    mean: Wide = np.divide(total, seconds, out=np.full_like(total, np.nan), where=seconds > 0)
    return mean, seconds


def levels(energy: Wide) -> Wide:
    """Ln of the amplitude: half the ln of the energy."""
    level: Wide = 0.5 * np.log(np.maximum(energy, _QUIET))
    return level


def learn(readings: Sequence[Reading], *, tainted: bool = False) -> Reference:
    """The reference of a stretch of seconds in which the machine is taken for normal."""
    counts = np.array([reading.count for reading in readings])
    full = float(np.median(counts[counts > 0])) if (counts > 0).any() else 1.0
    every = levels(np.array([reading.bands for reading in readings]))
    means = np.array([reading.mean for reading in readings])
    slow = np.array([reading.slow for reading in readings])
    return Reference(
        setpoint=_median(np.array([reading.setpoint for reading in readings])),
        speed=_median(np.array([reading.speed for reading in readings])),
        count=full,
        level=levels(energies(readings, full)[0]).tolist(),
        level_spread=_spread(every).tolist(),
        lines=_mean(np.array([reading.lines for reading in readings])).tolist(),
        mean=_mean(means).tolist(),
        mean_spread=_spread(means).tolist(),
        slow=_mean(slow).tolist(),
        slow_spread=_spread(slow).tolist(),
        noise=_mean(np.array([reading.noise for reading in readings])).tolist(),
        heard=_mean(np.array([reading.heard for reading in readings])).tolist(),
        tainted=tainted,
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

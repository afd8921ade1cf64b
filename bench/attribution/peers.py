"""What drift detectors say of the same rows: that something moved, and in which columns; never whose fault it is.

ADWIN and KSWIN are river's, one per column. The population stability index and the report of two-sample
Kolmogorov-Smirnov tests (a column has drifted at p < 0.05, the data when half of the columns have: the defaults that
Evidently publishes) are written from their definitions. Each gets the kindest reading we know: ten seconds after its
first alarm, when all columns that alarmed belong to one sensor it is that sensor, else it is the machine.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from river.drift import ADWIN, KSWIN
from scipy.stats import ks_2samp

from bench.attribution.episodes import MACHINE, Episode
from bench.attribution.score import Outcome, Said

__all__ = ["PEERS", "judge"]

Wide = NDArray[np.float64]

_PATIENCE = 10
_REFERENCE = 14
"""Seconds taken for normal: every episode is sound for fourteen."""
_WINDOW = 14
_SLOW = ("bearing_temperature", "oil_temperature", "hydraulic_pressure", "motor_current")
_OF_AXIS = ("mean", "rms", "kurtosis", "velocity", "bpfo", "bpfi", *(f"band_{band}" for band in range(8)))
_COLUMNS = (*_SLOW, *(f"{axis}_{name}" for axis in "xyz" for name in _OF_AXIS))


def _sensor(column: str) -> str:
    return column if column in _SLOW else f"vib_{column[0]}"


def _stream(make: Callable[[], ADWIN | KSWIN]) -> Callable[[Wide], Wide]:
    def alarms(values: Wide) -> Wide:
        found = np.zeros(values.shape)
        for column in range(values.shape[1]):
            detector = make()
            for row, value in enumerate(values[:, column]):
                detector.update(float(value))
                found[row, column] = detector.drift_detected
        return found

    return alarms


def _windows(drifted: Callable[[Wide, Wide], NDArray[np.bool_]]) -> Callable[[Wide], Wide]:
    def alarms(values: Wide) -> Wide:
        found = np.zeros(values.shape)
        for row in range(_REFERENCE + _WINDOW - 1, len(values), 3):
            found[row] = drifted(values[:_REFERENCE], values[row - _WINDOW + 1 : row + 1])
        return found

    return alarms


def _psi(before: Wide, now: Wide) -> NDArray[np.bool_]:
    """Population stability index over five bins of equal share, above 0.25 by custom."""
    found = np.zeros(before.shape[1], dtype=bool)
    for column in range(before.shape[1]):
        edges = np.quantile(before[:, column], [0.2, 0.4, 0.6, 0.8])
        old, new = (
            np.maximum(np.bincount(np.searchsorted(edges, part[:, column]), minlength=5) / len(part), 1e-3)
            for part in (before, now)
        )
        found[column] = ((new - old) * np.log(new / old)).sum() > 0.25
    return found


def _report(before: Wide, now: Wide) -> NDArray[np.bool_]:
    found = np.array(
        [ks_2samp(old, new, method="asymp").pvalue < 0.05 for old, new in zip(before.T, now.T, strict=True)]
    )
    return found if found.mean() >= 0.5 else np.zeros(len(found), dtype=bool)


PEERS: dict[str, Callable[[Wide], Wide]] = {
    "ADWIN": _stream(ADWIN),
    "KSWIN": _stream(lambda: KSWIN(window_size=30, stat_size=10, seed=1)),
    "PSI": _windows(_psi),
    "KS report": _windows(_report),
}


def judge(name: str, episode: Episode, rows: pa.Table) -> Outcome:
    """One peer's reading of an episode."""
    values = np.array([_filled(rows.column(column)) for column in _COLUMNS]).T
    fired = PEERS[name](values) > 0
    seconds = np.flatnonzero(fired.any(axis=1))
    if not len(seconds):
        return Outcome(episode, (), len(values))
    first = int(seconds[0])
    columns = np.flatnonzero(fired[first : first + _PATIENCE + 1].any(axis=0))
    named = {_sensor(_COLUMNS[column]) for column in columns}
    axes = named <= {"vib_x", "vib_y", "vib_z"} and len(named) > 1
    family = "sensor" if len(named) == 1 else "machine"
    subject = next(iter(named)) if len(named) == 1 else MACHINE
    candidates: Sequence[str] = [subject] if family == "sensor" else sorted(named) if axes else []
    end = float(len(values))
    # The alarm came at its first second, and that is what a false alarm is counted by.
    said = Said(family, "", subject, tuple(candidates), first + 1.0, end, first + 1.0, 1.0)
    return Outcome(episode, (said,), len(values))


def _filled(column: pa.ChunkedArray) -> Wide:
    """The column, what is missing filled with what came before: none of the peers takes a gap."""
    values: Wide = column.to_numpy(zero_copy_only=False).astype(np.float64)
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return np.zeros(len(values))
    index = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), 0))
    filled: Wide = np.nan_to_num(values[index], nan=float(values[known[0]]))
    return filled

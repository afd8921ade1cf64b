"""Feature rows of sound presses without their waveforms: as `Attribute` receives them, second by second.

What no rule reads (kurtosis, crest, velocity, alert) is null.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.attribution.motion import TICKS, Build, Moved, build, moved
from bench.attribution.plant import Day
from bench.attribution.rows import START, operators
from bench.attribution.spectrum import BANDS, drawn, waveform
from boucle.clock import SECOND
from boucle.edge.spectrum import Analyser, line_ratio
from boucle.testing.machine import BPFI, BPFO, RATE, SHAFT_PER_STROKE
from boucle.testing.scenario import Scenario

__all__ = ["rows_of_day", "sound_rows"]

_AT_ONCE = 120
"""Seconds that are drawn together: their spectra stay in cache."""
_SIZE = round(RATE)
_SLOW = ("bearing_temperature", "oil_temperature", "hydraulic_pressure", "motor_current")

Wide = NDArray[np.float64]


def sound_rows(scenario: Scenario, seed: int, seconds: int) -> pa.RecordBatch:
    """Rows of one press that only runs: what an episode without fault or change would give."""
    ticks = seconds * TICKS
    press = build(scenario, seed)
    speed, load = np.full(ticks, scenario.speed), np.full(ticks, scenario.load)
    told = moved(press, speed, load, np.zeros(ticks), np.ones(ticks, bool), seed)
    parts = [_columns(press, _part(told, begin), seed + begin) for begin in range(0, seconds, _AT_ONCE)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _batch(columns, np.repeat(scenario.machines[0], seconds), START + SECOND * np.arange(seconds))


def rows_of_day(day: Day, seed: int) -> Iterator[pa.RecordBatch]:
    """Rows of all presses of a hall, two minutes at a time, by time and machine."""
    names = tuple(f"press-{number + 1}" for number in range(len(day.setpoint)))
    scenario = Scenario(machines=names, speed=40.0)
    presses = [build(scenario, seed, index) for index in range(len(names))]
    told = [
        moved(press, setpoint, load, day.warmer, day.heard, seed * 100 + index)
        for index, (press, setpoint, load) in enumerate(zip(presses, day.setpoint, day.load, strict=True))
    ]
    lost = [{one.second: one.ticks for one in gone} for gone in day.lost]
    for begin in range(0, day.seconds, _AT_ONCE):
        parts = []
        for index, press in enumerate(presses):
            part = _part(told[index], begin)
            columns = _columns(press, part, (seed * 100 + index) * 1_000_003 + begin)
            for second in range(len(part.struck)):
                if begin + second in lost[index]:
                    ticks = lost[index][begin + second]
                    _from_waveform(columns, press, part, second, ticks, seed + begin + second)
            parts.append(columns)
        count = len(parts[0]["speed"])
        # Second by second, press by press.
        columns = {name: np.stack([part[name] for part in parts], axis=1).ravel() for name in parts[0]}
        at = START + SECOND * np.repeat(begin + np.arange(count), len(presses))
        rows = _batch(columns, np.tile(names, count), at)
        here = np.repeat(~day.away[begin : begin + count], len(presses))
        yield rows if here.all() else rows.filter(pa.array(here))


def _part(told: Moved, begin: int) -> Moved:
    return Moved(*(getattr(told, name)[begin : begin + _AT_ONCE] for name in Moved.__struct_fields__))


def _columns(press: Build, seconds: Moved, seed: int) -> dict[str, Wide]:
    """One press; NaN for what is not measured."""
    spectra = drawn(press, seconds, seed)
    columns: dict[str, Wide] = {"speed": seconds.speed, "setpoint": seconds.setpoint}
    for index, name in enumerate(_SLOW):
        columns |= {name: seconds.slow[:, index], f"{name}_noise": seconds.noise[:, index]}
        columns[f"{name}_count"] = seconds.heard
    for index, axis in enumerate("xyz"):
        columns |= {f"{axis}_band_{band}": spectra.bands[:, index, band] for band in range(len(BANDS) - 1)}
        columns |= {f"{axis}_bpfo": spectra.lines[:, index, 0], f"{axis}_bpfi": spectra.lines[:, index, 1]}
        columns |= {
            f"{axis}_mean": spectra.mean[:, index],
            f"{axis}_count": np.full(len(seconds.speed), _SIZE),
        }
    return columns


@cache
def _analyser() -> Analyser:
    return Analyser(
        _SIZE, 1.0, band=(10, 4500), bands=BANDS, velocity_band=(10, 1000), envelope_band=(2000, 4500)
    )


def _from_waveform(
    columns: dict[str, Wide], press: Build, seconds: Moved, second: int, ticks: tuple[int, ...], seed: int
) -> None:
    """What the edge tells of a second with some chunks missing; all three axes come in one message."""
    wave = waveform(press, seconds, second, np.random.default_rng(seed))
    there = np.ones(_SIZE, bool)
    for tick in ticks:
        there[tick * _SIZE // TICKS : (tick + 1) * _SIZE // TICKS] = False
    mean = wave[:, there].mean(axis=1)
    centred = np.where(there, wave - mean[:, None], 0).astype(np.float32)
    count = int(there.sum())
    found = _analyser().analyse(centred, np.full(len(wave), count))
    shaft = seconds.speed[second] / 60 * SHAFT_PER_STROKE
    outer, inner = (line_ratio(found.envelope, 1.0, order * np.nan_to_num(shaft)) for order in (BPFO, BPFI))
    for index, axis in enumerate("xyz"):
        told = {f"band_{band}": found.bands[index, band] for band in range(len(BANDS) - 1)}
        told |= {"mean": mean[index], "count": count}
        if np.isfinite(shaft):
            told |= {"bpfo": outer[index], "bpfi": inner[index]}
        for name, value in told.items():
            columns[f"{axis}_{name}"][second] = value


def _batch(columns: dict[str, Wide], machine: NDArray[np.str_], at: NDArray[np.int64]) -> pa.RecordBatch:
    schema = operators().FEATURES
    arrays = []
    for field in schema:
        if field.name == "machine":
            arrays.append(pa.array(machine.tolist(), field.type))
        elif field.name == "at":
            arrays.append(pa.array(at).view(field.type))
        elif field.name in columns:
            values = columns[field.name]
            arrays.append(pa.array(values, mask=np.isnan(values)).cast(field.type))
        elif field.name.endswith("_rms"):
            bands = [columns[f"{field.name[0]}_band_{band}"] for band in range(len(BANDS) - 1)]
            arrays.append(pa.array(np.sqrt(np.sum(bands, axis=0))))
        else:
            arrays.append(pa.nulls(len(at), field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)

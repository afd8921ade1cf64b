"""Waveforms reduced to one row per machine, sensor and window of event time.

A window is given as soon as its last sample is there, without waiting for lateness; a window with
gaps is given when the watermark passes its end, with `complete` false. Chunks may straddle windows
and arrive in any order.
"""

import logging
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import Block
from boucle.clock import Nanos
from boucle.edge.baseline import Baseline
from boucle.edge.chunks import Chunks, chunks_of
from boucle.edge.grid import Grid
from boucle.edge.kernels import centre
from boucle.edge.pool import Pool, Ready
from boucle.edge.spectrum import Analyser, Analysis, line_ratio
from boucle.edge.zone import GROUP_2_RIGID, check_zones, zone
from boucle.errors import BoucleError
from boucle.ports import From, Traced
from boucle.product.duration import seconds
from boucle.stream.origin import Inputs, grouped, made_of

__all__ = ["EVENTS", "Reduce"]

_log = logging.getLogger("boucle.edge.reduce")

_VERSION = 2
_BATCH = 16
"""Windows transformed together: as many as stay in cache."""
_TIME = pa.timestamp("ns", tz="UTC")
_BANDS = 8
_LEAST_RMS = 1e-6
"""g; below it a signal is as good as constant, and its logarithm stops falling."""

EVENTS = pa.schema(
    [
        pa.field("machine", pa.string(), nullable=False),
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("at", _TIME, nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("complete", pa.bool_(), nullable=False),
        *(
            pa.field(name, pa.float64(), nullable=False)
            for name in ("mean", "min", "max", "rms", "kurtosis", "crest", "velocity_mm_s")
        ),
        pa.field("zone", pa.string(), nullable=False),
        *(pa.field(f"band_{index}", pa.float64(), nullable=False) for index in range(_BANDS)),
        pa.field("env_bpfo", pa.float64()),
        pa.field("env_bpfi", pa.float64()),
        pa.field("shaft_hz", pa.float64()),
        pa.field("z", pa.float64()),
        pa.field("alert", pa.bool_(), nullable=False),
    ]
)
"""One row per machine, sensor and window; `at` is the start of the window, `count` the samples that came
for it (a clock that runs fast leaves gaps and too few, a slow one overlaps and too many).

`mean`, `min` and `max` are of the signal as it came (an offset shows); `rms`, `kurtosis` (3 for
Gaussian noise) and `crest` of the band-passed signal, g; `band_*` g²; `env_*` the ratio of defect
lines to the noise floor of the envelope spectrum, null while the shaft speed is unknown; `z` null
while the baseline is being learned and while the machine stands still.
"""

_Key = tuple[str, str]


class _State(Struct, frozen=True):
    version: int
    late_rows: int
    windows: bytes
    baselines: tuple[tuple[_Key, Baseline], ...]
    speeds: dict[str, tuple[tuple[Nanos, float], ...]]


class Reduce:
    """The edge: band-pass, statistics, band energies, envelope lines, velocity zone, z-score alert.

    Waveform Blocks carry `samples`; any other Block is read for the machine's speed (rows of the
    sensor `speed_sensor`, strokes/min), and the value in force in the middle of the window is used,
    so it may arrive half a window late without changing the result. `shaft_hz` fixes the shaft
    frequency of a machine whose speed nobody measures.

    The z-score compares log(rms) with the first `baseline` complete windows of the same sensor. As
    vibration grows with speed, roughly as speed^`speed_exponent`, that part is taken out first;
    `least_spread` (in log units) keeps a very steady machine from alarming at a whisper.

    `late_rows` counts chunks, or parts of them, that came after their window was given.
    """

    def __init__(
        self,
        stream: str,
        *,
        window: str | float = "1s",
        rate_hz: float = 10_000,
        band: Sequence[float] = (10, 4500),
        bands: Sequence[float] = (10, 27, 80, 300, 600, 1000, 2000, 3600, 4500),
        shaft_per_stroke: float = 36,
        bpfo: float = 3.585,
        bpfi: float = 5.415,
        envelope_band: Sequence[float] = (2000, 4500),
        velocity_band: Sequence[float] = (10, 1000),
        zones: Sequence[float] = GROUP_2_RIGID,
        z_limit: float = 6,
        baseline: int = 12,
        speed_exponent: float = 1.0,
        least_spread: float = 0.05,
        speed_sensor: str = "speed_actual",
        shaft_hz: float | None = None,
    ) -> None:
        if len(bands) != _BANDS + 1:
            raise BoucleError("B220", f"bands: {len(bands)} edges", fix=f"give {_BANDS + 1} edges, in Hz")
        self._stream = stream
        window_s = seconds(window)
        self._pool = Pool(Grid.of(rate_hz, window_s), ("machine", "sensor"))
        self._window: Nanos = self._pool.grid.start(1)
        self._analyser = Analyser(
            self._pool.grid.size,
            window_s,
            band=(band[0], band[1]),
            bands=tuple(bands),
            velocity_band=(velocity_band[0], velocity_band[1]),
            envelope_band=(envelope_band[0], envelope_band[1]),
        )
        self._shaft_per_stroke, self._fixed_shaft = shaft_per_stroke, shaft_hz
        self._bpfo, self._bpfi = bpfo, bpfi
        self._zones = check_zones(zones)
        self._z_limit, self._baseline = z_limit, baseline
        self._exponent, self._least_spread = speed_exponent, least_spread
        self._speed_sensor = speed_sensor
        self._baselines: dict[_Key, Baseline] = {}
        self._speeds: dict[str, list[tuple[Nanos, float]]] = {}
        self._chunks: dict[_Key, NDArray[np.float32]] = {}
        self._power: dict[_Key, NDArray[np.float32]] = {}
        self.late_rows = 0

    @classmethod
    def trace(cls, inputs: Inputs, *, window: str | float = "1s", **declared: Any) -> Traced:
        """Keys and time of the waveform, its samples reduced, and the speed where the shaft's turns are needed."""
        waves = [name for name, columns in inputs.items() if "samples" in columns] or list(inputs)[:1]
        wave = waves[0] if waves else ""
        shaft = () if declared.get("shaft_hz") is not None else _turning(inputs, waves)
        columns: dict[str, tuple[From, ...]] = {name: (From(wave, name),) for name in ("machine", "sensor")}
        columns["at"] = made_of(wave, ["at"], "TRANSFORMATION", f"start of the {window} window")
        for name in EVENTS.names[3:]:
            samples = made_of(wave, ["samples"], "AGGREGATION", f"{_SAYS.get(name, name)} over {window}")
            turned = name in ("env_bpfo", "env_bpfi", "z", "alert")
            columns[name] = shaft if name == "shaft_hz" else (*samples, *(shaft if turned else ()))
        return Traced(columns, grouped(wave, ["machine", "sensor"], "at", f"window: {window}"))

    def step(self, block: Block) -> Sequence[Block]:
        """Take waveform or speed; give the windows that this completed or closed, oldest first."""
        if "samples" not in block.rows.schema.names:
            self._read_speed(block.rows)
            return ()
        pool, known = self._pool, self._pool.sensors.known
        chunks = chunks_of(block, "samples", "at", pool.sensors)
        for late in np.flatnonzero(pool.add(chunks)).tolist():
            self._count_late(known[chunks.keys[late]])
        self._keep_last(chunks)
        ready = pool.ready(block.watermark)
        rows = self._rows(ready) if len(ready.entries) else None
        pool.give(ready)
        self._forget_speeds()
        return () if rows is None else (Block(self._stream, rows, pool.promise, block.position),)

    def latest(self, machine: str) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32], float]]:
        """For the live page: per sensor the last chunk, the amplitude spectrum (peak) and its bin in Hz.

        Safe to call from another thread; the spectrum is empty before the first window.
        """
        empty = np.zeros(0, dtype=np.float32)
        found = {}
        for key, chunk in sorted(self._chunks.copy().items()):
            if key[0] == machine:
                power = self._power.get(key)
                spectrum = empty if power is None else self._analyser.amplitude(power)
                found[key[1]] = (chunk, spectrum, self._analyser.bin_hz)
        return found

    def describe(self, key: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Windows in the making; of one sensor how full each of its windows is."""
        return self._pool.describe(key)

    def snapshot(self) -> bytes:
        """Windows in the making, baselines, speeds and the watermark."""
        speeds = {machine: tuple(values) for machine, values in self._speeds.items()}
        baselines = tuple(sorted(self._baselines.items(), key=lambda item: item[0]))
        return msgspec.msgpack.encode(
            _State(_VERSION, self.late_rows, self._pool.snapshot(), baselines, speeds)
        )

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when it was taken by another version."""
        held = _decode(state, self._stream)
        self.late_rows, self._baselines = held.late_rows, dict(held.baselines)
        self._speeds = {machine: list(values) for machine, values in held.speeds.items()}
        self._pool.restore(held.windows)

    def _keep_last(self, chunks: Chunks) -> None:
        last = dict(zip(chunks.keys.tolist(), range(len(chunks.keys)), strict=True))
        for key, place in last.items():
            chunk = chunks.values[chunks.begins[place] : chunks.ends[place]]
            self._chunks[self._pool.sensors.known[key]] = chunk

    def _rows(self, ready: Ready) -> pa.RecordBatch:
        """Rows by time, machine, sensor."""
        pool = self._pool
        keys = [pool.sensors.known[key] for key in ready.keys.tolist()]
        at, full = pool.grid.starts(ready.numbers), ready.covered == pool.grid.size
        speeds = [
            self._speed(key[0], begun + self._window // 2)
            for key, begun in zip(keys, at.tolist(), strict=True)
        ]
        shaft = np.array([self._shaft(speed) for speed in speeds])
        parts = [
            self._analyse(ready, keys, slice(first, first + _BATCH)) for first in range(0, len(keys), _BATCH)
        ]
        names = ("rms", "kurtosis", "crest", "velocity", "bands", "envelope")
        found = {name: np.concatenate([getattr(one, name) for _, one in parts]) for name in names}
        extent = np.concatenate([one for one, _ in parts])
        z = [
            self._score(key, rms, speed) if whole else None
            for key, rms, speed, whole in zip(keys, found["rms"].tolist(), speeds, full.tolist(), strict=True)
        ]
        unknown = np.isnan(shaft)
        columns = [
            [key[0] for key in keys],
            [key[1] for key in keys],
            pa.array(at).view(_TIME),
            ready.counts,
            full,
            extent[:, 0],
            extent[:, 1],
            extent[:, 2],
            found["rms"],
            found["kurtosis"],
            found["crest"],
            found["velocity"],
            [zone(velocity, self._zones) for velocity in found["velocity"].tolist()],
            *found["bands"].T,
            pa.array(self._lines(found["envelope"], self._bpfo * shaft), mask=unknown),
            pa.array(self._lines(found["envelope"], self._bpfi * shaft), mask=unknown),
            pa.array(shaft, mask=unknown),
            z,
            [score is not None and abs(score) > self._z_limit for score in z],
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, EVENTS, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=EVENTS)

    def _analyse(self, ready: Ready, keys: list[_Key], some: slice) -> tuple[NDArray[np.float64], Analysis]:
        """Mean, least and largest sample of some windows, and what their transforms tell."""
        pool, rows, covered = self._pool, ready.rows[some], ready.covered[some]
        centred = np.empty((len(rows), pool.grid.size), np.float32)
        extent = np.empty((len(rows), 7))
        centre(pool.samples, pool.filled, rows, covered, True, False, centred, extent)
        analysis = self._analyser.analyse(centred, covered)
        for key, power in zip(keys[some], analysis.power, strict=True):
            self._power[key] = power.copy()
        return extent, analysis

    def _shaft(self, speed: float | None) -> float:
        """Turns of the motor shaft per second, NaN while nobody knows."""
        if self._fixed_shaft is not None:
            return self._fixed_shaft
        return math.nan if speed is None else speed / 60 * self._shaft_per_stroke

    def _lines(self, envelope: NDArray[np.float32], frequency: NDArray[np.float64]) -> NDArray[np.float64]:
        return line_ratio(envelope, self._analyser.bin_hz, np.nan_to_num(frequency))

    def _score(self, key: _Key, rms: float, speed: float | None) -> float | None:
        level = math.log(max(rms, _LEAST_RMS))
        if speed is not None:
            if speed < 1:
                return None
            level -= self._exponent * math.log(speed)
        return self._baseline_of(key).score(level, self._least_spread)

    def _baseline_of(self, key: _Key) -> Baseline:
        if key not in self._baselines:
            self._baselines[key] = Baseline(self._baseline, [])
        return self._baselines[key]

    def _speed(self, machine: str, at: Nanos) -> float | None:
        known = self._speeds.get(machine, ())
        index = bisect_right(known, at, key=lambda item: item[0])
        return known[index - 1][1] if index else None

    def _read_speed(self, rows: pa.RecordBatch) -> None:
        columns = (rows.column(name).to_pylist() for name in ("machine", "sensor", "value", "status"))
        times = rows.column("at").cast(_TIME).cast(pa.int64()).to_pylist()
        for at, machine, sensor, value, status in zip(times, *columns, strict=True):
            if sensor == self._speed_sensor and status == "Good" and math.isfinite(value):
                known = self._speeds.setdefault(machine, [])
                known.insert(bisect_right(known, at, key=lambda item: item[0]), (at, value))

    def _forget_speeds(self) -> None:
        # The oldest window that can still be given starts one window before the watermark.
        horizon = self._pool.watermark - 2 * self._window
        for machine, known in self._speeds.items():
            first = bisect_right(known, horizon, key=lambda item: item[0]) - 1
            if first > 0:
                self._speeds[machine] = known[first:]

    def _count_late(self, key: _Key) -> None:
        self.late_rows += 1
        if self.late_rows & (self.late_rows - 1) == 0:  # 1, 2, 4, 8 …: a flood must not fill the log
            _log.warning("%s/%s: chunk after its window was given (%d so far)", *key, self.late_rows)


_SAYS = {
    "count": "number of samples",
    "complete": "whether no sample is missing",
    "velocity_mm_s": "integrated to velocity, r.m.s.",
    "zone": "ISO 20816 zone of the velocity",
    "env_bpfo": "outer-race lines of the envelope spectrum",
    "env_bpfi": "inner-race lines of the envelope spectrum",
    "z": "z-score of log r.m.s. against the baseline",
    "alert": "z-score beyond its limit",
}
"""What becomes of the samples, in words, where the column's name does not say it."""


def _turning(inputs: Inputs, waves: Sequence[str]) -> tuple[From, ...]:
    """The columns that the shaft's frequency is read from."""
    found: list[From] = []
    for stream in inputs:
        if stream not in waves:
            found += made_of(
                stream, ["value"], "TRANSFORMATION", "speed of the machine as turns of the shaft"
            )
            found += made_of(
                stream, ["sensor", "status", "machine"], "CONDITIONAL", "the speed sensor, while Good"
            )
    return tuple(found)


def _decode(state: bytes, stream: str) -> _State:
    try:
        held = msgspec.msgpack.decode(state, type=_State)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _other_version(stream, str(error)) from error
    if held.version != _VERSION:
        raise _other_version(stream, f"version {held.version}, this code reads {_VERSION}")
    return held


def _other_version(stream: str, why: str) -> BoucleError:
    return BoucleError(
        "B602",
        f"the state of {stream} was written by another version",
        why=why,
        fix="remove the checkpoint to start afresh",
    )

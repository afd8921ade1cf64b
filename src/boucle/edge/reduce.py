"""Waveforms reduced to one row per machine, sensor and window of event time.

A window is given as soon as its last sample is there, without waiting for lateness; a window with
gaps is given when the watermark passes its end, with `complete` false. Chunks may straddle windows
and arrive in any order.
"""

import logging
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import Block, as_rows
from boucle.clock import Nanos
from boucle.edge.baseline import Baseline
from boucle.edge.spectrum import Analyser, Analysis, line_ratio
from boucle.edge.window import Assembler, Grid, Samples, Waveform, WindowState
from boucle.edge.zone import GROUP_2_RIGID, check_zones, zone
from boucle.errors import BoucleError, ContractBroken
from boucle.product.duration import seconds

__all__ = ["EVENTS", "Reduce"]

_log = logging.getLogger("boucle.edge.reduce")

_VERSION = 1
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


class _SensorState(Struct, frozen=True):
    machine: str
    sensor: str
    windows: tuple[WindowState, ...]
    closed: tuple[int, ...]
    floor: int | None
    baseline: Baseline


class _State(Struct, frozen=True):
    version: int
    watermark: Nanos
    late_rows: int
    sensors: tuple[_SensorState, ...]
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
        self._grid = Grid.of(rate_hz, window_s)
        self._analyser = Analyser(
            self._grid.size,
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
        self._assemblers: dict[_Key, Assembler] = {}
        self._baselines: dict[_Key, Baseline] = {}
        self._speeds: dict[str, list[tuple[Nanos, float]]] = {}
        self._chunks: dict[_Key, Samples] = {}
        self._power: dict[_Key, NDArray[np.float32]] = {}
        self._watermark: Nanos = 0
        self.late_rows = 0

    def step(self, block: Block) -> Sequence[Block]:
        """Take waveform or speed; give the windows that this completed or closed, oldest first."""
        if "samples" not in block.rows.schema.names:
            self._read_speed(block.rows)
            return ()
        ready: dict[_Key, list[Waveform]] = {}
        for key, at, samples in _chunks(block):
            assembler = self._assemblers.get(key)
            if assembler is None:
                assembler = self._assemblers[key] = Assembler(self._grid)
            if not assembler.add(at, samples):
                self._count_late(key)
            self._chunks[key] = samples
            ready.setdefault(key, [])
        for key in ready:
            ready[key] += self._assemblers[key].complete()
        window = self._grid.window
        if block.watermark // window > self._watermark // window:
            for key, assembler in self._assemblers.items():
                ready.setdefault(key, []).extend(assembler.close(block.watermark))
        self._watermark = max(self._watermark, block.watermark)
        rows = list(self._rows(ready))
        self._forget_speeds()
        if not rows:
            return ()
        batch = as_rows(rows, EVENTS)
        # Windows that start before this have all been given.
        promise = self._watermark // window * window
        return (Block(self._stream, batch, promise, block.position),)

    def latest(self, machine: str) -> dict[str, tuple[Samples, NDArray[np.float32], float]]:
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

    def snapshot(self) -> bytes:
        """Windows in the making, baselines, speeds and the watermark."""
        sensors = []
        for key, assembler in sorted(self._assemblers.items()):
            windows, closed, floor = assembler.snapshot()
            sensors.append(_SensorState(*key, windows, closed, floor, self._baseline_of(key)))
        speeds = {machine: tuple(values) for machine, values in self._speeds.items()}
        state = _State(_VERSION, self._watermark, self.late_rows, tuple(sensors), speeds)
        return msgspec.msgpack.encode(state)

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when it was taken by another version."""
        held = _decode(state, self._stream)
        self._watermark, self.late_rows = held.watermark, held.late_rows
        self._speeds = {machine: list(values) for machine, values in held.speeds.items()}
        self._assemblers, self._baselines = {}, {}
        for sensor in held.sensors:
            key = (sensor.machine, sensor.sensor)
            self._assemblers[key] = Assembler(self._grid)
            self._assemblers[key].restore((sensor.windows, sensor.closed, sensor.floor))
            self._baselines[key] = sensor.baseline

    def _rows(self, ready: dict[_Key, list[Waveform]]) -> Iterator[dict[str, Any]]:
        """Rows by time, machine, sensor; the sensors of a machine and window share one transform."""
        groups: dict[tuple[int, str], list[tuple[str, Waveform]]] = {}
        for (machine, sensor), waveforms in ready.items():
            for waveform in waveforms:
                groups.setdefault((waveform.number, machine), []).append((sensor, waveform))
        for (number, machine), members in sorted(groups.items(), key=lambda item: item[0]):
            members.sort(key=lambda member: member[0])
            yield from self._reduce(number, machine, members)

    def _reduce(
        self, number: int, machine: str, members: list[tuple[str, Waveform]]
    ) -> Iterator[dict[str, Any]]:
        analysis = self._analyser.analyse(
            np.stack([waveform.samples for _, waveform in members]),
            np.array([waveform.mean for _, waveform in members]),
            np.array([waveform.covered for _, waveform in members]),
        )
        at = number * self._grid.window
        speed = self._speed(machine, at + self._grid.window // 2)
        shaft = self._fixed_shaft
        if shaft is None and speed is not None:
            shaft = speed / 60 * self._shaft_per_stroke
        lines = self._lines(analysis, shaft)
        for index, (sensor, waveform) in enumerate(members):
            key = (machine, sensor)
            self._power[key] = analysis.power[index].copy()
            rms, velocity = float(analysis.rms[index]), float(analysis.velocity[index])
            z = self._score(key, rms, speed) if waveform.covered == self._grid.size else None
            yield {
                "machine": machine,
                "sensor": sensor,
                "at": at,
                "count": waveform.count,
                "complete": waveform.covered == self._grid.size,
                "mean": waveform.mean,
                "min": waveform.low,
                "max": waveform.high,
                "rms": rms,
                "kurtosis": float(analysis.kurtosis[index]),
                "crest": float(analysis.crest[index]),
                "velocity_mm_s": velocity,
                "zone": zone(velocity, self._zones),
                **{f"band_{band}": float(analysis.bands[index, band]) for band in range(_BANDS)},
                "env_bpfo": None if lines is None else float(lines[0][index]),
                "env_bpfi": None if lines is None else float(lines[1][index]),
                "shaft_hz": shaft,
                "z": z,
                "alert": z is not None and abs(z) > self._z_limit,
            }

    def _lines(
        self, analysis: Analysis, shaft: float | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        if shaft is None:
            return None
        bin_hz = self._analyser.bin_hz
        outer = line_ratio(analysis.envelope, bin_hz, self._bpfo * shaft)
        return outer, line_ratio(analysis.envelope, bin_hz, self._bpfi * shaft)

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
        horizon = self._watermark - 2 * self._grid.window
        for machine, known in self._speeds.items():
            first = bisect_right(known, horizon, key=lambda item: item[0]) - 1
            if first > 0:
                self._speeds[machine] = known[first:]

    def _count_late(self, key: _Key) -> None:
        self.late_rows += 1
        if self.late_rows & (self.late_rows - 1) == 0:  # 1, 2, 4, 8 …: a flood must not fill the log
            _log.warning("%s/%s: chunk after its window was given (%d so far)", *key, self.late_rows)


def _chunks(block: Block) -> Iterable[tuple[_Key, Nanos, Samples]]:
    rows = block.rows
    samples = rows.column("samples")
    if not pa.types.is_list(samples.type) or samples.type.value_type != pa.float32():
        try:
            samples = samples.cast(pa.list_(pa.float32()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ContractBroken(
                "B401",
                f"samples are {samples.type}, not a list of float32",
                where=block.stream,
                why=str(error),
                fix="send each chunk as a list of numbers, in g",
            ) from error
    values = samples.values.to_numpy(zero_copy_only=False)
    offsets = samples.offsets.to_numpy()
    machines, sensors = rows.column("machine").to_pylist(), rows.column("sensor").to_pylist()
    times = rows.column("at").cast(_TIME).cast(pa.int64()).to_pylist()
    for index, at in enumerate(times):
        chunk = values[offsets[index] : offsets[index + 1]]
        yield (machines[index], sensors[index]), at, chunk


def _decode(state: bytes, stream: str) -> _State:
    try:
        held = msgspec.msgpack.decode(state, type=_State)
    except msgspec.DecodeError as error:
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

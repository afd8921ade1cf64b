"""What is particular to the press line: one wide row of features per machine and second."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, as_dicts, as_rows
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.ports import From, Traced
from boucle.product.duration import seconds

__all__ = ["AXES", "FEATURES", "PressFeatures"]

AXES = ("x", "y", "z")
_SLOW = ("bearing_temperature", "oil_temperature", "hydraulic_pressure", "motor_current")
_OF_SLOW = ("", "_noise", "_count")
_SPEEDS = {"speed": "speed_actual", "setpoint": "speed_setpoint"}
_AXIS = {
    "mean": "mean",
    "rms": "rms",
    "kurtosis": "kurtosis",
    "crest": "crest",
    "velocity": "velocity_mm_s",
    **{f"band_{index}": f"band_{index}" for index in range(8)},
    "bpfo": "env_bpfo",
    "bpfi": "env_bpfi",
    "count": "count",
    "alert": "alert",
}
_TYPES = {"count": pa.int64(), "alert": pa.bool_()}
_VERSION = 1
_TIME = pa.timestamp("ns", tz="UTC")

FEATURES = pa.schema(
    [
        pa.field("machine", pa.string(), nullable=False),
        pa.field("at", _TIME, nullable=False),
        *(pa.field(name, pa.float64()) for name in _SPEEDS),
        *(pa.field(f"{name}{of}", pa.float64()) for of in _OF_SLOW for name in _SLOW),
        *(pa.field(f"{axis}_{name}", _TYPES.get(name, pa.float64())) for axis in AXES for name in _AXIS),
    ]
)
"""strokes/min, °C, bar, A; per axis g, mm/s, g², ratios. Null: not measured in this second.

`_noise` of a slow value is the lower quartile of the steps from one reading to the next within the second, in
its unit: the stroke's pulse does not show in it, and 0 is a value that stands still. `_count` is how many
readings there were.
"""


class _State(Struct, frozen=True):
    version: int
    watermark: Nanos
    late_rows: int
    waiting: list[tuple[Nanos, str, dict[str, dict[str, Any]]]]
    given: dict[str, Nanos]
    slow: list[tuple[str, str, list[tuple[Nanos, float | None]]]]


class PressFeatures:
    """Joins the three axes of a machine with its slow values, one row a second.

    A row is given when its three axes are there, or when the watermark says that no more will come
    (what is missing is null). Slow values are the mean of the second that ends in the middle of the
    window, and speed and set-point those in force there: they may arrive half a window late without
    changing a row. A value whose status is not Good counts as not measured; so does every slow value
    of a machine that nothing was heard of for `stale`.
    """

    def __init__(self, stream: str, *, window: str | float = "1s", stale: str | float = "30s") -> None:
        self._stream = stream
        self._window = round(seconds(window) * SECOND)
        self._stale = round(seconds(stale) * SECOND)
        self._waiting: dict[tuple[Nanos, str], dict[str, dict[str, Any]]] = {}
        self._given: dict[str, Nanos] = {}
        self._slow: dict[tuple[str, str], list[tuple[Nanos, float | None]]] = {}
        self._watermark: Nanos = 0
        self.late_rows = 0

    @classmethod
    def trace(cls, inputs: Mapping[str, Sequence[str]], **declared: Any) -> Traced:
        """For `boucle lineage`: which column of which input each feature is made from."""
        del declared
        slow, fast = sorted(inputs, key=lambda name: "value" not in inputs[name])
        columns = {"machine": (From(fast, "machine"),), "at": (From(fast, "at"),)}
        chosen = tuple(From(slow, name, "CONDITIONAL") for name in ("sensor", "status", "machine"))
        for name, sensor in {**_SPEEDS, **{name: name for name in _SLOW}}.items():
            how = ("TRANSFORMATION", "in force") if name in _SPEEDS else ("AGGREGATION", "mean of a second")
            columns[name] = (From(slow, "value", how[0], f"{sensor}, {how[1]} in mid-window"), *chosen)
        for name in _SLOW:
            steps = From(slow, "value", "AGGREGATION", f"{name}, lower quartile of the steps")
            columns |= {f"{name}_noise": (steps, *chosen), f"{name}_count": chosen}
        for axis in AXES:
            for name, source in _AXIS.items():
                made = From(fast, source, "TRANSFORMATION", f"of sensor vib_{axis}")
                columns[f"{axis}_{name}"] = (made, From(fast, "sensor", "CONDITIONAL"))
        return Traced(columns, (From(fast, "machine", "JOIN"), From(fast, "at", "JOIN")))

    def step(self, block: Block) -> Sequence[Block]:
        """Take slow values or reduced vibration; give the rows that this completed or closed."""
        if "value" in block.rows.schema.names:
            self._read_slow(block.rows)
            return ()
        self._read_axes(block.rows)
        self._watermark = max(self._watermark, block.watermark)
        ready = [
            key for key, axes in self._waiting.items() if len(axes) == len(AXES) or key[0] < self._watermark
        ]
        rows = [self._row(*key, self._waiting.pop(key)) for key in sorted(ready)]
        for at, machine in ready:
            self._given[machine] = max(at, self._given.get(machine, 0))
        self._forget()
        if not rows:
            return ()
        batch = as_rows(rows, FEATURES)
        return (Block(self._stream, batch, self._watermark, block.position),)

    def snapshot(self) -> bytes:
        """Rows that wait for an axis, and the slow values still needed."""
        waiting = [(at, machine, axes) for (at, machine), axes in sorted(self._waiting.items())]
        slow = [(*key, values) for key, values in sorted(self._slow.items())]
        state = _State(_VERSION, self._watermark, self.late_rows, waiting, self._given, slow)
        return msgspec.msgpack.encode(state)

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when it was taken by another version."""
        try:
            held = msgspec.msgpack.decode(state, type=_State)
        except msgspec.DecodeError as error:
            raise self._refused(str(error)) from error
        if held.version != _VERSION:
            raise self._refused(f"version {held.version}, this code reads {_VERSION}")
        self._watermark, self.late_rows, self._given = held.watermark, held.late_rows, held.given
        self._waiting = {(at, machine): axes for at, machine, axes in held.waiting}
        self._slow = {(machine, sensor): values for machine, sensor, values in held.slow}

    def _refused(self, why: str) -> BoucleError:
        what = f"the state of {self._stream} was written by another version"
        return BoucleError("B602", what, why=why, fix="remove the checkpoint to start afresh")

    def _read_axes(self, rows: pa.RecordBatch) -> None:
        for row in as_dicts(rows):
            at, axis = row["at"], row["sensor"].removeprefix("vib_")
            if axis not in AXES:
                continue
            # Only a row of this very second can be late: another machine's seconds are its own.
            if at < self._watermark or self._given.get(row["machine"], -1) == at:
                self.late_rows += 1
                continue
            axes = self._waiting.setdefault((at, row["machine"]), {})
            axes[axis] = {name: row[column] for name, column in _AXIS.items()}

    def _read_slow(self, rows: pa.RecordBatch) -> None:
        columns = (rows.column(name).to_pylist() for name in ("machine", "sensor", "value", "status"))
        times = rows.column("at").cast(_TIME).cast(pa.int64()).to_pylist()
        for at, machine, sensor, value, status in zip(times, *columns, strict=True):
            if sensor in _SLOW or sensor in _SPEEDS.values():
                known = self._slow.setdefault((machine, sensor), [])
                good = value if status == "Good" else None
                known.insert(bisect_right(known, at, key=lambda item: item[0]), (at, good))

    def _row(self, at: Nanos, machine: str, axes: dict[str, dict[str, Any]]) -> dict[str, Any]:
        row: dict[str, Any] = {"machine": machine, "at": at}
        middle = at + self._window // 2
        heard = max(
            (self._at(machine, sensor, middle)[0] for sensor in (*_SLOW, *_SPEEDS.values())), default=0
        )
        fresh = middle - heard <= self._stale
        for name, sensor in _SPEEDS.items():
            row[name] = self._at(machine, sensor, middle)[1] if fresh else None
        for sensor in _SLOW:
            told = self._second(machine, sensor, middle) if fresh else (None, None, None)
            row |= {f"{sensor}{of}": value for of, value in zip(_OF_SLOW, told, strict=True)}
        for axis, values in axes.items():
            row |= {f"{axis}_{name}": value for name, value in values.items()}
        return row

    def _at(self, machine: str, sensor: str, at: Nanos) -> tuple[Nanos, float | None]:
        """The value in force at a time, and since when; (0, None) when there is none."""
        known = self._slow.get((machine, sensor), [])
        index = bisect_right(known, at, key=lambda item: item[0])
        return known[index - 1] if index else (0, None)

    def _second(
        self, machine: str, sensor: str, until: Nanos
    ) -> tuple[float | None, float | None, float | None]:
        """Mean of the readings of a second, the lower quartile of the steps between them, and how many there were."""
        known = self._slow.get((machine, sensor), [])
        last = bisect_right(known, until, key=lambda item: item[0])
        first = bisect_right(known, until - self._window, key=lambda item: item[0])
        values = [value for _, value in known[first:last] if value is not None]
        if not values:
            return self._at(machine, sensor, until)[1], None, 0.0
        steps = sorted(abs(after - before) for before, after in pairwise(values))
        noise = steps[len(steps) // 4] if len(steps) > 1 else None
        return sum(values) / len(values), noise, float(len(values))

    def _forget(self) -> None:
        # Slow values older than a window before the oldest row still possible; the one in force stays.
        horizon = self._watermark - 2 * self._window
        for key, known in self._slow.items():
            first = bisect_right(known, horizon, key=lambda item: item[0]) - 1
            if first > 0:
                self._slow[key] = known[first:]

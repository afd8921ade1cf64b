"""Order tracking: vibration by turns of the shaft instead of seconds, so that a changing speed smears nothing.

    use: boucle.edge.orders:Orders
    from: [vibration, tacho]
    with:
      by: [machine, sensor]
      rate_hz: 10000
      size: 1s
      speed: rpm                  # column of the other input
      turns_per_second: 0.0166667 # of the shaft, for a speed of 1: revolutions per minute
      turns: 8
      values: {unbalance: "order(1)", mesh: "order(23)", spectrum: spectrum}

The angle of the shaft is the integral of its speed, straight between two readings and held after the last
(`scipy.integrate.cumulative_trapezoid`); or it is counted by a tacho, `pulses` a turn, one row each. The signal
is read at equal angles by a cubic spline (`scipy.interpolate`), after what turns too fast for them was taken out;
then its transform has orders, multiples of the shaft's frequency, for bins (Fyfe & Munck, "Analysis of computed
order tracking", Mechanical Systems and Signal Processing 11, 1997).
"""

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import scipy.fft
import scipy.integrate
import scipy.interpolate
from numpy.typing import NDArray

from boucle.block import Block
from boucle.clock import SECOND, Nanos
from boucle.edge.describe import call_of
from boucle.edge.grid import Grid
from boucle.edge.pool import Ready
from boucle.edge.windowed import Windowed, traced_samples
from boucle.errors import BoucleError
from boucle.ports import Traced
from boucle.stream.origin import Inputs, made_of
from boucle.stream.rows import require_of
from boucle.stream.sequence import instants

__all__ = ["Orders"]

Doubles = NDArray[np.float64]
_Reading = tuple[Nanos, float]


class Orders(Windowed):
    """Amplitudes (peak) of the orders of the shaft, from the first `turns` turns of each window.

    The input that carries `samples` is the waveform; the other gives the speed, or a row per pulse, of the
    shaft named by `shaft` (columns that both have, by default the first of `by`). A window is given when the
    watermarks of both have passed its end. `per_turn` samples of a turn carry orders up to half of that.

    What is given has the `by` columns, `at` (the start of the window), `complete`, `turns` (of the whole
    window; null while the speed is unknown) and the values: `order(n)` and `spectrum` (a list, from order 0
    in steps of 1/`turns`), null when the window holds fewer turns than that. Late rows of both inputs go to
    `<step>/late`. B220 for settings that cannot work, B221 for columns that are not there.
    """

    def __init__(
        self,
        stream: str,
        *,
        size: str | float,
        rate_hz: float,
        values: Mapping[str, str],
        by: Sequence[str] | str,
        shaft: Sequence[str] | str = (),
        speed: str = "",
        turns_per_second: float = 1.0,
        pulses: int = 0,
        turns: int = 4,
        per_turn: int = 128,
        samples: str = "samples",
        time: str = "at",
    ) -> None:
        if bool(speed) == bool(pulses) or pulses < 0 or turns_per_second <= 0:
            raise BoucleError(
                "B220",
                f"{stream}: one way to know the angle is wanted",
                fix="give speed (a column) and turns_per_second, or pulses (of one turn)",
            )
        if turns < 1 or per_turn < 8:
            raise BoucleError(
                "B220", f"{stream}: {turns} turns of {per_turn} samples", fix="1 and 8, or more"
            )
        self._values = [
            (name, *call_of(name, told, {"order": 1, "spectrum": 0})) for name, told in values.items()
        ]
        for name, kind, arguments in self._values:
            if kind == "order" and not 1 / turns <= arguments[0] < per_turn / 2:
                raise BoucleError(
                    "B220",
                    f"{name}: there is no order {arguments[0]:g} here",
                    fix=f"give one from {1 / turns:g} to below {per_turn / 2:g}, or more turns or per_turn",
                )
        kinds = {"order": pa.float64(), "spectrum": pa.list_(pa.float32())}
        fields = [pa.field("turns", pa.float64())]
        fields += [pa.field(name, kinds[kind]) for name, kind, _ in self._values]
        super().__init__(stream, Grid.of(rate_hz, size), fields, by=by, samples=samples, time=time)
        shaft = (shaft,) if isinstance(shaft, str) and shaft else tuple(shaft)
        self._shaft = shaft or self._pool.sensors.by[:1]
        if missing := sorted(set(self._shaft) - set(self._pool.sensors.by)):
            raise BoucleError("B220", f"{stream}: shaft {', '.join(missing)}", fix="name columns of by")
        self._column, self._scale, self._pulses = speed, turns_per_second, pulses
        self._turns, self._per_turn = turns, per_turn
        self._readings: dict[tuple[Any, ...], list[_Reading]] = {}
        self._marks: list[Nanos] = [0, 0]

    @classmethod
    def trace(
        cls, inputs: Inputs, *, size: str | float, values: Mapping[str, str], speed: str = "", **declared: Any
    ) -> Traced:
        """Keys and time of the waveform; its samples read by the angle that the other input tells."""
        told = traced_samples(
            inputs, {"turns": "turns of the shaft", **values}, f"window: {size}", **declared
        )
        samples, time = declared.get("samples", "samples"), declared.get("time", "at")
        angle = [
            one
            for stream, columns in inputs.items()
            if samples not in columns
            for one in made_of(stream, [speed, time], "TRANSFORMATION", "angle of the shaft")
        ]
        known = set(told.columns) - {"turns", *values}
        columns = {
            name: made if name in known else (*(made if name != "turns" else ()), *angle)
            for name, made in told.columns.items()
        }
        return Traced(columns, told.rows)

    def step(self, block: Block) -> Sequence[Block]:
        """Take chunks, or readings of the speed; give the windows that both watermarks have passed."""
        before, of_speed = self._pool.promise, self._samples not in block.rows.schema.names
        self._marks[of_speed] = max(self._marks[of_speed], block.watermark)
        out = self._read(block) if of_speed else self._take(block)
        if self._seen is None:
            return out
        out += self._due(block, min(self._marks), before, wait=True)
        self._forget()
        return out

    def _read(self, block: Block) -> list[Block]:
        columns = [*self._shaft, *([self._column] if self._column else [])]
        require_of(self._stream, block.stream, {self._time, *columns}, block.rows.schema)
        at = instants(block.rows, self._time)
        late = at < self._pool.watermark
        shafts = zip(*(block.rows.column(name).to_pylist() for name in self._shaft), strict=True)
        speeds: list[Any] = [1.0] * len(at)
        if self._column:
            speeds = block.rows.column(self._column).to_pylist()
        for shaft, moment, speed, behind in zip(shafts, at.tolist(), speeds, late.tolist(), strict=True):
            if not behind and speed is not None and np.isfinite(speed):
                insort(self._readings.setdefault(shaft, []), (moment, float(speed)))
        if not late.any():
            return []
        self.late_rows += int(late.sum())
        told = block.rows.append_column("late_by_ns", pa.array(self._pool.watermark - at, pa.int64()))
        rows = told.filter(pa.array(late))
        return [Block(f"{self._stream}/late", rows, self._pool.promise, block.position)]

    def _forget(self) -> None:
        # The window in the making begins at the promise; its angle begins at the reading before.
        for readings in self._readings.values():
            keep = 0
            while keep + 1 < len(readings) and readings[keep + 1][0] <= self._pool.promise:
                keep += 1
            del readings[:keep]

    def _told(self, ready: Ready) -> list[pa.Array]:
        points = self._turns * self._per_turn
        signals = np.zeros((len(ready.rows), points))
        turned = np.full(len(ready.rows), np.nan)
        for place, (row, key) in enumerate(zip(ready.rows.tolist(), ready.keys.tolist(), strict=True)):
            named = dict(zip(self._pool.sensors.by, self._pool.sensors.known[key], strict=True))
            shaft = tuple(named[name] for name in self._shaft)
            angle = self._angle(
                self._readings.get(shaft, []), self._pool.grid.start(int(ready.numbers[place]))
            )
            if angle is None:
                continue
            turned[place] = angle[-1]
            if angle[-1] >= self._turns:
                signals[place] = self._by_angle(row, angle)
        amplitude = np.abs(scipy.fft.rfft(signals, axis=1)) * (2 / points)
        amplitude[:, 0] /= 2
        missing = ~(turned >= self._turns)
        columns = [pa.array(turned, mask=np.isnan(turned))]
        for _, kind, arguments in self._values:
            if kind == "order":
                columns.append(pa.array(amplitude[:, round(arguments[0] * self._turns)], mask=missing))
            else:
                known = amplitude[:, : points // 2].astype(np.float32)
                lists = [None if gone else line for gone, line in zip(missing, known, strict=True)]
                columns.append(pa.array(lists, pa.list_(pa.float32())))
        return columns

    def _angle(self, readings: Sequence[_Reading], start: Nanos) -> Doubles | None:
        """Turns since the window began at each of its samples and at its end; None while the speed is unknown."""
        grid = self._pool.grid
        seconds = np.arange(grid.size + 1) * (grid.den / grid.num)
        end = start + round(grid.size * grid.den * SECOND / grid.num)
        first = bisect_right(readings, (start, np.inf)) - 1
        if first < 0:
            return None
        # From the last reading before the window on, whatever else is still remembered.
        used = [reading for reading in readings[first:] if reading[0] < end]
        at = np.array([moment - start for moment, _ in used]) / SECOND
        if self._pulses:
            if len(used) < 2:
                return None
            counted = np.arange(len(used)) / self._pulses
            after = (counted[-1] - counted[-2]) / max(at[-1] - at[-2], 1 / SECOND)
        else:
            speeds = np.array([speed for _, speed in used]) * self._scale
            # Between readings the speed is straight, so the angle bends: the grid's own instants are summed.
            inside = np.interp(seconds, at, speeds)
            return np.maximum.accumulate(scipy.integrate.cumulative_trapezoid(inside, seconds, initial=0))
        late = np.maximum(seconds - at[-1], 0) * after
        angle = np.interp(seconds, at, counted) + late
        return np.asarray(angle - angle[0])

    def _by_angle(self, row: int, angle: Doubles) -> Doubles:
        """The first turns of a window's signal, less its mean, at equal angles."""
        filled = self._pool.filled[row] == 1
        held = self._pool.samples[row].astype(np.float64)
        held[~filled] = held[filled].mean()
        held -= held.mean()
        size, passed = len(held), int(np.searchsorted(angle, self._turns))
        carried = np.diff(angle[: passed + 1]).min() * self._per_turn / 2  # periods a sample, at the slowest
        if carried < 1 / 2:
            spectrum = scipy.fft.rfft(held)
            spectrum[int(carried * size) + 1 :] = 0
            held = scipy.fft.irfft(spectrum, size)
        rises = np.concatenate([[True], np.diff(angle[:-1]) > 0])
        wanted = np.arange(self._turns * self._per_turn) / self._per_turn
        moments = np.interp(wanted, angle[:-1][rises], np.flatnonzero(rises))
        return np.asarray(scipy.interpolate.CubicSpline(np.arange(size), held)(moments))

    def _more(self) -> bytes:
        return msgspec.msgpack.encode((self._marks, list(self._readings.items())))

    def _remember(self, more: bytes) -> None:
        kind = tuple[list[int], list[tuple[tuple[Any, ...], list[tuple[int, float]]]]]
        self._marks, readings = msgspec.msgpack.decode(more, type=kind)
        self._readings = {tuple(shaft): held for shaft, held in readings}

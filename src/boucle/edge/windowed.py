"""What every step shares that takes chunks of waveform and gives a row per sensor and window."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import Block
from boucle.edge.chunks import Chunks, chunks_of
from boucle.edge.grid import Grid
from boucle.edge.pool import Pool, Ready
from boucle.ports import From, Traced
from boucle.stream.origin import Inputs, grouped, made_of
from boucle.stream.rows import require_of
from boucle.stream.sequence import state_of

__all__ = ["Windowed", "traced_samples"]

_VERSION = 1
_TIME = pa.timestamp("ns", tz="UTC")


class Windowed:
    """Chunks in, windows out; what is told of a window says a kind of step (`_told`).

    Chunks that belonged, or any part of them, to a window that was given go to `<step>/late`, with
    `late_by_ns` (how far the watermark had passed their beginning, 0 when it had not), and count in
    `late_rows`.
    """

    def __init__(
        self,
        stream: str,
        grid: Grid,
        fields: Sequence[pa.Field],
        *,
        by: Sequence[str] | str,
        samples: str,
        time: str,
    ) -> None:
        self._stream, self._samples, self._time = stream, samples, time
        self._pool = Pool(grid, (by,) if isinstance(by, str) else by)
        self._fields = tuple(fields)
        self._seen: pa.Schema | None = None
        self._kinds: list[pa.DataType] = []
        self._given = pa.schema([])
        self._nothing = pa.RecordBatch.from_pylist([], self._given)
        self.late_rows = 0

    @property
    def keys(self) -> int:
        """Sensors that are known."""
        return len(self._pool.sensors.known)

    def step(self, block: Block) -> Sequence[Block]:
        """Take chunks; give the windows that they completed or the watermark closed, oldest first."""
        before = self._pool.promise
        return self._take(block) + self._due(block, block.watermark, before, wait=False)

    def _take(self, block: Block) -> list[Block]:
        """Put the chunks into their windows; what came too late."""
        if self._seen is None or self._seen != block.rows.schema:
            self._learn(block)
        chunks = chunks_of(block, self._samples, self._time, self._pool.sensors)
        late = self._pool.add(chunks)
        return [self._late(block, chunks, late)] if late.any() else []

    def _due(self, block: Block, watermark: int, before: int, *, wait: bool) -> list[Block]:
        pool = self._pool
        ready = pool.ready(watermark, wait=wait)
        out = []
        if len(ready.entries) or pool.promise > before:
            out.append(Block(self._stream, self._rows(ready), pool.promise, block.position))
        pool.give(ready)
        return out

    def _learn(self, block: Block) -> None:
        schema, by = block.rows.schema, self._pool.sensors.by
        require_of(self._stream, block.stream, {self._samples, self._time, *by}, schema)
        self._seen = schema
        told = [pa.field("at", _TIME, nullable=False), pa.field("complete", pa.bool_(), nullable=False)]
        self._kinds = [schema.field(name).type for name in by]
        self._given = pa.schema([*map(schema.field, by), *told, *self._fields])
        self._nothing = pa.RecordBatch.from_pylist([], self._given)

    def _late(self, block: Block, chunks: Chunks, late: NDArray[np.bool_]) -> Block:
        self.late_rows += int(late.sum())
        behind = np.maximum(self._pool.watermark - chunks.at, 0)
        rows = block.rows.append_column("late_by_ns", pa.array(behind, pa.int64())).filter(pa.array(late))
        return Block(f"{self._stream}/late", rows, self._pool.promise, block.position)

    def _rows(self, ready: Ready) -> pa.RecordBatch:
        if not len(ready.rows):
            return self._nothing
        columns = self._pool.sensors.columns(ready.keys, self._kinds)
        columns.append(pa.array(self._begin(ready.numbers)).view(_TIME))
        columns.append(pa.array(ready.covered == self._pool.grid.size))
        return pa.RecordBatch.from_arrays([*columns, *self._told(ready)], schema=self._given)

    def _begin(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The times of the rows of these windows, ns."""
        return self._pool.grid.starts(numbers)

    def _told(self, ready: Ready) -> list[pa.Array]:
        """The values of these windows, in the order of the fields."""
        raise NotImplementedError

    def _more(self) -> bytes:
        """What a kind of step remembers beside its windows."""
        return b""

    def _remember(self, more: bytes) -> None:
        del more

    def describe(self, key: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Windows in the making; of one sensor how full each of its windows is."""
        return self._pool.describe(key)

    def snapshot(self) -> bytes:
        """Windows in the making, those given early, and the watermark."""
        return msgspec.msgpack.encode((_VERSION, self.late_rows, self._pool.snapshot(), self._more()))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when another version of this step took it."""
        kind = tuple[int, int, bytes, bytes]
        _, self.late_rows, pool, more = state_of(kind, state, _VERSION, self._stream)
        self._pool.restore(pool)
        self._remember(more)


def traced_samples(
    inputs: Inputs,
    values: Mapping[str, str],
    window: str,
    *,
    by: Sequence[str] | str = (),
    samples: str = "samples",
    time: str = "at",
    **declared: Any,
) -> Traced:
    """What `trace` of every kind of step tells: keys, the start of the window, values made of the samples."""
    del declared
    wave = next((name for name, columns in inputs.items() if samples in columns), next(iter(inputs), ""))
    names = (by,) if isinstance(by, str) else tuple(by)
    columns: dict[str, tuple[From, ...]] = {name: (From(wave, name),) for name in names}
    columns["at"] = made_of(wave, [time], "TRANSFORMATION", f"start of the {window}")
    columns["complete"] = made_of(wave, [samples], "AGGREGATION", f"whether no sample is missing, {window}")
    for name, told in values.items():
        columns[name] = made_of(wave, [samples], "AGGREGATION", f"{told}, {window}")
    return Traced(columns, grouped(wave, names, time, window))

"""Waveforms described: one row per sensor and window of event time.

    use: boucle.edge.waveform:Waveform
    from: [vibration]
    with:
      by: [machine, sensor]
      size: 1s
      rate_hz: 10000
      values: {rms: rms, kurtosis: kurtosis, mesh: "band(300, 600)"}

A window is given as soon as its last sample is there, without waiting for lateness; a window with gaps is
given when the watermark passes its end, with `complete` false. Chunks may straddle windows and arrive in any
order. `boucle.edge.describe` lists the values.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import Block
from boucle.edge.chunks import Chunks, chunks_of
from boucle.edge.describe import Description
from boucle.edge.grid import Grid
from boucle.edge.pool import Pool, Ready
from boucle.stream.rows import require_of
from boucle.stream.sequence import state_of

__all__ = ["Waveform"]

_VERSION = 1
_TIME = pa.timestamp("ns", tz="UTC")


class Waveform:
    """Windows of `size` of each sensor, one beginning at every `every` (none given: side by side).

    Rows carry a chunk each: the time of its first sample, and its samples as a list of numbers, `rate_hz` a
    second. What is given has the `by` columns, `at` (the start of the window), `complete` and the values.
    Chunks that belonged, or any part of them, to a window that was given go to `<step>/late`, with
    `late_by_ns` (how far the watermark had passed their beginning, 0 when it had not), and count in
    `late_rows`. B220 for settings that cannot work, B221 for columns that are not there.
    """

    def __init__(
        self,
        stream: str,
        *,
        size: str | float,
        rate_hz: float,
        values: Mapping[str, str],
        by: Sequence[str] | str = (),
        every: str | float | None = None,
        samples: str = "samples",
        time: str = "at",
    ) -> None:
        self._stream, self._samples, self._time = stream, samples, time
        grid = Grid.of(rate_hz, size, every)
        self._description = Description(values, grid, stream)
        self._pool = Pool(grid, (by,) if isinstance(by, str) else by)
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
        if self._seen is None or self._seen != block.rows.schema:
            self._learn(block)
        pool, before = self._pool, self._pool.promise
        chunks = chunks_of(block, self._samples, self._time, pool.sensors)
        late = pool.add(chunks)
        out = [self._late(block, chunks, late)] if late.any() else []
        ready = pool.ready(block.watermark)
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
        self._given = pa.schema([*map(schema.field, by), *told, *self._description.fields])
        self._nothing = pa.RecordBatch.from_pylist([], self._given)

    def _late(self, block: Block, chunks: Chunks, late: NDArray[np.bool_]) -> Block:
        self.late_rows += int(late.sum())
        behind = np.maximum(self._pool.watermark - chunks.at, 0)
        rows = block.rows.append_column("late_by_ns", pa.array(behind, pa.int64())).filter(pa.array(late))
        return Block(f"{self._stream}/late", rows, self._pool.promise, block.position)

    def _rows(self, ready: Ready) -> pa.RecordBatch:
        if not len(ready.rows):
            return self._nothing
        pool = self._pool
        columns = pool.sensors.columns(ready.keys, self._kinds)
        columns.append(pa.array(pool.grid.starts(ready.numbers)).view(_TIME))
        columns.append(pa.array(ready.covered == pool.grid.size))
        columns += self._description.columns(pool, ready)
        return pa.RecordBatch.from_arrays(columns, schema=self._given)

    def snapshot(self) -> bytes:
        """Windows in the making, those given early, and the watermark."""
        return msgspec.msgpack.encode((_VERSION, self.late_rows, self._pool.snapshot()))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when another version of this step took it."""
        held = state_of(tuple[int, int, bytes], state, _VERSION, self._stream)
        _, self.late_rows, pool = held
        self._pool.restore(pool)

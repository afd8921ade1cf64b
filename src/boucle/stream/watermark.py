"""Watermarks per partition: how far event time has come, and which rows came too late.

After Akidau et al., "The Dataflow Model", VLDB 2015: the watermark of a partition is its newest
event time less the bounded lateness; that of the stream is the least over its partitions. A
partition that falls more than `idle` behind the leading one is idle and no longer holds the stream
back (its rows are then judged by its own watermark only, so they are not late for being idle).
Everything follows from the rows; the clock is never asked, so a replay gives the same answer.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block
from boucle.clock import SECOND, Nanos
from boucle.stream.sequence import instants

__all__ = ["Observed", "Watermarks"]


class Observed(Struct, frozen=True):
    """A Block judged: which rows are late, by how much, and the watermark after them."""

    late: np.ndarray[Any, np.dtype[np.bool_]]
    late_by: np.ndarray[Any, np.dtype[np.int64]]
    """Nanoseconds behind the partition's watermark (0 for rows in time)."""
    watermark: Nanos


class Watermarks:
    """The watermarks of one source."""

    def __init__(self, time: str, partition: Sequence[str], lateness: float, idle: float) -> None:
        self._time = time
        self._partition = tuple(partition)
        self._lateness = int(lateness * SECOND)
        self._idle = int(idle * SECOND)
        self._newest: dict[tuple[str, ...], Nanos] = {}
        self._watermark: Nanos = 0

    def observe(self, rows: pa.RecordBatch) -> Observed:
        """Judge each row against its partition as it was *before* the row, then move on.

        Rows of one Block are judged in their order, so cutting the stream differently changes nothing.
        """
        at = instants(rows, self._time)
        keys = self._keys(rows)
        late_by = np.zeros(len(at), dtype=np.int64)
        newest = self._newest
        for index, (key, moment) in enumerate(zip(keys, at.tolist(), strict=True)):
            ahead = newest.get(key)
            if ahead is None or moment > ahead:
                newest[key] = moment
            elif moment < ahead - self._lateness:
                late_by[index] = ahead - self._lateness - moment
        return Observed(late_by > 0, late_by, self._advance())

    def _keys(self, rows: pa.RecordBatch) -> list[tuple[str, ...]]:
        if not self._partition:
            return [()] * rows.num_rows
        return list(zip(*(rows.column(name).to_pylist() for name in self._partition), strict=True))

    def _advance(self) -> Nanos:
        if self._newest:
            leading = max(self._newest.values())
            least = min(moment for moment in self._newest.values() if moment >= leading - self._idle)
            self._watermark = max(self._watermark, least - self._lateness)
        return self._watermark

    def idle(self) -> list[tuple[str, ...]]:
        """The partitions that are idle now."""
        if not self._newest:
            return []
        leading = max(self._newest.values())
        return [key for key, moment in self._newest.items() if moment < leading - self._idle]

    def snapshot(self) -> bytes:
        """The state, as bytes."""
        return msgspec.msgpack.encode((list(self._newest.items()), self._watermark))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot."""
        newest, self._watermark = msgspec.msgpack.decode(
            state, type=tuple[list[tuple[tuple[str, ...], int]], int]
        )
        self._newest = dict(newest)


def late_rows(block: Block, observed: Observed) -> pa.RecordBatch:
    """The late rows of a Block with a column `late_by_ns` saying how late each was."""
    rows = block.rows.append_column("late_by_ns", pa.array(observed.late_by, pa.int64()))
    return rows.filter(pa.array(observed.late))

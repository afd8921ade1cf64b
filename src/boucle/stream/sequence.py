"""Rows put into one canonical order before anything is computed from them.

Every peer we measured gives other sums when the same stream is cut, shuffled or partitioned differently,
because its operators fold rows in the order they happen to arrive. Here an event-time operator first waits
for the watermark and then sees rows by event time; rows of the same instant by their content, whatever way
they came. After that a plain fold from left to right is exact: the same tables to the last bit for any cut
into Blocks, any arrival inside the watermark, any interleaving of partitions.

The price is the lateness that was declared, and memory for as many rows. An input that is known to be in
order per key can do without (`order="arrival"`): then keyed operators are exact as long as every key's rows
come in their order, and a row is answered at once.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import Block, in_nanos
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError

__all__ = [
    "Order",
    "Ready",
    "Sequencer",
    "canonical",
    "instants",
    "load_rows",
    "save_rows",
    "sortable",
    "state_of",
]

Order = Literal["time", "arrival"]
Times = NDArray[np.int64]

_VERSION = 1
_NEVER: Nanos = -(2**62)


class Ready(Struct, frozen=True):
    """Rows whose turn has come, in canonical order."""

    rows: tuple[pa.RecordBatch | None, ...]
    """Per input, by event time; None where nothing is ready."""
    at: tuple[Times, ...]
    """Per input, the event times in ns."""
    merged: NDArray[np.int64]
    """The order over all inputs: indices into their concatenation (one input: 0, 1, 2 …)."""
    watermark: Nanos
    late: tuple[pa.RecordBatch, ...]
    """Rows that came after their turn, with `late_by_ns`; they belong to a closed past."""


class Sequencer:
    """Holds rows of one or more inputs until the least of their watermarks has passed them.

    With `idle` an input that falls more than so many seconds of event time behind the leading one no longer holds
    the others back, and what it sends then may be late: for sources that may fall silent, not for two branches
    of one source.
    """

    def __init__(
        self, inputs: Sequence[str], *, time: str = "at", order: Order = "time", idle: float | None = None
    ) -> None:
        if order == "arrival" and len(inputs) > 1:
            raise BoucleError(
                "B221",
                f"order: arrival cannot be kept over {len(inputs)} inputs",
                why="which of two inputs comes first would depend on the weather",
                fix="use order: time, or one input",
            )
        self._inputs = tuple(inputs)
        self._time, self._order = time, order
        self._idle = None if idle is None else int(idle * SECOND)
        self._pending: dict[str, list[pa.RecordBatch]] = {name: [] for name in inputs}
        self._marks: dict[str, Nanos] = dict.fromkeys(inputs, _NEVER)
        self._released: Nanos = _NEVER
        self.late_rows = 0

    @property
    def watermark(self) -> Nanos:
        """Every row before it has been given."""
        return max(self._released, 0)

    @property
    def waiting(self) -> int:
        """Rows whose turn has not come."""
        return sum(batch.num_rows for batches in self._pending.values() for batch in batches)

    def take(self, block: Block) -> Ready:
        """Take a Block of one input; give what is ready now."""
        if block.stream not in self._pending:
            names = ", ".join(self._inputs)
            raise BoucleError("B221", f"{block.stream} is no input here", fix=f"this step reads {names}")
        self._marks[block.stream] = max(self._marks[block.stream], block.watermark)
        if self._order == "arrival":
            return self._at_once(block)
        rows, late = self._split(block.rows)
        if rows.num_rows:
            self._pending[block.stream].append(rows)
        return self._release(late)

    def _at_once(self, block: Block) -> Ready:
        self._released = max(self._released, block.watermark)
        at = instants(block.rows, self._time)
        return Ready((block.rows,), (at,), np.arange(len(at)), self.watermark, ())

    def _split(self, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, tuple[pa.RecordBatch, ...]]:
        """Rows in time, and those that belong to what was already given."""
        if self._released == _NEVER or rows.num_rows == 0:
            return rows, ()
        at = instants(rows, self._time)
        late = at < self._released
        if not late.any():
            return rows, ()
        self.late_rows += int(late.sum())
        behind = pa.array(self._released - at, pa.int64())
        told = rows.append_column("late_by_ns", behind).filter(pa.array(late))
        return rows.filter(pa.array(~late)), (told,)

    def _bound(self) -> Nanos:
        if self._idle is None:
            return min(self._marks.values())
        leading = max(self._marks.values())
        return min(mark for mark in self._marks.values() if mark >= leading - self._idle or mark == _NEVER)

    def _release(self, late: tuple[pa.RecordBatch, ...]) -> Ready:
        bound = self._bound()
        if bound > self._released:
            self._released = bound
            given = [self._due(name, bound) for name in self._inputs]
        else:
            given = [(None, np.zeros(0, np.int64))] * len(self._inputs)
        at = tuple(times for _, times in given)
        # Stable: rows of one instant go in the order of the declared inputs.
        merged = np.argsort(np.concatenate(at), kind="stable") if len(at) > 1 else np.arange(len(at[0]))
        return Ready(tuple(rows for rows, _ in given), at, merged, self.watermark, late)

    def _due(self, name: str, bound: Nanos) -> tuple[pa.RecordBatch | None, Times]:
        waiting = self._pending[name]
        if not waiting:
            return None, np.zeros(0, np.int64)
        rows = waiting[0] if len(waiting) == 1 else pa.concat_batches(waiting)
        at = instants(rows, self._time)
        due = at < bound
        count = int(np.count_nonzero(due))
        if not count:
            self._pending[name] = [rows]
            return None, np.zeros(0, np.int64)
        if count == len(due):
            self._pending[name] = []
        elif due[:count].all():  # they came in order: nothing needs to be copied
            self._pending[name] = [rows.slice(count)]
            rows, at = rows.slice(0, count), at[:count]
        else:
            self._pending[name] = [rows.filter(pa.array(~due))]
            rows, at = rows.filter(pa.array(due)), at[due]
        return _sorted(rows, at, self._time)

    def snapshot(self) -> bytes:
        """The rows that wait, and how far everything is."""
        waiting = {name: [save_rows(batch) for batch in batches] for name, batches in self._pending.items()}
        state = (_VERSION, waiting, self._marks, self._released, self.late_rows)
        return msgspec.msgpack.encode(state)

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot."""
        kind = tuple[int, dict[str, list[bytes]], dict[str, int], int, int]
        _, waiting, self._marks, self._released, self.late_rows = msgspec.msgpack.decode(state, type=kind)
        self._pending = {name: [load_rows(one) for one in batches] for name, batches in waiting.items()}


def instants(rows: pa.RecordBatch, time: str) -> Times:
    """A time column as ns since the epoch."""
    at: Times = in_nanos(rows.column(time)).to_numpy(zero_copy_only=False)
    return at


def _sorted(rows: pa.RecordBatch, at: Times, time: str) -> tuple[pa.RecordBatch, Times]:
    steps = np.diff(at)
    if (steps > 0).all():
        return rows, at
    ordered = np.sort(at)
    if (ordered[1:] == ordered[:-1]).any():
        # Rows of one instant: by what they say, so that the way they came does not matter.
        said = [f.name for f in rows.schema if f.name != time and not pa.types.is_nested(f.type)]
        keys = [(name, "ascending") for name in (time, *said)]
        told = pa.record_batch([sortable(rows.column(name)) for name in (time, *said)], [time, *said])
        places = pc.sort_indices(told, sort_keys=keys).to_numpy()
    else:
        places = np.argsort(at)
    return rows.take(pa.array(places)), at[places]


def sortable(column: pa.Array) -> pa.Array:
    """A column that Arrow can sort by: a category by what it says."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def canonical(rows: pa.RecordBatch, time: str = "at") -> pa.RecordBatch:
    """The rows by event time, those of one instant by their content."""
    return _sorted(rows, instants(rows, time), time)[0]


def save_rows(rows: pa.RecordBatch) -> bytes:
    """Rows as one Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return bytes(sink.getvalue())


def load_rows(stored: bytes) -> pa.RecordBatch:
    """What `save_rows` stored."""
    return pa.ipc.open_stream(stored).read_next_batch()


def state_of(kind: Any, state: bytes, version: int, stream: str, hook: Any = None) -> Any:
    """A decoded snapshot (version, …) of one operator; B602 when another version of it wrote it.

    `hook` decodes what msgspec does not know (its `dec_hook`).
    """
    what = f"the state of {stream} was written by another version"
    fix = "remove the checkpoint to start afresh"
    try:
        held = msgspec.msgpack.decode(state, type=kind, dec_hook=hook)
    except msgspec.DecodeError as error:
        raise BoucleError("B602", what, why=str(error), fix=fix) from error
    if held[0] != version:
        why = f"version {held[0]}, this code reads {version}"
        raise BoucleError("B602", what, why=why, fix=fix)
    return held

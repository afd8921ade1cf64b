"""Windows of event time: rows grouped by key and window, one row out per window when the watermark passes it.

    use: boucle.stream.window:Tumbling
    from: [process]
    with:
      by: [machine]
      size: 1min
      values: {rows: count, mean: mean(value), p95: "quantile(value, 0.95)"}

After Akidau et al., "The Dataflow Model", VLDB 2015. A window is [start, end); its row has `at` = end - 1 ns,
`window_start`, `window_end` and `revision` 0. A row that comes after its window was given goes to
`<step>/late` and changes nothing, unless `allowed` says how long windows are kept open for corrections: then
the window is given again with the next revision.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import Block
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.product.duration import seconds
from boucle.stream.aggregate import Aggregate, make, read_aggregates
from boucle.stream.rows import require_of
from boucle.stream.sequence import Ready, Sequencer, instants, state_of

__all__ = ["Counted", "Hopping", "Session", "Tumbling"]

_VERSION = 1
_TIME = pa.timestamp("ns", tz="UTC")
Ints = NDArray[np.int64]


class _Window(Struct):
    """A window that rows may still come for."""

    key: tuple[Any, ...]
    start: Nanos
    end: Nanos
    slot: int
    revision: int = -1
    """Of the row that was given last; -1: none yet."""
    touched: bool = True
    """Changed since then."""


class _Windows:
    """What all windows share; a kind of window says where a row belongs (`_assign`)."""

    def __init__(
        self,
        stream: str,
        by: Sequence[str] | str,
        values: Mapping[str, str],
        time: str,
        allowed: float | str,
    ) -> None:
        self._stream, self._time = stream, time
        self._by = (by,) if isinstance(by, str) else tuple(by)
        self._declared = read_aggregates(dict(values), stream)
        if not self._declared:
            raise BoucleError("B221", f"{stream}: no values", fix="values: {rows: count, total: sum(amount)}")
        self._allowed = round(seconds(allowed) * SECOND)
        self._sequencer: Sequencer | None = None
        self._input = ""
        self._schema: pa.Schema | None = None
        self._folds: list[Aggregate] = []
        self._saved: list[Any] = []
        self._open: dict[tuple[Any, Nanos], _Window] = {}
        self._free: list[int] = []
        self._slots = 0
        self.late_rows = 0

    @property
    def keys(self) -> int:
        """Windows that are open."""
        return len(self._open)

    def step(self, block: Block) -> Sequence[Block]:
        """Take rows; give the windows that the watermark has passed, by end, start and key."""
        if self._sequencer is None:
            self._input = block.stream
            self._sequencer = Sequencer([block.stream], time=self._time)
        if self._schema is None:
            self._learn(block.rows.schema)
        ready = self._sequencer.take(block)
        corrections, refused = self._late(ready)
        out = [Block(self._stream, rows, ready.watermark, block.position) for rows in corrections]
        out += [Block(f"{self._stream}/late", rows, ready.watermark, block.position) for rows in refused]
        if ready.rows[0] is not None and len(ready.at[0]):
            self._fold(ready.rows[0], ready.at[0])
        closed = self._closed(ready.watermark)
        rows = self._rows(closed)
        self._forget(ready.watermark)
        if rows is not None or not out:
            told = rows if rows is not None else self._nothing()
            out.append(Block(self._stream, told, ready.watermark, block.position))
        return out

    def _learn(self, schema: pa.Schema) -> None:
        needed = {self._time, *self._by, *(one.column for one in self._declared if one.column)}
        require_of(self._stream, self._input, needed, schema)
        kinds = [schema.field(one.column).type if one.column else None for one in self._declared]
        self._folds = [make(one, kind) for one, kind in zip(self._declared, kinds, strict=True)]
        for fold in self._folds:
            fold.open(1)
        none = np.zeros(0, np.int64)
        told = [
            pa.field(one.name, fold.close(none).type)
            for one, fold in zip(self._declared, self._folds, strict=True)
        ]
        for fold, state in zip(self._folds, self._saved, strict=False):
            fold.load(state)
        self._saved = []
        times = [pa.field(name, _TIME, nullable=False) for name in ("at", "window_start", "window_end")]
        keys = [schema.field(name) for name in self._by]
        self._schema = pa.schema([*keys, *times, *told, pa.field("revision", pa.int64(), nullable=False)])

    def _nothing(self) -> pa.RecordBatch:
        assert self._schema is not None
        return pa.RecordBatch.from_pylist([], self._schema)

    # ── where rows belong ─────────────────────────────────────────────────────────────────────

    def _assign(self, keys: list[Any], at: Ints) -> tuple[Ints, Ints, Ints]:
        """(row, window start, window end), a row as often as it has windows."""
        raise NotImplementedError

    def _keys(self, rows: pa.RecordBatch) -> list[Any]:
        columns = []
        for name in self._by:
            column = rows.column(name)
            columns.append(
                (column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
            )
        return list(zip(*columns, strict=True)) if columns else [()] * rows.num_rows

    def _fold(self, rows: pa.RecordBatch, at: Ints) -> None:
        keys = self._keys(rows)
        places, starts, ends = self._assign(keys, at)
        slots = np.empty(len(places), np.int64)
        rowed = zip(places.tolist(), starts.tolist(), ends.tolist(), strict=True)
        for index, (row, start, end) in enumerate(rowed):
            slots[index] = self._slot(keys[row], start, end)
        whole = len(places) == rows.num_rows
        for declared, fold in zip(self._declared, self._folds, strict=True):
            column = rows.column(declared.column) if declared.column else None
            if column is not None and not whole:
                column = column.take(pa.array(places))
            fold.fold(slots, column)

    def _slot(self, key: Any, start: Nanos, end: Nanos) -> int:
        window = self._open.get((key, start))
        if window is None:
            if self._free:
                slot = self._free.pop()
            else:
                slot, self._slots = self._slots, self._slots + 1
                for fold in self._folds:
                    fold.open(self._slots)
            window = self._open[key, start] = _Window(key, start, end, slot)
        window.end = max(window.end, end)
        window.touched = True
        return window.slot

    # ── what is given ─────────────────────────────────────────────────────────────────────────

    def _closed(self, watermark: Nanos) -> list[_Window]:
        return [one for one in self._open.values() if one.end <= watermark and one.touched]

    def _rows(self, windows: list[_Window]) -> pa.RecordBatch | None:
        if not windows:
            return None
        assert self._schema is not None
        windows.sort(key=lambda one: (one.end, one.start, [(part is None, part) for part in one.key]))
        slots = np.array([one.slot for one in windows], np.int64)
        for one in windows:
            one.revision, one.touched = one.revision + 1, False
        keys = [
            pa.array([one.key[place] for one in windows], self._plain(place))
            for place in range(len(self._by))
        ]
        keys = [key.cast(self._schema.field(place).type) for place, key in enumerate(keys)]
        ends = np.array([one.end for one in windows], np.int64)
        times = [ends - 1, np.array([one.start for one in windows], np.int64), ends]
        told = [fold.close(slots) for fold in self._folds]
        revisions = pa.array([one.revision for one in windows], pa.int64())
        columns = [*keys, *(pa.array(one).cast(_TIME) for one in times), *told, revisions]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _plain(self, place: int) -> pa.DataType:
        assert self._schema is not None
        kind = self._schema.field(place).type
        return pa.int64() if pa.types.is_timestamp(kind) else kind

    def _forget(self, watermark: Nanos) -> None:
        gone = [
            one for one in self._open.values() if one.end + self._allowed <= watermark and not one.touched
        ]
        if not gone:
            return
        slots = np.array([one.slot for one in gone], np.int64)
        for fold in self._folds:
            fold.clear(slots)
        for one in gone:
            del self._open[one.key, one.start]
            self._free.append(one.slot)
        self._free.sort(reverse=True)

    def _late(self, ready: Ready) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
        """Corrections that late rows make, and the rows that are too late for any."""
        corrections, refused = [], []
        for rows in ready.late:
            keep = np.zeros(rows.num_rows, np.bool_)
            if self._allowed:
                at = instants(rows, self._time)
                places, _, ends = self._assign(self._keys(rows), at)
                # Against the watermark as it was when the row came, however the stream was cut.
                then = at + rows.column("late_by_ns").to_numpy()
                keep[places] = ends + self._allowed > then[places]
            if keep.any():
                kept = rows.filter(pa.array(keep))
                self._fold(kept, instants(kept, self._time))
                changed = self._rows(self._corrected(ready.watermark))
                corrections += [changed] if changed is not None else []
            if not keep.all():
                refused.append(rows.filter(pa.array(~keep)))
                self.late_rows += int((~keep).sum())
        return corrections, refused

    def _corrected(self, watermark: Nanos) -> list[_Window]:
        closed = self._closed(watermark)
        for one in closed:
            one.revision = max(one.revision, 0)  # even where nothing was given in time: it corrects that
        return closed

    # ── state ─────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> bytes:
        """Open windows with what they hold, and the rows that wait."""
        waiting = self._sequencer.snapshot() if self._sequencer is not None else b""
        folds = [fold.save() for fold in self._folds] or self._saved
        state = (
            _VERSION, self._input, waiting, list(self._open.values()), self._free, self._slots, self.late_rows, folds,
            self._more(),
        )  # fmt: skip
        return msgspec.msgpack.encode(state)

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when another version of this step took it."""
        kind = tuple[int, str, bytes, list[_Window], list[int], int, int, list[Any], Any]
        held = state_of(kind, state, _VERSION, self._stream)
        _, self._input, waiting, windows, self._free, self._slots, self.late_rows, self._saved, more = held
        if waiting:
            self._sequencer = Sequencer([self._input], time=self._time)
            self._sequencer.restore(waiting)
        self._open = {(one.key, one.start): one for one in windows}
        self._schema = None
        self._remember(more)

    def _more(self) -> Any:
        return None

    def _remember(self, more: Any) -> None:
        del more


class Tumbling(_Windows):
    """Windows of `size` side by side, aligned to the epoch plus `offset`."""

    def __init__(
        self,
        stream: str,
        *,
        size: str | float,
        values: Mapping[str, str],
        by: Sequence[str] | str = (),
        offset: str | float = 0,
        allowed: str | float = 0,
        time: str = "at",
    ) -> None:
        super().__init__(stream, by, values, time, allowed)
        self._size, self._offset = _length(stream, "size", size), round(seconds(offset) * SECOND)

    def _assign(self, keys: list[Any], at: Ints) -> tuple[Ints, Ints, Ints]:
        del keys
        starts = (at - self._offset) // self._size * self._size + self._offset
        return np.arange(len(at)), starts, starts + self._size


class Hopping(_Windows):
    """Windows of `size`, one beginning at every `every`; a row belongs to all that cover it."""

    def __init__(
        self,
        stream: str,
        *,
        size: str | float,
        every: str | float,
        values: Mapping[str, str],
        by: Sequence[str] | str = (),
        allowed: str | float = 0,
        time: str = "at",
    ) -> None:
        super().__init__(stream, by, values, time, allowed)
        self._size, self._every = _length(stream, "size", size), _length(stream, "every", every)

    def _assign(self, keys: list[Any], at: Ints) -> tuple[Ints, Ints, Ints]:
        del keys
        reach = -(-self._size // self._every)
        latest = at // self._every * self._every
        starts = (latest[:, None] - np.arange(reach - 1, -1, -1) * self._every).ravel()
        places = np.repeat(np.arange(len(at)), reach)
        inside = starts + self._size > at[places]
        return places[inside], starts[inside], starts[inside] + self._size


class Session(_Windows):
    """Windows that last as long as rows of the key follow each other within `gap`; they end `gap` after the last."""

    def __init__(
        self,
        stream: str,
        *,
        gap: str | float,
        values: Mapping[str, str],
        by: Sequence[str] | str = (),
        time: str = "at",
    ) -> None:
        super().__init__(stream, by, values, time, 0)
        self._gap = _length(stream, "gap", gap)
        self._last: dict[Any, tuple[Nanos, Nanos]] = {}

    def _assign(self, keys: list[Any], at: Ints) -> tuple[Ints, Ints, Ints]:
        starts = np.empty(len(at), np.int64)
        for row, (key, moment) in enumerate(zip(keys, at.tolist(), strict=True)):
            start, last = self._last.get(key, (moment, moment))
            if moment - last >= self._gap:
                start = moment
            self._last[key] = (start, moment)
            starts[row] = start
        return np.arange(len(at)), starts, at + self._gap

    def _forget(self, watermark: Nanos) -> None:
        super()._forget(watermark)
        self._last = {key: held for key, held in self._last.items() if held[1] + self._gap > watermark}

    def _more(self) -> Any:
        return [[key, start, last] for key, (start, last) in self._last.items()]

    def _remember(self, more: Any) -> None:
        self._last = {tuple(key): (start, last) for key, start, last in more}


class Counted(_Windows):
    """Windows of `size` rows per key, given with the last of them; a part that is never filled is never given."""

    def __init__(
        self,
        stream: str,
        *,
        size: int,
        values: Mapping[str, str],
        by: Sequence[str] | str = (),
        time: str = "at",
    ) -> None:
        super().__init__(stream, by, values, time, 0)
        if size < 1:
            raise BoucleError("B221", f"{stream}: a window of {size} rows", fix="size: 1 or more")
        self._size = size
        self._seen: dict[Any, tuple[Nanos, int]] = {}
        self._full: set[tuple[Any, Nanos]] = set()

    def _assign(self, keys: list[Any], at: Ints) -> tuple[Ints, Ints, Ints]:
        starts, ends = np.empty(len(at), np.int64), np.empty(len(at), np.int64)
        for row, (key, moment) in enumerate(zip(keys, at.tolist(), strict=True)):
            start, seen = self._seen.get(key, (moment, 0))
            if seen == 0:
                # Two windows of one key may begin in one instant: the later one by a nanosecond more.
                start = moment
                while (key, start) in self._open or (key, start) in self._full:
                    start += 1
            seen += 1
            starts[row], ends[row] = start, moment + 1
            if seen == self._size:
                self._full.add((key, start))
            self._seen[key] = (start, seen % self._size)
        return np.arange(len(at)), starts, ends

    def _closed(self, watermark: Nanos) -> list[_Window]:
        del watermark  # the last row closes it
        return [self._open[name] for name in self._full]

    def _forget(self, watermark: Nanos) -> None:
        del watermark
        gone, self._full = self._full, set()
        slots = np.array([self._open[name].slot for name in gone], np.int64)
        for fold in self._folds:
            fold.clear(slots)
        for name in gone:
            self._free.append(self._open.pop(name).slot)
        self._free.sort(reverse=True)

    def _more(self) -> Any:
        return [[key, start, seen] for key, (start, seen) in self._seen.items() if seen]

    def _remember(self, more: Any) -> None:
        self._seen = {tuple(key): (start, seen) for key, start, seen in more}


def _length(stream: str, name: str, told: str | float) -> Nanos:
    length = round(seconds(told) * SECOND)
    if length <= 0:
        raise BoucleError("B221", f"{stream}: {name}: {told}", fix=f"{name} must be longer than 0")
    return length

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

Its state is taken in parts: pages of open windows, of names of groups, and runs of what is kept as Python objects
(`first`, `last`, `distinct`, `quantile`). A checkpoint costs what changed since the one before.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from boucle.block import Block, as_dicts
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.memory import Page, Under, below
from boucle.product.duration import seconds
from boucle.stream.aggregate import Aggregate, make, read_aggregates
from boucle.stream.groups import Groups, groups_of
from boucle.stream.open_windows import OpenWindows
from boucle.stream.rows import names_of, require_of
from boucle.stream.sequence import Ready, Sequencer, instants, sortable, state_of

__all__ = ["Counted", "Hopping", "Session", "Tumbling"]

_VERSION = 3
_TIME = pa.timestamp("ns", tz="UTC")
_REVISION = pa.field("revision", pa.int64(), nullable=False)
Ints = NDArray[np.int64]


class _Windows:
    """What all windows share; a kind of window says which rows belong to it (`_slots`)."""

    _alone = False

    def __init__(
        self,
        stream: str,
        by: Sequence[str] | str,
        values: Mapping[str, str],
        time: str,
        allowed: float | str = 0,
    ) -> None:
        self._stream, self._time = stream, time
        self._by = names_of(by)
        self._declared = read_aggregates(dict(values), stream)
        if not self._declared:
            raise BoucleError("B221", f"{stream}: no values", fix="values: {rows: count, total: sum(amount)}")
        self._allowed = round(seconds(allowed) * SECOND)
        self._sequencer: Sequencer | None = None
        self._input = ""
        self._schema: pa.Schema | None = None
        self._folds: list[Aggregate] = []
        self._lock = threading.Lock()
        """Held while the state changes: a checkpoint's pages are read by another thread."""
        self._groups: Groups = groups_of(stream, pa.schema([]), (), self._lock)
        self._open = OpenWindows(self._lock, allowed=self._allowed, alone=self._alone)
        self._needed = b""
        """The columns that are read, with their types, once the input has shown them."""
        self._restored = False
        self._told: dict[str, Any] = {}
        """Of the parts that are always made, what was told last."""

    @property
    def keys(self) -> int:
        """Windows that are open."""
        return len(self._open)

    @property
    def late_rows(self) -> int:
        """Rows that came after their turn, those that corrected a window (`allowed`) among them."""
        return self._sequencer.late_rows if self._sequencer is not None else 0

    def step(self, block: Block) -> Sequence[Block]:
        """Take rows; give the windows that the watermark has passed, by end, start and key."""
        if self._sequencer is None:
            self._input = block.stream
            self._sequencer = Sequencer([block.stream], time=self._time)
        if self._schema is None:
            self._learn(block.rows.schema)
        elif self._restored:
            self._recognize(block.rows.schema)
        before = self._sequencer.watermark
        ready = self._sequencer.take(block)
        with self._lock:
            out = [
                Block(stream, rows, ready.watermark, block.position)
                for stream, rows in self._late(ready, before)
            ]
            if ready.rows[0] is not None and len(ready.at[0]):
                self._fold(ready.rows[0], ready.at[0])
            ended, gone = self._open.ended(ready.watermark)
            if len(ended) or not out:
                rows = self._rows(ended) if len(ended) else self._nothing
                out.append(Block(self._stream, rows, ready.watermark, block.position))
            if len(gone):
                for fold in self._folds:
                    fold.clear(gone)
                self._open.free(gone)
        self._groups.keep(self._open.keys)
        return out

    def _learn(self, schema: pa.Schema) -> None:
        needed = {self._time, *self._by, *(one.column for one in self._declared if one.column)}
        require_of(self._stream, self._input, needed, schema)
        fields = [schema.field(name).remove_metadata() for name in sorted(needed)]
        self._needed = pa.schema(fields).serialize().to_pybytes()
        kinds = [schema.field(one.column).type if one.column else None for one in self._declared]
        self._folds = [make(one, kind) for one, kind in zip(self._declared, kinds, strict=True)]
        none = np.zeros(0, np.int64)
        told = [
            pa.field(one.name, fold.close(none).type)
            for one, fold in zip(self._declared, self._folds, strict=True)
        ]
        self._groups = groups_of(self._stream, schema, self._by, self._lock)
        words = sum(fold.words for fold in self._folds)
        self._open = OpenWindows(self._lock, words, allowed=self._allowed, alone=self._alone)
        times = [pa.field(name, _TIME, nullable=False) for name in ("at", "window_start", "window_end")]
        keys = [schema.field(name) for name in self._by]
        self._schema = pa.schema([*keys, *times, *told, *self._marks])
        self._nothing = pa.RecordBatch.from_pylist([], self._schema)

    def _recognize(self, schema: pa.Schema) -> None:
        """The input after a restart is as it was before."""
        self._restored = False
        known = _schema_of(self._needed)
        require_of(self._stream, self._input, set(known.names), schema)
        for field in known:
            if field.name != self._time and schema.field(field.name).type != field.type:
                what = f"the state of {self._stream} is of {field.name}: {field.type}"
                why = f"{self._input} has {schema.field(field.name).type} now"
                raise BoucleError("B602", what, why=why, fix="remove the checkpoint to start afresh")

    _marks: tuple[pa.Field, ...] = (_REVISION,)
    """The columns behind the values."""

    # ── where rows belong ─────────────────────────────────────────────────────────────────────

    def _placed(self, at: Ints) -> tuple[Ints | None, Ints, Ints]:
        """(row, window start, window end), a row as often as it has windows; no row: each has one."""
        raise NotImplementedError

    def _slots(self, rows: pa.RecordBatch, at: Ints) -> tuple[Ints | None, Ints]:
        """(row, slot of its window), a row as often as it has windows; no row: each has one."""
        places, starts, ends = self._placed(at)
        numbers = self._groups.of(rows)
        return places, self._open.fixed(numbers if places is None else numbers[places], starts, ends)

    def _fold(self, rows: pa.RecordBatch, at: Ints) -> Ints:
        """Put rows, in their order, into their windows: the slots of these."""
        places, slots = self._slots(rows, at)
        self._lay_out()
        for declared, fold in zip(self._declared, self._folds, strict=True):
            column = rows.column(declared.column) if declared.column else None
            if column is not None and places is not None:
                column = column.take(pa.array(places))
            fold.fold(slots, column)
        return slots

    def _lay_out(self) -> None:
        cells, at = self._open.cells, 0
        for fold in self._folds:
            fold.lie(cells[:, at : at + fold.words])
            at += fold.words

    # ── what is given ─────────────────────────────────────────────────────────────────────────

    def _rows(self, slots: Ints) -> pa.RecordBatch:
        assert self._schema is not None
        numbers, starts, ends, revisions, seen = self._open.said(slots)
        order = self._order(numbers, starts, ends)
        slots, numbers, starts, ends = slots[order], numbers[order], starts[order], ends[order]
        times = [pa.array(one).cast(_TIME) for one in (ends - 1, starts, ends)]
        told = [fold.close(slots) for fold in self._folds]
        marks = self._marked(revisions[order], seen[order])
        columns = [*self._groups.columns(numbers), *times, *told, *marks]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _marked(self, revisions: Ints, seen: Ints) -> list[pa.Array]:
        del seen
        return [pa.array(revisions)]

    def _order(self, numbers: Ints, starts: Ints, ends: Ints) -> Ints:
        """By end, start and key, null last."""
        ranks = self._groups.ranks(numbers)
        if ranks is not None:
            if (ends[1:] == ends[:-1]).all() and (starts[1:] == starts[:-1]).all():
                return np.argsort(ranks)
            return np.lexsort((ranks, starts, ends))
        times = {"end": pa.array(ends), "start": pa.array(starts)}
        keys = {f"key {place}": sortable(one) for place, one in enumerate(self._groups.columns(numbers))}
        said = pa.table({**times, **keys})
        by: Any = [(name, "ascending") for name in said.schema.names]
        order: Ints = pc.sort_indices(said, sort_keys=by).to_numpy().astype(np.int64)
        return order

    def _late(self, ready: Ready, before: Nanos) -> list[tuple[str, pa.RecordBatch]]:
        """Corrections that late rows make to windows given `before`, and the rows that are too late for any."""
        out = []
        for rows in ready.late:
            keep = np.zeros(rows.num_rows, np.bool_)
            at = instants(rows, self._time)
            if self._allowed:
                places, _, ends = self._placed(at)
                # Against the watermark as it was when the row came, however the stream was cut.
                then = at + rows.column("late_by_ns").to_numpy()
                places = np.arange(len(at)) if places is None else places
                keep[places] = ends + self._allowed > then[places]
            if keep.any():
                slots = self._fold(rows.filter(pa.array(keep)), at[keep])
                changed = self._open.corrected(slots, before)
                if len(changed):
                    out.append((self._stream, self._rows(changed)))
            if not keep.all():
                out.append((f"{self._stream}/late", rows.filter(pa.array(~keep))))
        return out

    # ── state ─────────────────────────────────────────────────────────────────────────────────

    def describe(self, key: Mapping[str, str] | None = None) -> dict[str, Any]:
        """How many windows are open and what times they span; of a key its windows as they would be given now."""
        slots = self._open.open
        numbers, starts, ends, _, _ = self._open.said(slots)
        waiting = self._sequencer.waiting if self._sequencer is not None else 0
        told = {"keys": len(np.unique(numbers)), "open_windows": len(slots), "waiting_rows": waiting}
        if len(slots):
            told |= {"oldest": int(starts.min()), "newest": int(ends.max())}
        if key is None:
            return told
        rows = as_dicts(self._rows(slots)) if self._schema is not None else []
        mine = [row for row in rows if all(str(row.get(name)) == said for name, said in key.items())]
        return {**told, "remembered": mine}

    def snapshot(self) -> bytes:
        """Open windows with what they hold, and the rows that wait."""
        parts: dict[str, bytes] = {"rest": self._rest()}
        if self._schema is not None:
            parts |= below("open", self._open.snapshot()) | below("groups", self._groups.snapshot())
            for place, fold in enumerate(self._folds):
                parts |= below(f"values/{place}", fold.snapshot())
        return msgspec.msgpack.encode((_VERSION, parts))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when another version of this step took it."""
        self.restore_parts(state_of(tuple[int, dict[str, bytes]], state, _VERSION, self._stream)[1])

    def parts(self, *, everything: bool) -> dict[str, bytes | Page]:
        """The state by part: what changed since the last call, or everything; pages are copied when they are read."""
        parts: dict[str, bytes | Page] = {"rest": self._rest()}
        if self._schema is not None:
            with self._lock:
                parts |= below("open", self._open.parts(everything=everything))
                parts |= below("groups", self._groups.parts(everything=everything))
                for place, fold in enumerate(self._folds):
                    parts |= below(f"values/{place}", fold.parts(everything=everything))
        # A group of keys that saw nothing says nothing.
        same = [name for name, part in parts.items() if not everything and self._told.get(name) == part]
        self._told = {name: parts[name] for name in ("rest", "open/meta", "groups/meta") if name in parts}
        return {name: part for name, part in parts.items() if name not in same}

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Continue from parts; B602 when another version of this step took them."""
        kind = tuple[int, str, bytes, list[str], bytes]
        _, self._input, waiting, values, needed = state_of(kind, parts["rest"], _VERSION, self._stream)
        if waiting:
            self._sequencer = Sequencer([self._input], time=self._time)
            self._sequencer.restore(waiting)
        if not needed:
            return
        if values != self._said():
            what = f"the state of {self._stream} is of {', '.join(values)}"
            why = f"declared: {', '.join(self._said())}"
            raise BoucleError("B602", what, why=why, fix="remove the checkpoint to start afresh")
        self._learn(_schema_of(needed))
        self._restored = True
        self._open.restore_parts(Under(parts, "open/"))
        self._groups.restore_parts(Under(parts, "groups/"))
        for place, fold in enumerate(self._folds):
            fold.restore_parts(Under(parts, f"values/{place}/"))
        self._lay_out()

    def _rest(self) -> bytes:
        waiting = self._sequencer.snapshot() if self._sequencer is not None else b""
        return msgspec.msgpack.encode((_VERSION, self._input, waiting, self._said(), self._needed))

    def _said(self) -> list[str]:
        """The values whose state is held, in its order."""
        return [f"{one.kind}({one.column})" for one in self._declared]


def _schema_of(stored: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(stored))


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

    def _placed(self, at: Ints) -> tuple[Ints | None, Ints, Ints]:
        starts = (at - self._offset) // self._size * self._size + self._offset
        return None, starts, starts + self._size


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

    def _placed(self, at: Ints) -> tuple[Ints | None, Ints, Ints]:
        reach = -(-self._size // self._every)
        latest = at // self._every * self._every
        starts = (latest[:, None] - np.arange(reach - 1, -1, -1) * self._every).ravel()
        places = np.repeat(np.arange(len(at)), reach)
        inside = starts + self._size > at[places]
        return places[inside], starts[inside], starts[inside] + self._size


class Session(_Windows):
    """Windows that last as long as rows of the key follow each other within `gap`; they end `gap` after the last."""

    _alone = True

    def __init__(
        self,
        stream: str,
        *,
        gap: str | float,
        values: Mapping[str, str],
        by: Sequence[str] | str = (),
        time: str = "at",
    ) -> None:
        super().__init__(stream, by, values, time)
        self._gap = _length(stream, "gap", gap)

    def _slots(self, rows: pa.RecordBatch, at: Ints) -> tuple[Ints | None, Ints]:
        return None, self._open.following(self._groups.of(rows), at, self._gap)


class Counted(_Windows):
    """Windows of `size` rows per key, given with the last of them.

    A key without a row for `idle` is not waited for any longer: its window is given as far as it was filled,
    with `complete` false and its end `idle` after the last row.
    """

    _alone = True
    _marks = (_REVISION, pa.field("complete", pa.bool_(), nullable=False))

    def __init__(
        self,
        stream: str,
        *,
        size: int,
        idle: str | float,
        values: Mapping[str, str],
        by: Sequence[str] | str = (),
        time: str = "at",
    ) -> None:
        super().__init__(stream, by, values, time)
        if size < 1:
            raise BoucleError("B221", f"{stream}: a window of {size} rows", fix="size: 1 or more")
        self._size, self._idle = size, _length(stream, "idle", idle)

    def _slots(self, rows: pa.RecordBatch, at: Ints) -> tuple[Ints | None, Ints]:
        return None, self._open.following(self._groups.of(rows), at, self._idle, self._size)

    def _marked(self, revisions: Ints, seen: Ints) -> list[pa.Array]:
        return [pa.array(revisions), pa.array(seen == self._size)]


def _length(stream: str, name: str, told: str | float) -> Nanos:
    length = round(seconds(told) * SECOND)
    if length <= 0:
        raise BoucleError("B221", f"{stream}: {name}: {told}", fix=f"{name} must be longer than 0")
    return length

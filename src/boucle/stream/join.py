"""Joins in event time: IntervalJoin, AsOfJoin, and Enrich with a table or a slowly changing stream.

Both inputs go through one Sequencer, so which of two rows came first to the machine does not matter. A null
(or nan) key matches nothing, as in SQL. Output: `at`, the keys under their left names, the other columns of
the left, those of the right (with `_right` behind a name that is taken), and the times of both rows. Rows are
remembered as long as an event time can still come that matches them.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from msgspec import Struct, msgpack
from numpy.typing import NDArray

from boucle.block import Block
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.product.duration import seconds
from boucle.stream.expression import plain_column
from boucle.stream.rows import late_blocks, names_of, require
from boucle.stream.sequence import Sequencer, load_rows, save_rows, state_of

__all__ = ["AsOfJoin", "Enrich", "IntervalJoin"]

By = Sequence[str] | Mapping[str, str] | str
_RIGHT, _LEFT = 0, 1
_SLACK = 1024


class _Waits(Struct, array_like=True):
    """A left row that waits for the next right one."""

    at: Nanos
    key: bytes
    until: Nanos
    candidate: int


class _Shelf:
    """Rows by number; numbers only grow. What is no longer needed is put away now and then."""

    def __init__(self) -> None:
        self.schema: pa.Schema | None = None
        self.next = 0
        self._batches: list[pa.RecordBatch] = []
        self._ids: list[NDArray[np.int64]] = []

    def put(self, rows: pa.RecordBatch) -> int:
        """Keep rows; the number of the first."""
        first, self.next = self.next, self.next + rows.num_rows
        self._batches.append(rows)
        self._ids.append(np.arange(first, self.next))
        return first

    def get(self, ids: NDArray[np.int64]) -> pa.RecordBatch:
        """The rows of these numbers; -1 gives nulls."""
        assert self.schema is not None
        known = ids[ids >= 0]
        if not len(known):
            return pa.record_batch(
                [pa.nulls(len(ids), field.type) for field in self.schema], self.schema.names
            )
        firsts = np.array([held[0] for held in self._ids])
        wanted = np.unique(np.searchsorted(firsts, known, "right") - 1).tolist()
        rows = pa.concat_batches([self._batches[one] for one in wanted])
        places = np.searchsorted(np.concatenate([self._ids[one] for one in wanted]), ids)
        return rows.take(pa.array(places, pa.int64(), mask=ids < 0))

    def full(self, needed: int) -> bool:
        """Whether it is time to put rows away, when about so many are still needed."""
        return sum(map(len, self._ids)) > 2 * needed + _SLACK

    def keep(self, ids: Iterable[int]) -> None:
        """Forget all other rows."""
        live = np.unique(np.fromiter(ids, np.int64))
        self._batches, self._ids = ([self.get(live)], [live]) if len(live) else ([], [])

    def save(self) -> tuple[bytes, int, list[bytes], list[bytes]]:
        """Everything."""
        schema = b"" if self.schema is None else self.schema.serialize().to_pybytes()
        return (
            schema,
            self.next,
            [save_rows(rows) for rows in self._batches],
            [held.tobytes() for held in self._ids],
        )

    def load(self, saved: tuple[bytes, int, list[bytes], list[bytes]]) -> None:
        """What `save` gave."""
        schema, self.next, batches, ids = saved
        self.schema = pa.ipc.read_schema(pa.py_buffer(schema)) if schema else None
        self._batches = [load_rows(rows) for rows in batches]
        self._ids = [np.frombuffer(held, np.int64) for held in ids]


def _pairs(stream: str, by: By) -> dict[str, str]:
    if not by:
        fix = "give by: [name, …], or {left: right} where the names differ"
        raise BoucleError("B220", f"{stream}: by {by!r}", fix=fix)
    return dict(by) if isinstance(by, Mapping) else {name: name for name in names_of(by)}


def _encoded(rows: pa.RecordBatch, names: Sequence[str]) -> list[bytes | None]:
    """Each row's key; None where it matches nothing."""
    columns = [plain_column(rows, name).to_pylist() for name in names]
    return [
        None if any(value is None or value != value for value in values) else msgpack.encode(values)  # noqa: PLR0124 - nan
        for values in zip(*columns, strict=True)
    ]


class _Join:
    """Two inputs in canonical order; at one instant the right one first."""

    version: ClassVar[int] = 1
    both_times: ClassVar[bool] = False

    def __init__(
        self,
        stream: str,
        *,
        left: str,
        right: str,
        by: By,
        kind: str,
        time: str,
        idle: str | float | None,
    ) -> None:
        if left == right or kind not in ("inner", "left"):
            fix = "left and right are two streams, kind is inner or left"
            raise BoucleError("B220", f"{stream}: {kind} join of {left} and {right}", fix=fix)
        self._stream, self._names, self._kind, self._time = stream, (right, left), kind, time
        pairs = _pairs(stream, by)
        self._keys = (list(pairs.values()), list(pairs))
        self._sequencer = Sequencer(self._names, time=time, idle=None if idle is None else seconds(idle))
        self._shelves = (_Shelf(), _Shelf())
        self._found: list[tuple[int, int, Nanos]] = []
        self._told: Nanos = 0

    @property
    def late_rows(self) -> int:
        """Rows that came after their turn."""
        return self._sequencer.late_rows

    def step(self, block: Block) -> Sequence[Block]:
        """Take a Block of either input; give what its watermark settled."""
        self._look_at(block)
        ready = self._sequencer.take(block)
        keys: list[bytes | None] = []
        ids: list[int] = []
        for side, rows in enumerate(ready.rows):
            if rows is not None and rows.num_rows:
                first = self._shelves[side].put(rows)
                ids += range(first, first + rows.num_rows)
                keys += _encoded(rows, self._keys[side])
        at = np.concatenate(ready.at).tolist()
        rights = len(ready.at[_RIGHT])
        for index in ready.merged.tolist():
            self.expire(at[index])
            self.on_row(_RIGHT if index < rights else _LEFT, ids[index], at[index], keys[index])
        self.expire(ready.watermark)
        self.tidy()
        out = late_blocks(self._stream, ready, block.position)
        watermark = max(0, min(ready.watermark, self.owed()))
        if self._found or watermark > self._told:
            self._told = max(self._told, watermark)
            if all(shelf.schema is not None for shelf in self._shelves):
                out.append(Block(self._stream, self._made(), self._told, block.position))
        return out

    def _look_at(self, block: Block) -> None:
        if block.stream not in self._names:
            fix = f"this step reads {' and '.join(self._names[::-1])}"
            raise BoucleError("B221", f"{block.stream} is no input of {self._stream}", fix=fix)
        side = self._names.index(block.stream)
        shelf, other = self._shelves[side], self._shelves[1 - side]
        if shelf.schema is not None:
            if not shelf.schema.equals(block.rows.schema):
                what = f"the columns of {block.stream} have changed"
                raise BoucleError("B221", what, fix="bring them in line with Select or Map")
            return
        require(self._stream, [*self._keys[side], self._time], block.rows.schema)
        shelf.schema = block.rows.schema
        if other.schema is not None:
            self._agree()

    def _agree(self) -> None:
        left, right = (self._schema(side) for side in (_LEFT, _RIGHT))
        for one, two in zip(self._keys[_LEFT], self._keys[_RIGHT], strict=True):
            _same_kind(self._stream, left.field(one), right.field(two))
        names = self._columns()
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            fix = "rename it with Select before the join"
            raise BoucleError("B221", f"{self._stream}: column {twice} would be there twice", fix=fix)

    def _schema(self, side: int) -> pa.Schema:
        schema = self._shelves[side].schema
        assert schema is not None
        return schema

    def _columns(self) -> list[str]:
        """The names of the output, in order."""
        taken = self._schema(_LEFT).names
        lefts = [*self._keys[_LEFT], *self._rest(_LEFT)]
        rights = [f"{name}_right" if name in taken else name for name in self._rest(_RIGHT)]
        return ["at", *(["left_at"] if self.both_times else []), "right_at", *lefts, *rights]

    def _rest(self, side: int) -> list[str]:
        no_more = {*self._keys[side], self._time}
        return [name for name in self._schema(side).names if name not in no_more]

    def _made(self) -> pa.RecordBatch:
        found, self._found = self._found, []
        told = np.array(found, np.int64).reshape(-1, 3)
        left = self._shelves[_LEFT].get(told[:, 0])
        right = self._shelves[_RIGHT].get(told[:, 1])
        kind = left.schema.field(self._time).type
        at = (
            pa.array(told[:, 2]).cast(pa.timestamp("ns", kind.tz))
            if pa.types.is_timestamp(kind)
            else told[:, 2]
        )
        times = [at, *([left.column(self._time)] if self.both_times else []), right.column(self._time)]
        lefts = [left.column(name) for name in (*self._keys[_LEFT], *self._rest(_LEFT))]
        rights = [right.column(name) for name in self._rest(_RIGHT)]
        return pa.record_batch([*times, *lefts, *rights], self._columns())

    def found(self, left: int, right: int, at: Nanos) -> None:
        """One row of output; right -1: no match, which an inner join does not tell."""
        if right >= 0 or self._kind == "left":
            self._found.append((left, right, at))

    def on_row(self, side: int, row: int, at: Nanos, key: bytes | None) -> None:
        """One row, in canonical order."""
        raise NotImplementedError

    def expire(self, now: Nanos) -> None:
        """Nothing before `now` will come any more."""
        raise NotImplementedError

    def tidy(self) -> None:
        """Put away rows that nothing refers to."""
        raise NotImplementedError

    def owed(self) -> Nanos:
        """The oldest `at` that may still be given, as far as it lies before the watermark."""
        raise NotImplementedError

    def save(self) -> Any:
        """What the join itself remembers."""
        raise NotImplementedError

    def load(self, own: Any) -> None:
        """Continue from what `save` gave."""
        raise NotImplementedError

    def snapshot(self) -> bytes:
        """Rows that wait, rows that may still match, and who waits for whom."""
        shelves = [shelf.save() for shelf in self._shelves]
        own = msgpack.encode(self.save())
        return msgpack.encode((self.version, self._told, self._sequencer.snapshot(), shelves, own))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when another version of it wrote it."""
        kind = tuple[int, int, bytes, list[tuple[bytes, int, list[bytes], list[bytes]]], bytes]
        _, self._told, sequencer, shelves, own = state_of(kind, state, self.version, self._stream)
        self._sequencer.restore(sequencer)
        for shelf, saved in zip(self._shelves, shelves, strict=True):
            shelf.load(saved)
        self.load(own)


def _same_kind(stream: str, one: pa.Field, two: pa.Field) -> None:
    kinds = [plain_column(pa.record_batch([pa.nulls(0, f.type)], ["key"]), "key").type for f in (one, two)]
    if kinds[0] != kinds[1]:
        what = f"{stream}: key {one.name} is {one.type}, {two.name} is {two.type}"
        raise BoucleError("B221", what, why="they would never match", fix="convert one with Map or Select")


def _signed(bound: str | float) -> Nanos:
    if isinstance(bound, str) and bound.startswith("-"):
        return -round(seconds(bound[1:]) * SECOND)
    return round(seconds(bound) * SECOND)


class IntervalJoin(_Join):
    """Pairs of rows with equal keys and `lower <= right.at - left.at <= upper`.

    `at` is the later of the two times, `left_at` and `right_at` are theirs. `kind: left` also gives left rows
    that found none, when none can come any more: at left.at + upper (left.at if that is earlier).
    Bounds are durations or seconds, before is negative: `lower: -5s`, `upper: 0`.
    """

    both_times = True

    def __init__(
        self,
        stream: str,
        *,
        left: str,
        right: str,
        by: By,
        lower: str | float,
        upper: str | float,
        kind: Literal["inner", "left"] = "inner",
        time: str = "at",
        idle: str | float | None = None,
    ) -> None:
        super().__init__(stream, left=left, right=right, by=by, kind=kind, time=time, idle=idle)
        self._lower, self._upper = (_signed(bound) for bound in (lower, upper))
        if self._lower > self._upper:
            raise BoucleError(
                "B220", f"{stream}: lower {lower} is above upper {upper}", fix="turn them round"
            )
        # How long a row of each side can still find a partner.
        self._stay = (max(-self._lower, 0), max(self._upper, 0))
        self._queues: tuple[deque[tuple[Nanos, int, bytes | None]], ...] = (deque(), deque())
        self._by_key: tuple[dict[bytes, deque[tuple[Nanos, int]]], ...] = ({}, {})
        self._matched: set[int] = set()

    def on_row(self, side: int, row: int, at: Nanos, key: bytes | None) -> None:
        """Pair the row with the other side's, and keep it for those to come."""
        if key is not None:
            low, high = (self._lower, self._upper) if side == _LEFT else (-self._upper, -self._lower)
            for other_at, other in self._by_key[1 - side].get(key, ()):
                if other_at > at + high:
                    break
                if other_at >= at + low:
                    left, right = (row, other) if side == _LEFT else (other, row)
                    self._matched.add(left)
                    self.found(left, right, at)
            self._by_key[side].setdefault(key, deque()).append((at, row))
        if key is not None or side == _LEFT:
            self._queues[side].append((at, row, key))

    def expire(self, now: Nanos) -> None:
        """Forget rows that nothing to come can match; tell left rows that stayed alone."""
        for side, queue in enumerate(self._queues):
            while queue and queue[0][0] + self._stay[side] < now:
                at, row, key = queue.popleft()
                if key is not None:
                    own = self._by_key[side][key]
                    own.popleft()
                    if not own:
                        del self._by_key[side][key]
                if side == _LEFT and row not in self._matched:
                    self.found(row, -1, at + self._stay[side])
                elif side == _LEFT:
                    self._matched.discard(row)

    def owed(self) -> Nanos:
        """Nothing: a row is given as soon as the watermark has passed its `at`."""
        return self._sequencer.watermark

    def tidy(self) -> None:
        """Put away rows that are in no queue and not about to be given."""
        for side, queue in enumerate(self._queues):
            if self._shelves[side].full(len(queue) + len(self._found)):
                given = {one[0 if side == _LEFT else 1] for one in self._found} - {-1}
                self._shelves[side].keep([*(row for _, row, _ in queue), *given])

    def save(self) -> Any:
        """Queues, and who has a partner."""
        return [list(queue) for queue in self._queues], sorted(self._matched)

    def load(self, own: Any) -> None:
        """Queues; the rows by key follow from them."""
        kind = tuple[list[list[tuple[int, int, bytes | None]]], list[int]]
        queues, matched = msgpack.decode(own, type=kind)
        self._queues, self._matched = tuple(deque(queue) for queue in queues), set(matched)
        self._by_key = ({}, {})
        for side, queue in enumerate(self._queues):
            for at, row, key in queue:
                if key is not None:
                    self._by_key[side].setdefault(key, deque()).append((at, row))


class AsOfJoin(_Join):
    """Each left row with one right row of its key: the last at or before it, the first at or after, or the nearest.

    At most `tolerance` away (bound included); forward and nearest need one, it says how long to wait.
    Of several right rows at one instant backward takes the last in canonical order, forward the first; nearest
    prefers the earlier of two equally far. `at` is the left row's, `right_at` that of what was found.
    """

    def __init__(
        self,
        stream: str,
        *,
        left: str,
        right: str,
        by: By,
        tolerance: str | float | None = None,
        direction: Literal["backward", "forward", "nearest"] = "backward",
        kind: Literal["inner", "left"] = "left",
        time: str = "at",
        idle: str | float | None = None,
    ) -> None:
        super().__init__(stream, left=left, right=right, by=by, kind=kind, time=time, idle=idle)
        if direction not in ("backward", "forward", "nearest"):
            fix = "backward, forward or nearest"
            raise BoucleError("B220", f"{stream}: direction {direction!r}", fix=fix)
        if tolerance is None and direction != "backward":
            fix = "give tolerance: a duration"
            raise BoucleError("B220", f"{stream}: {direction} would wait without end", fix=fix)
        self._direction = direction
        self._tolerance = None if tolerance is None else round(seconds(tolerance) * SECOND)
        self._last: dict[bytes, tuple[Nanos, int, int]] = {}
        """Per key the newest instant of the right: when, its first row, its last row."""
        self._waiting: dict[int, _Waits] = {}
        self._by_key: dict[bytes, list[int]] = {}
        self._ends: list[tuple[Nanos, int]] = []
        self._ages: deque[tuple[Nanos, bytes]] = deque()

    def on_row(self, side: int, row: int, at: Nanos, key: bytes | None) -> None:
        """A right row is the newest of its key; a left row finds its partner or waits."""
        if key is None:
            if side == _LEFT:
                self.found(row, -1, at)
        elif side == _RIGHT:
            for left in self._by_key.pop(key, ()):
                if left in self._waiting:
                    self.found(left, row, self._waiting.pop(left).at)
            last = self._last.get(key)
            self._last[key] = (at, last[1] if last and last[0] == at else row, row)
            if self._tolerance is not None:
                self._ages.append((at, key))
        else:
            self._find(row, at, key)

    def _find(self, row: int, at: Nanos, key: bytes) -> None:
        last = self._last.get(key)
        if last and self._tolerance is not None and at - last[0] > self._tolerance:
            last = None
        if self._direction == "backward" or (last and last[0] == at):
            first = self._direction == "forward"
            self.found(row, last[1 if first else 2] if last else -1, at)
            return
        assert self._tolerance is not None
        if self._direction == "forward" or last is None:
            wait = _Waits(at, key, at + self._tolerance, -1)
        else:
            # Equally far is not nearer.
            wait = _Waits(at, key, at + (at - last[0]) - 1, last[2])
        self._waiting[row] = wait
        self._by_key.setdefault(key, []).append(row)
        heapq.heappush(self._ends, (wait.until, row))

    def expire(self, now: Nanos) -> None:
        """Tell left rows that waited in vain; forget right rows that are too old for any."""
        while self._ends and self._ends[0][0] < now:
            _, row = heapq.heappop(self._ends)
            wait = self._waiting.pop(row, None)
            if wait is not None:
                self._by_key[wait.key].remove(row)
                if not self._by_key[wait.key]:
                    del self._by_key[wait.key]
                self.found(row, wait.candidate, wait.at)
        while self._ages and self._tolerance is not None and self._ages[0][0] + self._tolerance < now:
            at, key = self._ages.popleft()
            if key in self._last and self._last[key][0] == at:
                del self._last[key]

    def owed(self) -> Nanos:
        """The time of the oldest left row that waits."""
        waits = next(iter(self._waiting.values()), None)
        return self._sequencer.watermark if waits is None else waits.at

    def tidy(self) -> None:
        """Put away rows that are neither the newest of a key, nor waiting, nor about to be given."""
        found, waits = self._found, self._waiting
        if self._shelves[_RIGHT].full(len(self._last) * 2 + len(waits) + len(found)):
            newest = {row for _, first, last in self._last.values() for row in (first, last)}
            candidates = {wait.candidate for wait in waits.values()} | {right for _, right, _ in found}
            self._shelves[_RIGHT].keep((newest | candidates) - {-1})
        if self._shelves[_LEFT].full(len(waits) + len(found)):
            self._shelves[_LEFT].keep([*waits, *(left for left, _, _ in found)])

    def save(self) -> Any:
        """The newest right rows, and the left rows that wait."""
        return list(self._last.items()), list(self._waiting.items()), list(self._ages)

    def load(self, own: Any) -> None:
        """The same; ends and keys follow from the rows that wait."""
        kind = tuple[
            list[tuple[bytes, tuple[int, int, int]]], list[tuple[int, _Waits]], list[tuple[int, bytes]]
        ]
        last, waiting, ages = msgpack.decode(own, type=kind)
        self._last, self._waiting, self._ages = dict(last), dict(waiting), deque(ages)
        self._ends = sorted((wait.until, row) for row, wait in waiting)
        self._by_key = {}
        for row, wait in waiting:
            self._by_key.setdefault(wait.key, []).append(row)


class Enrich:
    """Left rows with what is known of their key: from a table, or from a second stream, the last value.

    `table` is rows (list of mappings, RecordBatch, Table) or a .csv or .parquet file, relative to the product's
    folder; every key stands there once. With `right` the last row of that stream at or before is taken, at
    most `ttl` old: an AsOfJoin. A row whose key is not known has nulls, and is counted in `unknown`.
    """

    def __init__(
        self,
        stream: str,
        *,
        by: By,
        table: Any = None,
        left: str = "",
        right: str = "",
        ttl: str | float | None = None,
        time: str = "at",
        idle: str | float | None = None,
        folder: str | Path = ".",
    ) -> None:
        if (table is None) == (not right) or (right and not left):
            fix = "give table: file.csv, or left and right: two streams"
            raise BoucleError("B220", f"{stream}: one thing to enrich with is wanted", fix=fix)
        self._stream = stream
        self.unknown = 0
        self._pairs = _pairs(stream, by)
        self._join: AsOfJoin | None = None
        if right:
            self._join = AsOfJoin(stream, left=left, right=right, by=by, tolerance=ttl, time=time, idle=idle)
            return
        self._table = _read_table(stream, table, Path(folder), list(self._pairs.values()))
        require(stream, list(self._pairs.values()), self._table.schema)
        self._places: dict[bytes, int] | None = None

    @property
    def late_rows(self) -> int:
        """Rows that came after their turn; a table waits for nothing."""
        return self._join.late_rows if self._join else 0

    def step(self, block: Block) -> Sequence[Block]:
        """The rows with the other columns of their key."""
        if self._join:
            told = self._join.step(block)
            # A late left row has no `right_at`: nobody looked for its partner.
            made = (out.rows for out in told if out.stream == self._stream)
            self.unknown += sum(rows.column("right_at").null_count for rows in made)
            return told
        require(self._stream, list(self._pairs), block.rows.schema)
        if self._places is None:
            self._places = self._index(block.rows.schema)
        keys = _encoded(block.rows, list(self._pairs))
        places = [None if key is None else self._places.get(key) for key in keys]
        self.unknown += places.count(None)
        more = [name for name in self._table.schema.names if name not in self._pairs.values()]
        taken = self._table.select(more).take(pa.array(places, pa.int64()))
        there = block.rows.schema.names
        names = [*there, *(f"{name}_right" if name in there else name for name in more)]
        rows = pa.record_batch([*block.rows.columns, *taken.columns], names)
        return (Block(self._stream, rows, block.watermark, block.position),)

    def _index(self, schema: pa.Schema) -> dict[bytes, int]:
        table = self._table
        for one, two in self._pairs.items():
            index, kind = table.schema.get_field_index(two), schema.field(one).type
            try:
                table = table.set_column(index, two, table.column(two).cast(kind))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                what = f"{self._stream}: {two} of the table is no {kind} as {one} is"
                raise BoucleError("B221", what, why=str(error), fix="bring the table in line") from error
        places: dict[bytes, int] = {}
        for place, key in enumerate(_encoded(table, list(self._pairs.values()))):
            if key is not None and places.setdefault(key, place) != place:
                what = f"{self._stream}: {msgpack.decode(key)} stands in the table twice"
                raise BoucleError("B221", what, fix="leave one row for each key")
        return places

    def snapshot(self) -> bytes:
        """The count; the table itself is read again."""
        return msgpack.encode((1, self.unknown, self._join.snapshot() if self._join else b""))

    def restore(self, state: bytes) -> None:
        """Continue; B602 when another version wrote it."""
        _, self.unknown, join = state_of(tuple[int, int, bytes], state, 1, self._stream)
        if self._join:
            self._join.restore(join)


def _read_table(stream: str, table: Any, folder: Path, keys: Sequence[str]) -> pa.RecordBatch:
    try:
        if isinstance(table, str | Path):
            file = folder / table
            if file.suffix == ".csv":
                # Keys stay as they are written, 007 too, until the stream's type is known.
                options = pa.csv.ConvertOptions(column_types={key: pa.string() for key in keys})
                table = pa.csv.read_csv(file, convert_options=options)
            elif file.suffix == ".parquet":
                table = pa.parquet.read_table(file)
            else:
                fix = "give a .csv or .parquet file"
                raise BoucleError("B220", f"{stream}: {table} is no table", fix=fix)
        elif isinstance(table, Sequence):
            table = pa.Table.from_pylist([dict(row) for row in table])
        whole = pa.table(table).combine_chunks()
        batches = whole.to_batches()
    except (OSError, pa.ArrowInvalid, TypeError, ValueError) as error:
        raise BoucleError(
            "B220", f"{stream}: the table cannot be read", why=str(error), fix="see table:"
        ) from error
    return pa.concat_batches(batches) if batches else pa.RecordBatch.from_pylist([], whole.schema)

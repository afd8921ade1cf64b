"""What all joins share: two inputs in one order, their rows and keys, and the rows that came too late."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from msgspec import msgpack

from boucle.block import Block, in_nanos
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.product.duration import seconds
from boucle.stream.expression import plain_column
from boucle.stream.join.shelf import Shelf
from boucle.stream.rows import names_of, require
from boucle.stream.sequence import Sequencer, state_of

__all__ = ["LEFT", "RIGHT", "By", "Join", "encoded", "pairs_of"]

By = Sequence[str] | Mapping[str, str] | str
RIGHT, LEFT = 0, 1


def pairs_of(stream: str, by: By) -> dict[str, str]:
    if not by:
        fix = "give by: [name, …], or {left: right} where the names differ"
        raise BoucleError("B220", f"{stream}: by {by!r}", fix=fix)
    return dict(by) if isinstance(by, Mapping) else {name: name for name in names_of(by)}


def encoded(rows: pa.RecordBatch, names: Sequence[str]) -> list[bytes | None]:
    """Each row's key; None where it matches nothing."""
    columns = [plain_column(rows, name).to_pylist() for name in names]
    return [
        None if any(value is None or value != value for value in values) else msgpack.encode(values)  # noqa: PLR0124 - nan
        for values in zip(*columns, strict=True)
    ]


class Join:
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
        pairs = pairs_of(stream, by)
        self._by = (list(pairs.values()), list(pairs))
        self._sequencer = Sequencer(self._names, time=time, idle=None if idle is None else seconds(idle))
        self._shelves = (Shelf(), Shelf())
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
                keys += encoded(rows, self._by[side])
        at = np.concatenate(ready.at).tolist()
        rights = len(ready.at[RIGHT])
        for index in ready.merged.tolist():
            self.expire(at[index])
            self.on_row(RIGHT if index < rights else LEFT, ids[index], at[index], keys[index])
        self.expire(ready.watermark)
        self.tidy()
        side = self._names.index(block.stream)
        out = [
            Block(f"{self._stream}/late", self._late(side, rows), ready.watermark, block.position)
            for rows in ready.late
        ]
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
        require(self._stream, [*self._by[side], self._time], block.rows.schema)
        shelf.schema = block.rows.schema
        if other.schema is not None:
            self._agree()

    def _agree(self) -> None:
        left, right = (self._schema(side) for side in (LEFT, RIGHT))
        for one, two in zip(self._by[LEFT], self._by[RIGHT], strict=True):
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
        taken = self._schema(LEFT).names
        lefts = [*self._by[LEFT], *self._rest(LEFT)]
        rights = [f"{name}_right" if name in taken else name for name in self._rest(RIGHT)]
        return ["at", *(["left_at"] if self.both_times else []), "right_at", *lefts, *rights]

    def _rest(self, side: int) -> list[str]:
        no_more = {*self._by[side], self._time}
        return [name for name in self._schema(side).names if name not in no_more]

    def _made(self) -> pa.RecordBatch:
        found, self._found = self._found, []
        told = np.array(found, np.int64).reshape(-1, 3)
        left = self._shelves[LEFT].get(told[:, 0])
        right = self._shelves[RIGHT].get(told[:, 1])
        at = self._instants(pa.array(told[:, 2]))
        times = [at, *([left.column(self._time)] if self.both_times else []), right.column(self._time)]
        lefts = [left.column(name) for name in (*self._by[LEFT], *self._rest(LEFT))]
        rights = [right.column(name) for name in self._rest(RIGHT)]
        return pa.record_batch([*times, *lefts, *rights], self._columns())

    def _late(self, side: int, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Late rows of one side in the columns of both: what only the other side has is null."""
        own = [rows.column(name) for name in self._rest(side)]
        others = [self._schema(1 - side).field(name).type for name in self._rest(1 - side)]
        absent = [pa.nulls(rows.num_rows, kind) for kind in others]
        columns = [
            self._instants(in_nanos(rows.column(self._time))),
            *(self._key(rows, side, place) for place in range(len(self._by[side]))),
            *(own + absent if side == LEFT else absent + own),
            pa.array(["left" if side == LEFT else "right"] * rows.num_rows, pa.string()),
            rows.column("late_by_ns"),
        ]
        said = self._columns()[3 if self.both_times else 2 :]
        return pa.record_batch(columns, ["at", *said, "late_side", "late_by_ns"])

    def _key(self, rows: pa.RecordBatch, side: int, place: int) -> pa.Array:
        name, other = self._by[side][place], self._by[1 - side][place]
        if rows.schema.field(name).type == self._schema(1 - side).field(other).type:
            return rows.column(name)
        return plain_column(rows, name)

    def _instants(self, at: pa.Array) -> pa.Array:
        """Times in ns as the left side has them."""
        kind = self._schema(LEFT).field(self._time).type
        return at.cast(pa.timestamp("ns", kind.tz)) if pa.types.is_timestamp(kind) else at

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

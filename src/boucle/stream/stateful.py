"""A user's function per key with typed state and event-time timers; and the fold it stands on.

`KeyedFold` takes rows in the Sequencer's canonical order and lets timers go off between them: a timer at T
before the rows at T, timers of one instant by key and tag. Once the watermark is W every row before T <= W
was seen, so the timer is due. Nothing asks the clock, and any cut of the stream gives the same rows.
Timers as in Akidau et al., "The Dataflow Model", VLDB 2015.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct, msgpack

from boucle.block import Block, as_dicts, as_rows
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.ports import From, Traced
from boucle.product.duration import seconds
from boucle.stream.expression import plain_column, plain_type
from boucle.stream.origin import Inputs, every, one_of
from boucle.stream.rows import late_blocks, names_of, require
from boucle.stream.sequence import Order, Sequencer, state_of

__all__ = ["Context", "KeyedFold", "Stateful", "in_ns"]


_SLACK = 1024
_KEY_KINDS = (pa.int64(), pa.float64(), pa.string(), pa.bool_())


class _Held(Struct, array_like=True):
    version: int
    input: str
    told: Nanos
    late_rows: int
    sequencer: bytes
    timers: list[tuple[bytes, Nanos, str]]
    own: bytes


class KeyedFold:
    """One input, folded from left to right per key; what it gives has the column `at`.

    Rows that come after their turn go out as Blocks of `<stream>/late` and are counted in `late_rows`.
    With `order="arrival"` a key's timers go off before its next row, others when the watermark passes.
    """

    version: ClassVar[int] = 1

    def __init__(
        self, stream: str, *, by: Sequence[str] | str, time: str = "at", order: Order = "time"
    ) -> None:
        if order not in ("time", "arrival"):
            raise BoucleError("B220", f"{stream}: order: {order!r}", fix="write time or arrival")
        self._stream, self._by, self._time, self._order = stream, names_of(by), time, order
        self._input, self._sequencer = "", Sequencer((), time=time, order=order)
        self._told: Nanos = 0
        self._timers: dict[bytes, set[tuple[Nanos, str]]] = {}
        self._heap: list[tuple[Nanos, bytes, str]] = []
        self._live = 0
        self._given: list[dict[str, Any]] = []
        self._schema: pa.Schema | None = None
        self._output: pa.Schema | None = None

    @property
    def late_rows(self) -> int:
        """Rows that came after their turn."""
        return self._sequencer.late_rows

    def step(self, block: Block) -> Sequence[Block]:
        """Take a Block; give the rows that its watermark settled."""
        if not self._input:
            self._listen(block.stream)
        if self._schema is None:
            require(self._stream, [*self._by, self._time], block.rows.schema)
            self._output = self.bind(block.rows.schema)
            self._schema = block.rows.schema
        elif not self._schema.equals(block.rows.schema):
            what = f"the columns of {block.stream} have changed"
            raise BoucleError("B221", what, fix="bring them in line with Select or Map")
        ready = self._sequencer.take(block)
        if ready.rows[0] is not None:
            self._fold(ready.rows[0], ready.at[0].tolist())
        self._fire(ready.watermark)
        out = late_blocks(self._stream, ready, block.position)
        if self._given or ready.watermark > self._told:
            self._told = max(self._told, ready.watermark)
            rows, self._given = self._given, []
            out.append(Block(self._stream, self._made(rows), self._told, block.position))
        return out

    def _made(self, rows: list[dict[str, Any]]) -> pa.RecordBatch:
        try:
            return as_rows(rows, self._output)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            what = f"{self._stream} gave rows that are not of its output"
            raise BoucleError(
                "B221", what, why=str(error), fix="give the declared columns and types"
            ) from error

    def _listen(self, stream: str) -> None:
        self._input = stream
        self._sequencer = Sequencer((stream,), time=self._time, order=self._order)

    def _fold(self, rows: pa.RecordBatch, at: list[Nanos]) -> None:
        self.take(rows)
        columns = [plain_column(rows, name).to_pylist() for name in self._by]
        known: dict[Any, bytes] = {}
        for index, values in enumerate(zip(*columns, strict=True) if columns else [()] * len(at)):
            key = known.get(values)
            # 1, 1.0 and True are one dict key, but a column holds only one type.
            if key is None:
                key = known[values] = msgpack.encode(values)
            if self._order == "time":
                if self._heap and self._heap[0][0] <= at[index]:
                    self._fire(at[index])
            else:
                self._fire_own(key, at[index])
            self.on_row(index, key, at[index])

    def _fire(self, upto: Nanos) -> None:
        while self._heap and self._heap[0][0] <= upto:
            at, key, tag = heapq.heappop(self._heap)
            if (at, tag) in self._timers.get(key, ()):
                self.unset(key, at, tag)
                self.on_timer(key, at, tag)

    def _fire_own(self, key: bytes, upto: Nanos) -> None:
        while (own := self._timers.get(key)) and (due := min(own))[0] <= upto:
            self.unset(key, *due)
            self.on_timer(key, *due)

    def set(self, key: bytes, at: Nanos, tag: str = "") -> None:
        """Set a timer; the same one twice goes off once."""
        own = self._timers.setdefault(key, set())
        if (at, tag) not in own:
            own.add((at, tag))
            self._live += 1
            heapq.heappush(self._heap, (at, key, tag))
            if len(self._heap) > 2 * self._live + _SLACK:
                # Timers that were taken back stay in the heap until their time: not for ever.
                self._heap = sorted((at, key, tag) for key, own in self._timers.items() for at, tag in own)

    def unset(self, key: bytes, at: Nanos, tag: str = "") -> None:
        """Take a timer back."""
        own = self._timers.get(key)
        if own is not None and (at, tag) in own:
            own.discard((at, tag))
            self._live -= 1
            if not own:
                del self._timers[key]

    def give(self, row: dict[str, Any]) -> None:
        """One row of output."""
        self._given.append(row)

    def named(self, key: bytes) -> dict[str, Any]:
        """The key columns and their values."""
        return dict(zip(self._by, msgpack.decode(key), strict=True))

    def heads(self, schema: pa.Schema) -> list[pa.Field]:
        """The columns that every row of output has: `at`, then the keys."""
        kinds = [in_ns(schema.field(self._time).type)]
        for name in self._by:
            kind = in_ns(schema.field(name).type)
            if plain_type(kind) not in _KEY_KINDS:
                what = f"{self._stream}: key {name} is {kind}"
                raise BoucleError("B221", what, fix="make it a text or a number with Map")
            kinds.append(kind if pa.types.is_timestamp(kind) else plain_type(kind))
        return [pa.field(name, kind) for name, kind in zip(("at", *self._by), kinds, strict=True)]

    def bind(self, schema: pa.Schema) -> pa.Schema:
        """Called with the schema of the input: the schema of the output."""
        raise NotImplementedError

    def take(self, rows: pa.RecordBatch) -> None:
        """Called before the rows of a batch."""
        raise NotImplementedError

    def on_row(self, index: int, key: bytes, at: Nanos) -> None:
        """One row of the batch."""
        raise NotImplementedError

    def on_timer(self, key: bytes, at: Nanos, tag: str) -> None:
        """A timer that is due."""
        raise NotImplementedError

    def save(self) -> bytes:
        """What the fold itself remembers."""
        raise NotImplementedError

    def load(self, own: bytes) -> None:
        """Continue from what `save` gave."""
        raise NotImplementedError

    def snapshot(self) -> bytes:
        """Rows that wait, timers, and the state of every key."""
        timers = sorted((key, at, tag) for key, own in self._timers.items() for at, tag in own)
        held = _Held(
            self.version,
            self._input,
            self._told,
            self.late_rows,
            self._sequencer.snapshot(),
            timers,
            self.save(),
        )
        return msgpack.encode(held)

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when another version of it wrote it."""
        kind = tuple[int, str, int, int, bytes, list[tuple[bytes, int, str]], bytes]
        held = state_of(kind, state, self.version, self._stream)
        _, name, self._told, _, sequencer, timers, own = held
        if name:
            self._listen(name)
            self._sequencer.restore(sequencer)
        self._timers, self._heap, self._live = {}, [], 0
        for key, at, tag in timers:
            self.set(key, at, tag)
        self.load(own)


def in_ns(kind: pa.DataType) -> pa.DataType:
    """The type, a timestamp in ns: inside a fold times are ns."""
    return pa.timestamp("ns", kind.tz) if pa.types.is_timestamp(kind) else kind


class Context:
    """What a user's function sees of the engine: its key, its time, its state, its timers."""

    def __init__(self, fold: "Stateful") -> None:
        self._fold = fold
        self._key = b""
        self._named: dict[str, Any] | None = None
        self.at: Nanos = 0
        """Event time of the row or of the timer, ns."""
        self.state: Any = None

    def enter(self, key: bytes, at: Nanos, state: Any) -> None:
        """Look at a key; the engine calls it before each row and timer."""
        self._key, self._named, self.at, self.state = key, None, at, state

    @property
    def key(self) -> dict[str, Any]:
        """The columns of `by` and their values."""
        if self._named is None:
            self._named = self._fold.named(self._key)
        return self._named

    def timer(self, at: Nanos, tag: str = "") -> None:
        """Call `on_timer` when the watermark passes `at` (ns); B221 unless that is still to come."""
        if at <= self.at:
            what = f"a timer {tag!r} at {at} is not after the row at {self.at}"
            raise BoucleError("B221", what, fix="what is due now, do now")
        self._fold.set(self._key, at, f"+{tag}")

    def cancel(self, at: Nanos, tag: str = "") -> None:
        """Take a timer back; one that was never set is no mistake."""
        self._fold.unset(self._key, at, f"+{tag}")


Rows = Iterable[Mapping[str, Any]] | None


class Stateful(KeyedFold):
    """A function per key, with state that outlives the row.

    `on_row(context, row)` and `on_timer(context, tag)` return rows (or None); the engine adds the key
    columns and `at`, the time of the row or timer. `state` is a msgspec Struct class, all of whose fields
    have defaults, or a numpy structured dtype (then `context.state["field"]`). A key not seen for `ttl` is
    forgotten at last row + ttl, before the rows of that instant; its timers stay and would find fresh state.

        def on_row(context, row):
            context.state.total += row["amount"]
            context.timer(context.at + 60 * SECOND, "quiet")
    """

    def __init__(
        self,
        stream: str,
        *,
        by: Sequence[str] | str,
        on_row: Callable[[Context, dict[str, Any]], Rows],
        state: Any,
        output: pa.Schema,
        on_timer: Callable[[Context, str], Rows] | None = None,
        ttl: str | float | None = None,
        time: str = "at",
        order: Order = "time",
    ) -> None:
        super().__init__(stream, by=by, time=time, order=order)
        self._on_row, self._on_timer, self._own = on_row, on_timer, output
        self._dtype = state if isinstance(state, np.dtype) else None
        if self._dtype is None and not (isinstance(state, type) and issubclass(state, Struct)):
            fix = "give a msgspec Struct class or a numpy structured dtype"
            raise BoucleError("B220", f"{stream}: state {state!r} has no type", fix=fix)
        if self._dtype is None:
            try:
                state()
            except TypeError as error:
                fix = "give every field a default"
                raise BoucleError("B220", f"{stream}: no first state", why=str(error), fix=fix) from error
        clash = [name for name in ("at", *self._by) if name in output.names]
        if clash:
            fix = "leave it out of output"
            raise BoucleError("B220", f"{stream}: {clash[0]} is added by the engine", fix=fix)
        self._kind = state
        self._ttl = None if ttl is None else round(seconds(ttl) * SECOND)
        self._states: dict[bytes, Any] = {}
        self._until: dict[bytes, Nanos] = {}
        self._rows: list[dict[str, Any]] = []
        self._context = Context(self)

    @classmethod
    def trace(
        cls, inputs: Inputs, *, by: Sequence[str] | str, output: pa.Schema, time: str = "at", **declared: Any
    ) -> Traced:
        """Keys as they are; what the function gives may come from every column of the key's rows."""
        del declared
        stream, why = one_of(inputs), "a function of Python"
        columns = {"at": (From(stream, time, "TRANSFORMATION", "of the row or timer"),)}
        columns |= {name: (From(stream, name),) for name in names_of(by)}
        return Traced(columns | {name: every(inputs, why) for name in output.names}, unknown=why)

    def bind(self, schema: pa.Schema) -> pa.Schema:
        """`at`, the keys, then the declared columns."""
        return pa.schema([*self.heads(schema), *self._own])

    def take(self, rows: pa.RecordBatch) -> None:
        """Rows as dictionaries."""
        self._rows = as_dicts(rows)

    def on_row(self, index: int, key: bytes, at: Nanos) -> None:
        """Let the user's function see the row."""
        if self._ttl is not None:
            if key in self._until:
                self.unset(key, self._until[key], "-")
            self._until[key] = at + self._ttl
            self.set(key, at + self._ttl, "-")
        self._tell(key, at, self._on_row, self._rows[index])

    def on_timer(self, key: bytes, at: Nanos, tag: str) -> None:
        """Forget the key, or let the user's function know."""
        if tag == "-":
            self._states.pop(key, None)
            self._until.pop(key, None)
        elif self._on_timer is not None:
            self._tell(key, at, self._on_timer, tag[1:])

    def _tell(self, key: bytes, at: Nanos, function: Callable[[Context, Any], Rows], what: Any) -> None:
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = self._kind() if self._dtype is None else np.zeros((), self._dtype)
        context = self._context
        context.enter(key, at, state)
        for row in function(context, what) or ():
            self.give({**row, **context.key, "at": at})
        if context.state is not state:  # a function may put a new value in place of the old one
            self._states[key] = context.state

    def save(self) -> bytes:
        """The state of every key."""
        if self._dtype is None:
            told = [(key, msgpack.encode(state)) for key, state in self._states.items()]
        else:
            told = [(key, np.asarray(state).tobytes()) for key, state in self._states.items()]
        return msgpack.encode((told, self._until))

    def load(self, own: bytes) -> None:
        """The state of every key; B602 when its type has changed."""
        told, self._until = msgpack.decode(own, type=tuple[list[tuple[bytes, bytes]], dict[bytes, int]])
        try:
            self._states = {key: self._revive(state) for key, state in told}
        except (msgspec.DecodeError, ValueError) as error:
            what = f"the state of {self._stream} is of another type"
            fix = "remove the checkpoint to start afresh"
            raise BoucleError("B602", what, why=str(error), fix=fix) from error

    def _revive(self, state: bytes) -> Any:
        if self._dtype is None:
            return msgpack.decode(state, type=self._kind)
        return np.frombuffer(state, self._dtype)[0:1].copy().reshape(())

"""Rows with more columns of numbers behind them: written as one message, or read column by column before.

A step that adds numbers to rows takes what it needs with `Extended.take`, writes into `Extended.values` and
gets the new rows from `Extended.give`; for a Block of one row that takes a few microseconds.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.arrow_message import places
from boucle.compiled import compiled
from boucle.memory import bytes_at, copy, words_at
from boucle.stream.columns import (
    BATCH,
    BITS,
    CALL,
    FIRST,
    LARGEST,
    MESSAGE,
    NULLS,
    RISES,
    ROWS,
    SIZE,
    TIMES,
    VALUES,
    WIDE,
    Columns,
    bit,
    column_at,
    gather,
    number_kind,
    padded,
    span_of,
    width_of,
)  # fmt: skip

__all__ = ["Extended"]

Ints = NDArray[np.int64]

_PIECE = 1 << 18
"""Bytes of memory that messages are cut from."""
_ROOM = 256


@compiled
def _write_bits(data: int, first: int, rows: int, message: Any, at: int) -> Any:
    """Copy bits to `at`, from the first bit of a byte on; how many are 0."""
    bits = bytes_at(data, ((first + rows - 1) >> 3) + 1)
    message[at : at + padded((rows + 7) >> 3)] = 0
    zeros = np.int64(0)
    for row in range(rows):
        one = bit(bits, first + row)
        message[at + (row >> 3)] |= one << np.uint8(row & 7)
        zeros += 1 - np.int64(one)
    return zeros


@compiled
def _write_texts(buffers: Ints, first: int, rows: int, width: int, message: Any, start: int, at: int) -> Any:
    """Copy offsets of `width` bytes and then the texts themselves; how many bytes these have."""
    begin, end = span_of(buffers, first, rows, width)
    size = (rows + 1) * width
    if width == WIDE:
        message[at : at + size].view(np.int64)[:] = words_at(buffers[1] + width * first, rows + 1) - begin
    else:
        narrow = bytes_at(buffers[1] + width * first, size).view(np.int32)
        message[at : at + size].view(np.int32)[:] = narrow - np.int32(begin)
    at += padded(size)
    copy(start + at, buffers[2] + begin, end - begin)
    return end - begin


@compiled
def _write_given(
    batch: int,
    rows: int,
    kinds: Ints,
    message: Any,
    start: int,
    at: int,
    nodes: Ints,
    spans: Ints,
) -> tuple[int, int]:
    """Write the rows' own columns at `at`; where the next byte and the next buffer's size go."""
    body, place = at, 0
    for column in range(len(kinds)):
        buffers, first = column_at(batch, column)
        nodes[2 * column], nodes[2 * column + 1] = rows, 0
        spans[place], spans[place + 1] = at - body, 0
        if buffers[0] != 0:
            nodes[2 * column + 1] = _write_bits(buffers[0], first, rows, message, at)
            spans[place + 1] = (rows + 7) >> 3
            at += padded((rows + 7) >> 3)
        place += 2
        width = kinds[column]
        if width == BITS:
            _write_bits(buffers[1], first, rows, message, at)
            size = (rows + 7) >> 3
        elif width > 0:
            size = rows * width
            copy(start + at, buffers[1] + first * width, size)
        else:
            text = _write_texts(buffers, first, rows, -width, message, start, at)
            spans[place], spans[place + 1] = at - body, (rows + 1) * -width
            at, place = at + padded((rows + 1) * -width), place + 2
            size = text
        spans[place], spans[place + 1] = at - body, size
        at, place = at + padded(size), place + 2
    return at, place


@compiled
def write(plan: Ints, call: Ints) -> None:
    """Fill a message whose first columns are those of the rows and whose last lie in its body already.

    The body begins with the values of the added columns. `plan`: address and number of the kinds of the rows'
    columns; address and number of what the added columns are: whether of whole numbers, and the address of flags,
    0 where that column is null (address 0: nowhere). Other added columns are null where they are NaN. Then the
    address of the places (as in `Places`), and of the metadata.
    """
    rows, kinds = call[ROWS], words_at(plan[0], plan[1])
    appended, where = words_at(plan[2], 2 * plan[3]).reshape((-1, 2)), words_at(plan[4], 5)
    body, columns = where[4], len(kinds)
    message = bytes_at(call[MESSAGE], body + call[SIZE])
    copy(call[MESSAGE], plan[5], body)
    nodes = message[where[2] : where[2] + 16 * (columns + len(appended))].view(np.int64)
    spans = message[where[3] : body].view(np.int64)
    values_size = 8 * rows * len(appended)
    at, place = _write_given(
        call[BATCH], rows, kinds, message, call[MESSAGE], body + values_size, nodes, spans
    )
    for buffer in range(0, place, 2):
        spans[buffer] += values_size
    for column in range(len(appended)):
        values = message[body + 8 * rows * column : body + 8 * rows * (column + 1)].view(np.float64)
        counted, flags = (
            appended[column, 0],
            words_at(appended[column, 1], rows if appended[column, 1] else 0),
        )
        size, nulls = (rows + 7) >> 3, 0
        message[at : at + padded(size)] = 0
        for row in range(rows):
            known = len(flags) == 0 or flags[row] != 0 if counted else not np.isnan(values[row])
            nulls += not known
            message[at + (row >> 3)] |= np.uint8(known) << np.uint8(row & 7)
        nodes[2 * (columns + column)], nodes[2 * (columns + column) + 1] = rows, nulls
        spans[place], spans[place + 1] = at - body, size if nulls else 0
        spans[place + 2], spans[place + 3] = 8 * rows * column, 8 * rows
        at, place = at + (padded(size) if nulls else 0), place + 4
    message[where[1] : where[1] + 8].view(np.int64)[0] = padded(at - body)
    message[where[0] : where[0] + 8].view(np.int64)[0] = rows
    call[SIZE] = at


class _Message:
    """Rows of a schema with more columns of 8-byte numbers behind them, as one message per Block.

    Messages are cut from pieces of memory; a piece lives as long as rows in it.
    """

    def __init__(self, schema: pa.Schema, whole: pa.Schema) -> None:
        added = list(whole)[len(schema) :]
        self._schema = whole
        self.kinds = np.array([width_of(field.type) for field in schema], np.int64)
        self.flags = np.zeros((len(added), 2), np.int64)
        """Per added column whether it is of whole numbers, and where its flags are."""
        self.flags[:, 0] = [pa.types.is_integer(field.type) for field in added]
        free = pa.schema([field.with_nullable(True) for field in whole])
        one = pa.RecordBatch.from_arrays([pa.array([None], field.type) for field in free], schema=free)
        message = one.serialize().to_pybytes()
        found = places(message)
        self._head = np.frombuffer(message[: found.body], np.uint8)
        self._where = np.array(
            [found.length, found.body_length, found.nodes, found.buffers, found.body], np.int64
        )
        self.plan = np.array(
            [
                self.kinds.ctypes.data, len(self.kinds), self.flags.ctypes.data, len(added),
                self._where.ctypes.data, self._head.ctypes.data,
            ],
            np.int64,
        )  # fmt: skip
        self._each = 8 * len(added)
        self._piece(_PIECE)

    def _piece(self, size: int) -> None:
        self._memory = np.empty(size, np.uint8)
        self._buffer, self._start, self._used = pa.py_buffer(self._memory), int(self._memory.ctypes.data), 0

    def begin(self, call: Ints, rows: int) -> None:
        """Set a place for a message apart, after `gather`."""
        values = rows * self._each
        size = int(call[SIZE]) + values + rows * len(self.flags) // 8 + 8 * len(self.flags)
        head = len(self._head)
        if self._used + head + size > len(self._memory):
            self._piece(max(_PIECE, 2 * (head + size)))
        at = self._used + head
        call[SIZE] = size
        call[MESSAGE] = self._start + self._used
        call[VALUES] = self._start + at

    def values(self, rows: int) -> NDArray[np.float64]:
        """The added columns in the message that was begun (columns, rows)."""
        at = self._used + len(self._head)
        return self._memory[at : at + rows * self._each].view(np.float64).reshape(-1, rows)

    def read(self, call: Ints) -> pa.RecordBatch:
        """The rows of the message that `write` filled."""
        write(self.plan, call)
        size = int(call[SIZE])
        message = self._buffer.slice(self._used, size)
        self._used += (size + 63) & ~63
        return pa.ipc.read_record_batch(message, self._schema)


class Extended:
    """Rows of one schema: some columns read as numbers, others, of 8-byte numbers, put behind them.

    `reads`: (column, whether as float64) each. A column that is no number is not read: `read` says which were.
    Rows of types that cannot be copied (lists, structs) take the way of Arrow objects, some tens of
    microseconds slower per Block.
    """

    def __init__(
        self, schema: pa.Schema, reads: Sequence[tuple[str, bool]], added: Sequence[pa.Field]
    ) -> None:
        self.schema, self._added = pa.schema([*schema, *added], schema.metadata), list(added)
        self._columns, self._held = Columns(), False
        kinds = [number_kind(schema.field(name).type, floating=floating) for name, floating in reads]
        self.read = [kind is not None for kind in kinds]
        self._jobs = np.array(
            [
                [schema.get_field_index(name), *kind, floating, 0, 0, 0]
                for (name, floating), kind in zip(reads, kinds, strict=True)
                if kind is not None
            ],
            np.int64,
        ).reshape(-1, 7)
        self._job_of = np.cumsum(self.read) - 1
        simple = all(width_of(field.type) is not None for field in schema)
        self._message = _Message(schema, self.schema) if simple else None
        kinds_of = self._message.kinds if self._message else np.zeros(0, np.int64)
        self._plan = np.array(
            [self._jobs.ctypes.data, len(self._jobs), kinds_of.ctypes.data, len(kinds_of)], np.int64
        )
        self.call = np.zeros(CALL, np.int64)
        """What compiled code is told of the rows at hand."""
        self.call[BATCH] = self._columns.address
        self._hidden: dict[int, Ints | None] = {}
        self.room = 0
        self._rows = 0
        self.reach(_ROOM)

    @staticmethod
    @cache
    def prepare() -> None:
        """Compile, or load, what is needed: when a step is made, not when its first row waits for it."""
        rows = pa.record_batch(
            {"at": pa.array([0]), "of": pa.array([""]), "is": pa.array([None], pa.bool_())}
        )
        ready = Extended(rows.schema, [("at", False)], [pa.field("more", pa.float64())])
        ready.take(rows)
        ready.begin()
        ready.values()[:] = 0.0
        ready.give(rows)

    def reach(self, rows: int) -> bool:
        """Room for the numbers of so many rows; True when they lie elsewhere now."""
        if rows <= self.room:
            return False
        self.room = max(rows, 2 * self.room)
        self.numbers = np.zeros((len(self.read), self.room), np.int64)
        """Per read its numbers, float64 bit by bit."""
        self.flags = np.ones((len(self.read), self.room), np.int64)
        """Per read and row 0 for a null, once there is one; whoever reads them sets them to 1 again."""
        for read, job in enumerate(self._job_of.tolist()):
            if self.read[read]:
                self._jobs[job, 4] = self.numbers[read].ctypes.data
                self._jobs[job, 5] = self.flags[read].ctypes.data
        self.call[TIMES] = self.numbers.ctypes.data
        return True

    def take(self, rows: pa.RecordBatch) -> None:
        """Read the columns; the first, of whole numbers, tells `rises`, `first` and `largest`."""
        self.drop()
        self._rows = rows.num_rows
        self.reach(self._rows)
        self.call[ROWS] = self._rows
        self._columns.hold(rows)
        self._held = True
        gather(self._plan, self.call)

    @property
    def complete(self) -> bool:
        """Whether no column that was read has a null."""
        return not self.call[NULLS]

    def nulls(self, read: int) -> int:
        """How many nulls a column had; its flags are down there."""
        return int(self._jobs[self._job_of[read], 6])

    @property
    def rises(self) -> bool:
        """Whether no number of the first column is less than the one above it."""
        return bool(self.call[RISES])

    @property
    def first(self) -> int:
        """The first number of the first column."""
        return int(self.call[FIRST])

    @property
    def largest(self) -> int:
        """The largest number of the first column."""
        return int(self.call[LARGEST])

    def begin(self) -> None:
        """Set a place for the added columns apart: compiled code finds it by the call's VALUES."""
        if self._message is not None:
            self._message.begin(self.call, self._rows)
        else:
            self._apart = np.empty((len(self._added), self._rows))
            self.call[VALUES] = self._apart.ctypes.data

    def values(self) -> NDArray[np.float64]:
        """Where the added columns go (columns, rows), after `begin`: int64 bit by bit where whole; NaN is null."""
        return self._apart if self._message is None else self._message.values(self._rows)

    def hide(self, column: int, flags: Ints | None) -> None:
        """An added column of whole numbers is null where the flags are 0; None: nowhere."""
        self._hidden[column] = flags
        if self._message is not None:
            self._message.flags[column, 1] = 0 if flags is None else flags.ctypes.data

    def give(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that were taken, the added columns behind them."""
        told = self._message.read(self.call) if self._message is not None else self._by_arrays(rows)
        self.drop()
        return told

    def _by_arrays(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        told = []
        for column, field in enumerate(self._added):
            values, flags = self._apart[column], self._hidden.get(column)
            if pa.types.is_integer(field.type):
                mask = None if flags is None else flags[: self._rows] == 0
                told.append(pa.array(values.view(np.int64), field.type, mask=mask))
            else:
                told.append(pa.array(values, field.type, mask=np.isnan(values)))
        return pa.RecordBatch.from_arrays([*rows.columns, *told], schema=self.schema)

    def drop(self) -> None:
        """Give the Block's memory back."""
        if self._held:
            self._held = False
            self._columns.release()

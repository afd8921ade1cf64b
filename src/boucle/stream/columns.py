"""Columns of small Blocks, read and written without an object per column.

Every Arrow object costs microseconds whatever its length, and a Block of 64 payments has a dozen. So rows are
read through the Arrow C data interface (one call hands over all columns), and rows with more columns are
written as one IPC message whose metadata was made by Arrow once and in which only sizes change
(Arrow columnar format, "C data interface" and "Encapsulated message format").
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.arrow_message import places
from boucle.compiled import compiled
from boucle.memory import bytes_at, copy, words_at

__all__ = [
    "BATCH",
    "CALL",
    "FIRST",
    "LARGEST",
    "MARK",
    "RISES",
    "ROWS",
    "TIMES",
    "VALUES",
    "Appended",
    "Columns",
    "column_at",
    "gather",
    "is_null",
    "number_kind",
    "span_of",
    "write",
]  # fmt: skip

Ints = NDArray[np.int64]

# Of `struct ArrowArray`, in words.
_NULLS, _OFFSET, _BUFFER_COUNT, _BUFFERS, _CHILDREN, _RELEASE, _ARRAY = 1, 2, 3, 5, 6, 8, 10

# Of the vector that says what one call is about; the lower half is written by the call.
BATCH, ROWS, MESSAGE, VALUES, TIMES, MARK, SIZE, RISES, FIRST, LARGEST, CALL = range(11)
"""BATCH: address of the rows (`Columns`); MESSAGE: of the message to write; VALUES: of the added columns' values,
column after column; TIMES: of the times; MARK: the watermark. SIZE: bytes of the message; RISES: whether no time is
before the one above it; FIRST, LARGEST: of the times."""

_INT64, _INT32, _INT16, _INT8, _UINT32, _UINT16, _UINT8, _FLOAT64, _FLOAT32, _BOOL = range(10)
_KINDS = {
    pa.int64(): _INT64,
    pa.uint64(): _INT64,
    pa.int32(): _INT32,
    pa.int16(): _INT16,
    pa.int8(): _INT8,
    pa.uint32(): _UINT32,
    pa.uint16(): _UINT16,
    pa.uint8(): _UINT8,
    pa.float64(): _FLOAT64,
    pa.float32(): _FLOAT32,
    pa.bool_(): _BOOL,
}
_BITS = 1 << 20
_WIDE = 8
_PIECE = 1 << 18
"""Bytes of memory that messages are cut from."""
_UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def number_kind(kind: pa.DataType, *, floating: bool = False) -> tuple[int, int] | None:
    """How a column is read as whole numbers (or float64): its kind and a factor; None when it cannot be.

    A timestamp is read in ns.
    """
    if pa.types.is_timestamp(kind):
        return None if floating else (_INT64, _UNITS[kind.unit])
    if floating and pa.types.is_uint64(kind):
        return None
    if not floating and pa.types.is_floating(kind):
        return None
    found = _KINDS.get(kind)
    return None if found is None else (found, 1)


class Columns:
    """The columns of rows, by address, while this context is open."""

    def __init__(self) -> None:
        self._array = np.zeros(_ARRAY, np.int64)
        self.address = int(self._array.ctypes.data)
        self._release: dict[int, Any] = {}

    def hold(self, rows: pa.RecordBatch) -> None:
        """Take hold of the rows; `release` must follow."""
        rows._export_to_c(self.address)  # noqa: SLF001 - pyarrow's documented way into the C data interface

    def release(self) -> None:
        """Give them back."""
        address = int(self._array[_RELEASE])
        if address:
            call = self._release.get(address)
            if call is None:
                call = self._release[address] = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(address)
            call(self.address)


@compiled
def _bit(bits: Any, at: int) -> Any:
    return (bits[at >> 3] >> np.uint8(at & 7)) & np.uint8(1)


@compiled
def column_at(batch: int, column: int) -> tuple[Ints, int]:
    """A column's buffers (address of the bits that are 0 for a null, or 0; then of its data) and its first row."""
    whole = words_at(batch, _ARRAY)
    child = words_at(words_at(whole[_CHILDREN], column + 1)[column], _ARRAY)
    buffers = words_at(child[_BUFFERS], max(child[_BUFFER_COUNT], 2)).copy()
    if child[_NULLS] == 0:
        buffers[0] = 0
    return buffers, child[_OFFSET] + whole[_OFFSET]


@compiled
def is_null(buffers: Ints, row: int) -> bool:
    """Whether a row of a column is null."""
    return bool(buffers[0] != 0 and _bit(bytes_at(buffers[0], (row >> 3) + 1), row) == 0)


@compiled
def span_of(buffers: Ints, first: int, rows: int, width: int) -> Any:
    """From where to where the bytes of texts lie whose offsets have `width` bytes."""
    if width == _WIDE:
        wide = words_at(buffers[1], first + rows + 1)
        return wide[first], wide[first + rows]
    narrow = bytes_at(buffers[1], 4 * (first + rows + 1)).view(np.int32)
    return np.int64(narrow[first]), np.int64(narrow[first + rows])


@compiled
def _copy(  # noqa: C901, PLR0912 - one line per type of Arrow
    buffers: Ints, first: int, kind: int, factor: int, floating: int, into: Ints, there: Ints
) -> int:
    """Copy a column; the number of nulls, where `there` becomes 0 and the value 0, or NaN when `floating`."""
    rows = len(into)
    data = buffers[1]
    numbers = into.view(np.float64)
    if kind == _FLOAT64:
        numbers[:] = words_at(data, first + rows).view(np.float64)[first:]
    elif kind == _FLOAT32:
        numbers[:] = bytes_at(data, 4 * (first + rows)).view(np.float32)[first:]
    elif kind == _INT64:
        into[:] = words_at(data, first + rows)[first:]
    elif kind == _INT32:
        into[:] = bytes_at(data, 4 * (first + rows)).view(np.int32)[first:]
    elif kind == _INT16:
        into[:] = bytes_at(data, 2 * (first + rows)).view(np.int16)[first:]
    elif kind == _INT8:
        into[:] = bytes_at(data, first + rows).view(np.int8)[first:]
    elif kind == _UINT32:
        into[:] = bytes_at(data, 4 * (first + rows)).view(np.uint32)[first:]
    elif kind == _UINT16:
        into[:] = bytes_at(data, 2 * (first + rows)).view(np.uint16)[first:]
    elif kind == _UINT8:
        into[:] = bytes_at(data, first + rows)[first:]
    else:
        bits = bytes_at(data, ((first + rows - 1) >> 3) + 1)
        for row in range(rows):
            into[row] = _bit(bits, first + row)
    if kind not in (_FLOAT64, _FLOAT32):
        for row in range(rows):
            if floating:
                numbers[row] = np.float64(into[row])
            else:
                into[row] *= factor
    nulls = 0
    if buffers[0] != 0:
        bits = bytes_at(buffers[0], ((first + rows - 1) >> 3) + 1)
        for row in range(rows):
            if _bit(bits, first + row) == 0:
                nulls += 1
                there[row] = 0
                if floating:
                    numbers[row] = np.nan
                else:
                    into[row] = 0
    return nulls


@compiled
def gather(plan: Ints, call: Ints) -> None:
    """Copy columns; say how their times run, and how many bytes all columns may take in a message.

    `plan`: address and number of jobs, address and number of the kinds of all columns. A job: the column, kind,
    factor, whether as float64, address of the copy, address of the flags that become 0 for a null, and (written)
    the number of nulls. The first job is the time.
    """
    batch, rows = call[BATCH], call[ROWS]
    jobs = words_at(plan[0], 7 * plan[1]).reshape((-1, 7))
    kinds = words_at(plan[2], plan[3])
    for job in range(len(jobs)):
        into, there = words_at(jobs[job, 4], rows), words_at(jobs[job, 5], rows)
        buffers, first = column_at(batch, jobs[job, 0])
        jobs[job, 6] = _copy(buffers, first, jobs[job, 1], jobs[job, 2], jobs[job, 3], into, there)
    at = words_at(jobs[0, 4], rows)
    rises, largest = 1, at[0]
    for row in range(1, rows):
        if at[row] < largest:
            rises = 0
        largest = max(largest, at[row])
    size = 0
    for column in range(len(kinds)):
        buffers, first = column_at(batch, column)
        if buffers[0] != 0:
            size += _padded((rows + 7) >> 3)
        if kinds[column] == _BITS:
            size += _padded((rows + 7) >> 3)
        elif kinds[column] > 0:
            size += _padded(rows * kinds[column])
        else:
            begin, end = span_of(buffers, first, rows, -kinds[column])
            size += _padded((rows + 1) * -kinds[column]) + _padded(end - begin)
    call[SIZE], call[RISES], call[FIRST], call[LARGEST] = size, rises, at[0], largest


@compiled
def _padded(size: int) -> Any:
    return (size + 7) & ~7


@compiled
def _write_bits(data: int, first: int, rows: int, message: Any, at: int) -> Any:
    """Copy bits to `at`, from the first bit of a byte on; how many are 0."""
    bits = bytes_at(data, ((first + rows - 1) >> 3) + 1)
    message[at : at + _padded((rows + 7) >> 3)] = 0
    zeros = np.int64(0)
    for row in range(rows):
        bit = _bit(bits, first + row)
        message[at + (row >> 3)] |= bit << np.uint8(row & 7)
        zeros += 1 - np.int64(bit)
    return zeros


@compiled
def _write_texts(buffers: Ints, first: int, rows: int, width: int, message: Any, start: int, at: int) -> Any:
    """Copy offsets of `width` bytes and then the texts themselves; how many bytes these have."""
    begin, end = span_of(buffers, first, rows, width)
    size = (rows + 1) * width
    if width == _WIDE:
        message[at : at + size].view(np.int64)[:] = words_at(buffers[1] + width * first, rows + 1) - begin
    else:
        narrow = bytes_at(buffers[1] + width * first, size).view(np.int32)
        message[at : at + size].view(np.int32)[:] = narrow - np.int32(begin)
    at += _padded(size)
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
            at += _padded((rows + 7) >> 3)
        place += 2
        width = kinds[column]
        if width == _BITS:
            _write_bits(buffers[1], first, rows, message, at)
            size = (rows + 7) >> 3
        elif width > 0:
            size = rows * width
            copy(start + at, buffers[1] + first * width, size)
        else:
            text = _write_texts(buffers, first, rows, -width, message, start, at)
            spans[place], spans[place + 1] = at - body, (rows + 1) * -width
            at, place = at + _padded((rows + 1) * -width), place + 2
            size = text
        spans[place], spans[place + 1] = at - body, size
        at, place = at + _padded(size), place + 2
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
        message[at : at + _padded(size)] = 0
        for row in range(rows):
            known = len(flags) == 0 or flags[row] != 0 if counted else not np.isnan(values[row])
            nulls += not known
            message[at + (row >> 3)] |= np.uint8(known) << np.uint8(row & 7)
        nodes[2 * (columns + column)], nodes[2 * (columns + column) + 1] = rows, nulls
        spans[place], spans[place + 1] = at - body, size if nulls else 0
        spans[place + 2], spans[place + 3] = 8 * rows * column, 8 * rows
        at, place = at + (_padded(size) if nulls else 0), place + 4
    message[where[1] : where[1] + 8].view(np.int64)[0] = _padded(at - body)
    message[where[0] : where[0] + 8].view(np.int64)[0] = rows
    call[SIZE] = at


class Appended:
    """Rows of a schema with more columns of 8-byte numbers behind them, as one message per Block.

    Messages are cut from pieces of memory; a piece lives as long as rows in it.
    """

    def __init__(self, schema: pa.Schema, added: Sequence[pa.Field]) -> None:
        self.schema = pa.schema([*schema, *added], schema.metadata)
        self.kinds = np.array([_width(field.type) for field in schema], np.int64)
        self.flags = np.zeros((len(added), 2), np.int64)
        """Per added column whether it is of whole numbers, and where its flags are."""
        self.flags[:, 0] = [pa.types.is_integer(field.type) for field in added]
        free = pa.schema([field.with_nullable(True) for field in self.schema])
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

    @staticmethod
    def can(schema: pa.Schema) -> bool:
        """Whether all columns of a schema are of types that are copied here."""
        return all(_width(field.type) is not None for field in schema)

    def _piece(self, size: int) -> None:
        memory = np.empty(size, np.uint8)
        self._buffer, self._start, self._used = pa.py_buffer(memory), int(memory.ctypes.data), 0

    def begin(self, call: Ints, rows: int) -> None:
        """Set a place for a message apart, after `gather`."""
        size = int(call[SIZE]) + rows * self._each + rows * len(self.flags) // 8 + 8 * len(self.flags)
        if self._used + len(self._head) + size > self._buffer.size:
            self._piece(max(_PIECE, 2 * (len(self._head) + size)))
        call[SIZE] = size
        call[MESSAGE] = self._start + self._used
        call[VALUES] = self._start + self._used + len(self._head)

    def read(self, call: Ints) -> pa.RecordBatch:
        """The rows of the message that `write` filled."""
        size = int(call[SIZE])
        message = self._buffer.slice(self._used, size)
        self._used += (size + 63) & ~63
        return pa.ipc.read_record_batch(message, self.schema)


def _width(kind: pa.DataType) -> int | None:
    """Bytes of a value; _BITS of a truth value; of a text less than zero: bytes of its offset."""
    if pa.types.is_boolean(kind):
        return _BITS
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return -4
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return -8
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind):
        return int(kind.bit_width // 8)
    return None

"""Columns of small Blocks, read and written without an object per column.

Every Arrow object costs microseconds whatever its length, and a Block of 64 payments has a dozen. So rows are
read through the Arrow C data interface (one call hands over all columns), and rows with more columns are
written as one IPC message whose metadata was made by Arrow once and in which only sizes change
(Arrow columnar format, "C data interface" and "Encapsulated message format").
"""

import ctypes
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.compiled import compiled
from boucle.memory import bytes_at, words_at

__all__ = [
    "BATCH", "BITS", "CALL", "FIRST", "LARGEST", "MARK", "MESSAGE", "NULLS", "RISES", "ROWS", "SIZE", "TIMES", "VALUES",
    "WIDE", "Columns", "bit", "column_at", "gather", "is_null", "number_kind", "padded", "span_of", "width_of",
]  # fmt: skip

Ints = NDArray[np.int64]

# Of `struct ArrowArray`, in words.
_NULLS, _OFFSET, _BUFFER_COUNT, _BUFFERS, _CHILDREN, _RELEASE, _ARRAY = 1, 2, 3, 5, 6, 8, 10

# Of the vector that says what one call is about; the lower half is written by the call.
BATCH, ROWS, MESSAGE, VALUES, TIMES, MARK, SIZE, RISES, FIRST, LARGEST, NULLS, CALL = range(12)
"""BATCH: address of the rows (`Columns`); MESSAGE: of the message to write; VALUES: of the added columns' values,
column after column; TIMES: of the times; MARK: the watermark. SIZE: bytes of the message; RISES: whether no time is
before the one above it; FIRST, LARGEST: of the times; NULLS: in all columns that were read."""

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
BITS = 1 << 20
"""Width of a truth value; those of numbers are in bytes."""
WIDE = 8
"""Bytes of the offsets of large texts."""
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
def bit(bits: Any, at: int) -> Any:
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
    return bool(buffers[0] != 0 and bit(bytes_at(buffers[0], (row >> 3) + 1), row) == 0)


@compiled
def span_of(buffers: Ints, first: int, rows: int, width: int) -> Any:
    """From where to where the bytes of texts lie whose offsets have `width` bytes."""
    if width == WIDE:
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
            into[row] = bit(bits, first + row)
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
            if bit(bits, first + row) == 0:
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
    call[NULLS] = 0
    for job in range(len(jobs)):
        into, there = words_at(jobs[job, 4], rows), words_at(jobs[job, 5], rows)
        buffers, first = column_at(batch, jobs[job, 0])
        jobs[job, 6] = _copy(buffers, first, jobs[job, 1], jobs[job, 2], jobs[job, 3], into, there)
        call[NULLS] += jobs[job, 6]
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
            size += padded((rows + 7) >> 3)
        if kinds[column] == BITS:
            size += padded((rows + 7) >> 3)
        elif kinds[column] > 0:
            size += padded(rows * kinds[column])
        else:
            begin, end = span_of(buffers, first, rows, -kinds[column])
            size += padded((rows + 1) * -kinds[column]) + padded(end - begin)
    call[SIZE], call[RISES], call[FIRST], call[LARGEST] = size, rises, at[0], largest


@compiled
def padded(size: int) -> Any:
    return (size + 7) & ~7


def width_of(kind: pa.DataType) -> int | None:
    """Bytes of a value; BITS of a truth value; of a text less than zero: bytes of its offset."""
    if pa.types.is_boolean(kind):
        return BITS
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return -4
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return -8
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind):
        return int(kind.bit_width // 8)
    return None

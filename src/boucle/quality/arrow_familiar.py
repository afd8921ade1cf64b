"""Arrow messages built like one that was read before, many in one compiled pass.

Nearly all messages of a source differ only in their values: the metadata is the same byte for byte but for a
few sizes. Such a message needs no look at its FlatBuffers; its sizes are checked where they stand, its offsets and
texts too, and its columns are copied behind those of the message before. Whatever is in the least unusual (nulls,
texts beyond ASCII, compression, another schema, several batches) is left to `ArrowRows`, which also alone
refuses: nothing is taken here that it would not take.
"""

from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.arrow_message import Places, places
from boucle.compiled import compiled
from boucle.memory import bytes_at, copy, words_at

__all__ = ["Familiar"]

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

_FIXED, _TEXT, _LIST = 0, 1, 2
_LENGTH, _BODY_LENGTH, _NODES, _BUFFERS, _BODY = 0, 1, 2, 3, 4
_MOST = 1 << 30
"""Bytes of one column of one answer: offsets are 32-bit numbers."""
_ALIGNED = 64
_END = 0xFFFFFFFF
"""The end of a stream, as a word: a continuation mark and no length."""

_inlined = partial(compiled, inline=True)


@_inlined
def _word(at: int) -> Any:
    return words_at(at, 1)[0]


@_inlined
def _offset(at: int) -> Any:
    return np.int64(bytes_at(at, 4).view(np.int32)[0])


@_inlined
def _rises(at: int, rows: int, most: int) -> Any:
    """Whether `rows` + 1 offsets begin at 0 or above, never fall and end at `most` at the latest."""
    offsets = bytes_at(at, 4 * (rows + 1)).view(np.int32)
    rising = offsets[0] >= 0 and offsets[rows] <= most
    for row in range(rows):
        rising &= offsets[row] <= offsets[row + 1]
    return rising


@_inlined
def _plain(at: int, size: int) -> Any:
    """Whether all bytes are ASCII."""
    high = np.uint8(0)
    for byte in bytes_at(at, size):
        high |= byte
    return high < 128


@compiled
def _sound(  # noqa: C901 - every branch refuses something
    start: int, body: int, where: Ints, plan: Ints, rows: int, sizes: Ints
) -> bool:
    """Whether every column of a message is what its sizes say; adds what they take to `sizes`."""
    node, buffer = start + where[_NODES], start + where[_BUFFERS]
    inside = start + where[_BODY]
    for column in range(len(plan)):
        kind, width = plan[column, 0], plan[column, 1]
        if _word(node) != rows or _word(node + 8) != 0 or _word(buffer + 8) != 0:
            return False
        at, length = _word(buffer + 16), _word(buffer + 24)
        if at < 0 or length < 0 or at > body - length or at & 7:
            return False
        node, buffer = node + 16, buffer + 32
        if kind == _FIXED:
            if length < rows * width:
                return False
            sizes[column] += rows * width
            continue
        most = np.int64(0)
        if kind == _LIST:
            if _word(node + 8) != 0 or _word(buffer + 8) != 0:
                return False
            most = _word(node)
            node, buffer = node + 16, buffer + 16
        inner, held = _word(buffer), _word(buffer + 8)
        buffer += 16
        if inner < 0 or held < 0 or inner > body - held or inner & 7 or length < 4 * (rows + 1):
            return False
        if kind == _TEXT:
            most = held
        if most < 0 or most > held // width or not _rises(inside + at, rows, most):
            return False
        first, last = _offset(inside + at), _offset(inside + at + 4 * rows)
        if kind == _TEXT and not _plain(inside + inner + first, last - first):
            return False
        sizes[column] += (last - first) * width
    return True


@compiled
def alike(
    data: int, offsets: NDArray[np.int32], first: int, head: Ints, mask: Ints, where: Ints, plan: Ints, limits: Ints,
    sizes: Ints,
) -> int:  # fmt: skip
    """How many messages from `first` on are built like `head` (but where `mask` is 0) and are sound.

    The bytes from address `data` + `offsets[i]` to the next are a message; `limits`: bytes and rows of one at most.
    `sizes` becomes the bytes of each column's values over all of them, and at its end their rows.
    """
    known, tried = where[_BODY], sizes.copy()
    for message in range(first, len(offsets) - 1):
        start, end = data + offsets[message], data + offsets[message + 1]
        if end - start < known + 8 or end - start > limits[0]:
            return message - first
        other, given = np.int64(0), words_at(start, len(head))
        for index in range(len(head)):
            other |= (given[index] ^ head[index]) & mask[index]
        rows, body = _word(start + where[_LENGTH]), _word(start + where[_BODY_LENGTH])
        left = end - start - known - body
        if other or not 0 < rows <= limits[1] or body < 0 or left not in (0, 8):
            return message - first
        if left == 8 and _word(end - 8) != _END:
            return message - first
        tried[:] = sizes
        if not _sound(start, body, where, plan, rows, tried) or tried.max() > _MOST:
            return message - first
        tried[len(plan)] += rows
        sizes[:] = tried
    return len(offsets) - 1 - first


@compiled
def together(
    data: int, offsets: NDArray[np.int32], first: int, count: int, where: Ints, plan: Ints, begins: Ints
) -> None:
    """Copy the columns of `count` messages that `alike` found, each behind the other.

    `begins`: per column the address where its offsets begin (0: it has none) and where its values do.
    """
    done, row_at = np.zeros(len(plan), np.int64), 0
    for column in range(len(plan)):
        if begins[2 * column]:
            bytes_at(begins[2 * column], 4)[:] = 0
    for message in range(first, first + count):
        start = data + offsets[message]
        rows, buffer = _word(start + where[_LENGTH]), start + where[_BUFFERS]
        inside = start + where[_BODY]
        for column in range(len(plan)):
            kind, width = plan[column, 0], plan[column, 1]
            at = inside + _word(buffer + 16)
            buffer += 32
            to = begins[2 * column + 1] + done[column]
            if kind == _FIXED:
                copy(to, at, rows * width)
                done[column] += rows * width
                continue
            if kind == _LIST:
                buffer += 16
            inner = inside + _word(buffer)
            buffer += 16
            begin, last = _offset(at), _offset(at + 4 * rows)
            offsets_of = bytes_at(at, 4 * (rows + 1)).view(np.int32)
            written = bytes_at(begins[2 * column] + 4 * (row_at + 1), 4 * rows).view(np.int32)
            for row in range(rows):
                written[row] = offsets_of[row + 1] - begin + done[column] // width
            copy(to, inner + begin * width, (last - begin) * width)
            done[column] += (last - begin) * width
        row_at += rows


class Familiar:
    """Messages built like one that `ArrowRows` has read: one schema message, one plain record batch, no nulls."""

    def __init__(
        self, schema: pa.Schema, head: bytes, schema_end: int, found: Places, max_bytes: int, max_rows: int
    ) -> None:
        self._schema = schema
        self._plan = np.array([_kind(field.type) for field in schema], np.int64).reshape(-1, 2)
        spots = (found.length, found.body_length, found.nodes, found.buffers, found.body)
        self._where = np.array([schema_end + spot for spot in spots], np.int64)
        self._head = np.frombuffer(head, np.int64)  # metadata ends where a multiple of 8 does
        mask = np.full(len(head), 0xFF, np.uint8)
        sizes = (8, 8, 16 * found.node_count, 16 * found.buffer_count)
        for at, size in zip(self._where[:4].tolist(), sizes, strict=True):
            mask[at : at + size] = 0
        self._mask = mask.view(np.int64)
        self._limits = np.array([max_bytes, max_rows], np.int64)

    @classmethod
    def of(
        cls, schema: pa.Schema, message: bytes, schema_end: int, max_bytes: int, max_rows: int
    ) -> "Familiar | None":
        """What is like a message that was read with this schema; None when nothing is to be known by it."""
        kinds = [_kind(field.type) for field in schema]
        if any(kind is None for kind in kinds):
            return None
        found = places(message[schema_end:])
        lists = sum(kind is not None and kind[0] == _LIST for kind in kinds)
        texts = sum(kind is not None and kind[0] == _TEXT for kind in kinds)
        counted = (len(kinds) + lists, 2 * len(kinds) + texts + 2 * lists)
        known = found.length and found.body_length and not found.compressed
        known = known and (schema_end + found.body) % 8 == 0
        if not known or (found.node_count, found.buffer_count) != counted:
            return None
        return cls(schema, message[: schema_end + found.body], schema_end, found, max_bytes, max_rows)

    @staticmethod
    @cache
    def prepare() -> None:
        """Compile, or load, what is needed: before the first message waits for it."""
        rows = pa.record_batch(
            {"at": pa.array([0]), "of": pa.array([""]), "is": pa.array([[0]], pa.list_(pa.int64()))}
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_batch(rows)
        message = sink.getvalue().to_pybytes()
        end = len(rows.schema.serialize())
        known = Familiar.of(rows.schema, message, end, len(message), 1)
        assert known is not None
        assert known.knows(message)

    def knows(self, message: bytes) -> bool:
        """Whether a message is like this one."""
        data, offsets = np.frombuffer(message, np.uint8), np.array([0, len(message)], np.int32)
        return self.read(data, offsets, 0)[1] == 1

    def read(self, data: Bytes, offsets: NDArray[np.int32], first: int) -> tuple[pa.RecordBatch | None, int]:
        """The rows of the messages from `first` on that are like this one, and how many messages those are."""
        sizes, start = np.zeros(len(self._plan) + 1, np.int64), int(data.ctypes.data)
        count = alike(
            start, offsets, first, self._head, self._mask, self._where, self._plan, self._limits, sizes
        )
        if count == 0:
            return None, 0
        rows, begins, end = int(sizes[-1]), np.full(2 * len(self._plan), -1, np.int64), 0
        for column, (kind, _) in enumerate(self._plan.tolist()):
            if kind != _FIXED:
                begins[2 * column], end = end, end + _up(4 * (rows + 1))
            begins[2 * column + 1], end = end, end + _up(int(sizes[column]))
        into = np.empty(end, np.uint8)
        addresses = np.where(begins < 0, 0, begins + into.ctypes.data)
        together(start, offsets, first, count, self._where, self._plan, addresses)
        held = pa.py_buffer(into)
        columns = []
        for column, field in enumerate(self._schema):
            kind, width = self._plan[column].tolist()
            offset_at, at = begins[2 * column : 2 * column + 2].tolist()
            values = held.slice(at, int(sizes[column]))
            if kind == _FIXED:
                columns.append(pa.Array.from_buffers(field.type, rows, [None, values]))
                continue
            found = held.slice(offset_at, 4 * (rows + 1))
            if kind == _TEXT:
                columns.append(pa.Array.from_buffers(field.type, rows, [None, found, values]))
                continue
            inner = field.type.value_type
            within = pa.Array.from_buffers(inner, int(sizes[column]) // width, [None, values])
            columns.append(pa.Array.from_buffers(field.type, rows, [None, found], children=[within]))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema), count


def _up(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _kind(kind: pa.DataType) -> tuple[int, int] | None:
    """How a column is copied, and the bytes of a value."""
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _TEXT, 1
    inner = kind.value_type if pa.types.is_list(kind) else kind
    if not pa.types.is_primitive(inner) or pa.types.is_boolean(inner):
        return None
    return (_LIST if pa.types.is_list(kind) else _FIXED), int(inner.bit_width // 8)

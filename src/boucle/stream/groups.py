"""What rows are grouped by, as whole numbers, as GROUP BY in SQL sees it: null is a group, and so is NaN.

One column of whole numbers or times is its own number, one column of texts is numbered by compiled code
(`boucle.stream.texts`); values of other types, and several columns together, by a Python dictionary.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import in_nanos
from boucle.errors import BoucleError
from boucle.memory import Page
from boucle.stream.columns import BATCH, CALL, ROWS, Columns
from boucle.stream.runs import Runs, numbers_of, runs_of
from boucle.stream.sequence import load_rows, save_rows
from boucle.stream.texts import TextIndex, texts

__all__ = ["Groups", "groups_of"]

Ints = NDArray[np.int64]
_NULL = -(2**63)
_NAN = float("nan")
_LEAST = 1024


class Groups(Protocol):
    """Numbers for the values of some columns."""

    def of(self, rows: pa.RecordBatch) -> Ints:
        """The number of each row's group; good until it is asked again. `lock` must be held."""

    def columns(self, numbers: Ints) -> list[pa.Array]:
        """The values of these groups, a column for each name."""

    def ranks(self, numbers: Ints) -> NDArray[np.uint64] | None:
        """Numbers in the order of the groups, null last; None where only the values tell."""

    def keep(self, numbers: Ints) -> None:
        """From time to time: forget all groups but these. `lock` must not be held."""

    def parts(self, *, everything: bool) -> Mapping[str, bytes | Page]:
        """State by part: what changed since the last call, or everything; empty bytes: it is gone."""

    def snapshot(self) -> dict[str, bytes]:
        """All of it, as `restore_parts` takes it."""

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Continue from parts."""


def groups_of(stream: str, schema: pa.Schema, by: Sequence[str], lock: threading.Lock) -> Groups:
    """Groups by these columns of rows; B221 for a column of lists or structs."""
    fields = [schema.field(name) for name in by]
    for field in fields:
        if pa.types.is_nested(field.type):
            what = f"{stream}: by {field.name}, which is {field.type}"
            raise BoucleError("B221", what, fix="make it a text or a number with Map")
    if not fields:
        return _Alone()
    if len(fields) == 1 and _is_whole(fields[0].type):
        return _Whole(stream, fields[0])
    if len(fields) == 1 and _is_text(fields[0].type):
        return _Texts(fields[0], lock)
    return _Others(fields)


class _Alone:
    """All rows are one group; and what is common to groups that remember nothing."""

    def of(self, rows: pa.RecordBatch) -> Ints:
        return np.zeros(rows.num_rows, np.int64)

    def columns(self, numbers: Ints) -> list[pa.Array]:
        del numbers
        return []

    def ranks(self, numbers: Ints) -> NDArray[np.uint64] | None:
        ranks: NDArray[np.uint64] = numbers.view(np.uint64)
        return ranks

    def keep(self, numbers: Ints) -> None:
        del numbers

    def parts(self, *, everything: bool) -> dict[str, bytes]:
        del everything
        return {}

    def snapshot(self) -> dict[str, bytes]:
        return {}

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        del parts


class _Whole(_Alone):
    """One column of whole numbers or times."""

    def __init__(self, stream: str, field: pa.Field) -> None:
        self._stream, self._field = stream, field

    def of(self, rows: pa.RecordBatch) -> Ints:
        column = in_nanos(rows.column(self._field.name))
        if column.null_count:
            there = column.is_valid().to_numpy(zero_copy_only=False)
            column = column.fill_null(0)
        else:
            there = None
        whole = column.to_numpy()
        numbers: Ints = whole.view(np.int64) if whole.dtype.itemsize == 8 else whole.astype(np.int64)
        if (numbers == _NULL).any():
            what = f"{self._stream}: {self._field.name} is {whole[numbers == _NULL][0]}"
            raise BoucleError("B221", what, why="this one number stands for null", fix="use another number")
        return numbers if there is None else np.where(there, numbers, _NULL)

    def columns(self, numbers: Ints) -> list[pa.Array]:
        absent = numbers == _NULL
        kind = self._field.type
        if pa.types.is_unsigned_integer(kind) and kind.bit_width == 64:
            return [pa.array(numbers.view(np.uint64), mask=absent)]
        column = pa.array(numbers, mask=absent if absent.any() else None)
        return [_from_nanos(column, kind)]

    def ranks(self, numbers: Ints) -> NDArray[np.uint64] | None:
        if self._field.type == pa.uint64():
            return None
        # Counted from the least number on, so that null, which stands for it, goes round to the end.
        ranks: NDArray[np.uint64] = (numbers.view(np.uint64) ^ np.uint64(2**63)) - np.uint64(1)
        return ranks


class _Texts:
    """One column of texts; null is group 0."""

    def __init__(self, field: pa.Field, lock: threading.Lock) -> None:
        self._field = field
        self._index, self._columns = TextIndex(lock), Columns()
        self._call = np.zeros(CALL, np.int64)
        self._call[BATCH] = self._columns.address
        self._numbers = np.zeros((2, _LEAST), np.int64)
        self._most = _LEAST

    def of(self, rows: pa.RecordBatch) -> Ints:
        count, column = rows.num_rows, rows.column(self._field.name)
        if count > self._numbers.shape[1]:
            self._numbers = np.zeros((2, 2 * count), np.int64)
        into, there = self._numbers
        if count:
            self._index.point(0, column.type, into, there)
            self._call[ROWS] = count
            self._columns.hold(pa.RecordBatch.from_arrays([column], [self._field.name]))
            try:
                while texts(self._index.frame, self._call) < 0:
                    self._index.make_room(count, column.get_total_buffer_size())
            finally:
                self._columns.release()
        return into[:count]

    def columns(self, numbers: Ints) -> list[pa.Array]:
        return [self._index.said(numbers, self._field.type)]

    def ranks(self, numbers: Ints) -> NDArray[np.uint64] | None:
        del numbers
        return None

    def keep(self, numbers: Ints) -> None:
        if len(self._index) <= self._most:
            return

        def alive(known: Ints) -> NDArray[np.bool_]:
            mask = np.zeros(len(known), np.bool_)
            mask[numbers] = True
            return mask

        self._index.forget(alive)
        self._most = max(_LEAST, 2 * len(self._index))

    def parts(self, *, everything: bool) -> dict[str, bytes | Page]:
        return self._index.parts(everything=everything)

    def snapshot(self) -> dict[str, bytes]:
        return self._index.snapshot()

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        self._index.restore_parts(parts)
        self._most = max(_LEAST, 2 * len(self._index))


class _Others:
    """Values that a dictionary numbers as they are seen, each once, until `keep` says that nobody needs them."""

    def __init__(self, fields: Sequence[pa.Field]) -> None:
        self._fields = list(fields)
        self._known: dict[Any, int] = {}
        self._values: list[Any] = []
        self._free: list[int] = []
        self._most = _LEAST
        self._runs = Runs()

    def of(self, rows: pa.RecordBatch) -> Ints:
        known = self._known
        numbers = [known[key] if key in known else self._number(key) for key in self._keys(rows)]
        return np.array(numbers, np.int64)

    def _keys(self, rows: pa.RecordBatch) -> Iterable[Any]:
        columns = [_plain(rows.column(field.name)) for field in self._fields]
        return columns[0] if len(columns) == 1 else zip(*columns, strict=True)

    def _number(self, key: Any) -> int:
        if self._free:
            number = self._free.pop()
            self._values[number] = key
        else:
            number = len(self._values)
            self._values.append(key)
        self._known[key] = number
        self._runs.change(np.array([number]))
        return number

    def columns(self, numbers: Ints) -> list[pa.Array]:
        keys = [self._values[number] for number in numbers.tolist()]
        alone = len(self._fields) == 1
        told = [keys] if alone else [[key[place] for key in keys] for place in range(len(self._fields))]
        return [_from_plain(values, field.type) for values, field in zip(told, self._fields, strict=True)]

    def ranks(self, numbers: Ints) -> NDArray[np.uint64] | None:
        del numbers
        return None

    def keep(self, numbers: Ints) -> None:
        if len(self._known) <= self._most:
            return
        alive = np.zeros(len(self._values), np.bool_)
        alive[numbers] = True
        gone = np.flatnonzero(~alive)
        self._runs.change(gone)
        for number in gone.tolist():
            key = self._values[number]
            if self._known.get(key) == number:
                del self._known[key]
                self._values[number] = None
                self._free.append(number)
        self._most = max(_LEAST, 2 * len(self._known))

    def parts(self, *, everything: bool) -> dict[str, bytes]:
        return self._encoded(self._runs.take(self._known.values(), everything=everything))

    def snapshot(self) -> dict[str, bytes]:
        return self._encoded(runs_of(self._known.values()))

    def _encoded(self, runs: Iterable[int]) -> dict[str, bytes]:
        schema = pa.schema(self._fields)
        told = {}
        for run in runs:
            within = numbers_of(run, upto=len(self._values))
            some = np.array([one for one in within if self._known.get(self._values[one]) == one], np.int64)
            rows = pa.RecordBatch.from_arrays(self.columns(some), schema=schema)
            told[str(run)] = msgspec.msgpack.encode((some.tobytes(), save_rows(rows))) if len(some) else b""
        return told

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        self._known = {}
        for part in filter(None, parts.values()):
            held, stored = msgspec.msgpack.decode(part, type=tuple[bytes, bytes])
            keys = self._keys(load_rows(stored))
            self._known |= dict(zip(keys, np.frombuffer(held, np.int64).tolist(), strict=True))
        self._values = [None] * (max(self._known.values(), default=-1) + 1)
        for key, number in self._known.items():
            self._values[number] = key
        self._free = sorted(set(range(len(self._values))) - set(self._known.values()), reverse=True)
        self._most = max(_LEAST, 2 * len(self._known))


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind))


def _is_text(kind: pa.DataType) -> bool:
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(check(kind) for check in checks)


def _plain(column: pa.Array) -> list[Any]:
    values: list[Any] = in_nanos(column).to_pylist()
    if pa.types.is_floating(column.type):
        # One NaN for all, which a dictionary finds because it is the same; and 0.0 for -0.0.
        return [None if value is None else _NAN if value != value else value + 0.0 for value in values]  # noqa: PLR0124
    return values


def _from_nanos(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("ns", kind.tz)).cast(kind)
    if pa.types.is_duration(kind):
        return column.cast(pa.duration("ns")).cast(kind)
    return column.cast(kind)


def _from_plain(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return _from_nanos(pa.array(values, pa.int64()), kind)
    return pa.array(values, kind)

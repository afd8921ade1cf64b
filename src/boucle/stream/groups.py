"""What rows are grouped by, as whole numbers, as GROUP BY in SQL sees it: null is a group, and so is NaN."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import in_nanos
from boucle.errors import BoucleError
from boucle.stream.sequence import load_rows, save_rows

__all__ = ["Groups"]

Ints = NDArray[np.int64]
_NULL = -(2**63)
_NAN = float("nan")
_LEAST = 1024


class Groups:
    """Numbers for the values of some columns.

    A single column of whole numbers or times is its own; the values of others are numbered as they are seen,
    each once, until `keep` says that nobody needs them any more. B221 for a column of lists or structs.
    """

    def __init__(self, stream: str, schema: pa.Schema, by: Sequence[str]) -> None:
        self.fields = [schema.field(name) for name in by]
        for field in self.fields:
            if pa.types.is_nested(field.type):
                what = f"{stream}: by {field.name}, which is {field.type}"
                raise BoucleError("B221", what, fix="make it a text or a number with Map")
        self._stream, self._by = stream, tuple(by)
        self._whole = len(by) == 1 and _is_whole(self.fields[0].type)
        self._known: dict[Any, int] = {}
        self._values: list[Any] = []
        self._free: list[int] = []
        self._most = _LEAST

    def __len__(self) -> int:
        return len(self._known)

    def of(self, rows: pa.RecordBatch) -> Ints:
        """The number of each row's group."""
        if not self._by:
            return np.zeros(rows.num_rows, np.int64)
        if self._whole:
            return self._own(rows.column(self._by[0]))
        columns = [_plain(rows.column(name)) for name in self._by]
        keys = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
        known = self._known
        numbers = [known[key] if key in known else self._number(key) for key in keys]
        return np.array(numbers, np.int64)

    def _own(self, column: pa.Array) -> Ints:
        column = in_nanos(column)
        if column.null_count:
            there = column.is_valid().to_numpy(zero_copy_only=False)
            column = column.fill_null(0)
        else:
            there = None
        whole = column.to_numpy()
        numbers: Ints = whole.view(np.int64) if whole.dtype.itemsize == 8 else whole.astype(np.int64)
        if (numbers == _NULL).any():
            what = f"{self._stream}: {self._by[0]} is {whole[numbers == _NULL][0]}"
            raise BoucleError("B221", what, why="this one number stands for null", fix="use another number")
        return numbers if there is None else np.where(there, numbers, _NULL)

    def _number(self, key: Any) -> int:
        if self._free:
            number = self._free.pop()
            self._values[number] = key
        else:
            number = len(self._values)
            self._values.append(key)
        self._known[key] = number
        return number

    def columns(self, numbers: Ints) -> list[pa.Array]:
        """The values of these groups, a column for each name."""
        if not self._by:
            return []
        if self._whole:
            absent = numbers == _NULL
            kind = self.fields[0].type
            if pa.types.is_unsigned_integer(kind) and kind.bit_width == 64:
                return [pa.array(numbers.view(np.uint64), mask=absent)]
            column = pa.array(numbers, mask=absent if absent.any() else None)
            return [_from_nanos(column, kind)]
        keys = [self._values[number] for number in numbers.tolist()]
        told = (
            [keys] if len(self._by) == 1 else [[key[place] for key in keys] for place in range(len(self._by))]
        )
        return [_from_plain(values, field.type) for values, field in zip(told, self.fields, strict=True)]

    def ranks(self, numbers: Ints) -> NDArray[np.uint64] | None:
        """Numbers in the order of the groups, null last; None where only the values tell."""
        if not self._whole or self.fields[0].type == pa.uint64():
            return None
        # Counted from the least number on, so that null, which stands for it, goes round to the end.
        ranks: NDArray[np.uint64] = (numbers.view(np.uint64) ^ np.uint64(2**63)) - np.uint64(1)
        return ranks

    def keep(self, numbers: Ints) -> None:
        """From time to time: forget all groups but these."""
        if len(self._known) <= self._most:
            return
        alive = np.zeros(len(self._values), np.bool_)
        alive[numbers] = True
        for number in np.flatnonzero(~alive).tolist():
            key = self._values[number]
            if self._known.get(key) == number:
                del self._known[key]
                self._values[number] = None
                self._free.append(number)
        self._most = max(_LEAST, 2 * len(self._known))

    def save(self) -> tuple[bytes, bytes]:
        """The numbered groups, with their types; nothing where each is its own number."""
        numbers = np.fromiter(self._known.values(), np.int64, len(self._known))
        if not len(numbers):
            return b"", b""
        rows = pa.RecordBatch.from_arrays(self.columns(numbers), schema=pa.schema(self.fields))
        return save_rows(rows), numbers.tobytes()

    def load(self, saved: tuple[bytes, bytes]) -> None:
        """What `save` gave."""
        stored, held = saved
        if not stored:
            return
        rows, numbers = load_rows(stored), np.frombuffer(held, np.int64).tolist()
        columns = [_plain(rows.column(name)) for name in self._by]
        keys = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        self._known = dict(zip(keys, numbers, strict=True))
        self._values = [None] * (max(numbers) + 1)
        for key, number in self._known.items():
            self._values[number] = key
        self._free = sorted(set(range(len(self._values))) - set(numbers), reverse=True)


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind))


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

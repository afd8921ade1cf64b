"""Aggregates of numbers, in the cells of windows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import in_nanos
from boucle.compiled import compiled
from boucle.stream.aggregate.present import in_kind, present

__all__ = ["Count", "Extreme", "Mean", "Moments", "Sum", "WholeSum"]

Ints = NDArray[np.int64]


def _values(column: pa.Array | None, slots: Ints, dtype: Any) -> tuple[Ints, NDArray[Any]]:
    """Slots and values of the rows that have one."""
    assert column is not None
    slots, column = present(slots, in_nanos(column))
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return np.array(slots), np.array(column.to_numpy(zero_copy_only=False), dtype)


@compiled
def _count(slots: Ints, state: NDArray[np.int64]) -> None:
    for row in range(len(slots)):
        state[slots[row], 0] += 1


@compiled
def _add(slots: Ints, state: NDArray[np.int64], values: NDArray[np.int64]) -> None:
    for row in range(len(slots)):
        state[slots[row], 0] += values[row]
        state[slots[row], 1] += 1


@compiled
def _add_exactly(slots: Ints, state: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    for row in range(len(slots)):
        slot, value = slots[row], values[row]
        high = state[slot, 0]
        total = high + value
        part = total - high
        state[slot, 0] = total
        state[slot, 1] += (high - (total - part)) + (value - part)
        state[slot, 2] += 1


@compiled
def _welford(slots: Ints, state: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    for row in range(len(slots)):
        slot, value = slots[row], values[row]
        state[slot, 0] += 1
        off = value - state[slot, 1]
        state[slot, 1] += off / state[slot, 0]
        state[slot, 2] += off * (value - state[slot, 1])


@compiled
def _extreme(slots: Ints, state: NDArray[Any], seen: Ints, values: NDArray[Any], most: bool) -> None:
    for row in range(len(slots)):
        slot, value = slots[row], values[row]
        if not seen[slot] or (value > state[slot] if most else value < state[slot]):
            state[slot] = value
            seen[slot] = 1


class _Cells:
    """State in cells of a window; they are emptied by whoever holds them."""

    words = 2
    _dtype: np.dtype[Any] = np.dtype(np.int64)

    def __init__(self) -> None:
        self._state = np.zeros((0, self.words), self._dtype)

    def lie(self, cells: Ints) -> None:
        """Where the state lies."""
        self._state = cells.view(self._dtype)

    def clear(self, slots: Ints) -> None:
        """Nothing to do."""

    def parts(self, *, everything: bool) -> dict[str, bytes]:
        """Nothing that does not lie in cells."""
        del everything
        return {}

    def snapshot(self) -> dict[str, bytes]:
        """Nothing either."""
        return {}

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Nothing to do."""


class Count(_Cells):
    words = 1

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        _count(slots if column is None else present(slots, column)[0], self._state)

    def close(self, slots: Ints) -> pa.Array:
        return pa.array(self._state[slots, 0])


class WholeSum(_Cells):
    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        places, values = _values(column, slots, np.int64)
        _add(places, self._state, values)

    def close(self, slots: Ints) -> pa.Array:
        held = self._state[slots]
        return pa.array(held[:, 0], mask=held[:, 1] == 0)


class Sum(_Cells):
    words = 3
    _dtype = np.dtype(np.float64)

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        places, values = _values(column, slots, np.float64)
        _add_exactly(places, self._state, values)

    def close(self, slots: Ints) -> pa.Array:
        held = self._state[slots]
        return pa.array(held[:, 0] + held[:, 1], mask=held[:, 2] == 0)


class Mean(Sum):
    def close(self, slots: Ints) -> pa.Array:
        held = self._state[slots]
        with np.errstate(divide="ignore", invalid="ignore"):
            return pa.array((held[:, 0] + held[:, 1]) / held[:, 2], mask=held[:, 2] == 0)


class Moments(_Cells):
    """Sample variance, or with `root` the standard deviation."""

    words = 3
    _dtype = np.dtype(np.float64)

    def __init__(self, *, root: bool) -> None:
        super().__init__()
        self._root = root

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        places, values = _values(column, slots, np.float64)
        _welford(places, self._state, values)

    def close(self, slots: Ints) -> pa.Array:
        held = self._state[slots]
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = held[:, 2] / (held[:, 0] - 1)
            return pa.array(np.sqrt(spread) if self._root else spread, mask=held[:, 0] < 2)


class Extreme(_Cells):
    """The least or the largest value; the second cell says whether there is one."""

    def __init__(self, most: bool, kind: pa.DataType) -> None:
        super().__init__()
        self._most, self._kind = most, kind
        self._numbers = np.dtype(np.float64 if pa.types.is_floating(kind) else np.int64)

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        places, values = _values(column, slots, self._numbers)
        _extreme(places, self._state[:, 0].view(self._numbers), self._state[:, 1], values, self._most)

    def close(self, slots: Ints) -> pa.Array:
        held = self._state[slots]
        return in_kind(pa.array(held[:, 0].view(self._numbers), mask=held[:, 1] == 0), self._kind)

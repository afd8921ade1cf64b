"""Aggregates of numbers, in arrays with a row per slot."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import in_nanos
from boucle.compiled import compiled
from boucle.stream.aggregate.present import in_kind, present

__all__ = ["Count", "Extreme", "Moments", "Sum", "WholeSum"]

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
def _extreme(
    slots: Ints, state: NDArray[Any], seen: NDArray[np.bool_], values: NDArray[Any], most: bool
) -> None:
    for row in range(len(slots)):
        slot, value = slots[row], values[row]
        if not seen[slot] or (value > state[slot] if most else value < state[slot]):
            state[slot] = value
            seen[slot] = True


class _Arrays:
    """State in an array with a row per slot."""

    _width = 2
    _dtype: np.dtype[Any] = np.dtype(np.int64)

    def __init__(self) -> None:
        self._state = np.zeros((0, self._width), self._dtype)

    def open(self, slots: int) -> None:
        """Make room."""
        if slots > len(self._state):
            grown = np.zeros((max(slots, 2 * len(self._state), 64), self._width), self._dtype)
            grown[: len(self._state)] = self._state
            self._state = grown

    def clear(self, slots: Ints) -> None:
        """Forget."""
        self._state[slots] = 0

    def save(self) -> Any:
        """The array's bytes."""
        return self._state.tobytes()

    def load(self, state: Any) -> None:
        """Continue."""
        self._state = np.frombuffer(state, self._dtype).reshape(-1, self._width).copy()


class Count(_Arrays):
    _width = 1

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        _count(slots if column is None else present(slots, column)[0], self._state)

    def close(self, slots: Ints) -> pa.Array:
        return pa.array(self._state[slots, 0])


class WholeSum(_Arrays):
    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        places, values = _values(column, slots, np.int64)
        _add(places, self._state, values)

    def close(self, slots: Ints) -> pa.Array:
        held = self._state[slots]
        return pa.array(held[:, 0], mask=held[:, 1] == 0)


class Sum(_Arrays):
    _width = 3
    _dtype = np.dtype(np.float64)

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        places, values = _values(column, slots, np.float64)
        _add_exactly(places, self._state, values)

    def held(self, slots: Ints) -> tuple[NDArray[Any], NDArray[Any]]:
        """Sums and how many values each is of."""
        held = self._state[slots]
        return held[:, 0] + held[:, 1], held[:, 2]

    def close(self, slots: Ints) -> pa.Array:
        totals, numbers = self.held(slots)
        return pa.array(totals, mask=numbers == 0)


class Moments(_Arrays):
    _width = 3
    _dtype = np.dtype(np.float64)

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind
        self._sums = Sum()

    def open(self, slots: int) -> None:
        super().open(slots)
        self._sums.open(slots)

    def clear(self, slots: Ints) -> None:
        super().clear(slots)
        self._sums.clear(slots)

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        if self._kind == "mean":
            self._sums.fold(slots, column)
        else:
            places, values = _values(column, slots, np.float64)
            _welford(places, self._state, values)

    def close(self, slots: Ints) -> pa.Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._kind == "mean":
                totals, numbers = self._sums.held(slots)
                return pa.array(totals / numbers, mask=numbers == 0)
            held = self._state[slots]
            spread = held[:, 2] / (held[:, 0] - 1)
            told = np.sqrt(spread) if self._kind == "std" else spread
            return pa.array(told, mask=held[:, 0] < 2)

    def save(self) -> Any:
        return [super().save(), self._sums.save()]

    def load(self, state: Any) -> None:
        super().load(state[0])
        self._sums.load(state[1])


class Extreme:
    def __init__(self, most: bool, kind: pa.DataType) -> None:
        self._most, self._kind = most, kind
        self._dtype = np.dtype(np.float64 if pa.types.is_floating(kind) else np.int64)
        self._state = np.zeros(0, self._dtype)
        self._seen = np.zeros(0, np.bool_)

    def open(self, slots: int) -> None:
        if slots > len(self._state):
            more = max(slots, 2 * len(self._state), 64) - len(self._state)
            self._state = np.concatenate([self._state, np.zeros(more, self._dtype)])
            self._seen = np.concatenate([self._seen, np.zeros(more, np.bool_)])

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        places, values = _values(column, slots, self._dtype)
        _extreme(places, self._state, self._seen, values, self._most)

    def close(self, slots: Ints) -> pa.Array:
        return in_kind(pa.array(self._state[slots], mask=~self._seen[slots]), self._kind)

    def clear(self, slots: Ints) -> None:
        self._seen[slots] = False

    def save(self) -> Any:
        return [self._state.tobytes(), self._seen.tobytes()]

    def load(self, state: Any) -> None:
        self._state = np.frombuffer(state[0], self._dtype).copy()
        self._seen = np.frombuffer(state[1], np.bool_).copy()

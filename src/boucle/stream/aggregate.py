"""What windows tell of their rows: count, sum, mean and the rest, folded from left to right.

Each keeps a small state per open window and takes rows in their canonical order, one after the other, so
that the answer does not depend on how the stream was cut. Floating sums are double-double (Knuth's TwoSum);
sums of whole numbers are exact int64. Variance after Welford (1962). Quantiles are exact while a window holds
at most 1024 values and from there on DDSketch (Masson et al., VLDB 2019): within 1 % of the value.
"""

import math
import re
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import in_nanos
from boucle.compiled import compiled
from boucle.errors import BoucleError

__all__ = ["Aggregate", "Declared", "read_aggregates"]

Ints = NDArray[np.int64]
_CALL = re.compile(r"\s*([a-z]+)\s*(?:\(\s*(\w+)\s*(?:,\s*([0-9.]+)\s*)?\))?\s*")
_EXACT = 1024
_ERROR = 0.01
_GAMMA = math.log((1 + _ERROR) / (1 - _ERROR))


class Declared(Struct, frozen=True):
    """An output column, as declared: `total: sum(amount)`."""

    name: str
    kind: str
    column: str
    number: float


class Aggregate(Protocol):
    """The state of one output column over all open windows; a window is known by its slot."""

    def open(self, slots: int) -> None:
        """Make room for at least so many slots."""

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        """Take rows in order; `slots` says to which window each belongs."""

    def close(self, slots: Ints) -> pa.Array:
        """What these windows say. The slots may then be opened anew after `clear`."""

    def clear(self, slots: Ints) -> None:
        """Forget what was held for these slots."""

    def save(self) -> Any:
        """The state, for msgpack."""

    def load(self, state: Any) -> None:
        """Continue from a saved state."""


def read_aggregates(declared: dict[str, str], stream: str) -> list[Declared]:
    """The declared columns; B221 for one that is not understood."""
    found = []
    for name, told in declared.items():
        match = _CALL.fullmatch(str(told))
        kind, column, number = match.groups() if match else ("", None, None)
        known = kind in _KINDS and (column is not None or kind == "count")
        if not known or (kind == "quantile") != (number is not None):
            fix = f"one of {', '.join(_KINDS)} with a column: sum(amount), quantile(amount, 0.95), or count"
            raise BoucleError("B221", f"{stream}: {name}: {told!r} is no aggregate", fix=fix)
        found.append(Declared(name, kind, column or "", float(number or 0)))
    return found


def make(declared: Declared, kind: pa.DataType | None) -> Aggregate:
    """The state of a declared column over values of an Arrow type (None: rows are counted)."""
    maker: Any = _KINDS[declared.kind]
    if declared.kind in {"first", "last", "distinct"}:
        made: Aggregate = maker(kind)
        return made
    if declared.kind == "quantile":
        return _Quantile(declared.number)
    if declared.kind == "count":
        return _Count()
    if kind is not None and pa.types.is_timestamp(kind) and declared.kind in {"min", "max"}:
        return _Extreme(declared.kind == "max", kind)
    if kind is None or not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    ):
        what = f"{declared.kind}({declared.column}): the column is {kind}"
        raise BoucleError("B221", what, fix="aggregate a number, or use first, last, distinct, count")
    whole = not pa.types.is_floating(kind)
    if declared.kind == "sum":
        return _WholeSum() if whole else _Sum()
    if declared.kind in {"min", "max"}:
        return _Extreme(declared.kind == "max", pa.int64() if whole else pa.float64())
    return _Moments(declared.kind)


def _values(column: pa.Array | None, slots: Ints, dtype: Any) -> tuple[Ints, NDArray[Any]]:
    """Slots and values of the rows that have one."""
    assert column is not None
    slots, column = _there(slots, in_nanos(column))
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return np.array(slots), np.array(column.to_numpy(zero_copy_only=False), dtype)


def _there(slots: Ints, column: pa.Array) -> tuple[Ints, pa.Array]:
    if column.null_count:
        slots, column = slots[column.is_valid().to_numpy(zero_copy_only=False)], column.drop_null()
    return slots, column


def _in_kind(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """What was held in ns as the column has it."""
    return (
        values.cast(pa.timestamp("ns", kind.tz)).cast(kind)
        if pa.types.is_timestamp(kind)
        else values.cast(kind)
    )


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


class _Count(_Arrays):
    _width = 1

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        _count(slots if column is None else _there(slots, column)[0], self._state)

    def close(self, slots: Ints) -> pa.Array:
        return pa.array(self._state[slots, 0])


class _WholeSum(_Arrays):
    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        places, values = _values(column, slots, np.int64)
        _add(places, self._state, values)

    def close(self, slots: Ints) -> pa.Array:
        held = self._state[slots]
        return pa.array(held[:, 0], mask=held[:, 1] == 0)


class _Sum(_Arrays):
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


class _Moments(_Arrays):
    _width = 3
    _dtype = np.dtype(np.float64)

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind
        self._sums = _Sum()

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


class _Extreme:
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
        return _in_kind(pa.array(self._state[slots], mask=~self._seen[slots]), self._kind)

    def clear(self, slots: Ints) -> None:
        self._seen[slots] = False

    def save(self) -> Any:
        return [self._state.tobytes(), self._seen.tobytes()]

    def load(self, state: Any) -> None:
        self._state = np.frombuffer(state[0], self._dtype).copy()
        self._seen = np.frombuffer(state[1], np.bool_).copy()


class _Held:
    """State in Python objects, for values of any type."""

    def __init__(self, kind: pa.DataType | None) -> None:
        self._kind = kind
        self._held: dict[int, Any] = {}

    def open(self, slots: int) -> None:
        """Nothing to do."""

    def clear(self, slots: Ints) -> None:
        for slot in slots.tolist():
            self._held.pop(slot, None)

    def save(self) -> Any:
        return [[slot, list(held) if isinstance(held, set) else held] for slot, held in self._held.items()]

    def load(self, state: Any) -> None:
        self._held = dict(state)

    def _plain(self, column: pa.Array | None, slots: Ints) -> tuple[list[int], list[Any]]:
        assert column is not None
        slots, column = _there(slots, in_nanos(column))
        return slots.tolist(), column.to_pylist()

    def _typed(self, values: list[Any]) -> pa.Array:
        if self._kind is not None and pa.types.is_timestamp(self._kind):
            return _in_kind(pa.array(values, pa.int64()), self._kind)
        return pa.array(values, self._kind)


class _First(_Held):
    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        for slot, value in zip(*self._plain(column, slots), strict=True):
            self._held.setdefault(slot, value)

    def close(self, slots: Ints) -> pa.Array:
        return self._typed([self._held.get(slot) for slot in slots.tolist()])


class _Last(_Held):
    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        self._held.update(zip(*self._plain(column, slots), strict=True))

    def close(self, slots: Ints) -> pa.Array:
        return self._typed([self._held.get(slot) for slot in slots.tolist()])


class _Distinct(_Held):
    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        for slot, value in zip(*self._plain(column, slots), strict=True):
            self._held.setdefault(slot, set()).add(value)

    def close(self, slots: Ints) -> pa.Array:
        return pa.array([len(self._held.get(slot, ())) for slot in slots.tolist()], pa.int64())

    def load(self, state: Any) -> None:
        self._held = {slot: set(held) for slot, held in state}


class _Quantile(_Held):
    """Values while they are few; then counts per bucket of ±1 %: bucket i holds (γ^(i-1), γ^i]."""

    def __init__(self, quantile: float) -> None:
        super().__init__(pa.float64())
        if not 0 <= quantile <= 1:
            raise BoucleError("B221", f"there is no quantile {quantile:g}", fix="give one between 0 and 1")
        self._quantile = quantile

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        for slot, value in zip(*self._plain(column, slots), strict=True):
            held = self._held.setdefault(slot, [[], {}])
            if not held[1] and len(held[0]) < _EXACT:
                held[0].append(float(value))
                continue
            for one in (*held[0], float(value)):
                bucket = _bucket(one)
                held[1][bucket] = held[1].get(bucket, 0) + 1
            held[0] = []

    def close(self, slots: Ints) -> pa.Array:
        return pa.array([self._told(self._held.get(slot)) for slot in slots.tolist()], pa.float64())

    def _told(self, held: Any) -> float | None:
        if held is None:
            return None
        if held[0]:
            return float(np.quantile(held[0], self._quantile))
        rank, passed = self._quantile * (sum(held[1].values()) - 1), 0
        for sign, index in sorted(held[1], key=lambda b: (b[0], b[0] * b[1])):
            passed += held[1][sign, index]
            if passed > rank:
                return float(sign * 2 * math.exp(index * _GAMMA) / (1 + math.exp(_GAMMA))) if sign else 0.0
        return None

    def save(self) -> Any:
        return [[slot, held[0], list(held[1].items())] for slot, held in self._held.items()]

    def load(self, state: Any) -> None:
        self._held = {slot: [few, {tuple(bucket): n for bucket, n in many}] for slot, few, many in state}


def _bucket(value: float) -> tuple[int, int]:
    if value == 0 or not math.isfinite(value):
        return (0, 0)
    return (1 if value > 0 else -1, math.ceil(math.log(abs(value)) / _GAMMA))


_KINDS: dict[str, Any] = {
    "count": _Count,
    "sum": _Sum,
    "mean": _Moments,
    "min": _Extreme,
    "max": _Extreme,
    "std": _Moments,
    "var": _Moments,
    "first": _First,
    "last": _Last,
    "distinct": _Distinct,
    "quantile": _Quantile,
}

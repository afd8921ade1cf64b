"""Aggregates of values of any type, in Python objects."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import in_nanos
from boucle.errors import BoucleError
from boucle.stream.aggregate.present import in_kind, present
from boucle.stream.runs import Runs, numbers_of, runs_of

__all__ = ["Distinct", "First", "Last", "Quantile"]

Ints = NDArray[np.int64]
_EXACT = 1024
_ERROR = 0.01
_GAMMA = math.log((1 + _ERROR) / (1 - _ERROR))


class _Held:
    """State in Python objects, for values of any type."""

    words = 0

    def __init__(self, kind: pa.DataType | None) -> None:
        self._kind = kind
        self._held: dict[int, Any] = {}
        self._runs = Runs()

    def lie(self, cells: Ints) -> None:
        """Nothing to do."""

    def clear(self, slots: Ints) -> None:
        self._runs.change(slots)
        for slot in slots.tolist():
            self._held.pop(slot, None)

    def parts(self, *, everything: bool) -> dict[str, bytes]:
        return self._encoded(self._runs.take(self._held, everything=everything))

    def snapshot(self) -> dict[str, bytes]:
        return self._encoded(runs_of(self._held))

    def _encoded(self, runs: Iterable[int]) -> dict[str, bytes]:
        told = {}
        for run in runs:
            some = [(slot, self._saved(self._held[slot])) for slot in numbers_of(run) if slot in self._held]
            told[str(run)] = msgspec.msgpack.encode(some) if some else b""
        return told

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        self._held = {
            slot: self._loaded(saved)
            for name in parts
            if (part := parts[name])
            for slot, saved in msgspec.msgpack.decode(part)
        }

    def _saved(self, held: Any) -> Any:
        return held

    def _loaded(self, saved: Any) -> Any:
        return saved

    def _plain(self, column: pa.Array | None, slots: Ints) -> tuple[list[int], list[Any]]:
        assert column is not None
        slots, column = present(slots, in_nanos(column))
        self._runs.change(slots)
        return slots.tolist(), column.to_pylist()

    def _typed(self, values: list[Any]) -> pa.Array:
        if self._kind is not None and pa.types.is_timestamp(self._kind):
            return in_kind(pa.array(values, pa.int64()), self._kind)
        return pa.array(values, self._kind)


class First(_Held):
    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        for slot, value in zip(*self._plain(column, slots), strict=True):
            self._held.setdefault(slot, value)

    def close(self, slots: Ints) -> pa.Array:
        return self._typed([self._held.get(slot) for slot in slots.tolist()])


class Last(_Held):
    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        self._held.update(zip(*self._plain(column, slots), strict=True))

    def close(self, slots: Ints) -> pa.Array:
        return self._typed([self._held.get(slot) for slot in slots.tolist()])


class Distinct(_Held):
    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        for slot, value in zip(*self._plain(column, slots), strict=True):
            self._held.setdefault(slot, set()).add(value)

    def close(self, slots: Ints) -> pa.Array:
        return pa.array([len(self._held.get(slot, ())) for slot in slots.tolist()], pa.int64())

    def _saved(self, held: Any) -> Any:
        return list(held)

    def _loaded(self, saved: Any) -> Any:
        return set(saved)


class Quantile(_Held):
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

    def _saved(self, held: Any) -> Any:
        return [held[0], list(held[1].items())]

    def _loaded(self, saved: Any) -> Any:
        few, many = saved
        return [few, {tuple(bucket): number for bucket, number in many}]


def _bucket(value: float) -> tuple[int, int]:
    if value == 0 or not math.isfinite(value):
        return (0, 0)
    return (1 if value > 0 else -1, math.ceil(math.log(abs(value)) / _GAMMA))

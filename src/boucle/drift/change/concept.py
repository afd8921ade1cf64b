"""Concept drift: the errors of a model, watched by a sequential detector per key.

The inputs may look as ever while what they mean has changed; only the errors show it, once labels came. The
detectors are river's (extra `drift`): ADWIN (Bifet & Gavaldà 2007), KSWIN (Raab et al. 2020) and Page-Hinkley (Page
1954). They say that something changed; since when and by how much is told here, by the split of the last `memory`
errors that fits best (two levels, least squares).
"""

import math
import random
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block
from boucle.drift.change.reading import nanos, need, other_state
from boucle.drift.change.sentences import say_concept
from boucle.errors import BoucleError, MissingExtra
from boucle.ports import From, Traced
from boucle.stream.origin import Inputs, made_of, one_of
from boucle.stream.sequence import state_of

__all__ = ["ConceptDrift"]

_VERSION = 1
_TIME = pa.timestamp("ns", tz="UTC")
_DETECTORS = {
    "adwin": ("ADWIN", {"delta", "clock", "max_buckets", "min_window_length", "grace_period"}),
    "kswin": ("KSWIN", {"alpha", "window_size", "stat_size", "seed"}),
    "page_hinkley": ("PageHinkley", {"min_instances", "delta", "threshold", "alpha", "mode"}),
}
_VERDICT = [
    pa.field("at", _TIME, nullable=False),
    pa.field("column", pa.string(), nullable=False),
    pa.field("kind", pa.string(), nullable=False),
    pa.field("effect", pa.float64(), nullable=False),
    pa.field("p", pa.float64()),
    pa.field("q", pa.float64()),
    pa.field("drifted", pa.bool_(), nullable=False),
    pa.field("since", _TIME, nullable=False),
    pa.field("before", pa.float64(), nullable=False),
    pa.field("after", pa.float64(), nullable=False),
    pa.field("says_en", pa.string(), nullable=False),
    pa.field("says_fr", pa.string(), nullable=False),
]
"""`kind` is the detector; `effect` the mean error after less before, in the column's unit; p and q are null: sequential
detectors give none (their own false-alarm setting is declared in `settings`)."""


class _State(Struct):
    """One column of one key: the detector's own numbers, and the last errors with their times."""

    detector: dict[str, Any]
    values: list[float]
    times: list[int]


class _Watched:
    """One column of one key."""

    def __init__(self, detector: Any, memory: int) -> None:
        self.detector = detector
        self.values: deque[float] = deque(maxlen=memory)
        self.times: deque[int] = deque(maxlen=memory)


class ConceptDrift:
    """A row whenever the errors in `columns` changed level, by at least `least` in their own unit.

    `detector` is adwin, kswin or page_hinkley, with its own `settings` (river's names). `direction` up tells only of
    errors that grew, both of any change. ADWIN and Page-Hinkley take about 2 µs a row, KSWIN 500. A missing error is
    passed over. Memory: the detector (ADWIN: logarithmic) and the last `memory` errors of each column and key; no more
    than `keys` keys, of which the one unheard of for longest is forgotten.

    Raises MissingExtra without river, B764 for settings that cannot work, B762 for a column that is not there or holds
    no numbers.
    """

    def __init__(
        self,
        stream: str,
        *,
        columns: Sequence[str],
        by: Sequence[str] = (),
        time: str = "at",
        detector: Literal["adwin", "kswin", "page_hinkley"] = "adwin",
        settings: Mapping[str, Any] | None = None,
        least: float = 0.0,
        direction: Literal["up", "both"] = "up",
        memory: int = 500,
        keys: int = 10_000,
    ) -> None:
        if detector not in _DETECTORS:
            raise BoucleError(
                "B764", f"detector {detector!r} is not known", fix=f"one of {', '.join(_DETECTORS)}"
            )
        known = _DETECTORS[detector][1]
        if unknown := sorted(set(settings or {}) - known):
            fix = f"river's: {', '.join(sorted(known))}"
            raise BoucleError("B764", f"{detector} has no setting {', '.join(unknown)}", fix=fix)
        if not columns or least < 0 or memory < 30 or keys < 1 or direction not in ("up", "both"):
            fix = "columns: one or more, least: 0 or more, memory: 30 or more, keys: 1 or more, direction: up or both"
            raise BoucleError("B764", "the settings cannot work", fix=fix)
        self._stream, self._columns, self._by, self._time = stream, tuple(columns), tuple(by), time
        self._kind, self._settings = detector, dict(settings or {})
        if detector == "kswin":
            self._settings.setdefault("seed", 1)  # a replay must give the same rows
        self._least, self._direction, self._memory, self._most = least, direction, memory, keys
        self._keys: dict[tuple[str, ...], list[_Watched]] = {}
        self._make()
        self.schema = pa.schema([*(pa.field(name, pa.string(), nullable=False) for name in by), *_VERDICT])

    @classmethod
    def trace(
        cls,
        inputs: Inputs,
        *,
        columns: Sequence[str],
        by: Sequence[str] = (),
        time: str = "at",
        **declared: Any,
    ) -> Traced:
        """Keys and time as they are; the verdict from the errors of the key."""
        del declared
        stream = one_of(inputs)
        found: dict[str, tuple[From, ...]] = {name: (From(stream, name),) for name in by}
        found["at"] = (From(stream, time),)
        verdict = made_of(stream, columns, "AGGREGATION", "change of the errors of the key")
        found |= {field.name: verdict for field in _VERDICT if field.name not in found}
        found["since"] = (*verdict, From(stream, time, "TRANSFORMATION"))
        return Traced(found, made_of(stream, by, "GROUP_BY", "each key has its own detector"))

    def step(self, block: Block) -> Sequence[Block]:
        """One row for each change found; no Block when there is none."""
        rows = block.rows
        need(rows, (*self._columns, *self._by, self._time), self._stream)
        times = nanos(rows, self._time, self._stream)
        names = [rows.column(name).to_pylist() for name in self._by]
        errors = [self._errors(rows, name) for name in self._columns]
        found: list[dict[str, Any]] = []
        for place, at in enumerate(times):
            key = tuple(str(column[place]) for column in names)
            watched = self._watched(key)
            for name, one, values in zip(self._columns, watched, errors, strict=True):
                value = values[place]
                if math.isfinite(value) and (told := self._follow(one, value, at)) is not None:
                    says = say_concept(name, key=key, before=told["before"], after=told["after"])
                    whole = {"at": at, "column": name, "kind": self._kind, "drifted": True, **told}
                    says_both = {"says_en": says["en"], "says_fr": says["fr"]}
                    found.append({**dict(zip(self._by, key, strict=True)), **whole, **says_both})
        if not found:
            return ()
        batch = pa.RecordBatch.from_pylist(found, schema=self.schema)
        return (Block(self._stream, batch, block.watermark, block.position),)

    def _errors(self, rows: pa.RecordBatch, name: str) -> list[float]:
        column = rows.column(name)
        kind = column.type
        if pa.types.is_boolean(kind):
            column = column.cast(pa.int8())
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            fix = "name columns of numbers or flags"
            raise BoucleError(
                "B762", f"column {name!r} holds {kind}, not errors", where=self._stream, fix=fix
            )
        wide = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        values: list[float] = wide.tolist()
        return values

    def _watched(self, key: tuple[str, ...]) -> list[_Watched]:
        known = self._keys.pop(key, None)
        if known is None:
            known = [_Watched(self._make(), self._memory) for _ in self._columns]
            if len(self._keys) >= self._most:
                del self._keys[next(iter(self._keys))]
        self._keys[key] = known
        return known

    def _follow(self, one: _Watched, value: float, at: int) -> dict[str, Any] | None:
        one.values.append(value)
        one.times.append(at)
        one.detector.update(value)
        if not one.detector.drift_detected:
            return None
        values = np.array(one.values)
        split = _split(values)
        before, after, since = float(values[:split].mean()), float(values[split:].mean()), one.times[split]
        for _ in range(split):  # what comes next is held against the new level
            one.values.popleft()
            one.times.popleft()
        effect = after - before
        if abs(effect) < self._least or (effect <= 0 and self._direction == "up"):
            return None
        return {"effect": effect, "since": since, "before": before, "after": after}

    def _make(self) -> Any:
        try:
            from river import drift
        except ImportError as error:
            raise MissingExtra("concept drift", "river", "drift") from error
        try:
            return getattr(drift, _DETECTORS[self._kind][0])(**self._settings)
        except (TypeError, ValueError) as error:
            fix = "correct the settings of the detector"
            raise BoucleError(
                "B764", f"{self._kind} refuses its settings", why=str(error), fix=fix
            ) from error

    def snapshot(self) -> bytes:
        """What is remembered of every key."""
        keys = [
            (key, [_State(_held(one.detector), list(one.values), list(one.times)) for one in watched])
            for key, watched in self._keys.items()
        ]
        return msgspec.msgpack.encode((_VERSION, self._kind, keys))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when another version wrote it, B763 when it is of another detector."""
        kind = tuple[int, str, list[tuple[tuple[str, ...], list[_State]]]]
        _, detector, keys = state_of(kind, state, _VERSION, self._stream)
        if detector != self._kind:
            raise other_state(self._stream, f"it is of {detector}")
        try:
            self._keys = {key: [self._again(held) for held in states] for key, states in keys}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise other_state(self._stream, str(error)) from error

    def _again(self, held: _State) -> _Watched:
        one = _Watched(self._make(), self._memory)
        _give(one.detector, held.detector)
        one.values.extend(held.values)
        one.times.extend(held.times)
        return one


def _split(values: np.ndarray[Any, np.dtype[np.float64]]) -> int:
    """The first index of the second of two levels that fit best (least squares); both have a value."""
    count = np.arange(1, len(values))
    if not len(count):
        return 0
    head = np.cumsum(values)[:-1]
    tail = values.sum() - head
    gain = (head / count - tail / (len(values) - count)) ** 2 * count * (len(values) - count)
    return int(np.argmax(gain)) + 1


def _held(detector: Any) -> dict[str, Any]:
    """The state of a detector of river as plain values; never a pickle, which would run code when it is read."""
    plain: dict[str, Any] = {}
    for name, value in vars(detector).items():
        if name == "_helper":
            plain[name] = bytes(value.__getstate__())
        elif name == "_x_mean":
            plain[name] = [value.n, value._mean]  # noqa: SLF001 - its whole state, which river gives no name to
        elif isinstance(value, random.Random):
            version, words, gauss = value.getstate()
            plain[name] = [version, list(words), gauss]
        elif isinstance(value, deque):
            plain[name] = list(value)
        elif not callable(value):
            plain[name] = value.item() if isinstance(value, np.generic) else value
    return plain


def _give(detector: Any, held: Mapping[str, Any]) -> None:
    """Set the state of a detector to what `_held` told of another."""
    for name, value in held.items():
        now = getattr(detector, name)
        if name == "_helper":
            now.__setstate__(value)
        elif name == "_x_mean":
            now.n, now._mean = value  # noqa: SLF001
        elif isinstance(now, random.Random):
            now.setstate((value[0], tuple(value[1]), value[2]))
        elif isinstance(now, deque):
            setattr(detector, name, deque(value, maxlen=now.maxlen))
        else:
            setattr(detector, name, value)

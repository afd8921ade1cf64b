"""Has this signal ever done that? One number a row for a single slow signal, in one pass, with no period to declare.

The first `train` rows of a key give its scale. From its first row on, many plain witnesses (`boucle.edge.witnesses`)
say how unusual each row is against all that came before; their surprise is compared with the largest it ever was:

    score = ln(surprise / largest surprise of all earlier rows)

Above 0 is a record. Being the largest of more rows is rarer, so records do not get unreachable: what is as unusual as
ever is told again once twice as many rows have passed, what comes back every day is not. For `quiet` rows after a score
only a higher one is told.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct, field
from numpy.typing import NDArray

from boucle.block import Block
from boucle.edge.witnesses import KEPT, LONGEST, SPREADS, WITNESSES, surprise
from boucle.errors import BoucleError
from boucle.ports import Traced
from boucle.stream.origin import Inputs, told_of
from boucle.stream.sequence import state_of

__all__ = ["Novelty"]

_VERSION = 2
_LEAST_ROWS = 100
"""Fewer have no largest distance worth the name."""
_SOFT = 0.05
"""Keeps the ln of a signal that touches 0."""
_LEAST = 1e-3
_FARTHEST = 1e6
"""Deviations; what is farther counts as that far."""
_LARGEST = 1e150
"""Its square is still a number."""

Wide = NDArray[np.float64]
Key = tuple[str | int | float | bool | None, ...]


class _Scale(Struct, frozen=True):
    """What the first rows of a key were like, on the two scales."""

    centre: float
    deviation: float
    size: float
    relative_centre: float
    relative_deviation: float

    def of(self, value: float) -> tuple[float, float]:
        """A value in deviations, as it is and by the ln of its size."""
        plain = (value - self.centre) / self.deviation
        relative = (math.log(abs(value) / self.size + _SOFT) - self.relative_centre) / self.relative_deviation
        return min(max(plain, -_FARTHEST), _FARTHEST), min(max(relative, -_FARTHEST), _FARTHEST)


class _Memory(Struct):
    """The state of one key; the arrays travel as their bytes."""

    training: list[float] = []
    scale: _Scale | None = None
    seen: int = 0
    record: float = 0.0
    top: float = -math.inf
    since: int = 0
    values: bytearray = field(default_factory=bytearray)
    spreads: bytearray = field(default_factory=bytearray)
    largest: bytearray = field(default_factory=bytearray)


class Novelty:
    """Every row again with `score` and `alert`: null and false for the first `train` rows of a key.

    `column` is the signal, `by` the key, `carry` columns passed on. `alert` is a score of `start` or more. A missing
    value is passed on unscored; while quiet the score is null. A key takes about 100 kB with `train` 600. Raises B767
    for settings that cannot work.
    """

    def __init__(
        self,
        stream: str,
        *,
        column: str,
        by: Sequence[str] = (),
        carry: Sequence[str] = (),
        train: int = 600,
        start: float = 0.01,
        quiet: int = 100,
    ) -> None:
        if train < _LEAST_ROWS or quiet < 0 or not math.isfinite(start):
            what = f"train {train}, start {start}, quiet {quiet} cannot work"
            raise BoucleError("B767", what, fix=f"train: {_LEAST_ROWS} rows or more, quiet: 0 or more")
        self._stream, self._column = stream, column
        self._by, self._carry = tuple(by), tuple(carry)
        self._train, self._start, self._quiet = train, start, quiet
        self._shapes = {
            "values": (2, max(train, LONGEST) + 1),
            "spreads": (SPREADS, train),
            "largest": (WITNESSES, KEPT),
        }
        self._keys: dict[Key, _Memory] = {}

    @classmethod
    def trace(
        cls,
        inputs: Inputs,
        *,
        column: str,
        by: Sequence[str] = (),
        carry: Sequence[str] = (),
        **declared: Any,
    ) -> Traced:
        """Keys, time and carried columns as they are; score and alert from the signal of the key."""
        del declared
        says, per = "how rare the row is in all the key ever showed", "each key has its own records"
        return told_of(inputs, [column], says, by=by, per=per, tells=("score", "alert"), carry=carry)

    def step(self, block: Block) -> Sequence[Block]:
        """Every row again, judged by what came before it."""
        rows = block.rows
        values = rows.column(self._column).cast(pa.float64()).to_pylist()
        names = [rows.column(name).to_pylist() for name in self._by]
        keys = list(zip(*names, strict=True)) if names else [()] * rows.num_rows
        scores = [self._judge(key, value) for key, value in zip(keys, values, strict=True)]
        out = rows.select(list(dict.fromkeys([*self._by, "at", *self._carry])))
        out = out.append_column("score", pa.array(scores, pa.float64()))
        alerts = [score is not None and score >= self._start for score in scores]
        return [
            Block(
                self._stream,
                out.append_column("alert", pa.array(alerts, pa.bool_())),
                block.watermark,
                block.position,
            )
        ]

    def _judge(self, key: Key, value: float | None) -> float | None:
        state = self._keys.get(key)
        if state is None:
            state = self._keys[key] = _Memory()
        if value is None or not math.isfinite(value):
            return None
        value = min(max(value, -_LARGEST), _LARGEST)
        if state.scale is None:
            state.training.append(value)
            if len(state.training) == self._train:
                self._learn(state)
            return None
        return self._told(state, self._ratio(state, state.scale, value))

    def _told(self, state: _Memory, score: float) -> float | None:
        if state.seen - state.since > self._quiet:
            state.top = -math.inf
        if score <= state.top:
            return None
        state.top, state.since = score, state.seen
        return score

    def _ratio(self, state: _Memory, scale: _Scale, value: float) -> float:
        """The ln of the row's surprise over the record; then the row is remembered."""
        arrays = [
            np.frombuffer(getattr(state, name), np.float64).reshape(shape)
            for name, shape in self._shapes.items()
        ]
        found = float(surprise(*arrays, state.seen, *scale.of(value)))
        ratio = found / (state.record + _LEAST)
        state.record, state.seen = max(state.record, found), state.seen + 1
        return math.log(max(ratio, _LEAST))

    def _learn(self, state: _Memory) -> None:
        """The scales from the training rows; then the witnesses hear these rows, as any other."""
        rows = np.array(state.training)
        size = float(np.abs(rows).mean()) + 1e-12
        logs = np.log(np.abs(rows) / size + _SOFT)
        state.scale = _Scale(
            float(rows.mean()),
            float(rows.std()) + 1e-12,
            size,
            float(logs.mean()),
            float(logs.std()) + _LEAST,
        )
        for name, (lines, room) in self._shapes.items():
            setattr(state, name, bytearray(8 * lines * room))
        for row in state.training:
            self._ratio(state, state.scale, row)
        state.training = []

    def snapshot(self) -> bytes:
        """The state, as bytes."""
        return msgspec.msgpack.encode((_VERSION, list(self._keys.items())))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when it is of another version, B766 when of another `train`."""
        _, keys = state_of(tuple[int, list[tuple[Key, _Memory]]], state, _VERSION, self._stream)
        for _, memory in keys:
            if memory.scale is None:
                continue
            for name, (lines, room) in self._shapes.items():
                if len(getattr(memory, name)) != 8 * lines * room:
                    raise BoucleError(
                        "B766",
                        f"the state of {self._stream} cannot be continued",
                        why=f"{name} are of another length: it learned from another number of rows",
                        fix="the same train as before, or remove the checkpoint to start afresh",
                    )
        self._keys = dict(keys)

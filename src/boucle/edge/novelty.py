"""Has this signal ever done that? One number a row for a single slow signal, in one pass, with no period to declare.

Four ways to be unusual, each from rows that came before only; the standard ones are by the mean and deviation of the
first `train` rows, the relative ones the same of ln(|x| / mean|x| + 0.05), where a busy signal's spikes weigh less:

    high      standard, above the mean of the last `train` rows
    jump      standard, from the row before
    apart     relative, from the mean of the last `train` rows, either side
    level     relative, the mean of the last 30 rows from the mean of the last `train`

The score is ln of the largest ratio of such a distance to the largest it ever was: above 0 is a record, and each record
raises the bar for the next. For `quiet` rows after a score only a higher one is told.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct, field

from boucle.block import Block
from boucle.errors import BoucleError
from boucle.ports import From, Traced
from boucle.stream.origin import Inputs, made_of, one_of

__all__ = ["Novelty"]

_VERSION = 1
_LEVEL = 30
_LEAST_ROWS = 100
"""Fewer have no largest distance worth the name."""
_SOFT = 0.05
_LEAST = 1e-3


class _Course(Struct):
    """A trailing mean, as the rows it is of."""

    rows: list[float] = []
    place: int = 0
    total: float = 0.0

    def take(self, value: float, most: int) -> None:
        """Add a row; the oldest of `most` makes room."""
        if len(self.rows) < most:
            self.rows.append(value)
            self.total += value
        else:
            self.total += value - self.rows[self.place]
            self.rows[self.place] = value
            self.place = (self.place + 1) % most

    def mean(self, otherwise: float) -> float:
        """Of the rows; `otherwise` when there are none."""
        return self.total / len(self.rows) if self.rows else otherwise


class _Key(Struct):
    """The state of one key."""

    training: list[float] = []
    centre: float = 0.0
    deviation: float = 1.0
    size: float = 1.0
    relative_centre: float = 0.0
    relative_deviation: float = 1.0
    learned: bool = False
    rows: int = 0
    before: float | None = None
    standard: _Course = field(default_factory=_Course)
    relative: _Course = field(default_factory=_Course)
    level: list[float] = []
    records: list[float] = field(default_factory=lambda: [0.0] * 4)
    top: float = -math.inf
    since: int = 0


class Novelty:
    """Every row again with `score` and `alert`: null and false for the first `train` rows of a key.

    `column` is the signal, `by` the key, `carry` columns passed on. `alert` is a score of `start` or more. A missing
    value is passed on unscored; while quiet the score is null. Raises B767 for settings that cannot work.
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
        quiet: int = 200,
    ) -> None:
        if train < _LEAST_ROWS or quiet < 0 or not math.isfinite(start):
            what = f"train {train}, start {start}, quiet {quiet} cannot work"
            raise BoucleError("B767", what, fix=f"train: {_LEAST_ROWS} rows or more, quiet: 0 or more")
        self._stream, self._column = stream, column
        self._by, self._carry = tuple(by), tuple(carry)
        self._train, self._start, self._quiet = train, start, quiet
        self._keys: dict[tuple[str, ...], _Key] = {}

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
        stream = one_of(inputs)
        kept = {name: (From(stream, name),) for name in dict.fromkeys([*by, "at", *carry])}
        signal = made_of(stream, [column], "TRANSFORMATION", "distance to the largest the key ever showed")
        made = (*signal, *made_of(stream, by, "GROUP_BY", "each key has its own records"))
        return Traced(kept | dict.fromkeys(("score", "alert"), made))

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

    def _judge(self, key: tuple[str, ...], value: float | None) -> float | None:
        state = self._keys.get(key)
        if state is None:
            state = self._keys[key] = _Key()
        if value is None or not math.isfinite(value):
            return None
        if not state.learned:
            state.training.append(value)
            if len(state.training) == self._train:
                self._learn(state)
            return None
        return self._told(state, self._ratio(state, value))

    def _told(self, state: _Key, score: float) -> float | None:
        if state.rows - state.since > self._quiet:
            state.top = -math.inf
        if score <= state.top:
            return None
        state.top, state.since = score, state.rows
        return score

    def _ratio(self, state: _Key, value: float) -> float:
        """The ln of the largest distance over its record; then the row is remembered."""
        standard = (value - state.centre) / state.deviation
        relative = (self._log(state, value) - state.relative_centre) / state.relative_deviation
        middle, apart = state.standard.mean(standard), state.relative.mean(relative)
        state.level = [*state.level[1 - _LEVEL :], relative]
        found = (
            max(standard - middle, 0.0),
            abs(standard - state.before) if state.before is not None else 0.0,
            abs(relative - apart),
            abs(sum(state.level) / len(state.level) - apart),
        )
        ratio = max(one / (most + _LEAST) for one, most in zip(found, state.records, strict=True))
        state.records = [max(one, most) for one, most in zip(found, state.records, strict=True)]
        state.standard.take(standard, self._train)
        state.relative.take(relative, self._train)
        state.before = standard
        state.rows += 1
        return math.log(max(ratio, _LEAST))

    def _learn(self, state: _Key) -> None:
        """Scales from the training rows, then records by going through them again."""
        rows, count = state.training, len(state.training)
        state.centre = math.fsum(rows) / count
        state.deviation = math.sqrt(math.fsum((row - state.centre) ** 2 for row in rows) / count) + 1e-12
        state.size = math.fsum(abs(row) for row in rows) / count + 1e-12
        logs = [self._log(state, row) for row in rows]
        state.relative_centre = math.fsum(logs) / count
        spread = math.sqrt(math.fsum((one - state.relative_centre) ** 2 for one in logs) / count)
        state.relative_deviation = spread + _LEAST
        for row in rows:
            self._ratio(state, row)
        state.training, state.learned = [], True

    def _log(self, state: _Key, value: float) -> float:
        return math.log(abs(value) / state.size + _SOFT)

    def snapshot(self) -> bytes:
        """The state, as bytes."""
        return msgspec.msgpack.encode((_VERSION, list(self._keys.items())))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B766 when it is of another version."""
        what, fix = (
            f"the state of {self._stream} cannot be continued",
            "remove the checkpoint to start afresh",
        )
        try:
            version, keys = msgspec.msgpack.decode(state, type=tuple[int, list[tuple[tuple[str, ...], _Key]]])
        except msgspec.DecodeError as error:
            raise BoucleError("B766", what, why=str(error), fix=fix) from error
        if version != _VERSION:
            raise BoucleError("B766", what, why=f"version {version}", fix=fix)
        self._keys = dict(keys)

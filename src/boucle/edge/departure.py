"""When a plant leaves its normal state, when it comes back, and where its level changes, from slow signals.

Per key, the first `train` rows say what is normal: mean and deviation of each signal. After that

- `score` is the largest |EWMA| of the standardised signals (Roberts 1959), over its own spread in training, which is
  wider than theory when the signal is slow;
- an episode (`alert`) begins when the score passes `start` and ends when it falls below `stop`, or below `recover` of
  the most it was: a plant that was repaired rarely comes back to the very same level. What it came back to is learned
  as normal over the next `settle` rows;
- `changed` is true where an episode begins or ends, and where the mean of the last `short` rows departs from that of
  the `long` rows before by `step` times what it does in training (a two-window mean test); once in `quiet` rows.

Signals that follow the weather or warm up for hours are no witnesses of a short fault: leave temperatures out.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import Block
from boucle.errors import BoucleError
from boucle.ports import Traced
from boucle.stream.origin import Inputs, told_of
from boucle.stream.sequence import state_of

__all__ = ["Departure"]

_VERSION = 1
_FIRST = 20
"""Rows before the EWMA has forgotten that it began at zero."""

Wide = NDArray[np.float64]
Key = tuple[str | int | float | bool | None, ...]


class _Key(Struct):
    """The state of one key; arrays travel as nested lists."""

    training: list[list[float]] = []
    mean: list[float] = []
    deviation: list[float] = []
    spread: list[float] = []
    """Of the EWMA in training."""
    jump: list[float] = []
    """Of the difference of two windows in training."""
    smoothed: list[float] = []
    base: list[float] = []
    """The EWMA that is normal now: 0, or what the plant came back to."""
    recent: list[list[float]] = []
    on: bool = False
    peak: float = 0.0
    settling: int = 0
    silent: int = 0


class Departure:
    """Every row again with `score`, `alert` and `changed`; null, false, false for the rows it learns from.

    `columns` are the signals, `by` the key, `carry` columns passed on as they are. A row with a missing signal is
    passed on unscored, its `alert` as the row before. Raises B765 for settings that cannot work.
    """

    def __init__(
        self,
        stream: str,
        *,
        columns: Sequence[str],
        by: Sequence[str] = (),
        carry: Sequence[str] = (),
        train: int = 400,
        smooth: float = 0.1,
        start: float = 5.5,
        stop: float = 3.3,
        recover: float = 0.2,
        settle: int = 30,
        step: float = 5.0,
        short: int = 10,
        long: int = 80,
        quiet: int = 30,
    ) -> None:
        if not columns or train <= short + long + _FIRST or min(short, long) < 2 or min(settle, quiet) < 0:
            what = f"train {train}, short {short}, long {long}, settle {settle}, quiet {quiet} cannot work"
            fix = f"train: more than short + long + {_FIRST} rows, at least one column"
            raise BoucleError("B765", what, fix=fix)
        if not 0 < smooth <= 1 or not 0 < stop <= start or not 0 <= recover < 1 or step <= 0:
            what = f"smooth {smooth}, start {start}, stop {stop}, recover {recover}, step {step} cannot work"
            fix = "smooth in (0, 1], 0 < stop ≤ start, recover in [0, 1), step above 0"
            raise BoucleError("B765", what, fix=fix)
        self._stream = stream
        self._columns, self._by, self._carry = tuple(columns), tuple(by), tuple(carry)
        self._train, self._smooth, self._start, self._stop = train, smooth, start, stop
        self._recover, self._settle, self._step = recover, settle, step
        self._short, self._long, self._quiet = short, long, quiet
        self._keys: dict[Key, _Key] = {}

    @classmethod
    def trace(
        cls,
        inputs: Inputs,
        *,
        columns: Sequence[str],
        by: Sequence[str] = (),
        carry: Sequence[str] = (),
        **declared: Any,
    ) -> Traced:
        """Keys, time and carried columns as they are; the rest from the signals of the key."""
        del declared
        says, per = "distance (EWMA) from how the key behaved at first", "each key has its own normal state"
        return told_of(
            inputs, columns, says, by=by, per=per, tells=("score", "alert", "changed"), carry=carry
        )

    def step(self, block: Block) -> Sequence[Block]:
        """Every row again, judged by what came before it."""
        rows = block.rows
        values = np.column_stack(
            [rows.column(name).to_numpy(zero_copy_only=False).astype(np.float64) for name in self._columns]
        )
        names = [rows.column(name).to_pylist() for name in self._by]
        keys = list(zip(*names, strict=True)) if names else [()] * rows.num_rows
        told = [self._judge(key, row) for key, row in zip(keys, values, strict=True)]
        out = rows.select(list(dict.fromkeys([*self._by, "at", *self._carry])))
        for place, (name, kind) in enumerate(
            (("score", pa.float64()), ("alert", pa.bool_()), ("changed", pa.bool_()))
        ):
            out = out.append_column(name, pa.array([one[place] for one in told], kind))
        return [Block(self._stream, out, block.watermark, block.position)]

    def _judge(self, key: Key, row: Wide) -> tuple[float | None, bool, bool]:
        state = self._keys.get(key)
        if state is None:
            state = self._keys[key] = _Key()
        if not np.isfinite(row).all():
            return None, state.on, False
        if not state.mean:
            state.training.append(row.tolist())
            if len(state.training) == self._train:
                self._learn(state)
            return None, False, False
        standard = (row - state.mean) / state.deviation
        smoothed = state.smoothed + self._smooth * (standard - state.smoothed)
        state.smoothed = smoothed.tolist()
        score = float((np.abs(smoothed - state.base) / state.spread).max())
        turned = self._episode(state, score)
        state.recent = [*state.recent[1 - self._short - self._long :], standard.tolist()]
        stepped = self._stepped(state) > self._step and state.silent == 0
        state.silent = self._quiet if stepped else max(0, state.silent - 1)
        return score, state.on, turned or stepped

    def _episode(self, state: _Key, score: float) -> bool:
        """Whether an episode begins or ends with this row."""
        if state.on:
            state.peak = max(state.peak, score)
            state.on = score >= max(self._stop, self._recover * state.peak)
            if not state.on and score > self._stop:
                state.settling = self._settle
            return not state.on
        if state.settling:
            state.settling, state.base = state.settling - 1, state.smoothed
            return False
        state.on, state.peak = score > self._start, score
        return state.on

    def _stepped(self, state: _Key) -> float:
        if len(state.recent) < self._short + self._long:
            return 0.0
        recent = np.array(state.recent)
        apart = recent[self._long :].mean(axis=0) - recent[: self._long].mean(axis=0)
        return float((np.abs(apart) / state.jump).max())

    def _learn(self, state: _Key) -> None:
        rows = np.array(state.training)
        deviation = rows.std(axis=0)
        deviation[deviation == 0] = 1.0
        standard = (rows - rows.mean(axis=0)) / deviation
        state.mean, state.deviation = rows.mean(axis=0).tolist(), deviation.tolist()
        smoothed = np.zeros_like(standard)
        for place, row in enumerate(standard):
            before = smoothed[place - 1] if place else np.zeros(len(row))
            smoothed[place] = before + self._smooth * (row - before)
        # Never narrower than independent rows would be: a short training cannot promise more.
        least = np.sqrt(self._smooth / (2 - self._smooth))
        state.spread = np.maximum(smoothed[_FIRST:].std(axis=0), least).tolist()
        total = np.vstack([np.zeros(standard.shape[1]), np.cumsum(standard, axis=0)])
        ahead = (total[self._short + self._long :] - total[self._long : -self._short]) / self._short
        behind = (total[self._long : -self._short] - total[: -self._short - self._long]) / self._long
        least = 0.6 * np.sqrt(1 / self._short + 1 / self._long)
        state.jump = np.maximum(np.abs(ahead - behind).std(axis=0), least).tolist()
        state.smoothed, state.base = smoothed[-1].tolist(), [0.0] * len(deviation)
        state.recent, state.training = standard[-self._short - self._long :].tolist(), []

    def snapshot(self) -> bytes:
        """The state, as bytes."""
        return msgspec.msgpack.encode((_VERSION, list(self._keys.items())))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when it is of another version."""
        _, keys = state_of(tuple[int, list[tuple[Key, _Key]]], state, _VERSION, self._stream)
        self._keys = dict(keys)

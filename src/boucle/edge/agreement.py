"""Do the signals of a process still agree? One number a row for many slow signals that know of each other.

Per key, the first `train` rows say how each signal follows from the others and from the rows before
(`boucle.edge.redundancy`). After that `score` is the largest statistic over its limit: above 1 is not normal, and an
`alert` once it has held for `hold` rows. For faults that a control loop hides, slow drifts and sticking valves; on the
Tennessee Eastman process beside the classical charts in docs/why/public-data.md.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct, field
from numpy.typing import NDArray

from boucle.block import Block
from boucle.edge.redundancy import Course, Model, follow, learn, statistics
from boucle.errors import BoucleError
from boucle.ports import Traced
from boucle.stream.origin import Inputs, told_of
from boucle.stream.sequence import state_of

__all__ = ["Agreement"]

_VERSION = 1
_LEAST_ROWS = 100
_PER_SIGNAL = 5
"""Training rows a signal: with fewer, chance looks like a rule."""
_LARGEST = 1e150
"""Its square is still a number."""

Wide = NDArray[np.float64]
Key = tuple[str | int | float | bool | None, ...]


class _Memory(Struct):
    """The state of one key."""

    training: list[list[float]] = []
    model: Model | None = None
    course: Course = field(default_factory=lambda: Course([], []))
    held: int = 0


class Agreement:
    """Every row again with `score` and `alert`: null and false for the first `train` rows of a key.

    `columns` are the signals, at least two; `by` the key, `carry` columns passed on. A row with a missing signal is
    passed on unscored, its `alert` as the row before. Raises B765 for settings that cannot work.
    """

    def __init__(
        self,
        stream: str,
        *,
        columns: Sequence[str],
        by: Sequence[str] = (),
        carry: Sequence[str] = (),
        train: int = 500,
        hold: int = 3,
    ) -> None:
        least = max(_LEAST_ROWS, _PER_SIGNAL * len(columns))
        if len(columns) < 2 or train < least or hold < 1:
            what = f"{len(columns)} columns, train {train}, hold {hold} cannot work"
            fix = f"two columns or more, train: {least} rows or more, hold: 1 or more"
            raise BoucleError("B765", what, fix=fix)
        self._stream = stream
        self._columns, self._by, self._carry = tuple(columns), tuple(by), tuple(carry)
        self._train, self._hold = train, hold
        self._keys: dict[Key, _Memory] = {}

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
        """Keys, time and carried columns as they are; score and alert from all signals of the key."""
        del declared
        says, per = "residuals from what the other signals say", "each key has its own model"
        return told_of(inputs, columns, says, by=by, per=per, tells=("score", "alert"), carry=carry)

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
        out = out.append_column("score", pa.array([score for score, _ in told], pa.float64()))
        out = out.append_column("alert", pa.array([alert for _, alert in told], pa.bool_()))
        return [Block(self._stream, out, block.watermark, block.position)]

    def _judge(self, key: Key, row: Wide) -> tuple[float | None, bool]:
        memory = self._keys.get(key)
        if memory is None:
            memory = self._keys[key] = _Memory()
        if not np.isfinite(row).all():
            return None, memory.held >= self._hold
        row = np.clip(row, -_LARGEST, _LARGEST)
        if memory.model is None:
            memory.training.append(row.tolist())
            if len(memory.training) == self._train:
                memory.model, memory.training = learn(np.array(memory.training)), []
            return None, False
        follow(memory.model, memory.course, row)
        score = float((statistics(memory.model, memory.course) / memory.model.limits).max())
        memory.held = memory.held + 1 if score > 1 else 0
        return score, memory.held >= self._hold

    def snapshot(self) -> bytes:
        """The state, as bytes."""
        return msgspec.msgpack.encode((_VERSION, list(self._keys.items())), enc_hook=_packed)

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when it is of another version, B766 when of other columns."""
        _, keys = state_of(tuple[int, list[tuple[Key, _Memory]]], state, _VERSION, self._stream, _unpacked)
        for _, memory in keys:
            known = memory.model.mean.tolist() if memory.model else next(iter(memory.training), self._columns)
            if len(known) != len(self._columns):
                raise BoucleError(
                    "B766",
                    f"the state of {self._stream} cannot be continued",
                    why=f"it is of {len(known)} columns",
                    fix="the same columns as before, or remove the checkpoint to start afresh",
                )
        self._keys = dict(keys)


def _packed(array: Any) -> tuple[list[int], bytes]:
    return list(array.shape), array.tobytes()


def _unpacked(_kind: Any, packed: Any) -> Wide:
    shape, data = packed
    return np.frombuffer(data, np.float64).reshape(shape)

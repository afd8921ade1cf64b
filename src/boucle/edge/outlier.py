"""An outlier score for slow signals: how far a reading is from how the same plant behaved at first.

Hotelling's T² (Hotelling 1947): `t² = (x - μ)ᵀ S⁻¹ (x - μ)` with the mean and covariance of the
first `train` rows of each key, after an exponentially weighted mean over rows (MEWMA, Lowry et al.
1992) when `smooth` < 1. With one column it is the squared z-score. The limit is `margin` times the
`quantile` of the training rows' own scores, so that no distribution has to be assumed.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block
from boucle.errors import BoucleError
from boucle.ports import Traced
from boucle.stream.origin import Inputs, told_of

__all__ = ["Outlier"]

_VERSION = 1
_Vector = np.ndarray[Any, np.dtype[np.float64]]


class _Key(Struct):
    """The state of one key; arrays travel as nested lists."""

    training: list[list[float]] = []
    mean: list[float] = []
    inverse: list[list[float]] = []
    scale: list[float] = []
    limit: float = 0.0
    smoothed: list[float] = []


class Outlier:
    """Scores every row; the rows it learns from get a null score and are never alerts.

    `columns` are the signals, `by` the key each baseline belongs to, `carry` columns passed on as
    they are. A row with a missing signal is passed on unscored. Raises B603 for settings that cannot work.
    """

    def __init__(
        self,
        stream: str,
        *,
        columns: Sequence[str],
        by: Sequence[str] = (),
        carry: Sequence[str] = (),
        train: int = 400,
        smooth: float = 1.0,
        quantile: float = 0.99,
        margin: float = 1.5,
    ) -> None:
        if train <= 2 * len(columns):
            fix = f"at least {2 * len(columns) + 1}"
            raise BoucleError(
                "B603", f"{train} rows cannot teach {len(columns)} columns", where="train", fix=fix
            )
        if not 0 < smooth <= 1 or not 0 < quantile <= 1 or margin <= 0:
            raise BoucleError(
                "B603", "smooth and quantile lie in (0, 1], margin is positive", fix="correct them"
            )
        self._stream = stream
        self._columns, self._by, self._carry = tuple(columns), tuple(by), tuple(carry)
        self._train, self._smooth, self._quantile, self._margin = train, smooth, quantile, margin
        self._keys: dict[tuple[str, ...], _Key] = {}

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
        """Keys, time and carried columns as they are; score, limit and alert from the signals of the key."""
        del declared
        says, per = "distance (T²) from how the key behaved at first", "each key has its own baseline"
        return told_of(inputs, columns, says, by=by, per=per, tells=("score", "limit", "alert"), carry=carry)

    def step(self, block: Block) -> Sequence[Block]:
        """Every row again, with `score`, `limit` and `alert`."""
        rows = block.rows
        values = np.column_stack(
            [rows.column(name).to_numpy(zero_copy_only=False).astype(np.float64) for name in self._columns]
        )
        names = zip(*(rows.column(name).to_pylist() for name in self._by), strict=True) if self._by else None
        keys = list(names) if names is not None else [()] * rows.num_rows
        judged = [self._judge(key, vector) for key, vector in zip(keys, values, strict=True)]
        kept = dict.fromkeys([*self._by, "at", *self._carry])
        out = rows.select(list(kept))
        out = out.append_column("score", pa.array([score for score, _ in judged], pa.float64()))
        out = out.append_column("limit", pa.array([limit for _, limit in judged], pa.float64()))
        alerts = [score is not None and score > (limit or np.inf) for score, limit in judged]
        out = out.append_column("alert", pa.array(alerts, pa.bool_()))
        return [Block(self._stream, out, block.watermark, block.position)]

    def _judge(self, key: tuple[str, ...], vector: _Vector) -> tuple[float | None, float | None]:
        state = self._keys.setdefault(key, _Key())
        if not np.isfinite(vector).all():
            return None, state.limit or None
        if state.smoothed:
            vector = self._smooth * vector + (1 - self._smooth) * np.array(state.smoothed)
        state.smoothed = vector.tolist()
        if not state.limit:
            state.training.append(state.smoothed)
            if len(state.training) >= self._train:
                self._learn(state)
            return None, None
        return self._score(state, vector), state.limit

    def _learn(self, state: _Key) -> None:
        rows = np.array(state.training)
        scale = rows.std(axis=0)
        scale[scale == 0] = 1.0
        spread = np.atleast_2d(np.cov((rows - rows.mean(axis=0)) / scale, rowvar=False))
        # A little of the identity keeps columns that move as one from blowing the inverse up.
        spread = 0.98 * spread + 0.02 * np.eye(len(spread))
        state.mean, state.scale = rows.mean(axis=0).tolist(), scale.tolist()
        state.inverse = np.linalg.inv(spread).tolist()
        scores = [self._score(state, row) for row in rows]
        state.limit = float(np.quantile(scores, self._quantile)) * self._margin
        state.training = []

    def _score(self, state: _Key, vector: _Vector) -> float:
        off = (vector - np.array(state.mean)) / np.array(state.scale)
        return float(off @ np.array(state.inverse) @ off)

    def snapshot(self) -> bytes:
        """The state, as bytes."""
        return msgspec.msgpack.encode((_VERSION, list(self._keys.items())))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B604 when it is of another version."""
        version, keys = msgspec.msgpack.decode(state, type=tuple[int, list[tuple[tuple[str, ...], _Key]]])
        if version != _VERSION:
            raise BoucleError("B604", f"an outlier state of version {version}", fix="start afresh")
        self._keys = dict(keys)

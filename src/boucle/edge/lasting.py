"""How long will it last? Seconds left a row, from one level that rises as a machine wears.

Per key, the level is put into medians of `every` seconds; at the end of each, `boucle.edge.life` says what is left, and
until the next one the clock runs down. The first row of a key is taken as its first day. A key keeps at most 512
medians: when they are full, pairs become one and `every` doubles, so the whole life stays in sight.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block
from boucle.clock import SECOND
from boucle.edge.life import Remaining, remaining
from boucle.errors import BoucleError
from boucle.ports import Traced
from boucle.stream.origin import Inputs, told_of
from boucle.stream.sequence import state_of

__all__ = ["Lasting"]

_VERSION = 1
_ROOM = 512

Key = tuple[str | int | float | bool | None, ...]


class _Memory(Struct):
    """The state of one key; times in ns, ages in s."""

    start: int
    every: float
    begun: float = 0.0
    """Age at the beginning of the open median."""
    open: list[float] = []
    ages: list[float] = []
    levels: list[float] = []
    told: Remaining | None = None
    told_at: float = 0.0


class Lasting:
    """Every row again with `remaining_s` and `told_by` (`trend` or `age`); null until the first median is whole.

    `column` is the level, above 0; `worn` the level at which the kind fails and `life` its median life in s, both from
    machines that did. `by` is the key, `carry` columns passed on. A missing level, or one not above 0, tells nothing.
    Raises B765 for settings that cannot work.
    """

    def __init__(
        self,
        stream: str,
        *,
        column: str,
        worn: float,
        life: float,
        by: Sequence[str] = (),
        carry: Sequence[str] = (),
        every: float = 300.0,
    ) -> None:
        if not all(math.isfinite(one) and one > 0 for one in (worn, life, every)):
            what = f"worn {worn}, life {life}, every {every} cannot work"
            raise BoucleError("B765", what, fix="worn, life and every: numbers above 0")
        self._stream, self._column = stream, column
        self._by, self._carry = tuple(by), tuple(carry)
        self._worn, self._life, self._every = worn, life, every
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
        """Keys, time and carried columns as they are; the rest from the level and the age of the key."""
        del declared
        says, per = "trend of the level up to where the kind fails", "each key has its own life"
        return told_of(
            inputs, [column, "at"], says, by=by, per=per, tells=("remaining_s", "told_by"), carry=carry
        )

    def step(self, block: Block) -> Sequence[Block]:
        """Every row again, judged by what came before it."""
        rows = block.rows
        levels = rows.column(self._column).cast(pa.float64()).to_pylist()
        times = rows.column("at").cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_pylist()
        names = [rows.column(name).to_pylist() for name in self._by]
        keys = list(zip(*names, strict=True)) if names else [()] * rows.num_rows
        told = [self._judge(key, at, level) for key, at, level in zip(keys, times, levels, strict=True)]
        out = rows.select(list(dict.fromkeys([*self._by, "at", *self._carry])))
        out = out.append_column("remaining_s", pa.array([one and one.seconds for one in told], pa.float64()))
        out = out.append_column("told_by", pa.array([one and one.by for one in told], pa.string()))
        return [Block(self._stream, out, block.watermark, block.position)]

    def _judge(self, key: Key, at: int, level: float | None) -> Remaining | None:
        memory = self._keys.get(key)
        if memory is None:
            memory = self._keys[key] = _Memory(at, self._every)
        age = (at - memory.start) / SECOND
        if age - memory.begun >= memory.every:
            self._close(memory, age)
        if level is not None and math.isfinite(level) and level > 0:
            memory.open.append(level)
        if memory.told is None:
            return None
        left = memory.told.seconds - max(age - memory.told_at, 0.0)
        return Remaining(max(left, 0.0), memory.told.by)

    def _close(self, memory: _Memory, age: float) -> None:
        """End the open median, and say what is left by all of them."""
        if memory.open:
            memory.ages.append(memory.begun + memory.every)
            memory.levels.append(float(np.median(memory.open)))
            memory.open = []
            ages, levels = np.array(memory.ages), np.array(memory.levels)
            memory.told = remaining(ages, levels, worn=self._worn, life=self._life)
            memory.told_at = memory.ages[-1]
            if len(memory.ages) == _ROOM:
                memory.ages = ages[1::2].tolist()
                memory.levels = np.sqrt(levels[::2] * levels[1::2]).tolist()
                memory.every *= 2
        memory.begun = age - (age - memory.begun) % memory.every

    def snapshot(self) -> bytes:
        """The state, as bytes."""
        return msgspec.msgpack.encode((_VERSION, list(self._keys.items())))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when it is of another version."""
        _, keys = state_of(tuple[int, list[tuple[Key, _Memory]]], state, _VERSION, self._stream)
        self._keys = dict(keys)

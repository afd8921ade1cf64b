"""What an objective counts, and how: rows as they pass, time as it goes.

A measure is shown Blocks (`see`) and the time (`look`) and gives cells: how many of how many were good in a minute.
`mark` is how far it had come; `resume` goes on from there, so that the time while nobody looked is counted too where it
is known what happened in it: a table that nobody filled grows old. A clock that goes back counts nothing twice.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import Block, in_nanos
from boucle.clock import SECOND, Nanos
from boucle.product.sla import Objective
from boucle.quality.slo.counts import MINUTE_MS, Cell, minutes_between
from boucle.quality.slo.truth import Truth

__all__ = ["Counters", "Fresh", "Measure", "PerMinute", "Probe", "Rows", "Tally", "measure_of"]

_MS = SECOND // 1000
_MINUTE = MINUTE_MS * _MS
_ALIVE = 3
"""Intervals between two looks at a probe after which nobody knows what was in between."""

Tally = tuple[int, int]
"""Good and total since the start of the process."""


class Measure(Protocol):
    """What one objective counts."""

    why: str
    """Why nothing can be counted; empty while all is well."""

    def see(self, block: Block, now: Nanos) -> Iterable[Cell]:
        """Rows of the objective's stream passed."""

    def took(self, seconds: float, now: Nanos) -> Iterable[Cell]:
        """A command was done and read back, so long after what caused it."""

    def ask(self, now: Nanos) -> None:
        """Ask whatever must be asked outside; it may take a second, so no lock should be held."""

    def look(self, now: Nanos) -> Iterable[Cell]:
        """Time passed."""

    def mark(self) -> Any:
        """How far it has come, for JSON."""

    def resume(self, mark: Any) -> None:
        """Go on from a mark; one that is not understood is left alone."""


class _Plain:
    """A measure that nothing happens to."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.why = objective, ""

    def see(self, block: Block, now: Nanos) -> Iterable[Cell]:
        del block, now
        return ()

    def took(self, seconds: float, now: Nanos) -> Iterable[Cell]:
        del seconds, now
        return ()

    def ask(self, now: Nanos) -> None:
        del now

    def look(self, now: Nanos) -> Iterable[Cell]:
        del now
        return ()

    def mark(self) -> Any:
        return None

    def resume(self, mark: Any) -> None:
        del mark

    def _column(self, block: Block) -> pa.Array | None:
        name = self.objective.column
        if name in block.rows.schema.names:
            self.why = ""
            return block.rows.column(name)
        self.why = f"{block.stream} has no column {name}"
        return None

    def _times(self, block: Block) -> NDArray[np.int64] | None:
        column = self._column(block)
        if column is None or not len(column):
            return None
        kind = column.type
        if not (pa.types.is_timestamp(kind) or pa.types.is_integer(kind)):
            self.why = f"{self.objective.column} is {kind}, not a time"
            return None
        times: NDArray[np.int64] = (
            in_nanos(column.drop_null()).to_numpy(zero_copy_only=False).astype(np.int64)
        )
        return times


class Fresh(_Plain):
    """Time during which the newest row (freshness), or the last arrival (frequency), was not older than the bound."""

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective)
        self._bound = round(objective.bound * SECOND)
        self._counted: Nanos = 0
        self._until: Nanos = 0

    def see(self, block: Block, now: Nanos) -> Iterable[Cell]:
        if not len(block):
            return ()
        newest = now
        if self.objective.measure == "freshness":
            times = self._times(block)
            if times is None or not len(times):
                return ()
            newest = min(int(times.max()), now)  # a clock ahead of ours makes nothing fresher than now
        cells = list(self.look(now))
        self._until = max(self._until, newest + self._bound)
        return cells

    def look(self, now: Nanos) -> Iterable[Cell]:
        if not self._counted:
            self._counted, self._until = now, now + self._bound
            return ()
        start, self._counted = self._counted, max(self._counted, now)
        return _span(start, self._until, self._counted, self.objective)

    def mark(self) -> Any:
        return [self._counted, self._until]

    def resume(self, mark: Any) -> None:
        if _numbers(mark, 2):
            self._counted, self._until = mark


def _span(start: Nanos, until: Nanos, end: Nanos, objective: Objective) -> Iterator[Cell]:
    first = end - round(objective.window * SECOND)  # what is older is forgotten anyhow
    return minutes_between(max(start, first) // _MS, until // _MS, end // _MS)


class Probe(_Plain):
    """Time during which something answered. `ask` says whether it does: True, False, or None where that is unknown."""

    def __init__(self, objective: Objective, ask: Callable[[], bool | None], every: float) -> None:
        super().__init__(objective)
        self._asks, self._every = ask, round(every * SECOND)
        self._asked: Nanos = 0
        self._answers: list[tuple[Nanos, Nanos, bool]] = []
        """From when to when, and what the answer was."""

    def ask(self, now: Nanos) -> None:
        if self._asked and now < self._asked + self._every:
            return
        before, self._asked = self._asked, max(now, self._asked)
        answer = self._asks()
        if answer is not None and before and now <= before + _ALIVE * self._every:
            self._answers.append((before, now, answer))  # else nobody knows what was meanwhile

    def look(self, now: Nanos) -> Iterable[Cell]:
        del now
        answers, self._answers = self._answers, []
        return [
            cell
            for start, end, answer in answers
            for cell in _span(start, end if answer else 0, end, self.objective)
        ]


class PerMinute(_Plain):
    """Rows that came within each whole minute, beside those that should."""

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective)
        per_second = objective.rate or objective.bound
        self._expected = max(1, math.ceil(60 * per_second))
        self._minute, self._rows = -1, 0

    def see(self, block: Block, now: Nanos) -> Iterable[Cell]:
        cells = list(self.look(now))
        self._rows += len(block)
        return cells

    def look(self, now: Nanos) -> Iterable[Cell]:
        minute = now // _MINUTE
        if self._minute < 0:
            self._minute, self._rows = minute, 0
            return ()
        cells: list[Cell] = []
        window = round(self.objective.window / 60)
        while self._minute < minute:
            if self._minute >= minute - window:
                cells.append((self._minute, *self._told()))
            self._rows, self._minute = 0, max(self._minute + 1, minute - window)
        return cells

    def _told(self) -> Tally:
        if self.objective.measure == "throughput":
            return int(self._rows >= self._expected), 1
        return min(self._rows, self._expected), self._expected

    def mark(self) -> Any:
        return [self._minute, self._rows]

    def resume(self, mark: Any) -> None:
        if _numbers(mark, 2):
            self._minute, self._rows = mark


class Counters(_Plain):
    """Rows by the sources' own counters."""

    def __init__(self, objective: Objective, read: Callable[[], Tally]) -> None:
        super().__init__(objective)
        self._read = read
        self._known: Tally = (0, 0)

    def look(self, now: Nanos) -> Iterable[Cell]:
        before, self._known = self._known, self._read()
        good, total = self._known[0] - before[0], self._known[1] - before[1]
        return [(now // _MINUTE, good, total)] if total else ()


class Rows(_Plain):
    """Rows that were in time (latency), or agree with a source of truth (accuracy); or commands that were in time."""

    def __init__(self, objective: Objective, truth: Truth | None = None) -> None:
        super().__init__(objective)
        self._truth = truth

    def see(self, block: Block, now: Nanos) -> Iterable[Cell]:
        if self._truth is not None:
            good, total = self._truth.judge(block.rows)
            self.why = self._truth.why
        else:
            times = self._times(block)
            total = 0 if times is None else len(times)
            good = 0 if times is None else int((now - times <= self.objective.bound * SECOND).sum())
        return [(now // _MINUTE, good, total)] if total else ()

    def took(self, seconds: float, now: Nanos) -> Iterable[Cell]:
        if self.objective.stream:
            return ()
        return [(now // _MINUTE, int(seconds <= self.objective.bound), 1)]


def _numbers(mark: Any, count: int) -> bool:
    sound = isinstance(mark, list) and len(mark) == count
    return sound and all(type(one) is int and -1 <= one < 2**63 for one in mark)


def measure_of(
    objective: Objective, ask: Callable[[], bool | None], count: Callable[[], Tally], truth: Truth | None
) -> Measure:
    """The measure of an objective: `ask` whether something answers, `count` what the sources counted."""
    match objective.measure:
        case "freshness" | "frequency":
            return Fresh(objective)
        case "availability":
            return Probe(objective, ask, every=10.0)
        case "throughput":
            return PerMinute(objective)
        case "completeness" if objective.rate:
            return PerMinute(objective)
        case "completeness" | "errorRate":
            return Counters(objective, count)
        case _:
            return Rows(objective, truth)

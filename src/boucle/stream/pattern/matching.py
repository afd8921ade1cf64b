"""The ways through a pattern that the rows of a key are on, and how a row or the time moves them on."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from boucle.clock import Nanos
from boucle.stream.pattern.conditions import Conditions, Now, Records
from boucle.stream.pattern.program import ACCEPT, START, Program, bits

__all__ = ["NEVER", "KeyState", "Matching", "Run", "Start"]

NEVER: Nanos = 2**62


class Run(Struct, array_like=True, frozen=True):
    """One way through the pattern, so far."""

    place: int
    records: Records
    since: Nanos
    gap: bool = False
    hit: int = 0
    hold: Nanos = 0
    options: int = -1
    """How many of the place's options are still wanted; -1: all."""


class Start(Struct, array_like=True):
    """All ways through the pattern from one first row, the preferred first; the best that is complete."""

    number: int
    at: Nanos
    runs: list[Run]
    best: Records | None = None
    due: Nanos = 0
    listens: int = -1
    """Mask of the steps that could change anything here; -1: any row does."""


class KeyState(Struct, array_like=True):
    number: int = 0
    starts: list[Start] = []
    previous: tuple[Any, ...] | None = None
    held: list[str] = []
    """Steps with `for` whose condition was true at the last row."""
    due: Nanos = 0


class Matching:
    """The rules of one pattern. `strict`: steps before which no row is skipped; `hold` (ns): those with `for`."""

    def __init__(
        self,
        program: Program,
        conditions: Conditions,
        strict: Mapping[str, bool],
        hold: Mapping[str, Nanos],
        within: Nanos | None,
    ) -> None:
        self.program, self.conditions = program, conditions
        self.strict, self.hold, self.within = strict, hold, within
        self.listens = {place: self._heard(place) for place in program.options}
        # Runs at one place with one past are one when nothing they took can be asked for again.
        self._merge = not hold and all(map(conditions.looks_at_row, program.steps))

    def _heard(self, place: int) -> int:
        """Mask of the steps, and of the `not` steps before them, that may come next."""
        heard = 0
        for target, nots in self.program.options[place]:
            heard |= 0 if target == ACCEPT else 1 << self.conditions.bit[self.program.code[target][1]]
            for bit in bits(nots):
                heard |= 1 << self.conditions.bit[self.program.nots[bit].name]
        return heard

    def next(self, place: int) -> Iterator[tuple[int, int]]:
        """What may follow a place: (place of a step, mask of the `not` steps on the way)."""
        return ((target, nots) for target, nots in self.program.options[place] if target != ACCEPT)

    def note(self, start: Start) -> None:
        """What the start waits for, so that it need not be looked at before."""
        start.due = self.due(start)
        start.listens = 0
        for run in start.runs:
            if run.hold or not run.gap:
                start.listens = -1
                return
            start.listens |= self.listens[run.place]

    def advance(self, start: Start, run: Run, now: Now, seen: set[tuple[int, ...]]) -> bool:
        """Take the row on one way; True when the pattern is complete and lesser ways are not wanted any more."""
        if run.hold:
            return self._hold_on(start, run, now)
        options = self.program.options[run.place]
        took = waits = False
        possible = 0
        for target, nots in options if run.options < 0 else options[: run.options]:
            if nots & run.hit:
                continue
            name = "" if target == ACCEPT else self.program.code[target][1]
            if name and run.gap and self.strict[name]:
                continue
            if not name or not self.strict[name]:
                waits, possible = True, possible | nots
            if not name or (run.place == START and name in now.held):
                continue
            verdict, records = self.conditions.judge(name, now, run.records)
            if verdict:
                took = True
                records = records or self.conditions.taken(run.records, name, now)
                if self._arrive(start, target, name, records, now.at, seen):
                    return True
        if not took and waits and run.place != START:
            self._skip(start, run, now, possible, seen)
        return False

    def _skip(self, start: Start, run: Run, now: Now, possible: int, seen: set[tuple[int, ...]]) -> None:
        hit = run.hit
        for bit in bits(possible):
            if self.conditions.judge(self.program.nots[bit].name, now, run.records)[0]:
                hit |= 1 << bit
        if run.gap and hit == run.hit:
            self._go_on(start, run, seen)
            return
        skipped = Run(run.place, run.records, run.since, gap=True, hit=hit, options=run.options)
        options = self.program.options[run.place]
        left = options if run.options < 0 else options[: run.options]
        if any(not nots & hit for _, nots in left):
            self._go_on(start, skipped, seen)

    def _hold_on(self, start: Start, run: Run, now: Now) -> bool:
        name = self.program.code[run.place][1]
        verdict, records = self.conditions.judge(name, now, run.records)
        if verdict:
            records = records or self.conditions.taken(run.records, name, now)
            start.runs.append(Run(run.place, records, now.at, hold=run.hold))
        elif verdict is None and not self.strict[name]:
            start.runs.append(run)
        return False

    def _arrive(
        self, start: Start, place: int, name: str, records: Records, at: Nanos, seen: set[tuple[int, ...]]
    ) -> bool:
        if name in self.hold:
            start.runs.append(Run(place, records, at, hold=at + self.hold[name]))
            return False
        return self._land(start, Run(place, records, at), seen)

    def _land(self, start: Start, run: Run, seen: set[tuple[int, ...]]) -> bool:
        options = self.program.options[run.place]
        if options[-1] != (ACCEPT, 0):
            self._go_on(start, run, seen)
            return False
        start.best = run.records
        if len(options) > 1:
            self._go_on(start, msgspec.structs.replace(run, options=len(options) - 1), seen)
        return True

    def _go_on(self, start: Start, run: Run, seen: set[tuple[int, ...]]) -> None:
        if self._merge:
            same = (run.place, run.gap, run.hit, run.options)
            if same in seen:
                return
            seen.add(same)
        start.runs.append(run)

    def _end(self, start: Start) -> Nanos:
        return NEVER if self.within is None else start.at + self.within

    def due(self, start: Start) -> Nanos:
        """When time alone changes something here."""
        times = (run.hold or self._absent(start, run)[0] for run in start.runs)
        return min([self._end(start), *times]) if self.hold or self.program.nots else self._end(start)

    def _absent(self, start: Start, run: Run) -> tuple[Nanos, int]:
        """When absence at the end is complete, and which option that is."""
        options = self.program.options[run.place]
        for index, (target, nots) in enumerate(options if run.options < 0 else options[: run.options]):
            if target == ACCEPT and nots and not nots & run.hit:
                names = (self.program.nots[bit].name for bit in bits(nots))
                ends = [run.since + self.hold[name] if name in self.hold else NEVER for name in names]
                return min(self._end(start), max(ends)), index
        return NEVER, -1

    def elapsed(self, start: Start, run: Run, at: Nanos) -> bool:
        """Complete or end a way because time has passed; True when lesser ways are not wanted any more."""
        if run.hold and run.hold <= at:
            return self._land(start, Run(run.place, run.records, at), set())
        if not run.hold:
            absent, index = self._absent(start, run)
            if absent <= at:
                start.best = run.records
                if index and self._end(start) > at:
                    start.runs.append(msgspec.structs.replace(run, options=index))
                return True
        if self._end(start) > at:
            start.runs.append(run)
        return False

"""A declared pattern, and the list of instructions it becomes."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct

from boucle.errors import BoucleError

__all__ = ["ACCEPT", "START", "PatternStep", "Program", "bits"]

ACCEPT, START = -1, -1
_MOST = 500
_REPEAT = re.compile(r"(?:([?*+])|\{(\d+)(,)?(\d+)?\})(\??)")


class PatternStep(Struct, forbid_unknown_fields=True, rename={"for_": "for", "not_": "not"}):
    """A named step with a condition; or a group of `steps`; or alternatives, `any` of several."""

    name: str = ""
    where: str = ""
    repeat: str = ""
    """`?`, `*`, `+`, `{n}`, `{n,}`, `{n,m}`; a `?` behind it makes it take as few rows as it can."""
    for_: str | float | None = None
    not_: bool = False
    contiguity: Literal["strict", "relaxed"] | None = None
    steps: "list[PatternStep]" = []
    any: "list[PatternStep]" = []


class Program:
    """The pattern as a list of instructions (Thompson, CACM 1968; priorities as in Pike's machine).

    `options[p]`: what may follow the step at p, the preferred first: (place of the step or ACCEPT, mask of
    the `not` steps on the way).
    """

    def __init__(self, stream: str, steps: Sequence[PatternStep]) -> None:
        self._stream = stream
        self.code: list[tuple[str, Any, Any]] = []
        self.steps: dict[str, PatternStep] = {}
        self.nots: list[PatternStep] = []
        self._sequence(steps)
        self._add("accept")
        takes = [place for place, (op, _, _) in enumerate(self.code) if op == "take"]
        self.options = {START: self._after(0)} | {place: self._after(place + 1) for place in takes}
        if any(target == ACCEPT for target, _ in self.options[START]):
            self.refuse("the pattern matches without any row", "let at least one step be needed")

    def refuse(self, what: str, fix: str) -> None:
        raise BoucleError("B220", f"{self._stream}: {what}", fix=fix)

    def _add(self, op: str, one: Any = None, two: Any = None) -> int:
        if len(self.code) >= _MOST:
            self.refuse(f"more than {_MOST} steps when written out", "count rows with `count(step)` instead")
        self.code.append((op, one, two))
        return len(self.code) - 1

    def _sequence(self, steps: Sequence[PatternStep]) -> None:
        for step in steps:
            self._repeated(step)

    def _repeated(self, step: PatternStep) -> None:
        least, most, greedy = self._bounds(step)
        for _ in range(least):
            self._once(step)
        if most is None:
            split = self._add("split")
            self._once(step)
            self._add("jump", split)
            self._branch(split, greedy=greedy)
        else:
            splits = []
            for _ in range(most - least):
                splits.append(self._add("split"))
                self._once(step)
            for split in splits:
                self._branch(split, greedy=greedy)

    def _branch(self, split: int, *, greedy: bool) -> None:
        inside, behind = split + 1, len(self.code)
        self.code[split] = ("split", inside, behind) if greedy else ("split", behind, inside)

    def _bounds(self, step: PatternStep) -> tuple[int, int | None, bool]:
        if not step.repeat:
            return 1, 1, True
        match = _REPEAT.fullmatch(step.repeat.replace(" ", ""))
        if match is None:
            self.refuse(f"repeat: {step.repeat!r}", "write ?, *, +, {n}, {n,} or {n,m}, a ? behind for few")
        assert match is not None
        sign, least, comma, most, few = match.groups()
        if sign:
            low, high = {"?": (0, 1), "*": (0, None), "+": (1, None)}[sign]
        else:
            low, high = int(least), int(most) if most else None if comma else int(least)
        if high is not None and (high < low or high == 0):
            self.refuse(f"repeat: {step.repeat!r} allows nothing", "write the smaller number first")
        if step.for_ is not None or step.not_:
            self.refuse(f"{step.name} has `for` or `not`, and repeat", "it stands once by its nature")
        return low, high, not few

    def _once(self, step: PatternStep) -> None:
        if step.any:
            jumps = []
            for index, one in enumerate(step.any):
                split = self._add("split") if index < len(step.any) - 1 else None
                self._repeated(one)
                if split is not None:
                    jumps.append(self._add("jump"))
                    self._branch(split, greedy=True)
            for jump in jumps:
                self.code[jump] = ("jump", len(self.code), None)
        elif step.steps:
            self._sequence(step.steps)
        else:
            self._named(step)

    def _named(self, step: PatternStep) -> None:
        if not step.name.isidentifier() or not step.where:
            self.refuse(f"step {step.name!r} wants a name and a condition", "write {name: hot, where: …}")
        if self.steps.setdefault(step.name, step) is not step:
            self.refuse(f"two steps are called {step.name}", "give each its own name")
        if step.not_:
            if step not in self.nots:
                self.nots.append(step)
            self._add("not", self.nots.index(step))
        else:
            self._add("take", step.name)

    def _after(self, place: int) -> tuple[tuple[int, int], ...]:
        found: list[tuple[int, int]] = []
        seen: set[tuple[int, int]] = set()
        left = [(place, 0)]
        while left:
            place, nots = left.pop()
            if (place, nots) in seen:
                continue
            seen.add((place, nots))
            op, one, two = self.code[place]
            if op == "take":
                found.append((place, nots))
            elif op == "accept":
                found.append((ACCEPT, nots))
                if not nots:
                    # Complete as soon as we are here: what would come after is never preferred.
                    break
            elif op == "not":
                left.append((place + 1, nots | 1 << one))
            else:
                left += [(way, nots) for way in (two, one) if way is not None]
        return tuple(found)


def bits(mask: int) -> Iterator[int]:
    return (bit for bit in range(mask.bit_length()) if mask >> bit & 1)

"""The path: Blocks pushed through the operators by direct calls, no queue and no await between them."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path as Folder
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from boucle.block import Block
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.loop.measure import Meter
from boucle.loop.parts import WHOLE
from boucle.loop.trace import Trace
from boucle.ports import Operator, Part, Partial

__all__ = ["Attached", "Closes", "Path", "Step", "StepTell", "Tap", "pieces", "restore_parts"]

Tap = Callable[[Block], None]


_SMALL = 64
"""Rows up to which a Block is worked through machine by machine; larger ones are a backlog: together is faster."""


def pieces(block: Block, partition: Sequence[str], watermark: Nanos) -> list[Block]:
    """A small Block cut where its first partition column changes, so that no machine waits for the next one's work.

    What is computed stays the same whatever the cut; the Block's watermark holds only after its last row,
    so the pieces before it carry the stream's earlier `watermark`.
    """
    if not partition or not 1 < len(block) <= _SMALL:
        return [block]
    keys = block.rows.column(partition[0]).to_pylist()
    cuts = [0, *(index for index in range(1, len(keys)) if keys[index] != keys[index - 1]), len(keys)]
    last = len(keys)
    return [
        Block(
            block.stream,
            block.rows.slice(start, end - start),
            block.watermark if end == last else watermark,
            block.position,
        )
        for start, end in pairwise(cuts)
    ]


@runtime_checkable
class Closes(Protocol):
    """An operator that holds something that must be given back."""

    def close(self) -> None:
        """Give it back. Safe to call twice."""
        ...


StepTell = Callable[[str, str, dict[str, str], dict[str, Any]], None]
"""(kind, severity, sentence per language, evidence)."""


@runtime_checkable
class Attached(Protocol):
    """An operator that keeps a record of its own, follows the world outside the stream, and tells of it."""

    def attach(self, folder: Folder, tell: StepTell) -> None:
        """Before `restore`: where its record is kept, and who hears of what happens to it."""
        ...

    def live(self) -> None:
        """What was worked through before a restart has come again; from now on rows are new. Not called in a replay."""
        ...


class Step(Struct, frozen=True):
    """An operator at its place in the plan."""

    id: str
    use: str
    inputs: tuple[str, ...]
    operator: Operator
    title: dict[str, str] = {}


class Path:
    """The operators of one product, called in the declared order by one thread.

    `taps` decide and are called on the way; those `beside` are called by `settle`, after the decisions.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        taps: Mapping[str, Sequence[Tap]],
        beside: Mapping[str, Sequence[Tap]] | None = None,
    ) -> None:
        self.steps = tuple(steps)
        self.meters = {step.id: Meter() for step in steps}
        self._taps = {stream: list(calls) for stream, calls in taps.items()}
        self._beside = {stream: list(calls) for stream, calls in (beside or {}).items()}
        self.trace: Trace | None = None
        """Of the Block that is being pushed, when it was sampled."""
        self._passed: list[Block] = []
        self.passed_since: float | None = None
        """When the oldest Block passed that those beside have not been shown (monotonic seconds)."""
        self._readers: dict[str, list[Step]] = {}
        for step in steps:
            for stream in step.inputs:
                self._readers.setdefault(stream, []).append(step)

    def tap(self, stream: str, call: Tap) -> None:
        """Let `call` see every Block of a stream, beside the path."""
        self._beside.setdefault(stream, []).append(call)

    def push(self, block: Block) -> None:
        """Take one Block all the way: every reader of its stream, then the readers of what they gave."""
        for tap in self._taps.get(block.stream, ()):
            tap(block)
        if block.stream in self._beside:
            self._passed.append(block)
            if self.passed_since is None:
                self.passed_since = time.monotonic()
        for step in self._readers.get(block.stream, ()):
            started = time.perf_counter_ns()
            given = step.operator.step(block)
            ended = time.perf_counter_ns()
            rows = sum(len(out) for out in given)
            self.meters[step.id].add(len(block), rows, (ended - started) / 1e9)
            if self.trace is not None:
                self.trace.add(f"step {step.id}", started, ended, {"rows_in": len(block), "rows_out": rows})
            for out in given:
                self.push(out)

    def settle(self) -> None:
        """Show what passed to those beside the path: tables and screens, which no decision waits for."""
        passed, self._passed, self.passed_since = self._passed, [], None
        for block in passed:
            for tap in self._beside[block.stream]:
                tap(block)

    def attach(self, folder: Folder, tell: Callable[[str], StepTell]) -> None:
        """Give the operators that keep a record a folder each; `tell` makes who hears of a step, by its id."""
        for step in self.steps:
            if isinstance(step.operator, Attached):
                step.operator.attach(folder / step.id.replace("/", "_"), tell(step.id))

    def live(self) -> None:
        """From now on rows are new."""
        for step in self.steps:
            if isinstance(step.operator, Attached):
                step.operator.live()

    def close(self) -> None:
        """Let the operators that hold processes or files give them back."""
        for step in self.steps:
            if isinstance(step.operator, Closes):
                step.operator.close()

    def snapshot(self, *, everything: bool = True) -> dict[str, dict[str, Part]]:
        """The state of every step by its parts: all, or those that changed since the last call.

        Of an operator that has no parts it is one piece, whether it changed or not.
        """
        return {step.id: _parts(step.operator, everything) for step in self.steps}

    def restore(self, states: Mapping[str, Mapping[str, bytes]]) -> None:
        """Continue from the newest of every part; B602 when a step takes its state in another way now."""
        for step in self.steps:
            if step.id not in states:
                continue
            restore_parts(step.id, step.operator, states[step.id])


def _parts(operator: Operator, everything: bool) -> dict[str, Part]:
    if isinstance(operator, Partial):
        return dict(operator.parts(everything=everything))
    return {WHOLE: operator.snapshot()}


def restore_parts(step: str, operator: Operator, parts: Mapping[str, bytes]) -> None:
    """Let an operator continue from its stored parts; B602 when they are not of the kind it gives."""
    if isinstance(operator, Partial) == (WHOLE in parts):
        why = "it was taken as a whole" if WHOLE in parts else "it was taken in parts"
        raise BoucleError(
            "B602",
            f"the state of {step} was written by another version",
            why=why,
            fix="remove the checkpoint's folder to start afresh",
        )
    if isinstance(operator, Partial):
        operator.restore_parts(parts)
    else:
        operator.restore(parts[WHOLE])

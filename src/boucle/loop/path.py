"""The path: Blocks pushed through the operators by direct calls, no queue and no await between them."""

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from boucle.block import Block
from boucle.loop.measure import Meter
from boucle.ports import Operator

__all__ = ["Path", "Step", "Tap"]

Tap = Callable[[Block], None]


class Step(Struct, frozen=True):
    """An operator at its place in the plan."""

    id: str
    use: str
    inputs: tuple[str, ...]
    operator: Operator
    title: dict[str, str] = {}


class Path:
    """The operators of one product, called in the declared order by one thread."""

    def __init__(self, steps: Sequence[Step], taps: Mapping[str, Sequence[Tap]]) -> None:
        self.steps = tuple(steps)
        self.meters = {step.id: Meter() for step in steps}
        self._taps = {stream: list(calls) for stream, calls in taps.items()}
        self._readers: dict[str, list[Step]] = {}
        for step in steps:
            for stream in step.inputs:
                self._readers.setdefault(stream, []).append(step)

    def tap(self, stream: str, call: Tap) -> None:
        """Let `call` see every Block of a stream, before its readers do."""
        self._taps.setdefault(stream, []).append(call)

    def push(self, block: Block) -> None:
        """Take one Block all the way: every reader of its stream, then the readers of what they gave."""
        for tap in self._taps.get(block.stream, ()):
            tap(block)
        for step in self._readers.get(block.stream, ()):
            started = time.perf_counter()
            given = step.operator.step(block)
            took = time.perf_counter() - started
            self.meters[step.id].add(len(block), sum(len(out) for out in given), took)
            for out in given:
                self.push(out)

    def snapshot(self) -> bytes:
        """The state of every operator."""
        return msgspec.msgpack.encode({step.id: step.operator.snapshot() for step in self.steps})

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot of the same plan."""
        states = msgspec.msgpack.decode(state, type=dict[str, bytes])
        for step in self.steps:
            if step.id in states:
                step.operator.restore(states[step.id])

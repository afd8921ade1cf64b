"""History through the same code: sources replaced by a file or the lake, and no machine is ever moved."""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from boucle.block import Block, Position
from boucle.clock import SECOND, Clock, Nanos
from boucle.event import Command, Outcome, Receipt
from boucle.loop.intake import newest_sample
from boucle.loop.run import Loop
from boucle.ports import Source

__all__ = ["Ahead", "DryActuator", "Labelled", "ReplayClock", "Span", "play"]


class ReplayClock:
    """The clock of a replay: it stands where the replayed readings stand.

    So "future" means later than what was replayed so far, and nothing expires for being old.
    """

    speed = 1.0

    def __init__(self) -> None:
        self._now: Nanos = 0

    def now(self) -> Nanos:
        """The newest event time replayed so far."""
        return self._now

    def reach(self, at: Nanos) -> None:
        """The replay has come to `at`."""
        self._now = max(self._now, at)

    def sleep(self, seconds: float) -> None:
        """A replay waits for nobody."""
        del seconds


class Span(Struct, frozen=True):
    """What is replayed: event times in ns; `warm` is replayed before `since` and not compared."""

    since: Nanos | None = None
    until: Nanos | None = None
    warm: Nanos = 0

    @property
    def begin(self) -> Nanos | None:
        """Where the replay begins."""
        return None if self.since is None else self.since - self.warm


class Ahead:
    """A source that shows the time of its next Block before giving it, and moves the replay's clock."""

    def __init__(self, source: Source, clock: ReplayClock, time_column: str) -> None:
        self.facts = source.facts
        self._source, self._clock, self._time = source, clock, time_column
        self._next: Block | None = None
        self.reached: Nanos = 0
        """The watermark that was behind the last Block when it was stored."""

    def open(self, resume: Position | None = None) -> None:
        """Open the source and look at its first Block."""
        self._source.open(resume)
        self._next = self._source.poll(1.0)

    def next_at(self) -> Nanos | None:
        """Event time of the first row of the next Block; None at the end."""
        if self._next is None:
            return None
        return int(pc.min(self._next.rows.column(self._time)).cast(pa.int64()).as_py())

    def poll(self, wait: float) -> Block | None:
        """The Block that was shown."""
        block, self._next = self._next, self._source.poll(wait)
        if block is not None:
            self._clock.reach(newest_sample(block, self._time))
            self.reached = max(self.reached, block.watermark)
        return block

    def commit(self, upto: Position) -> None:
        """Pass it on."""
        self._source.commit(upto)

    def state(self) -> str:
        """`finished` once the last Block was given."""
        return self._source.state() if self._next is None else "connected"

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def play(loop: Loop, sources: dict[str, Ahead], speed: float | None) -> Iterator[Nanos]:
    """Work through all sources in event-time order, at `speed` times real time or as fast as possible.

    Gives the event time it has come to, after every Block. The loop must be open; it is left open.
    """
    begun = time.monotonic()
    first: Nanos | None = None
    while True:
        due = [(at, name) for name, source in sources.items() if (at := source.next_at()) is not None]
        if not due:
            loop.settle()
            return
        at, name = min(due)
        first = at if first is None else first
        if speed is not None:
            time.sleep(max(0.0, begun + (at - first) / SECOND / speed - time.monotonic()))
        loop.advance(name)
        yield at


class DryActuator:
    """Takes every Command and does nothing: its Receipts say `refused`, code `replay`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def open(self) -> None:
        """There is nothing to connect to."""

    def send(self, command: Command) -> Receipt:
        """Say that it would have been sent."""
        why = "a replay never moves a machine"
        return Receipt(command.id, command.target, Outcome.refused, self._clock.now(), why, "replay")

    def read(self, target: str) -> Any:
        """Nothing is known of the machine as it was then."""
        del target
        return math.nan

    def state(self) -> str:
        """Always ready."""
        return "connected"

    def close(self) -> None:
        """There is nothing to close."""


class Labelled(Struct):
    """Alerts beside labels, per recording: what `replay` shows of labelled input.

    F1 over rows; FAR (false alarm rate) = alerts among rows labelled normal, MAR (missed alarm rate)
    = labelled rows without an alert, both in percent; rows without a score or a label do not count.
    """

    by: str
    label: str
    counts: dict[str, list[int]] = {}
    """Recording → [true positive, false positive, missed, true negative]."""
    spans: dict[str, dict[str, list[list[Nanos]]]] = {}
    """Recording → "labels" and "alerts" → [[from, to, still open], …]."""

    def see(self, block: Block) -> None:
        """A Block of scored rows flowed by."""
        columns = ["at", "alert", "score", self.label, *([self.by] if self.by else [])]
        rows = block.rows.select(columns).to_pylist()
        times = block.rows.column("at").cast("int64").to_pylist()
        for row, at in zip(rows, times, strict=True):
            if row["score"] is None or row[self.label] is None:
                continue
            name = str(row[self.by]) if self.by else "all"
            alert, label = bool(row["alert"]), bool(row[self.label])
            counted = self.counts.setdefault(name, [0, 0, 0, 0])
            counted[
                {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}[alert, label]
            ] += 1
            spans = self.spans.setdefault(name, {"labels": [], "alerts": []})
            _extend(spans["labels"], at, label)
            _extend(spans["alerts"], at, alert)

    def figures(self, names: Sequence[str] | None = None) -> dict[str, float | None]:
        """F1, FAR and MAR over the given recordings (all when None)."""
        chosen = list(self.counts) if names is None else names
        hit, false, missed, quiet = (sum(self.counts[name][i] for name in chosen) for i in range(4))
        return {
            "f1": _ratio(2 * hit, 2 * hit + false + missed, 1),
            "far": _ratio(false, false + quiet, 100),
            "mar": _ratio(missed, missed + hit, 100),
        }


def _extend(spans: list[list[Nanos]], at: Nanos, inside: bool) -> None:
    if inside and spans and spans[-1][2] == 1:
        spans[-1][1] = at
    elif inside:
        spans.append([at, at, 1])
    elif spans:
        spans[-1][2] = 0


def _ratio(part: int, whole: int, times: int) -> float | None:
    return round(times * part / whole, 3) if whole else None

"""Lets the logs of sources and steps forget what they were declared to keep no longer, and nobody needs.

A log holds back by itself what a consumer group has not committed (`boucle.bus.log_groups`). So the loop is one
more group of each log that forgets: it commits what the last checkpoint on disk, every table and a restart that
looks back for duplicates are done with.
"""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from boucle.block import Position
from boucle.bus.log import EventLog, Group, Retention
from boucle.bus.segments import segment_files
from boucle.clock import SECOND, Clock, Nanos
from boucle.errors import BoucleError
from boucle.loop.checkpoint import Checkpoint, read_checkpoint
from boucle.loop.intake import Intake, lookback
from boucle.product.document import SourceSpec, StepSpec, kept
from boucle.product.duration import seconds
from boucle.product.size import size

__all__ = ["GROUP", "LogRetention", "LogSize", "kept_log", "retention"]

_log = logging.getLogger("boucle.loop.retention")

GROUP = "loop"
"""The consumer group that stands for the loop in each log that forgets."""
_EVERY = 30 * SECOND
_SEGMENT = 64 << 20
_SMALLEST = 64 << 10


def kept_log(folder: Path, spec: SourceSpec | StepSpec, clock: Clock) -> EventLog:
    """A log of a source or a step; its segments are small enough that what is kept is near what was asked for."""
    keep = retention(spec)
    segment = _SEGMENT if keep.bytes is None else max(_SMALLEST, min(_SEGMENT, keep.bytes // 8))
    return EventLog(folder, keep=keep, clock=clock, segment_bytes=segment)


def retention(spec: SourceSpec | StepSpec) -> Retention:
    """What the logs of a source or a step keep, each."""
    keep = kept(spec.keep)
    return Retention(
        seconds(keep.age) if keep.age else None,
        size(keep.bytes) if keep.bytes else None,
    )


class Derived(Protocol):
    """What is asked of the logs of steps; `boucle.loop.tables` answers."""

    def logs(self) -> Iterable[EventLog]:
        """The log of each derived stream."""
        ...

    def committed(self, stream: str) -> int | None:
        """The row of a log before which every table it feeds has everything, for good; None when one cannot say."""
        ...

    def lookback(self, stream: str) -> int:
        """The first row of a derived log that a restart reads to know its duplicates."""
        ...


class LogSize(Struct):
    """What a source's two logs (accepted and late) hold."""

    rows: int = 0
    bytes: int = 0
    removed: int = 0
    """Segments removed since the loop was started."""


class LogRetention:
    """The logs that forget; the keeper calls `look` often, and now and then it does something."""

    def __init__(
        self, intakes: Mapping[str, Intake], derived: Derived, checkpoint: Path, clock: Clock
    ) -> None:
        self.sizes = {name: LogSize() for name in intakes}
        self._intakes, self._derived = intakes, derived
        self._checkpoint, self._clock = checkpoint, clock
        self._groups: dict[str, Group] = {}
        self._due: Nanos = 0

    def open(self) -> None:
        """Hold what the logs have, before anything is appended that might let them forget."""
        for intake in self._intakes.values():
            if retention(intake.spec) != Retention():
                for log in (intake.log, intake.late):
                    self._groups[log.stream] = log.group(GROUP)
            self._measure(intake)
        for log in self._derived.logs():
            if log.keep != Retention():
                self._groups[log.stream] = log.group(GROUP)

    def look(self) -> None:
        """When half a minute has passed: say what is done with, remove what may go, and measure."""
        now = self._clock.now()
        if now >= self._due:
            self._due = now + int(_EVERY * self._clock.speed)
            self.apply()

    def apply(self) -> None:
        """Say what is done with, remove what may go, and measure. `Unavailable` when the disk takes nothing."""
        found = self._found() if self._groups else None
        for intake in self._intakes.values():
            if intake.log.stream in self._groups:
                done = None if found is None else found.positions.get(intake.id)
                back = partial(lookback, time_column=intake.contract.time, horizon=intake.horizon, least=1)
                removed = self._forget(intake.log, done, back(intake.log))
                removed += self._forget(intake.late, Position(intake.late.stream, _ALL), back(intake.late))
                self.sizes[intake.id].removed += removed
            self._measure(intake)
        for log in self._derived.logs():
            if log.stream in self._groups:
                done = None if found is None else (found.derived or {}).get(log.stream)
                self._forget(log, done, self._derived.lookback(log.stream))

    def _forget(self, log: EventLog, done: Position | None, back: int) -> int:
        """Let a log forget what is before `done`, `back` and what its tables lack; the segments that went."""
        stored = self._derived.committed(log.stream)
        if done is not None and stored is not None:
            needed = min(done.offset, stored, back)
            self._groups[log.stream].commit(Position(log.stream, needed))
        return log.retain()

    def _found(self) -> Checkpoint | None:
        """The checkpoint a restart would find; None: everything is needed."""
        try:
            read = read_checkpoint(self._checkpoint)
        except BoucleError as error:
            _log.warning("nothing is removed from the logs: %s", error)
            return None
        return None if read is None else read.checkpoint

    def _measure(self, intake: Intake) -> None:
        logs = (intake.log, intake.late)
        told = self.sizes[intake.id]
        told.rows = sum(log.durable().offset - log.start().offset for log in logs)
        told.bytes = sum(file.stat().st_size for log in logs for _, file in segment_files(log.folder))


_ALL = 2**62
"""No checkpoint ever reads late rows again."""

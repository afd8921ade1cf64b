"""Lets the logs of the sources forget what they were declared to keep no longer, and nobody needs.

A log holds back by itself what a consumer group has not committed (`boucle.bus.log_groups`). So the loop is one
more group of each log that forgets: it commits what the last checkpoint on disk, every table and a restart that
looks back for duplicates are done with.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from boucle.block import Position
from boucle.bus.log import EventLog, Group, Retention
from boucle.bus.segments import segment_files
from boucle.clock import SECOND, Clock, Nanos
from boucle.errors import BoucleError
from boucle.loop.checkpoint import read_checkpoint
from boucle.loop.intake import Intake, lookback
from boucle.product.document import SourceSpec, kept
from boucle.product.duration import seconds
from boucle.product.size import size

__all__ = ["GROUP", "LogRetention", "LogSize", "retention", "source_log"]

_log = logging.getLogger("boucle.loop.retention")

GROUP = "loop"
"""The consumer group that stands for the loop in each log that forgets."""
_EVERY = 30 * SECOND
_SEGMENT = 64 << 20
_SMALLEST = 64 << 10


def source_log(folder: Path, spec: SourceSpec, clock: Clock) -> EventLog:
    """A log of a source; its segments are small enough that what is kept is near what was asked for."""
    keep = retention(spec)
    segment = _SEGMENT if keep.bytes is None else max(_SMALLEST, min(_SEGMENT, keep.bytes // 8))
    return EventLog(folder, keep=keep, clock=clock, segment_bytes=segment)


def retention(spec: SourceSpec) -> Retention:
    """What the logs of a source keep, each."""
    keep = kept(spec.keep)
    return Retention(
        seconds(keep.age) if keep.age else None,
        size(keep.bytes) if keep.bytes else None,
    )


class LogSize(Struct):
    """What a source's two logs (accepted and late) hold."""

    rows: int = 0
    bytes: int = 0
    removed: int = 0
    """Segments removed since the loop was started."""


class LogRetention:
    """The logs of the sources; the keeper calls `look` often, and now and then it does something."""

    def __init__(
        self,
        intakes: Mapping[str, Intake],
        committed: Callable[[str], int | None],
        checkpoint: Path,
        clock: Clock,
    ) -> None:
        self.sizes = {name: LogSize() for name in intakes}
        self._intakes, self._committed = intakes, committed
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

    def look(self) -> None:
        """When half a minute has passed: say what is done with, remove what may go, and measure."""
        now = self._clock.now()
        if now >= self._due:
            self._due = now + int(_EVERY * self._clock.speed)
            self.apply()

    def apply(self) -> None:
        """Say what is done with, remove what may go, and measure. `Unavailable` when the disk takes nothing."""
        for intake in self._intakes.values():
            for log, needed in self._needed(intake):
                if needed is not None:
                    self._groups[log.stream].commit(Position(log.stream, needed))
                self.sizes[intake.id].removed += log.retain()
            self._measure(intake)

    def _needed(self, intake: Intake) -> Iterator[tuple[EventLog, int | None]]:
        """Each log of a source that forgets, and the first of its rows that is needed (None: not known)."""
        if intake.log.stream not in self._groups:
            return
        worked = self._worked(intake.id)
        for log, done in ((intake.log, None if worked is None else worked.offset), (intake.late, _ALL)):
            needs = (
                done,
                self._committed(log.stream),
                lookback(log, intake.contract.time, intake.horizon, least=1),
            )
            known = [one for one in needs if one is not None]
            yield log, min(known) if len(known) == len(needs) else None

    def _worked(self, source: str) -> Position | None:
        """How far a source was worked through by the checkpoint a restart would find; None: everything is needed."""
        try:
            read = read_checkpoint(self._checkpoint)
        except BoucleError as error:
            _log.warning("nothing is removed from the log of %s: %s", source, error)
            return None
        return None if read is None else read.checkpoint.positions.get(source)

    def _measure(self, intake: Intake) -> None:
        logs = (intake.log, intake.late)
        told = self.sizes[intake.id]
        told.rows = sum(log.durable().offset - log.start().offset for log in logs)
        told.bytes = sum(file.stat().st_size for log in logs for _, file in segment_files(log.folder))


_ALL = 2**62
"""No checkpoint ever reads late rows again."""

"""An event log as a Source: replayed, and followed while another process appends."""

import time
from collections.abc import Iterator

from boucle.block import Block, Position
from boucle.bus.log_groups import Log
from boucle.errors import PositionLost
from boucle.ports import Facts

__all__ = ["LogSource"]


class LogSource:
    """Replays an event log as a Source, and follows it while another process appends."""

    facts = Facts(ordered=True, replayable=True, delivery="at-least-once")

    def __init__(self, log: Log, stream: str = "", *, follow: bool = True, look_every: float = 0.02) -> None:
        self.stream = stream or log.stream
        self._log = log
        self._follow = follow
        self._look_every = look_every
        self._at: Position | None = None
        self._blocks: Iterator[Block] = iter(())

    def open(self, resume: Position | None = None) -> None:
        """Deliver after `resume` (None: from the first row kept). PositionLost when it was removed."""
        while True:
            at = self._log.start() if resume is None else resume
            try:
                self._blocks = self._log.read(at)
            except PositionLost:
                if resume is None:  # retention was between the two
                    continue
                raise
            self._at = at
            return

    def poll(self, wait: float) -> Block | None:
        """The next Block, or None when nothing more became durable within `wait` seconds."""
        deadline = time.monotonic() + wait
        while self._at is not None:
            block = next(self._blocks, None)
            if block is not None:
                self._at = block.position
                return Block(self.stream, block.rows, block.watermark, block.position)
            if self._log.durable().offset > self._at.offset:
                self._blocks = self._log.read(self._at)
                continue
            left = deadline - time.monotonic()
            if left <= 0 or not self._follow:
                return None
            time.sleep(min(left, self._look_every))
        return None

    def commit(self, upto: Position) -> None:
        """Nothing to do: what a log keeps is the affair of its retention and its groups."""

    def state(self) -> str:
        """`connected`, `finished` at the end when not following, or `closed`."""
        if self._at is None:
            return "closed"
        if self._follow or self._log.durable().offset > self._at.offset:
            return "connected"
        return "finished"

    def close(self) -> None:
        """Stop reading; the log itself stays as it is."""
        self._at = None
        self._blocks = iter(())

"""What was accepted and waits for the path: bounded in Blocks and in bytes, and it knows how far behind the path is.

When it is full a source that promised to lose nothing waits, and whoever feeds it keeps the rest. A source that
declares `shed` is not held back: what comes while the path is too far behind is given up there, and counted.
"""

import threading
from collections import deque

from msgspec import Struct

from boucle.block import Block
from boucle.clock import SECOND, Clock, Nanos
from boucle.loop.trace import Trace

__all__ = ["Backlog", "Shedding", "Waiting"]

_LOOK = 0.1
"""Seconds after which whoever waits for room looks whether the loop still runs."""


class Waiting(Struct, frozen=True):
    """A Block, and when it was accepted."""

    block: Block
    since: Nanos
    trace: Trace | None = None


class Backlog:
    """The one queue between the sources' threads and that of the path.

    It holds at most `blocks` Blocks and `bytes` bytes of rows; a single Block larger than that is let in alone.
    """

    def __init__(self, clock: Clock, blocks: int, nbytes: int) -> None:
        self.most_blocks, self.most_bytes = blocks, nbytes
        self.blocks = 0
        """Blocks that wait."""
        self.bytes = 0
        """Bytes of rows that wait."""
        self._clock = clock
        self._kept: deque[Waiting] = deque()
        self._lock = threading.Lock()
        self._came = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._working: Nanos | None = None  # since when the Block in work had waited

    def put(self, block: Block, ended: threading.Event, trace: Trace | None = None) -> None:
        """Let a Block wait for the path; returns when there was room, or the loop has `ended` and takes all."""
        nbytes = block.rows.nbytes
        with self._lock:
            while self._kept and not self._fits(nbytes) and not ended.is_set():
                self._room.wait(_LOOK)
            self._kept.append(Waiting(block, self._clock.now(), trace))
            self.blocks += 1
            self.bytes += nbytes
            self._came.notify()

    def get(self, wait: float) -> Waiting | None:
        """The Block that waited longest, None when none came in `wait` seconds. The one before is done with."""
        with self._lock:
            self._working = None
            if not self._kept:
                self._came.wait(wait)
            if not self._kept:
                return None
            first = self._kept.popleft()
            self.blocks -= 1
            self.bytes -= first.block.rows.nbytes
            self._working = first.since
            self._room.notify_all()
        if first.trace is not None:
            first.trace.mark("queue")
        return first

    def _fits(self, nbytes: int) -> bool:
        return self.blocks < self.most_blocks and self.bytes + nbytes <= self.most_bytes

    @property
    def full(self) -> bool:
        """Whether a source would be held back."""
        return self.blocks >= self.most_blocks or self.bytes >= self.most_bytes

    @property
    def empty(self) -> bool:
        """Whether nothing waits; one Block may be in work."""
        return not self._kept

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in work."""
        with self._lock:
            return not self._kept and self._working is None

    def lag(self) -> float:
        """Seconds since the oldest Block that is not worked through was accepted; 0 when there is none."""
        with self._lock:
            oldest = self._working if self._working is not None or not self._kept else self._kept[0].since
        return 0.0 if oldest is None else max(0.0, (self._clock.now() - oldest) / SECOND)


class Shedding:
    """Whether a source that may shed does so now: from `after` seconds behind until the path is back at half of it."""

    def __init__(self, after: float, backlog: Backlog) -> None:
        self._after, self._backlog = after, backlog
        self._on = False

    def __call__(self) -> bool:
        """Asked before each Block is accepted."""
        limit = self._after / 2 if self._on else self._after
        self._on = self._backlog.full or self._backlog.lag() > limit
        return self._on

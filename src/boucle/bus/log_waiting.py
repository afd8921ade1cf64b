"""What was appended to the event log and is not on disk yet."""

from collections import deque
from typing import NamedTuple

from boucle.block import Position
from boucle.bus.frames import Encoded

__all__ = ["Waiting"]


class _Frame(NamedTuple):
    """A frame, the number of the row after it, and where its source was."""

    frame: Encoded
    end: int
    source: Position


class Waiting:
    """Frames kept until they are durable, so that a disk that fails loses nothing.

    Not locked: its log does that. Up to `limit` bytes wait beside those that are being written.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: deque[_Frame] = deque()
        self._written = 0
        self.bytes = 0
        """Of all frames, those being written too."""

    def __bool__(self) -> bool:
        return bool(self._frames)

    @property
    def full(self) -> bool:
        """Whether as much waits as may."""
        return self.bytes - self._written >= self._limit

    def add(self, frame: Encoded, end: int, source: Position) -> None:
        """Take a frame; one more than the limit is never refused, or a large one could not pass."""
        self._frames.append(_Frame(frame, end, source))
        self.bytes += frame.size

    def take(self) -> tuple[_Frame, ...]:
        """All frames, to be written now: until `done` or `failed` they count no longer as waiting."""
        self._written = self.bytes
        return tuple(self._frames)

    def done(self, count: int) -> None:
        """The first `count` frames, those taken, are durable."""
        for _ in range(count):
            self._frames.popleft()
        self.bytes -= self._written
        self._written = 0

    def failed(self) -> None:
        """What was taken waits again."""
        self._written = 0

    def clear(self) -> None:
        """Forget it all."""
        self._frames.clear()
        self.bytes = self._written = 0

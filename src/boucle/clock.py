"""The only place that asks for the time.

Event time is nanoseconds since the Unix epoch, UTC. A clock that runs faster than the wall
(`ScaledClock`) lets a demo tell a two-hour story in two minutes with the same code.
"""

import threading
import time
from typing import Protocol, TypeAlias

__all__ = ["SECOND", "Clock", "Nanos", "ScaledClock", "SystemClock"]

Nanos: TypeAlias = int
"""Nanoseconds since 1970-01-01T00:00:00Z."""

SECOND: Nanos = 1_000_000_000


class Clock(Protocol):
    """What everything that needs the time asks."""

    speed: float
    """Seconds of this clock per second of the wall."""

    def now(self) -> Nanos:
        """The time, in nanoseconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock."""
        ...


class SystemClock:
    """The wall clock, made monotonic: a stepped system clock never moves it backwards."""

    speed = 1.0

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()

    def now(self) -> Nanos:
        """The time, in nanoseconds since the epoch."""
        return time.monotonic_ns() + self._offset

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        time.sleep(seconds)


class ScaledClock:
    """A clock that starts at `start` and runs `speed` times as fast as the wall."""

    def __init__(self, speed: float, start: Nanos | None = None) -> None:
        if speed <= 0:
            raise ValueError(f"speed must be positive, not {speed}")
        self.speed = speed
        self._origin = time.monotonic_ns()
        self._start = time.time_ns() if start is None else start

    def now(self) -> Nanos:
        """The time, in nanoseconds since the epoch."""
        return self._start + int((time.monotonic_ns() - self._origin) * self.speed)

    def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock, that is `seconds / speed` of the wall."""
        threading.Event().wait(seconds / self.speed)

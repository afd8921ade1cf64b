"""A clock moved by hand, so that a test never waits and never depends on how fast it runs."""

from boucle.clock import SECOND, Nanos

__all__ = ["ManualClock"]


class ManualClock:
    """Stands still until it is advanced; `sleep` advances it and returns at once.

    It is moved by one thread: a second thread that sleeps on it moves it too.
    """

    speed = 1.0

    def __init__(self, start: Nanos = 0) -> None:
        self._now = start

    def now(self) -> Nanos:
        """The time, in nanoseconds since the epoch."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds`; a negative duration is no sleep at all, as with time spent already."""
        self.advance(max(0.0, seconds))

    def advance(self, seconds: float) -> None:
        """Advance by `seconds`; ValueError when that would move the clock backwards."""
        if seconds < 0:
            raise ValueError(f"a clock does not go backwards, and {seconds} s is negative")
        self._now += round(seconds * SECOND)

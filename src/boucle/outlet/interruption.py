"""A statement at work, and who may stop it: a client that cancels, the clock, the end of the server."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from boucle.lake.sql import SqlSession
from boucle.outlet.refused import Refused

__all__ = ["Interruption", "Why"]

Why: TypeAlias = Literal["cancel", "timeout", "shutdown"]


class Interruption:
    """What one session has at work. `interrupt` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work: SqlSession | None = None
        self._stopped: Why | None = None
        self.deadline = float("inf")
        """When the statement that runs has had its time, on the monotonic clock."""

    @contextmanager
    def working(self, place: SqlSession, seconds: float) -> Iterator[None]:
        """Within: what runs can be interrupted, also when its `seconds` (0: any number) are over."""
        with self._lock:
            self._stopped, self._at_work = None, place
            self.deadline = time.monotonic() + seconds if seconds else float("inf")
        try:
            yield
            self.check()
        finally:
            with self._lock:
                self._at_work, self.deadline = None, float("inf")

    def interrupt(self, why: Why) -> None:
        """Stop what runs, if anything does."""
        with self._lock:
            if self._at_work is not None:
                self._stopped, self.deadline = why, float("inf")
                self._at_work.interrupt()

    def check(self) -> None:
        """Raise `Refused` when it was stopped."""
        if (said := self.said()) is not None:
            raise said

    def said(self) -> Refused | None:
        """Why it was stopped, once; None when it was not."""
        why, self._stopped = self._stopped, None
        if why is None:
            return None
        if why == "shutdown":
            return Refused("B839", "the server is shutting down", sqlstate="57P01")
        said = "the statement had its time" if why == "timeout" else "the statement was cancelled on request"
        return Refused("B839", said, sqlstate="57014", fix="ask for less, or SET statement_timeout")

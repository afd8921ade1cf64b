"""Challengers score what the champion answered, beside the request and never before it; differences are counted.

What waits is bounded: when the shadow is behind, requests are left out and counted, and nobody waits.
"""

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.errors import BoucleError
from boucle.serve.oip.predictions import Predictions, Scored
from boucle.serve.oip.served import Served

if TYPE_CHECKING:
    from boucle.serve.oip.shelf import Shelf

__all__ = ["Compared", "Shadows"]

log = logging.getLogger("boucle.serve.oip.shadow")

_PAUSE_S = 0.005
"""How long requests gather: a thread that is woken for each costs more than the score."""


class Compared(Struct):
    """How far a challenger is from the champion, over the rows that both could score."""

    rows: int = 0
    total: float = 0.0
    largest: float = 0.0

    @property
    def mean(self) -> float:
        """The mean absolute difference; 0 before the first row."""
        return self.total / self.rows if self.rows else 0.0


class Shadows:
    """A thread that scores again. `most` rows wait at once."""

    def __init__(self, shelf: "Shelf", predictions: Predictions | None, most: int = 20_000) -> None:
        self.shed = 0
        """Rows left out because too many waited."""
        self._shelf, self._predictions, self._most = shelf, predictions, most
        self._waiting: deque[Scored] = deque()
        self._rows = 0
        self._compared: dict[tuple[str, str, str], Compared] = {}
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._ends = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Score from now on."""
        self._thread = threading.Thread(target=self._work, name="boucle-shadow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Score what waits, and end. Safe to call twice."""
        self._ends = True
        self._some.set()
        if self._thread is not None:
            self._thread.join(5)
            self._thread = None

    def take(self, scored: Scored) -> None:
        """What the champion answered."""
        rows = len(scored.rows)
        with self._lock:
            if self._rows + rows > self._most:
                self.shed += rows
                return
            self._rows += rows
            self._waiting.append(scored)
        if not self._some.is_set():
            self._some.set()

    def compared(self) -> dict[tuple[str, str, str], Compared]:
        """By model, champion and challenger."""
        with self._lock:
            return dict(self._compared)

    def _work(self) -> None:
        stop = threading.Event()
        while not (self._ends and not self._waiting):
            self._some.wait()
            if not self._ends:
                stop.wait(_PAUSE_S)
            self._some.clear()
            with self._lock:
                batch, self._waiting = self._waiting, deque()
            for scored in batch:
                try:
                    self._again(scored)
                except BoucleError as error:
                    log.warning("the shadow of %s cannot score: %s", scored.model.name, error)
                with self._lock:
                    self._rows -= len(scored.rows)

    def _again(self, scored: Scored) -> None:
        shadow = self._shelf.offer(scored.model.name).shadow
        if shadow is None or shadow is scored.model or shadow.columns != scored.model.columns:
            return
        scores = shadow.score(scored.rows)
        self._compare(scored.model, shadow, scored.scores, scores)
        if self._predictions is not None:
            self._predictions.take(
                Scored(
                    shadow, scored.id, scored.wire, scored.at, scored.rows, scores, scored.seconds, "shadow"
                )
            )

    def _compare(
        self, model: Served, shadow: Served, first: NDArray[np.float64], second: NDArray[np.float64]
    ) -> None:
        if first.shape != second.shape:
            return
        apart = np.abs(first - second).max(axis=1)
        apart = apart[np.isfinite(apart)]
        with self._lock:
            one = self._compared.setdefault((model.name, model.version, shadow.version), Compared())
            one.rows += len(apart)
            one.total += float(apart.sum())
            one.largest = max(one.largest, float(apart.max(initial=0.0)))

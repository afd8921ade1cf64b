"""Challengers score what the champion answered, beside the request and never before it; differences are counted.

What waits is bounded: when the shadow is behind, requests are left out and counted, and nobody waits.
"""

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from boucle.errors import BoucleError
from boucle.serve.agreement import Agreement
from boucle.serve.oip.predictions import Predictions, Scored
from boucle.serve.oip.served import Served

if TYPE_CHECKING:
    from boucle.serve.oip.shelf import Shelf

__all__ = ["Shadows"]

log = logging.getLogger("boucle.serve.oip.shadow")

_PAUSE_S = 0.05
"""How long requests gather: a thread that is woken for each costs more than the score."""


class Shadows:
    """A thread that scores again. `most` rows wait at once."""

    def __init__(self, shelf: "Shelf", predictions: Predictions | None, most: int = 20_000) -> None:
        self.shed = 0
        """Rows left out because too many waited."""
        self._shelf, self._predictions, self._most = shelf, predictions, most
        self._waiting: deque[Scored] = deque()
        self._rows = 0
        self._compared: dict[tuple[str, str, str, str], Agreement] = {}
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

    def compared(self) -> dict[tuple[str, str, str, str], Agreement]:
        """By model, champion, challenger and output: how far they agree on the rows that both could score."""
        with self._lock:
            return {
                key: msgspec.convert(msgspec.to_builtins(one), Agreement)
                for key, one in self._compared.items()
            }

    def _work(self) -> None:
        pause = threading.Event()
        while not (self._ends and not self._waiting):
            self._some.wait()
            if not self._ends:
                pause.wait(_PAUSE_S)
            self._some.clear()
            with self._lock:
                batch, self._waiting = self._waiting, deque()
            by_model: dict[Served, list[Scored]] = {}
            for scored in batch:
                by_model.setdefault(scored.model, []).append(scored)
            for model, answered in by_model.items():
                try:
                    self._again(model, answered)
                except BoucleError as error:
                    log.warning("the shadow of %s cannot score: %s", model.name, error)
            with self._lock:
                self._rows -= sum(len(scored.rows) for scored in batch)

    def _again(self, model: Served, answered: list[Scored]) -> None:
        shadow = self._shelf.offer(model.name).shadow
        if shadow is None or shadow is model or shadow.columns != model.columns:
            return
        scores = shadow.score(np.concatenate([one.rows for one in answered]))
        self._compare(model, shadow, np.concatenate([one.scores for one in answered]), scores)
        if self._predictions is None:
            return
        begin = 0
        for one in answered:
            part = scores[begin : begin + len(one.rows)]
            begin += len(one.rows)
            self._predictions.take(
                Scored(shadow, one.id, one.wire, one.at, one.rows, part, one.seconds, "shadow")
            )

    def _compare(
        self, model: Served, shadow: Served, first: NDArray[np.float64], second: NDArray[np.float64]
    ) -> None:
        if model.gives != shadow.gives:
            return
        both = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
        for index, output in enumerate(model.gives):
            with self._lock:
                key = (model.name, model.version, shadow.version, output)
                self._compared.setdefault(key, Agreement()).add(first[both, index], second[both, index])

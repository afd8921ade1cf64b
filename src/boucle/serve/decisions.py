"""Decisions about versions, carried out beside the path: once each, by the gates a version brought along, and told."""

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from boucle.errors import BoucleError
from boucle.models.gates import evaluate
from boucle.models.registry import Registry
from boucle.serve.alerts import Tell

__all__ = ["Decisions", "promoted"]

Row = dict[str, Any]


class Decisions:
    """A thread that carries out what a step decided, in order, and tells an event `model_decision` of each.

    `act` says what became of a row: `done`, `done before`, `overtaken`, `waits for approval`, or why not; `says` puts
    both into words.
    """

    def __init__(
        self, name: str, act: Callable[[Row], str], says: Callable[[Row, str], dict[str, str]]
    ) -> None:
        self._name, self._act, self._says = name, act, says
        self.tell: Tell | None = None
        self._waiting: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, row: Row) -> None:
        """Carry this out, once the loop is live."""
        self._waiting.put(row)

    def live(self) -> None:
        """Carry out what was decided, from now on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (row := self._waiting.get()) is not None:
            try:
                done = self._act(row)
            except (BoucleError, OSError) as error:
                done = f"failed: {error}"
            if self.tell is not None:
                self.tell("model_decision", "warning", self._says(row, done), {**row, "done": done})

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(5)
            self._thread = None


def promoted(
    registry: Registry, name: str, version: int, evidence: Mapping[str, Any], *, by: str, why: str
) -> str:
    """Make a version champion when every gate of its own record passes: `done`, `waits for approval` or `refused: …`.

    What each gate found is kept in the registry's history beside the evidence.
    """
    gates = evaluate(registry, name, version)
    lost = [one for one in gates if not one.passed]
    if any(not one.gate.startswith("approval") for one in lost):
        return "refused: " + "; ".join(f"{one.gate}: {one.found}" for one in lost)
    if lost:
        return "waits for approval"
    found = [{"gate": one.gate, "passed": one.passed, "found": one.found} for one in gates]
    registry.promote(name, version, evidence={**evidence, "gates": found}, by=by, why=why)
    return "done"

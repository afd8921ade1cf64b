"""A model that scores beside the path and never acts: on a thread of its own, shed when it falls behind."""

import contextlib
import queue
import threading
import time
from bisect import bisect_left
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boucle.serve.agreement import Agreement
from boucle.serve.alerts import Alerts
from boucle.serve.declared import ShadowSpec
from boucle.serve.ledger import BOUNDS, Tally
from boucle.serve.ready import Ready, failures

__all__ = ["Shadow"]

Floats = NDArray[np.float64]
_Offer = tuple[tuple[str, str], Ready, Any, Floats, list[str]]


class Shadow:
    """Scores what the path scored, and compares. A new version, acting or in the shadow, begins a new comparison."""

    def __init__(self, spec: ShadowSpec, alerts: Alerts) -> None:
        self._spec, self._alerts = spec, alerts
        self._waiting: queue.Queue[_Offer | None] = queue.Queue(spec.queue)
        self.shed = 0
        """Rows that were not compared because the shadow was behind."""
        self.failed = 0
        """Rows the shadow could not score."""
        self.pair = ("", "")
        """Versions, acting and in the shadow."""
        self.agreements: dict[str, Agreement] = {}
        """Output → comparison of this pair."""
        self.tally = Tally(arm="shadow")
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def offer(self, ready: Ready, acting: str, given: Any, values: Floats, outputs: list[str]) -> None:
        """Take what was scored, or shed it: `given` as the shadow takes it, `values` (outputs, rows)."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name=f"boucle shadow {ready.identity.name}", daemon=True
            )
            self._thread.start()
        pair = (acting, f"{ready.identity.name} {ready.identity.version}")
        if pair != self.pair:
            with self._lock:
                self.pair, self.agreements = pair, {}
        try:
            self._waiting.put_nowait((pair, ready, given, values, outputs))
        except queue.Full:
            self.shed += len(given)

    def _work(self) -> None:
        while (offered := self._waiting.get()) is not None:
            self._compare(*offered)
            self._waiting.task_done()
        self._waiting.task_done()

    def _compare(
        self, pair: tuple[str, str], ready: Ready, given: Any, values: Floats, outputs: list[str]
    ) -> None:
        usable = ready.sound(given) & np.isfinite(values).all(axis=0)
        if not usable.any():
            return
        started, cpu = time.perf_counter_ns(), ready.cpu_ns()
        try:
            answer = ready.run(ready.some(given, np.flatnonzero(usable))).astype(np.float64)
        except failures() as error:
            self.failed += int(usable.sum())
            self._alerts.trouble("shadow", version=ready.identity.version, why=str(error)[:300])
            return
        with self._lock:
            if pair != self.pair:
                return  # one of the two is another version by now
            for place, name in enumerate(outputs):
                found = self.agreements.get(name)
                if found is None:
                    threshold = self._spec.flips.get(name)
                    found = self.agreements[name] = Agreement(self._spec.tolerance, threshold)
                found.add(values[place, usable], answer[:, place])
            self.tally.name, self.tally.version = ready.identity.name, ready.identity.version
            self.tally.rows += int(usable.sum())
            self.tally.blocks += 1
            took = time.perf_counter_ns() - started
            self.tally.wall_ns += took
            self.tally.spread[bisect_left(BOUNDS, took / 1e9)] += 1
            self.tally.cpu_ns += ready.cpu_ns() - cpu

    def told(self) -> dict[str, Any]:
        """For a person."""
        with self._lock:
            return {
                "acting": self.pair[0],
                "shadow": self.pair[1],
                "shed": self.shed,
                "failed": self.failed,
                "outputs": {name: one.told() for name, one in self.agreements.items()},
            }

    def settle(self) -> None:
        """Wait until everything taken so far is compared."""
        self._waiting.join()

    def close(self) -> None:
        """End the thread once it is done. Safe to call twice."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):  # it hangs: the thread ends with the process
                self._waiting.put(None, timeout=1)
                self._thread.join(5)
            self._thread = None

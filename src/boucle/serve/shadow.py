"""A model that scores beside the path and never acts: on a thread of its own, shed when it falls behind."""

import contextlib
import queue
import threading
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from boucle.lake.place import fsync
from boucle.serve.agreement import Agreement
from boucle.serve.alerts import Alerts
from boucle.serve.declared import ShadowSpec
from boucle.serve.evidence import Evidence
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
        self._limits = {
            name: limit
            for name, limit in (("disagree", spec.disagree), ("flip", spec.flip))
            if limit is not None
        }
        self._evidence: dict[str, Evidence] = {}
        """Limit → whether this pair breaks it, looked at after every Block."""
        self.objections: dict[str, dict[str, dict[str, Any]]] = {}
        """Acting version → version in the shadow → the limit it broke, kept over restarts."""
        self._file: Path | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, folder: Path) -> None:
        """Remember in `folder` which versions broke a limit. A file that cannot be read is as good as none."""
        self._file = folder / "objections.json"
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            told = self._file.read_bytes()
            self.objections = msgspec.json.decode(told, type=dict[str, dict[str, dict[str, Any]]])

    def objects(self, acting: str, version: str) -> dict[str, Any]:
        """What speaks against letting `version` act in the place of `acting`; empty when nothing does."""
        return self.objections.get(acting, {}).get(version, {}) if self._spec.holds else {}

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
                self.pair, self.agreements, self._evidence = pair, {}, {}
            self._alerts.well("disagrees")
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
            self._judge(pair, values[:, usable].T, answer, outputs)
            self.tally.name, self.tally.version = ready.identity.name, ready.identity.version
            self.tally.rows += int(usable.sum())
            self.tally.blocks += 1
            took = time.perf_counter_ns() - started
            self.tally.wall_ns += took
            self.tally.spread[bisect_left(BOUNDS, took / 1e9)] += 1
            self.tally.cpu_ns += ready.cpu_ns() - cpu

    def _judge(self, pair: tuple[str, str], acting: Floats, shadow: Floats, outputs: list[str]) -> None:
        """Whether the rows of both, (rows, outputs), suffice to say that a limit is broken."""
        for limit, most in self._limits.items():
            if limit == "disagree":
                apart = np.abs(shadow - acting) > self._spec.tolerance
            else:
                edges = np.array([self._spec.flips.get(name, np.nan) for name in outputs])
                apart = (acting >= edges) != (shadow >= edges)
            evidence = self._evidence.setdefault(limit, Evidence(self._spec.alpha, most))
            if evidence.verdict != "better":  # the share is not yet known to be greater
                evidence.add(np.asarray(apart.any(axis=1), np.float64))
                if evidence.verdict == "better":
                    self._object(pair, limit, most, evidence)

    def _object(self, pair: tuple[str, str], limit: str, most: float, evidence: Evidence) -> None:
        told = evidence.told()
        why = {
            "acting": pair[0], "shadow": pair[1], "what": limit, "limit": 100 * most, "rows": told["pairs"],
            "share": 100 * told["mean_difference"],
        }  # fmt: skip
        self.objections.setdefault(pair[0], {})[pair[1]] = why
        if self._file is not None:
            with contextlib.suppress(OSError):  # it is said in any case, and holds while this process lives
                self._file.parent.mkdir(parents=True, exist_ok=True)
                beside = self._file.with_suffix(".new")
                beside.write_bytes(msgspec.json.encode(self.objections))
                fsync(beside)
                beside.replace(self._file)
        self._alerts.trouble("disagrees", **why)

    def told(self) -> dict[str, Any]:
        """For a person."""
        with self._lock:
            return {
                "acting": self.pair[0],
                "shadow": self.pair[1],
                "shed": self.shed,
                "failed": self.failed,
                "outputs": {name: one.told() for name, one in self.agreements.items()},
                "limits": {
                    name: {
                        "limit": self._limits[name],
                        "broken": one.verdict == "better",
                        "share": one.told()["mean_difference"],
                    }
                    for name, one in self._evidence.items()
                },
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

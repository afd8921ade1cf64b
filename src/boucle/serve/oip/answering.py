"""A request on its way: admitted, scored in time, counted, noted; the same for both wires."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.errors import BoucleError
from boucle.serve.oip.counts import Counts
from boucle.serve.oip.refusal import Away, Busy, NotAllowed, Refusal, TooLate, Unfit
from boucle.serve.oip.request import Answer, InferRequest
from boucle.serve.oip.scored import Scored
from boucle.serve.oip.served import Served
from boucle.serve.oip.shelf import Shelf
from boucle.serve.oip.sidecar import Sidecar

__all__ = ["Answering", "Limits"]


log = logging.getLogger("boucle.serve.oip")


class Limits(Struct, frozen=True):
    """What a server bears: requests at once, seconds for each, bytes of a body."""

    waiting: int = 256
    seconds: float = 5.0
    body: int = 64 << 20


class Answering:
    """Answers requests in one event loop.

    A score that takes less than a millisecond is made where the request was read: handing it to a thread costs
    more. Longer ones go to a thread, one after the other, and are given up when their deadline has passed.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        limits: Limits | None = None,
        sidecar: Sidecar | None = None,
        allows: Callable[[str], bool] | None = None,
    ) -> None:
        self.shelf, self.limits, self.sidecar = shelf, limits or Limits(), sidecar
        self.counts = Counts()
        self._allows = allows
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="boucle-scores")

    def start(self) -> None:
        """Start what runs beside the requests."""
        if self.sidecar is not None:
            self.sidecar.start()
        self.shelf.start()

    def stop(self) -> None:
        """End it; what waits to be noted is noted."""
        self.shelf.stop()
        self._aside.shutdown(cancel_futures=True)
        if self.sidecar is not None:
            self.sidecar.stop()

    def check_allowed(self, authorization: str) -> None:
        """NotAllowed unless the server knows who sends this header."""
        if self._allows is not None and not self._allows(authorization):
            raise NotAllowed

    def enter(self) -> None:
        """Take a place among those that are being answered; Busy when there is none."""
        if self.counts.waiting >= self.limits.waiting:
            raise Busy(self.counts.waiting)
        self.counts.waiting += 1

    def leave(self) -> None:
        """Give it back."""
        self.counts.waiting -= 1

    async def served(self, name: str, version: str) -> Served:
        """The version meant; one that plays no role is fetched first."""
        found = self.shelf.find(name, version)
        if found is not None:
            return found
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._aside, self.shelf.fetch, name, version)

    def at_once(
        self, name: str, version: str, request: InferRequest, wire: str, begun: float
    ) -> Answer | None:
        """The outputs; None when the model must be fetched first, or needs more than a moment. Refusal says why not."""
        model = self.shelf.find(name, version)
        if model is None or not model.quick(request.rows):
            return None
        rows = model.rows(request)
        start = time.perf_counter()
        scores = model.score(rows)
        cpu_s = time.perf_counter() - start  # nothing is waited for: it is the processor's time
        outputs = model.outputs(scores, request)
        self._note(model, request, wire, rows, scores, begun, cpu_s, named=bool(version))
        return Answer(name, model.version, request.id, outputs)

    async def answer(
        self,
        name: str,
        version: str,
        request: InferRequest,
        wire: str,
        begun: float,
        left: float | None = None,
    ) -> Answer:
        """The outputs; `begun` by perf_counter, `left`: seconds the client still waits. Refusal says why not."""
        if (found := self.at_once(name, version, request, wire, begun)) is not None:
            return found
        model = await self.served(name, version)
        rows = model.rows(request)
        limits = [one for one in (self.limits.seconds, request.timeout, left) if one is not None]
        scores, cpu_s = await self._score_aside(model, rows, begun, min(limits))
        outputs = model.outputs(scores, request)
        self._note(model, request, wire, rows, scores, begun, cpu_s, named=bool(version))
        return Answer(name, model.version, request.id, outputs)

    async def _score_aside(
        self, model: Served, rows: Any, begun: float, seconds: float
    ) -> tuple[NDArray[np.float64], float]:
        late = threading.Event()

        def alive() -> bool:
            return not late.is_set()

        def work() -> tuple[NDArray[np.float64], float]:
            cpu, start = time.thread_time(), time.perf_counter()
            scores = model.score(rows, alive)
            if alive() and len(rows):
                model.row_s = (time.perf_counter() - start) / len(rows)
            return scores, time.thread_time() - cpu

        job = asyncio.get_running_loop().run_in_executor(self._aside, work)
        try:
            return await asyncio.wait_for(job, begun + seconds - time.perf_counter())
        except TimeoutError:
            raise TooLate(seconds) from None
        finally:
            late.set()

    def _note(
        self,
        model: Served,
        request: InferRequest,
        wire: str,
        rows: Any,
        scores: NDArray[np.float64],
        begun: float,
        cpu_s: float,
        *,
        named: bool,
    ) -> None:
        seconds = time.perf_counter() - begun
        unscored = 0 if np.isfinite(scores).all() else int(np.isnan(scores).any(axis=1).sum())
        self.counts.answered(model.name, model.version, wire, len(rows), unscored, seconds, cpu_s)
        beside = self.sidecar
        if beside is None:
            return
        shadowed = beside.shadow and not named and self.shelf.offer(model.name).shadow is not None
        if beside.keeps or shadowed:
            at = time.time_ns() - int(seconds * 1e9)
            role = "asked" if named else "champion"
            beside.take(Scored(model.of, request.id, wire, at, model.noted(rows), scores, seconds, role))

    def refusal(self, error: Exception, wire: str) -> Refusal:
        """What goes over the wire for an error, counted; one that nobody foresaw is logged, too."""
        if isinstance(error, Refusal):
            told = error
        elif isinstance(error, BoucleError):
            kind = Away if error.retryable else Unfit if error.code == "B643" else Refusal
            told = kind(error.code, error.what, where=error.where, why=error.why, fix=error.fix)
        else:
            log.error("a request failed: %s: %s", type(error).__name__, error)
            told = Refusal("B683", "the server failed at this request", fix="see its log")
        self.counts.refused(told.code, wire)
        return told

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
from boucle.serve.oip.predictions import Predictions, Scored
from boucle.serve.oip.refusal import Busy, NotAllowed, Refusal, TooLate
from boucle.serve.oip.request import Answer, InferRequest
from boucle.serve.oip.served import Served
from boucle.serve.oip.shadow import Shadows
from boucle.serve.oip.shelf import Shelf

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
        predictions: Predictions | None = None,
        shadow: bool = True,
        allows: Callable[[str], bool] | None = None,
    ) -> None:
        self.shelf, self.limits, self.predictions = shelf, limits or Limits(), predictions
        self.counts = Counts()
        self.shadows = Shadows(shelf, predictions)
        self.reading: dict[asyncio.Task[Any] | None, float] = {}
        """Requests whose body is being read, and since when."""
        self._shadow = shadow
        self._allows = allows
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="boucle-scores")

    def start(self) -> None:
        """Start the threads beside the requests."""
        if self.predictions is not None:
            self.predictions.start()
        self.shadows.start()
        self.shelf.start()

    def stop(self) -> None:
        """End them; what waits to be noted is noted."""
        self.shelf.stop()
        self._aside.shutdown(cancel_futures=True)
        self.shadows.stop()
        if self.predictions is not None:
            self.predictions.stop()

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

    async def watch(self) -> None:
        """Give up requests whose body does not come: one timer for all, where one for each would cost a tenth."""
        while True:
            await asyncio.sleep(min(1.0, self.limits.seconds / 4))
            late = time.perf_counter() - self.limits.seconds
            for task in [one for one, begun in self.reading.items() if begun < late]:
                if task is not None:
                    task.cancel()

    async def served(self, name: str, version: str) -> Served:
        """The version meant; one that plays no role is fetched first."""
        found = self.shelf.find(name, version)
        if found is not None:
            return found
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._aside, self.shelf.fetch, name, version)

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
        model = await self.served(name, version)
        rows = model.matrix(request)
        if model.quick(len(rows)):
            start = time.perf_counter()
            scores = model.score(rows)
            cpu_s = time.perf_counter() - start  # nothing is waited for: it is the processor's time
        else:
            limits = [one for one in (self.limits.seconds, request.timeout, left) if one is not None]
            scores, cpu_s = await self._score_aside(model, rows, begun, min(limits))
        outputs = model.outputs(scores, request)
        seconds = time.perf_counter() - begun
        self._note(model, request, wire, rows, scores, seconds, cpu_s, named=bool(version))
        return Answer(name, model.version, request.id, outputs)

    async def _score_aside(
        self, model: Served, rows: NDArray[np.float32], begun: float, seconds: float
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
        rows: NDArray[np.float32],
        scores: NDArray[np.float64],
        seconds: float,
        cpu_s: float,
        *,
        named: bool,
    ) -> None:
        unscored = 0 if np.isfinite(scores).all() else int(np.isnan(scores).any(axis=1).sum())
        self.counts.answered(model.name, model.version, wire, len(rows), unscored, seconds, cpu_s)
        at = time.time_ns() - int(seconds * 1e9)
        role = "asked" if named else "champion"
        scored = Scored(model, request.id, wire, at, rows, scores, seconds, role)
        if self.predictions is not None:
            self.predictions.take(scored)
        if self._shadow and not named and self.shelf.offer(model.name).shadow is not None:
            self.shadows.take(scored)

    def refusal(self, error: Exception, wire: str) -> Refusal:
        """What goes over the wire for an error, counted; one that nobody foresaw is logged, too."""
        if isinstance(error, Refusal):
            told = error
        elif isinstance(error, BoucleError):
            told = Refusal(error.code, error.what, where=error.where, why=error.why, fix=error.fix)
        else:
            log.error("a request failed: %s: %s", type(error).__name__, error)
            told = Refusal("B683", "the server failed at this request", fix="see its log")
        self.counts.refused(told.code, wire)
        return told

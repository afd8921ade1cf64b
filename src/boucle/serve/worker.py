"""Scores on a thread of its own, so that a deadline holds although a model cannot be interrupted.

The path waits for the answer until the deadline and goes on without it; the answer that comes too late is counted
and thrown away. Each version has a worker of its own: one that hangs is cured by promoting or rolling back.
"""

import queue
import threading
from typing import Any

from numpy.typing import NDArray

from boucle.serve.ready import Ready

__all__ = ["Job", "Late", "Worker"]

Floats = NDArray[Any]


class Late(Exception):
    """The answer did not come in time; `args[0]` is `deadline` or `queue`."""


class Job:
    """One Block to score; `done` is let go when there is an answer."""

    __slots__ = ("answer", "cpu_ns", "done", "failure", "given", "late")

    def __init__(self, given: Any) -> None:
        self.given = given
        """A matrix (rows, inputs), or rows, as the version takes them."""
        self.answer: Floats | None = None
        self.failure: Exception | None = None
        self.cpu_ns = 0
        self.late = False
        self.done = threading.Lock()
        self.done.acquire()


class Worker:
    """A thread that scores for one version."""

    def __init__(self, ready: Ready, most: int) -> None:
        self.ready, self.most = ready, most
        self.late_rows = 0
        """Rows whose scores came after their deadline."""
        self.late_cpu_ns = 0
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._pending = 0
        self._lock = threading.Lock()
        name = f"boucle score {ready.identity.name}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def ask(self, given: Any, patience: float) -> Job:
        """The answered Job, or Late; raises what the model raised."""
        with self._lock:
            if self._pending > self.most:
                raise Late("queue")
            self._pending += 1
        job = Job(given)
        self._waiting.put(job)
        if not job.done.acquire(timeout=max(0.0, patience)):
            with self._lock:
                late = job.answer is None and job.failure is None
                job.late = late
            if late:
                raise Late("deadline")
        if job.failure is not None:
            raise job.failure
        return job

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            if job.late:  # its turn came after its deadline: nobody waits for it
                self._answered(job, None, None, 0)
                continue
            started = self.ready.cpu_ns()
            answer, failure = None, None
            try:
                answer = self.ready.run(job.given)
            except Exception as error:  # noqa: BLE001 - the thread boundary: raised where it was asked for
                failure = error
            self._answered(job, answer, failure, self.ready.cpu_ns() - started)

    def _answered(self, job: Job, answer: Floats | None, failure: Exception | None, cpu_ns: int) -> None:
        with self._lock:
            job.answer, job.failure, job.cpu_ns = answer, failure, cpu_ns
            self._pending -= 1
            if job.late:
                self.late_rows += len(job.given)
                self.late_cpu_ns += cpu_ns
        job.done.release()

    def close(self) -> None:
        """Let the thread end once it has answered. Safe to call twice."""
        self._waiting.put(None)

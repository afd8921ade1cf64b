"""Scores on a thread of its own, so that a deadline holds although ONNX Runtime cannot be interrupted.

The path waits for the answer until the deadline and goes on without it; the answer that comes too late is counted
and thrown away. Each version has a worker of its own: one that hangs is cured by promoting or rolling back.
"""

import queue
import threading
import time

import numpy as np
from numpy.typing import NDArray

from boucle.serve.ready import Ready

__all__ = ["Job", "Late", "Worker"]

Floats32 = NDArray[np.float32]


class Late(Exception):
    """The answer did not come in time; `args[0]` is `deadline` or `queue`."""


class Job:
    """One Block to score; `done` is let go when there is an answer."""

    __slots__ = ("answer", "cpu_ns", "done", "given", "late", "matrix")

    def __init__(self, matrix: Floats32) -> None:
        self.matrix = matrix
        self.answer: Floats32 | None = None
        self.given: Exception | None = None
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

    def ask(self, matrix: Floats32, patience: float) -> Job:
        """The answered Job, or Late; raises what the model raised."""
        with self._lock:
            if self._pending > self.most:
                raise Late("queue")
            self._pending += 1
        job = Job(matrix)
        self._waiting.put(job)
        if not job.done.acquire(timeout=max(0.0, patience)):
            with self._lock:
                late = job.answer is None and job.given is None
                job.late = late
            if late:
                raise Late("deadline")
        if job.given is not None:
            raise job.given
        return job

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            if job.late:  # its turn came after its deadline: nobody waits for it
                self._answered(job, None, None, 0)
                continue
            started = time.thread_time_ns()
            answer, given = None, None
            try:
                answer = self.ready.run(job.matrix)
            except Exception as error:  # noqa: BLE001 - the thread boundary: raised where it was asked for
                given = error
            self._answered(job, answer, given, time.thread_time_ns() - started)

    def _answered(self, job: Job, answer: Floats32 | None, given: Exception | None, cpu_ns: int) -> None:
        with self._lock:
            job.answer, job.given, job.cpu_ns = answer, given, cpu_ns
            self._pending -= 1
            if job.late:
                self.late_rows += len(job.matrix)
                self.late_cpu_ns += cpu_ns
        job.done.release()

    def close(self) -> None:
        """Let the thread end once it has answered. Safe to call twice."""
        self._waiting.put(None)

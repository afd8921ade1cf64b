"""A process beside the model server that scores challengers and keeps the prediction log.

In the server's own process both would hold the interpreter while requests wait (docs/why/model-server.md). A request
leaves a reference behind; a thread sends what gathered. What waits is bounded, and everything is counted: rows taken
are settled, shed (too many waited), lost (with a sidecar that died: they may be in the log, nobody can say) or waiting.
"""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from msgspec import Struct

from boucle.errors import BoucleError, Unavailable
from boucle.serve.oip.predictions import Keep
from boucle.serve.oip.scored import Scored
from boucle.serve.oip.shadow import Compared
from boucle.serve.oip.sidecar_wire import Frames, Order, Status, batch_of, frame

__all__ = ["Sidecar"]

log = logging.getLogger("boucle.serve.oip.sidecar")

_PAUSE_S = 0.05
"""How long requests gather: a thread that is woken for each costs more than they do."""
_LOOKS_S = 0.5
"""How often the sidecar's counts are read while nothing is asked."""
_STARTS_WITHIN_S = 30.0
_ENDS_WITHIN_S = 30.0
_HANGS_S = 25.0
"""A sidecar that takes nothing for so long is killed and started again."""
_AGAIN_S = 2.0
"""Pause before a sidecar that died is started again."""


class _Child(Struct):
    """A running sidecar."""

    process: "subprocess.Popen[bytes]"
    link: socket.socket
    frames: Frames
    sent: int = 0
    """Rows."""
    status: Status = Status()


class Sidecar:
    """Takes answered requests. Without a prediction log the process starts with the first request it gets.

    `models` as `Shelf` takes it; `folder`: of the prediction log, None for none; `most` rows wait in this process.
    """

    def __init__(
        self,
        models: str | Path,
        *,
        folder: Path | None = None,
        keep: Keep = "inputs",
        shadow: bool = True,
        most: int = 200_000,
    ) -> None:
        self.shadow, self.keeps = shadow, folder is not None
        self.taken = self.shed = self.lost = 0
        """Rows. All that were taken = settled + shed + lost + waiting."""
        self._order = Order(str(models), None if folder is None else str(folder), keep, shadow)
        self._most = most
        self._waiting: deque[Scored] = deque()
        self._rows = 0
        self._lock = threading.Lock()
        self._some, self._stop = threading.Event(), threading.Event()
        self._child: _Child | None = None
        self._before: list[Status] = []
        """The last words of those that died."""
        self._not_before = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Send from now on. The sidecar's own error when it cannot begin: another server keeps that log."""
        if self.keeps:
            self._child = self._started()
        self._thread = threading.Thread(target=self._work, name="boucle-sidecar", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what waits, and let it be written. Safe to call twice."""
        self._stop.set()
        self._some.set()
        if self._thread is not None:
            self._thread.join(_ENDS_WITHIN_S + 5)
            self._thread = None

    def take(self, scored: Scored) -> None:
        """An answered request; it never waits."""
        rows = len(scored.rows)
        with self._lock:
            self.taken += rows
            if self._rows + rows > self._most:
                self.shed += rows
                return
            self._rows += rows
            self._waiting.append(scored)
        if not self._some.is_set():
            self._some.set()

    @property
    def waiting(self) -> int:
        """Rows that are here, or with the sidecar and not settled."""
        child = self._child
        return self._rows + (child.sent - child.status.settled if child else 0)

    @property
    def status(self) -> Status:
        """What this one did, and those before it."""
        child = self._child
        every = [*self._before, *([child.status] if child else [])]
        compared: Compared = {}
        for one in every:
            for key, agreement in one.compared:
                if key in compared:
                    compared[key].merge(agreement)
                else:
                    compared[key] = agreement.copy()
        return Status(
            settled=sum(one.settled for one in every),
            stored=sum(one.stored for one in every),
            failed=sum(one.failed for one in every),
            compared=list(compared.items()),
        )

    def _work(self) -> None:
        while not self._stop.is_set():
            self._some.wait(_LOOKS_S)
            self._stop.wait(_PAUSE_S)
            self._some.clear()
            self._step()
        self._step()
        self._end()

    def _step(self) -> None:
        """Send what gathered, read what the sidecar says; start it again when it is gone."""
        if self._child is None and self._waiting and time.monotonic() >= self._not_before:
            try:
                self._child = self._started()
            except BoucleError as error:
                self._not_before = time.monotonic() + _AGAIN_S
                log.warning("predictions are not taken: %s", error)
        child = self._child
        if child is None:
            return
        with self._lock:
            batch, self._waiting = self._waiting, deque()
            rows, self._rows = self._rows, 0
            child.sent += rows
        try:
            if batch:
                child.link.settimeout(_HANGS_S)
                child.link.sendall(frame(batch_of(list(batch))))
        except OSError:
            self._died(child)
            return
        child.link.setblocking(False)
        while told := child.frames.read(child.link):
            child.status = told[-1]
        if told is None:
            self._died(child)

    def _died(self, child: _Child) -> None:
        lost = child.sent - child.status.settled
        log.warning(
            "the process of shadow and prediction log ended; %d rows may be missing, it is started again",
            lost,
        )
        with self._lock:
            self.lost += lost
            self._before.append(child.status)
            self._child = None
        self._not_before = time.monotonic() + _AGAIN_S
        child.link.close()
        child.process.kill()
        child.process.wait()

    def _started(self) -> _Child:
        ours, its = socket.socketpair()
        words = [sys.executable, "-m", "boucle.serve.oip.sidecar_child", str(its.fileno())]
        process = subprocess.Popen(  # noqa: S603 - this interpreter
            words, stdin=subprocess.DEVNULL, pass_fds=[its.fileno()], env=_environment()
        )
        its.close()
        child = _Child(process, ours, Frames(Status))
        ours.settimeout(_STARTS_WITHIN_S)
        told: list[Status] | None = None
        try:
            ours.sendall(frame(self._order))
            told = child.frames.read(ours)
        except OSError as error:
            log.debug("the sidecar does not listen: %s", error)
        if not told or told[0].problem is not None:
            process.kill()
            process.wait()
            ours.close()
            if told and told[0].problem is not None:
                code, what, where, why, fix = told[0].problem
                raise BoucleError(code, what, where=where, why=why, fix=fix)
            raise Unavailable("B679", "the process of shadow and prediction log did not start")
        return child

    def _end(self) -> None:
        """Let it finish, and hear its last words."""
        child = self._child
        if child is None:
            with self._lock:
                self.shed += self._rows  # there was nobody to take them
                self._waiting, self._rows = deque(), 0
            return
        try:
            child.link.settimeout(_ENDS_WITHIN_S)
            child.link.shutdown(socket.SHUT_WR)
            while told := child.frames.read(child.link):
                child.status = told[-1]
            child.process.wait(_ENDS_WITHIN_S)
        except (OSError, subprocess.TimeoutExpired):
            log.warning("the process of shadow and prediction log did not end in time")
            child.process.kill()
            child.process.wait()
        child.link.close()
        self.lost += child.sent - child.status.settled
        child.sent = child.status.settled


def _environment() -> dict[str, str]:
    """One thread for each model: requests have the other processors."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}

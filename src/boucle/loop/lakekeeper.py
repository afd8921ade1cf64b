"""The lake's writer in a process of its own, so that a commit never takes the interpreter from the path.

    python -m boucle.loop.lakekeeper        (started by a running loop; not a command for people)

A commit of fifty small files costs a tenth of a second of Python, and the threads of one interpreter share
its lock: beside the path it made the slowest decisions half as slow again. The durable logs are made to be
read by other processes, so the writer is one. The first line of standard input says what to feed; each
second a line of standard output tells how far every table is; when standard input ends (the loop stops, or
is killed) what is left is committed and the process ends.
"""

import fcntl
import logging
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from boucle.bus.log import EventLog
from boucle.clock import Clock, ScaledClock
from boucle.errors import BoucleError
from boucle.lake.writer import Feed, LakeWriter
from boucle.loop.feeds import Fed, feed
from boucle.loop.outputs import Outputs, Port
from boucle.loop.upkeep import Care, Caretaker

__all__ = ["LakeKeeper", "Told"]

_log = logging.getLogger("boucle.loop.lakekeeper")

_NICE = 10
_LOOK = 0.25
_PATIENCE = 10.0


class _Task(Struct):
    fed: list[Fed]
    lock: str
    every: float
    speed: float
    now: int
    care: Care | None
    outputs: list[Port]
    lake: str


class Told(Struct):
    """How far a table is; `behind_s` None: not known, `failure` "": it could be written."""

    rows: int
    version: int
    behind_s: float | None
    failure: str
    committed: int | None
    """The row of the log before which it has everything, for good; None when it cannot be asked."""


class _Report(Struct):
    """What the process tells each second: its tables, and what upkeep and gates say."""

    tables: dict[str, Told]
    upkeep: dict[str, str]
    held: dict[str, str]


class LakeKeeper:
    """The process, seen from the loop that started it."""

    def __init__(
        self, fed: list[Fed], lock: Path, every: float, speed: float, now: int, care: Care | None = None,
        outputs: list[Port] | None = None, lake: str = "",
    ) -> None:  # fmt: skip
        self.told: dict[str, Told] = {}
        self.upkeep: dict[str, str] = {}
        """Table → why it could not be refined or kept in order."""
        self.held: dict[str, str] = {}
        """Table → what its gates held against the last batch."""
        words = [sys.executable, "-m", "boucle.loop.lakekeeper"]
        # A session of its own: Ctrl-C in the terminal is for the loop, which then ends this one in order.
        self._process = subprocess.Popen(  # noqa: S603 - our own module, our own interpreter
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(
            msgspec.json.encode(_Task(fed, str(lock), every, speed, now, care, outputs or [], lake)).decode()
            + "\n"
        )
        self._process.stdin.flush()
        self._reader = threading.Thread(target=self._listen, name="boucle lake", daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            report = msgspec.json.decode(line, type=_Report)
            self.told, self.upkeep, self.held = report.tables, report.upkeep, report.held

    def alive(self) -> bool:
        """Whether the process still works."""
        return self._process.poll() is None

    def finish(self, patience: float = 60.0) -> None:
        """Let it commit what is left, and wait for its end; it is ended when it takes longer than `patience`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                _log.warning("the lake's writer had ended by itself")
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            _log.warning(
                "the lake's writer is not done after %.0f s and is ended; the next start goes on", patience
            )
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()


def main() -> None:
    """Commit until standard input ends."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        return  # The loop was killed before it could say what to feed.
    task = msgspec.json.decode(line, type=_Task)
    with Path(task.lock).open("ab") as held:
        if _alone(held):
            _follow(task)


def _alone(held: IO[bytes]) -> bool:
    """Wait for the keeper of an earlier life: the loop was killed, and it still commits what was left.

    False when standard input ends meanwhile.
    """
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if select.select([sys.stdin], [], [], _LOOK)[0]:
                return False
        else:
            return True


def _follow(task: _Task) -> None:
    feeds = [feed(one, EventLog(Path(one.log), stream=one.stream)) for one in task.fed]
    clock = ScaledClock(task.speed, task.now)
    writer = LakeWriter(feeds, clock, seconds=task.every)
    stop = threading.Event()
    ended = threading.Event()
    caretaker = _caretaker(task.care, clock)
    beside = [threading.Thread(target=_give, args=(task, clock, ended), daemon=True)]
    if caretaker is not None:
        beside.append(threading.Thread(target=caretaker.run, args=(stop,), daemon=True))
    for thread in beside:
        thread.start()
    ticks = 0
    while not select.select([sys.stdin], [], [], _LOOK)[0]:
        writer.step()
        ticks += 1
        if ticks % 4 == 0:
            _tell(feeds, writer, caretaker)
    stop.set()
    writer.step(force=True)
    _tell(feeds, writer, caretaker)
    ended.set()  # only now: what was committed last goes out too
    for (
        thread
    ) in beside:  # ended in the middle they leave nothing half done: the loop waits a little, no longer
        thread.join(_PATIENCE)


def _give(task: _Task, clock: Clock, stop: threading.Event) -> None:
    if task.outputs:
        Outputs(task.outputs, task.lake, clock).run(stop)


def _caretaker(care: Care | None, clock: Clock) -> Caretaker | None:
    if care is None:
        return None
    try:
        return Caretaker(care, clock)
    except BoucleError as error:
        _log.warning("the lake is not looked after: %s", error)
        return None


def _tell(feeds: list[Feed], writer: LakeWriter, caretaker: Caretaker | None) -> None:
    behind = writer.behind()
    told: dict[str, Told] = {}
    for one in feeds:
        table = one.table
        failure = writer.failures.get(table.name)
        why, done = str(failure) if failure else "", writer.released(table.name)
        state = Told(table.rows, table.version, behind[table.name].seconds, why, done)
        told[table.name] = state
    try:
        upkeep, held = (dict(caretaker.failures), dict(caretaker.held)) if caretaker else ({}, {})
        sys.stdout.write(msgspec.json.encode(_Report(told, upkeep, held)).decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The loop was killed: nobody listens any more, and standard input will end in a moment.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

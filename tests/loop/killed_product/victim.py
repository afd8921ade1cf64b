"""Processes that are killed: `… victim [MODULE …]`, told what to do on standard input.

The parent has imported everything (the modules named too) and started no thread; it forks one child for each
life it is told of, one JSON object a line, and answers each with how that life ended.
"""

import functools
import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

import boucle.loop.parts
from boucle.address import parse_address
from boucle.block import Block, Position
from boucle.bus.files import FileSource
from boucle.bus.log import EventLog
from boucle.clock import SystemClock
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.loop.intake import Intake
from boucle.loop.outputs import Port
from boucle.loop.parts import PartStore
from boucle.loop.path import Path as LoopPath
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.loop.tables import Tables
from boucle.product.project import load_project
from boucle.quality.ledger import Ledger
from boucle.quality.quarantine import Quarantine
from boucle.serve.score import Score
from boucle.serve.switches import Switches

__all__ = ["MOMENTS", "Ended", "Life"]

HERE = Path(__file__).parent


class Life(Struct, frozen=True):
    """One life: `upto` Blocks of input, and its death (none: it lives to the end of its input)."""

    folder: str
    input: str
    """What `{input}` of the product's addresses is."""
    product: str = str(HERE)
    upto: int | None = None
    after: float | None = None
    """Killed this many seconds after the fork, at the latest."""
    moment: str = ""
    skip: int = 0
    """How often the moment passes before it kills."""
    keeper: bool = False
    """The lake's writer is a process of its own."""
    keeper_after: float | None = None
    """That process is killed this many seconds after it was started."""
    pause: float = 0.0
    """Seconds between two Blocks of input."""
    lake_every: str = "100ms"


class Ended(Struct, frozen=True):
    """How a life ended: killed at a moment or by the clock ("time"), or by itself (killed is "")."""

    killed: str
    status: int
    keepers_killed: int = 0
    file: str = ""
    """The segment that was written to last, and how many of its bytes had been synced before."""
    synced: int = 0
    told: dict[str, int] = {}
    """Its own accounting, when it came to its end."""
    failure: str = ""


def die(moment: str) -> None:
    """No word, no flush: the line of pipe is all that is said, and the kernel keeps it."""
    said = {"killed": moment, "file": _Child.file, "synced": _Child.synced}
    os.write(_Child.pipe, msgspec.json.encode(said) + b"\n")
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class _Child:
    pipe = -1
    file = ""
    synced = 0


Hook = Callable[[Callable[[], None]], None]


def _before(owner: Any, name: str) -> Hook:
    def place(passes: Callable[[], None]) -> None:
        real = getattr(owner, name)

        @functools.wraps(real)
        def instead(*given: Any, **named: Any) -> Any:
            passes()
            return real(*given, **named)

        setattr(owner, name, instead)

    return place


def _after(owner: Any, name: str) -> Hook:
    def place(passes: Callable[[], None]) -> None:
        real = getattr(owner, name)

        @functools.wraps(real)
        def instead(*given: Any, **named: Any) -> Any:
            done = real(*given, **named)
            passes()
            return done

        setattr(owner, name, instead)

    return place


def _half_written(passes: Callable[[], None]) -> None:
    module: Any = boucle.loop.parts
    real = module._write

    def instead(out: Any, data: Any) -> None:
        half = len(data) // 2
        real(out, data[:half])
        passes()
        real(out, data[half:])

    module._write = instead


_MARK_BYTES = 20
"""What the log writes to say how many of its rows are durable; everything else it writes is longer."""


def _writing(passes: Callable[[], None], *, mark: bool, part: float) -> None:
    """Meet the log as it writes: `part` of the bytes are with the kernel when it passes."""
    write, write_parts = os.pwrite, os.pwritev

    def one(handle: int, data: Any, at: int) -> int:
        size = memoryview(data).nbytes
        if (size == _MARK_BYTES) is mark:
            _Child.file, _Child.synced = str(Path(f"/proc/self/fd/{handle}").readlink()), at
            write(handle, bytes(data)[: int(size * part)], at)
            passes()
        return write(handle, data, at)

    def several(handle: int, parts: Any, at: int) -> int:
        if not mark:
            _Child.file, _Child.synced = str(Path(f"/proc/self/fd/{handle}").readlink()), at
            data = b"".join(bytes(one) for one in parts)
            write(handle, data[: int(len(data) * part)], at)
            passes()
        return write_parts(handle, parts, at)

    os.pwrite, os.pwritev = one, several  # type: ignore[assignment]


def _at(*, mark: bool, part: float) -> Hook:
    return functools.partial(_writing, mark=mark, part=part)


MOMENTS: dict[str, tuple[Hook, int]] = {
    "log: before a write": (_at(mark=False, part=0.0), 40),
    "log: in the middle of a write": (_at(mark=False, part=0.6), 40),
    "log: written, not synced": (_at(mark=False, part=1.0), 40),
    "log: synced, not marked": (_at(mark=True, part=0.0), 40),
    "log: marked": (_at(mark=True, part=1.0), 40),
    "log: flushed": (_after(EventLog, "flush"), 100),
    "quarantine: row added": (_after(Quarantine, "add"), 6),
    "quarantine: not synced": (_before(Ledger, "flush"), 15),
    "quarantine: synced": (_after(Ledger, "flush"), 15),
    "source: Block taken": (_after(Intake, "take"), 30),
    "source: not yet told": (_before(FileSource, "commit"), 10),
    "source: told": (_after(FileSource, "commit"), 10),
    "path: step done": (_after(LoopPath, "push"), 40),
    "path: state captured": (_after(LoopPath, "snapshot"), 2),
    "tables: row written": (_after(Tables, "write"), 15),
    "tables: not flushed": (_before(Tables, "flush"), 2),
    "tables: flushed": (_after(Tables, "flush"), 2),
    "checkpoint: in the middle": (_half_written, 4),
    "checkpoint: parts there, manifest not": (_before(PartStore, "_publish"), 2),
    "checkpoint: manifest there, old parts too": (_before(PartStore, "_remove"), 2),
    "checkpoint: old parts gone": (_after(PartStore, "_remove"), 2),
    "checkpoint: not in place": (_before(Path, "replace"), 2),
    "checkpoint: in place": (_after(Path, "replace"), 2),
    "lake: table made": (_after(LakeTable, "_create"), 6),
    "lake: before the commit": (_before(LakeTable, "_commit"), 3),
    "lake: after the commit": (_after(LakeTable, "_commit"), 3),
    "lake: synced": (_after(LakeTable, "sync"), 3),
    "lake: before joining files": (_before(LakeTable, "compact"), 1),
    "lake: files joined": (_after(LakeTable, "compact"), 1),
    "restart: log opened": (_after(EventLog, "open"), 4),
    "restart: state restored": (_after(LoopPath, "restore"), 1),
    "restart: before the source opens": (_before(FileSource, "open"), 1),
    "restart: before catching up": (_before(Loop, "_catch_up"), 1),
    "restart: while catching up": (_after(Loop, "_work"), 3),
    "restart: caught up": (_after(Loop, "_catch_up"), 1),
    "score: before a switch": (_before(Switches, "switch"), 2),
    "score: switch recorded": (_after(Switches, "switch"), 2),
    "score: Block scored": (_after(Score, "step"), 30),
}
"""Moment → how it is met, and how many of its passes a life may survive at most."""


class Paced(FileSource):
    """A file that gives `upto` Blocks and then seems to wait for more, `pause` seconds between two."""

    blocks = 0
    upto: int | None = None
    pause = 0.0

    def poll(self, wait: float) -> Block | None:
        if self.upto is not None and self.blocks >= self.upto:
            time.sleep(wait)
            return None
        if self.pause:
            time.sleep(self.pause)
        block = super().poll(0)
        if block is not None:
            self.blocks = block.position.offset // self._rows
        return block

    def open(self, resume: Position | None = None) -> None:
        super().open(resume)
        self.blocks = 0 if resume is None else resume.offset // self._rows


def _arm(life: Life) -> None:
    if not life.moment:
        return
    left = [life.skip]
    lock = threading.Lock()

    def passes() -> None:
        with lock:
            left[0] -= 1
            now = left[0] < 0
        if now:
            die(life.moment)

    MOMENTS[life.moment][0](passes)


def _no_keeper(product: Path | None = None, outputs: Sequence[Port] = ()) -> None:
    """The loop's own process commits to the lake."""


def live(life: Life) -> Ended:
    """Live; come back only when nobody killed us."""
    settings = {
        "addresses.input": life.input,
        "run.lake_every": life.lake_every,
        "run.checkpoint_every": "100ms",
        "run.queue_blocks": 64,
    }
    project = load_project(Path(life.product), None, settings)
    clock = SystemClock()
    sources: dict[str, Paced] = {}
    for name, spec in project.loop.sources.items():
        address = parse_address(project.settings.fill(spec.from_), "source")
        source = sources[name] = Paced(address, name, clock=clock, **spec.with_)
        source.upto, source.pause = life.upto, life.pause
    loop = Loop(build_plan(project), clock, sources=sources, folder=Path(life.folder))
    # Its state is small: so that segments end, wear out and are cleared all the same.
    loop.checkpoints.store._segment_bytes, loop.checkpoints.store._slack_bytes = 400, 0
    if not life.keeper:
        loop.tables.start_keeper = _no_keeper  # type: ignore[method-assign]
        loop.tables._writer._compact_every = 2
    try:
        loop.open()
    except BoucleError as error:
        return Ended("", 0, failure=str(error))
    loop.start()
    if life.keeper:
        assert loop.tables._keeper is not None
        told = {"keeper": loop.tables._keeper._process.pid}
        os.write(_Child.pipe, msgspec.json.encode(told) + b"\n")
    # A life that is to be killed never ends in order, whatever it has done.
    while loop.failure is None and (
        life.after is not None or any(one.state() != "finished" for one in sources.values())
    ):
        time.sleep(0.01)
    if loop.failure is None:
        loop.drain(30)
    loop.stop()
    counted = [intake.counted() for intake in loop.intakes.values()]
    words = ("stored", "late", "shed", "duplicate", "quarantined", "pending")
    told = {word: sum(getattr(one, word) for one in counted) for word in words}
    told["in"] = sum(one.received for one in counted)
    failure = "" if loop.failure is None else repr(loop.failure)
    failure = failure or "; ".join(loop.tables.failures.values())
    return Ended("", 0, told=told, failure=failure)


def child(life: Life, pipe: int) -> None:
    """What the fork does; never returns."""
    _Child.pipe = pipe
    status = 1
    try:
        _arm(life)
        os.write(pipe, msgspec.json.encode(live(life)) + b"\n")
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


class _Watch:
    """One life seen from its parent."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._keeper = 0
        self._keeper_due = float("inf")
        self._keepers_killed = 0
        self._killed = ""
        self._last: dict[str, Any] = {}

    def see(self) -> Ended:
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            child(self._life, theirs)
        os.close(theirs)
        due = time.monotonic() + (self._life.after if self._life.after is not None else 300.0)
        os.set_blocking(ours, False)
        text = b""
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            text = self._listen(ours, text)
            if done:
                break
            now = time.monotonic()
            if now >= self._keeper_due and self._keeper:
                self._keepers_killed += _kill(self._keeper)
                self._keeper = 0
            if now >= due:
                self._killed = "time"
                _kill(pid)
                due = float("inf")
            time.sleep(0.001)
        os.close(ours)
        if "told" in self._last:
            ended = msgspec.convert(self._last, Ended)
            return msgspec.structs.replace(ended, keepers_killed=self._keepers_killed)
        said = self._last
        return Ended(
            said.get("killed", self._killed),
            status,
            self._keepers_killed,
            said.get("file", ""),
            said.get("synced", 0),
        )

    def _listen(self, pipe: int, text: bytes) -> bytes:
        try:
            text += os.read(pipe, 65536)
        except BlockingIOError:
            return text
        *lines, rest = text.split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "keeper" in said:
                self._keeper = said["keeper"]
                if self._life.keeper_after is not None:
                    self._keeper_due = time.monotonic() + self._life.keeper_after
            else:
                self._last = said
        return rest


def main() -> None:
    """One life a line, until standard input ends."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        ended = _Watch(msgspec.json.decode(line, type=Life)).see()
        sys.stdout.write(msgspec.json.encode(ended).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

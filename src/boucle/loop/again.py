"""Refused readings judged again within a running loop: asked for by a file, stored by the thread that owns the log.

    quarantine/asked/<time>-….json     which readings, and what somebody mended of them

A thread of its own judges them by the contract the loop runs with and reads which identities the log knows; what is
good is handed to its source's thread, which looks at the rows that came meanwhile, appends, and gives the rows to the
path as it does with any other. Intents and outcomes are those of a loop that stands still (`boucle.loop.retry`): a
process killed anywhere stores each reading once. The file goes when all of it was tried.
"""

import logging
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, Position
from boucle.bus.log_disk import replace_file, sync_folder
from boucle.clock import Clock
from boucle.errors import Unavailable
from boucle.loop.intake import Intake
from boucle.loop.rejudge import AT_ONCE, PRODUCER, Good, Judge, identities_in, sorted_out
from boucle.product.project import Project
from boucle.quality.outcomes import Became, Intent, Outcomes
from boucle.quality.quarantine import Reject, named_rejects

__all__ = ["Again", "answered", "ask", "became_of", "unanswered"]

_log = logging.getLogger("boucle.loop.again")


class _Asked(Struct, frozen=True):
    names: list[str]
    mended: dict[str, bytes] = {}


def ask(folder: Path, names: Iterable[str], mended: Mapping[str, bytes], now: int) -> Path:
    """Ask the loop that runs on a folder to judge readings again; durable when this returns."""
    place = folder / "quarantine" / "asked"
    place.mkdir(parents=True, exist_ok=True)
    file = place / f"{now:020d}-{uuid.uuid4().hex[:8]}.json"
    replace_file(file, msgspec.json.encode(_Asked(list(names), dict(mended))))
    return file


def unanswered(folder: Path) -> list[Path]:
    """What was asked for and not yet tried, oldest first."""
    return sorted((folder / "quarantine" / "asked").glob("*.json"))


class _Handed:
    """Good readings on their way to the thread that stores them."""

    def __init__(
        self, again: "Again", good: Sequence[Good], seen: set[tuple[Any, ...]], upto: Position, judge: Judge
    ) -> None:
        self._again, self._good, self._seen, self._upto, self._judge = again, good, seen, upto, judge
        self._intent: Intent | None = None
        self._looked = False
        self.done = threading.Event()

    def store(self, intake: Intake) -> Block | None:
        """Append what nobody stored before; the Block for the path. Called by the source's thread.

        Unavailable when the disk takes nothing: call it again, and the same is stored.
        """
        if not self._looked:
            self._seen |= identities_in(intake.log, self._good, self._judge, self._upto)
            batches, then, doubles = sorted_out(self._good, self._seen, self._judge)
            self._intent = self._again.intend(intake.id, batches, then, doubles)
            self._looked = True
        block = None if self._intent is None else self._again.append(intake, self._intent)
        self.done.set()
        return block


class Again:
    """The requests of one run. `step` is called by one thread, what is handed over by the sources' threads."""

    def __init__(self, project: Project, folder: Path, intakes: Mapping[str, Intake], clock: Clock) -> None:
        self._project, self._folder, self._intakes, self._clock = project, folder, intakes, clock
        self._lock = threading.Lock()
        self._held: Outcomes | None = None
        self._working: dict[Path, list[_Handed]] = {}

    def open(self) -> None:
        """Store what was about to be stored when something stopped: before the log is worked through."""
        if not (self._folder / "quarantine" / "outcomes.ndjson").exists():
            return
        for intent in self._outcomes().pending:
            intake = self._intakes.get(intent.source)
            if intake is not None and intake.resume() is not None:
                intake.know(self.append(intake, intent).rows)

    def step(self) -> bool:
        """Take up what is asked for, tidy up what is done; whether there was anything."""
        files = unanswered(self._folder)
        for file in files:
            if file not in self._working and (begun := self._begin(file)) is not None:
                self._working[file] = begun
            if file in self._working and all(one.done.is_set() for one in self._working[file]):
                file.unlink()
                sync_folder(file.parent)
                del self._working[file]
        return bool(files)

    def _begin(self, file: Path) -> list[_Handed] | None:
        """What was handed over; None while nothing says where one of the sources is."""
        try:
            asked = msgspec.json.decode(file.read_bytes(), type=_Asked)
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("%s asks for nothing that can be read: %s", file, error)
            return []
        since = int(file.name.partition("-")[0]) if file.name[:20].isdecimal() else 0
        known = self._outcomes().known
        wanted: dict[str, list[tuple[str, Reject]]] = {}
        names = set(asked.names)
        for name, entry in named_rejects(self._folder / "quarantine"):
            became = known.get(name)
            # One try for each request: after a crash those that were refused since are not tried again.
            ended = became is not None and (became.outcome != "refused" or became.at >= since)
            if name in names and not ended:
                wanted.setdefault(entry.source, []).append((name, entry))
        if any(self._intakes[one].resume() is None for one in wanted if one in self._intakes):
            return None  # the rows would move it
        handed: list[_Handed] = []
        for source, entries in wanted.items():
            if source in self._intakes:
                handed += self._judge(self._intakes[source], entries, asked.mended)
            else:
                why, now = f"{source} is no source of this product", self._clock.now()
                self._note(
                    [
                        Became(name=name, outcome="refused", at=now, reason=entry.reason, detail=why)
                        for name, entry in entries
                    ]
                )
        return handed

    def _judge(
        self, intake: Intake, entries: Sequence[tuple[str, Reject]], mended: Mapping[str, bytes]
    ) -> list[_Handed]:
        judge = Judge(intake.spec, intake.contract, self._clock, mended)
        good: list[Good] = []
        refused: list[Became] = []
        for name, entry in entries:
            rows, rejects = judge.judge(name, entry)
            if rows is None:
                refused.append(judge.refused(name, entry, rejects))
            else:
                good.append((name, rows))
        self._note(refused)
        if not good:
            return []
        upto = intake.log.end()
        seen = identities_in(intake.log, good, judge)
        handed = [
            _Handed(self, good[begin : begin + AT_ONCE], seen, upto, judge)
            for begin in range(0, len(good), AT_ONCE)
        ]
        intake.handed.extend(handed)
        return handed

    def intend(
        self,
        source: str,
        batches: Sequence[pa.RecordBatch],
        then: Sequence[Became],
        doubles: Sequence[Became],
    ) -> Intent | None:
        """Write down what is about to be stored; None when nothing is new."""
        with self._lock:
            outcomes = self._outcomes()
            intent = None
            if batches:
                intent = Intent.of(source, outcomes.next(source), pa.concat_batches(batches), then)
                outcomes.intend(intent)
            if doubles:
                outcomes.note(doubles)
        return intent

    def append(self, intake: Intake, intent: Intent) -> Block:
        """Store it, once whatever was killed or tried before, and note what became of its readings."""
        resume = intake.resume()
        assert resume is not None, "it is not judged before the source has a place"
        block = Block(intent.source, intent.batch(), intake.watermark, resume)
        position = intake.log.append(block, producer=PRODUCER, sequence=intent.sequence)
        intake.log.flush()
        self._note(intent.then)
        return Block(block.stream, block.rows, block.watermark, position)

    def _note(self, became: Sequence[Became]) -> None:
        if became:
            with self._lock:
                self._outcomes().note(became)

    def _outcomes(self) -> Outcomes:
        # Not before it is needed: while a loop stands still the command writes it.
        if self._held is None:
            self._held = Outcomes(self._folder / "quarantine")
        return self._held

    def run(self, stop: threading.Event, every: float = 0.25) -> None:
        """Step until `stop` is set; a disk that takes nothing now is tried again."""
        while not stop.wait(every):
            try:
                self.step()
            except (Unavailable, OSError) as error:
                _log.warning("readings that were asked for wait: %s", error)

    def close(self) -> None:
        """Give back the file; what was not tried waits for the next start. Safe to call twice."""
        if self._held is not None:
            self._held.close()
            self._held = None


def answered(file: Path, patience: float) -> bool:
    """Wait until a request was tried; False when nobody did."""
    until = time.monotonic() + patience
    while file.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def became_of(folder: Path, names: Iterable[str]) -> list[Became]:
    """What became of each reading last; those nobody judged are left out."""
    known = Outcomes.of(folder / "quarantine")
    return [known[name] for name in names if name in known]

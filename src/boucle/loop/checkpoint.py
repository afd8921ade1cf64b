"""What a restart needs to know: the state of the path and how far it had read, and what was put aside.

The state is kept in parts (`boucle.loop.parts`): the path's thread gives a Checkpoint those that changed, the
keeper's writes them. What was put aside (late and refused readings) is counted per position of the source in a
small file of its own, because the log of accepted rows alone knows nothing of it.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from boucle.block import Position
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.loop.parts import Changed, PartStore, Stored, replace_file
from boucle.ports import Part
from boucle.quality.ledger import Ledger

__all__ = [
    "Aside",
    "Checkpoint",
    "Checkpoints",
    "Counts",
    "Kept",
    "changes",
    "load_checkpoint",
    "read_checkpoint",
]


class Checkpoint(Struct, frozen=True):
    """What a restart needs: `plan` is the fingerprint of the steps the state belongs to."""

    plan: str
    positions: dict[str, Position]
    """Per source stream, how far of its log the path had worked through."""
    resume: dict[str, Position]
    """Per source, up to where it was told that all is durable."""
    policy: bytes
    derived: dict[str, Position] | None = None
    """Per derived stream, where its log ended when the state was taken."""

    taken_at: Nanos = 0
    steps: dict[str, dict[str, Any]] = {}
    """The steps as they were declared, so that a later plan can say what is other."""


def changes(before: Mapping[str, Any], after: Mapping[str, Any], at: str = "") -> list[str]:
    """What is other between two declarations, place by place: `features.with.over: 10min → 1h`."""
    found = []
    for name in [*before, *(name for name in after if name not in before)]:
        place = f"{at}.{name}" if at else str(name)
        if name not in after:
            found.append(f"{place} is gone")
        elif name not in before:
            found.append(f"{place} is new")
        elif isinstance(before[name], dict) and isinstance(after[name], dict):
            found += changes(before[name], after[name], place)
        elif before[name] != after[name]:
            found.append(f"{place}: {before[name]} → {after[name]}")
    return found


class Kept(Struct, frozen=True):
    """A Checkpoint that was read, and the state of the path that belongs to it."""

    checkpoint: Checkpoint
    state: dict[str, Stored]
    """Step → its parts, each read when it is asked for."""


class Checkpoints:
    """The checkpoints of a run, in `folder`: taken by one thread (`hold`), written by another (`write`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = PartStore(folder)
        self._lock = threading.Lock()
        self._waiting: Checkpoint | None = None
        self._changed: dict[str, dict[str, Part]] = {}
        self._whole = False
        """What is held is all there is, not what changed."""
        self._everything = True
        self._writing = False

    @property
    def everything(self) -> bool:
        """Whether the next state must be taken whole: there is none on disk yet, or it is damaged."""
        return self._everything or self.store.damaged

    @property
    def waiting(self) -> bool:
        """A checkpoint was taken and is not yet on disk."""
        return self._waiting is not None or self._writing

    def load(self, plan: str, steps: Mapping[str, dict[str, Any]] | None = None) -> Kept | None:
        """The last checkpoint of this plan, see `load_checkpoint`; what is held from now on are its changes."""
        kept = _of_plan(_kept(self.store), plan, steps, self.folder)
        self._everything = kept is None
        return kept

    def hold(self, checkpoint: Checkpoint, changed: Changed, *, everything: bool) -> None:
        """Take a checkpoint with what changed since the one before, or `everything`; nothing is written yet."""
        with self._lock:
            self._waiting = checkpoint
            self._merge(changed, whole=everything)
            if everything:
                self._everything = self.store.damaged = False

    def _merge(self, newer: Changed, *, whole: bool) -> None:
        if whole:
            self._changed, self._whole = {}, True
        for step, parts in newer.items():
            self._changed.setdefault(step, {}).update(parts)

    def write(self) -> None:
        """Write what is held; durable when this returns. After an error all of it is still held, and tried again."""
        with self._lock:
            checkpoint, changed, whole = self._waiting, self._changed, self._whole
            if checkpoint is None:
                return
            self._waiting, self._changed, self._whole = None, {}, False
            self._writing = True
        try:
            self.store.write(msgspec.msgpack.encode(checkpoint), changed, whole=whole)
        except BaseException:  # a disk that is full, memory that is: nobody may forget what changed
            with self._lock:
                newer, newer_whole = self._changed, self._whole
                self._changed, self._whole = changed, whole
                self._merge(newer, whole=newer_whole)
                self._waiting = self._waiting or checkpoint
            raise
        finally:
            self._writing = False


def load_checkpoint(
    folder: Path, plan: str, steps: Mapping[str, dict[str, Any]] | None = None
) -> Kept | None:
    """The checkpoint of this plan; None when there is none yet. B602 when it belongs to another plan.

    `steps` are those of the plan, as declared: the error then says what is other.
    """
    return _of_plan(read_checkpoint(folder), plan, steps, folder)


def _of_plan(
    kept: Kept | None, plan: str, steps: Mapping[str, dict[str, Any]] | None, folder: Path
) -> Kept | None:
    if kept is not None and kept.checkpoint.plan != plan:
        declared = kept.checkpoint.steps
        other = changes(declared, steps) if steps and declared else []
        raise BoucleError(
            "B602",
            "the checkpoint belongs to another version of the plan",
            where=str(folder),
            why="; ".join(other[:6]) or "its steps or their settings were other than today's",
            fix="run the old version once more to drain it, or remove the folder to start afresh",
        )
    return kept


def read_checkpoint(folder: Path) -> Kept | None:
    """The checkpoint of whatever plan; None when there is none. B601 when it cannot be read."""
    return _kept(PartStore(folder))


def _kept(store: PartStore) -> Kept | None:
    found = store.read()
    if found is None:
        return None
    return Kept(msgspec.msgpack.decode(found.head, type=Checkpoint), found.parts)


class Counts(Struct, frozen=True, array_like=True):
    """How many readings of one source were late, and how many refused, from its beginning to `offset`."""

    partition: str
    offset: int
    late: int
    refused: int


class Aside:
    """The Counts of one source, in `file`; each is durable before the rows of its position are logged.

    A source that is read again from an earlier position gives the same readings in the same order: the counts
    at that position tell how many of those that follow had been put aside before.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ledger: Ledger | None = None

    def open(self, resume: Position | None, now: Counts) -> Counts:
        """Where to go on: the counts at `resume`, or `now` where nobody counted before."""
        if self._file.exists():
            ledger = Ledger(self._file)
            try:
                for line in ledger.read():
                    found = msgspec.json.decode(line, type=Counts)
                    if _reached(found, resume):
                        now = found
            finally:
                ledger.close()
        # What lies beyond is counted again; the file starts anew, so that it holds one life and no more.
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_suffix(".start")
        beside.unlink(missing_ok=True)
        ledger = Ledger(beside)
        ledger.append(msgspec.json.encode(now))
        ledger.close()
        replace_file(self._file, beside.read_bytes())
        beside.unlink()
        self._ledger = Ledger(self._file)
        return now

    def note(self, counts: Counts) -> None:
        """Durable when this returns. A full disk raises `Unavailable`; call again with the same."""
        assert self._ledger is not None
        self._ledger.append(msgspec.json.encode(counts))
        self._ledger.flush()

    def close(self) -> None:
        """Give back the file. Safe to call twice."""
        if self._ledger is not None:
            self._ledger.close()


def _reached(counts: Counts, resume: Position | None) -> bool:
    if resume is None:
        return counts.offset < 0
    return counts.offset < 0 or (counts.partition == resume.partition and counts.offset <= resume.offset)

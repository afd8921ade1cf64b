"""What a restart needs to know: the state of the path and how far it had read, and what was put aside.

A checkpoint is replaced atomically. What was put aside (late and refused readings) is counted per position of
the source in a small file of its own, because the log of accepted rows alone knows nothing of it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from boucle.block import Position
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.quality.ledger import Ledger

__all__ = [
    "Aside",
    "Checkpoint",
    "Counts",
    "changes",
    "load_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
]

VERSION = 1


class Checkpoint(Struct, frozen=True):
    """What a restart needs: `plan` is the fingerprint of the steps the state belongs to."""

    version: int
    plan: str
    positions: dict[str, Position]
    """Per source stream, how far of its log the path had worked through."""
    resume: dict[str, Position]
    """Per source, up to where it was told that all is durable."""
    path: bytes
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


def save_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Write beside, fsync, rename, fsync the folder: there is always one whole checkpoint."""
    file.parent.mkdir(parents=True, exist_ok=True)
    _replace(file, msgspec.msgpack.encode(checkpoint))


def _replace(file: Path, text: bytes) -> None:
    beside = file.with_suffix(".new")
    with beside.open("wb") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_checkpoint(
    file: Path, plan: str, steps: Mapping[str, dict[str, Any]] | None = None
) -> Checkpoint | None:
    """The checkpoint of this plan; None when there is none yet. B602 when it belongs to another plan.

    `steps` are those of the plan, as declared: the error then says what is other.
    """
    checkpoint = read_checkpoint(file)
    if checkpoint is not None and (checkpoint.plan != plan or checkpoint.version != VERSION):
        other = changes(checkpoint.steps, steps) if steps and checkpoint.steps else []
        raise BoucleError(
            "B602",
            "the checkpoint belongs to another version of the plan",
            where=str(file),
            why="; ".join(other[:6]) or "its steps or their settings were other than today's",
            fix="run the old version once more to drain it, or remove the file to start afresh",
        )
    return checkpoint


def read_checkpoint(file: Path) -> Checkpoint | None:
    """The checkpoint of whatever plan; None when there is none. B601 when it cannot be read."""
    if not file.exists():
        return None
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=Checkpoint)
    except msgspec.DecodeError as error:
        raise BoucleError(
            "B601",
            "the checkpoint cannot be read",
            where=str(file),
            why=str(error),
            fix="remove it to start afresh",
        ) from error


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
        _replace(self._file, beside.read_bytes())
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

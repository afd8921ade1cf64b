"""What a restart needs to know: the state of the path and how far it had read, and what was put aside.

A checkpoint is replaced atomically. What was put aside (late and refused readings) is counted per position of
the source in a small file of its own, because the log of accepted rows alone knows nothing of it.
"""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from boucle.block import Position
from boucle.errors import BoucleError
from boucle.quality.ledger import Ledger

__all__ = ["Aside", "Checkpoint", "Counts", "load_checkpoint", "save_checkpoint"]

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


def load_checkpoint(file: Path, plan: str) -> Checkpoint | None:
    """The checkpoint of this plan; None when there is none yet. B602 when it belongs to another plan."""
    if not file.exists():
        return None
    try:
        checkpoint = msgspec.msgpack.decode(file.read_bytes(), type=Checkpoint)
    except msgspec.DecodeError as error:
        raise BoucleError(
            "B601",
            "the checkpoint cannot be read",
            where=str(file),
            why=str(error),
            fix="remove it to start afresh",
        ) from error
    if checkpoint.plan != plan or checkpoint.version != VERSION:
        raise BoucleError(
            "B602",
            "the checkpoint belongs to another version of the plan",
            where=str(file),
            why="its steps or their settings were other than today's",
            fix="run the old version once more to drain it, or remove the file to start afresh",
        )
    return checkpoint


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

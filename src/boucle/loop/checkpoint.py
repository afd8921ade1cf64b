"""Checkpoints: the state of the path and how far it had read, replaced atomically on disk."""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from boucle.block import Position
from boucle.errors import BoucleError

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

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


def save_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Write beside, fsync, rename, fsync the folder: there is always one whole checkpoint."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    with beside.open("wb") as out:
        out.write(msgspec.msgpack.encode(checkpoint))
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

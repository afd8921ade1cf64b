"""What the event log asks of its disk: the durable mark, the lock, whole writes, names that stay."""

import errno
import fcntl
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from boucle.bus.frames import Part
from boucle.errors import BoucleError, Unavailable

__all__ = [
    "DurableMark",
    "damaged",
    "lock_folder",
    "locked",
    "number_in",
    "number_text",
    "refused",
    "replace_file",
    "sync_folder",
    "write_all",
]

_log = logging.getLogger("boucle.bus.log")
_NUMBER = struct.Struct("<8sqI")
_PARTS = 1024
"""IOV_MAX of Linux: how many parts one write takes."""


def number_text(magic: bytes, number: int) -> bytes:
    """A number as a small file holds it: magic of 8 bytes, i64, CRC-32."""
    text = magic + struct.pack("<q", number)
    return text + struct.pack("<I", zlib.crc32(text))


def number_in(magic: bytes, text: bytes) -> int | None:
    """The number of such a file; None when one bit of it is not what was written."""
    if len(text) != _NUMBER.size:
        return None
    found, number, crc = _NUMBER.unpack(text)
    return int(number) if found == magic and zlib.crc32(text[:-4]) == crc else None


class DurableMark:
    """How many rows are surely on disk, kept in a small file that other processes may read.

    It is written after each sync of the rows and not synced itself, so it can only ever be too
    low; rows below it are never taken for a torn tail.
    """

    _magic = b"BCLFMARK"

    def __init__(self, folder: Path) -> None:
        self.file = folder / "durable"

    def read(self) -> int | None:
        """The number of durable rows; None when the file is absent or unreadable."""
        try:
            return number_in(self._magic, self.file.read_bytes())
        except FileNotFoundError:
            return None

    def write(self, rows: int) -> None:
        """Set it; a disk that refuses is told to the operator, for the rows themselves are safe."""
        try:
            out = os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(out, number_text(self._magic, rows), 0)
            finally:
                os.close(out)
        except OSError as error:
            _log.warning("%s cannot be written (%s); the rows are safe", self.file, error)


def damaged(file: Path, at: int, why: str) -> BoucleError:
    """The error for bytes that were durable and are not what was written."""
    return BoucleError(
        "B311",
        f"the log is damaged at byte {at}",
        where=str(file),
        why=why,
        fix="restore the file from a copy, or move its folder away and start an empty log",
    )


def refused(folder: Path, error: OSError) -> Unavailable:
    """The error for a disk that does not take what is written."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    return Unavailable(
        "B315",
        "the disk is full" if full else "the disk refuses to write",
        where=str(folder),
        why=error.strerror or str(error),
        fix="free space or shorten retention; writing resumes by itself" if full else "check the disk",
    )


def sync_folder(folder: Path) -> None:
    """Make created, renamed and removed names of a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock_folder(folder: Path) -> int:
    """Take the folder for writing; B313 when another process has it."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise Unavailable(
            "B313",
            "another process writes this log",
            where=str(folder),
            fix="stop it, or give this one a folder of its own",
        ) from None
    return handle


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock file, waiting for whoever has it, in this process or another."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_all(handle: int, parts: Iterable[Part], at: int) -> int:
    """Write every part, one after the other from `at` on; returns where they end.

    Raises OSError with some of the bytes written. Nothing is copied into one buffer first.
    """
    waiting = deque(memoryview(part).cast("B") for part in parts)
    while waiting:
        written = os.pwritev(handle, list(islice(waiting, _PARTS)), at)
        at += written
        while waiting and written >= len(waiting[0]):
            written -= len(waiting.popleft())
        if written:
            waiting[0] = waiting[0][written:]
    return at


def replace_file(file: Path, text: bytes) -> None:
    """Put a small file in place, whole or not at all: written beside, synced, renamed. Raises OSError."""
    beside = file.with_name(f".{file.name}.new")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            write_all(handle, [text], 0)
            os.fsync(handle)
        finally:
            os.close(handle)
        beside.replace(file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)

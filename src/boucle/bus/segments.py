"""The files of an event log: segments in order, the durable mark, the lock, repair of a torn tail."""

import fcntl
import logging
import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from msgspec import Struct

from boucle.bus.frames import HEAD_KIND, HEADER, ROWS_KIND, Frame, encode, frame_at, next_frame, size_of
from boucle.errors import BoucleError, Unavailable

__all__ = [
    "DurableMark",
    "Segment",
    "create_segment",
    "damaged",
    "lock_folder",
    "read_segment",
    "repair",
    "segment_files",
    "sync_folder",
    "write_all",
]

_log = logging.getLogger("boucle.bus.log")
_SUFFIX = ".seg"


class Segment(Struct, frozen=True):
    """A segment file as it was found or made: `size` bytes of intact frames, rows `first` to `end`."""

    file: Path
    schema: pa.Schema
    salt: int
    first: int
    end: int
    size: int
    last: tuple[str, int] | None
    """The source's own position in the last frame."""


class DurableMark:
    """How many rows are surely on disk, kept in a small file that other processes may read.

    It is written after each sync of the rows and not synced itself, so it can only ever be too
    low; rows below it are never taken for a torn tail.
    """

    _layout = struct.Struct("<8sqI")
    _magic = b"BCLFMARK"

    def __init__(self, folder: Path) -> None:
        self.file = folder / "durable"

    def read(self) -> int | None:
        """The number of durable rows; None when the file is absent or unreadable."""
        if not self.file.exists():
            return None
        text = self.file.read_bytes()
        if len(text) != self._layout.size:
            return None
        magic, rows, crc = self._layout.unpack(text)
        return int(rows) if magic == self._magic and zlib.crc32(text[:-4]) == crc else None

    def write(self, rows: int) -> None:
        """Set it; a disk that refuses is told to the operator, for the rows themselves are safe."""
        text = self._magic + struct.pack("<q", rows)
        try:
            out = os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(out, text + struct.pack("<I", zlib.crc32(text)), 0)
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


def segment_files(folder: Path) -> list[tuple[int, Path]]:
    """The segments with the number of their first row, oldest first."""
    found = [(int(file.stem), file) for file in folder.glob(f"*{_SUFFIX}") if file.stem.isdecimal()]
    return sorted(found)


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


def write_all(handle: int, data: bytes, at: int) -> None:
    """Write every byte at `at`, or raise OSError with some of them written."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written


def create_segment(folder: Path, first: int, schema: pa.Schema) -> tuple[int, Segment]:
    """Make a segment durable, head and name, before any row goes into it; returns its open handle."""
    file = folder / f"{first:020d}{_SUFFIX}"
    salt = secrets.randbits(31)
    head = encode(HEAD_KIND, schema.serialize(), salt=0, offset=first, mark=salt)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(handle, head, 0)
        os.fsync(handle)
        sync_folder(folder)
    except OSError:
        os.close(handle)
        file.unlink(missing_ok=True)
        raise
    return handle, Segment(file, schema, salt, first, first, len(head), None)


def _head(file: Path, data: memoryview, first: int) -> tuple[pa.Schema, int, int] | None:
    frame = frame_at(data, 0, 0)
    if frame is None or frame.kind != HEAD_KIND or frame.offset != first:
        return None
    try:
        return pa.ipc.read_schema(pa.py_buffer(frame.body)), frame.mark, frame.end
    except pa.ArrowInvalid as error:
        raise damaged(file, 0, f"its schema cannot be read: {error}") from error


def repair(file: Path, first: int, durable: int | None) -> tuple[Segment | None, int]:
    """Find the intact frames of the last segment, and how many torn bytes follow them.

    None when not even its head was written. B311 when what is broken had been durable.
    """
    data = memoryview(file.read_bytes())
    head = _head(file, data, first)
    if head is None:
        if durable is None and len(data) > 0:
            raise damaged(file, 0, "its head is broken, and nothing tells whether rows follow")
        if durable is not None and durable > first:
            raise damaged(file, 0, f"rows {first} to {durable} were durable")
        return None, len(data)
    schema, salt, at = head
    end, last = first, None
    while at < len(data):
        frame = frame_at(data, at, salt)
        if frame is None or frame.kind != ROWS_KIND or frame.offset != end:
            break
        end, last, at = end + frame.rows, (frame.label, frame.mark), frame.end
    if durable is not None and end < durable:
        raise damaged(file, at, f"rows {end} to {durable} were durable")
    if at < len(data) and next_frame(data, at, salt) is not None:
        raise damaged(file, at, "intact rows follow the broken ones")
    return Segment(file, schema, salt, first, end, at, last), len(data) - at


def read_segment(file: Path, first: int, start: int, upto: int) -> Iterator[tuple[Frame, pa.RecordBatch]]:
    """The frames of a segment that hold rows from `start` on and before `upto`; B311 when one is broken."""
    with file.open("rb", buffering=1 << 18) as source:
        size = os.fstat(source.fileno()).st_size
        head = _head(file, memoryview(_first_frame(source, size)), first)
        if head is None:
            raise damaged(file, 0, "its head is broken")
        schema, salt, at = head
        expected = first
        while expected < upto:
            header = source.read(HEADER.size)
            length = size_of(header)
            if length is None or at + length > size:
                raise damaged(file, at, f"rows from {expected} on are broken")
            rows, offset = HEADER.unpack(header)[5:7]
            if offset != expected or rows == 0:
                raise damaged(file, at, f"row {offset} stands where row {expected} belongs")
            if offset + rows <= start:
                source.seek(length - HEADER.size, os.SEEK_CUR)
            else:
                frame = frame_at(memoryview(header + source.read(length - HEADER.size)), 0, salt)
                if frame is None:
                    raise damaged(file, at, f"rows from {expected} on do not match their checksum")
                yield frame, _batch(file, at, frame, schema)
            at, expected = at + length, expected + rows


def _first_frame(source: BinaryIO, size: int) -> bytes:
    header = source.read(HEADER.size)
    length = size_of(header)
    return header if length is None or length > size else header + source.read(length - HEADER.size)


def _batch(file: Path, at: int, frame: Frame, schema: pa.Schema) -> pa.RecordBatch:
    try:
        batch = pa.ipc.read_record_batch(pa.py_buffer(frame.body), schema)
    except (pa.ArrowInvalid, OSError) as error:
        raise damaged(file, at, f"its rows cannot be read: {error}") from error
    if batch.num_rows != frame.rows:
        raise damaged(file, at, f"{batch.num_rows} rows where {frame.rows} were written")
    return batch

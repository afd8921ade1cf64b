"""The segment files of an event log: found, made, walked, and repaired when their tail is torn."""

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block
from boucle.bus.frames import (
    HEAD_KIND,
    HEADER,
    KEPT_KIND,
    PRODUCERS_KIND,
    ROWS_KIND,
    Encoded,
    Frame,
    encode,
    frame_at,
    frame_of,
    header_of,
    next_frame,
)
from boucle.bus.log_disk import damaged, sync_folder, write_all
from boucle.bus.log_producers import Producers
from boucle.clock import Nanos
from boucle.errors import ContractBroken

__all__ = [
    "Head",
    "Place",
    "Segment",
    "create_segment",
    "encode_rows",
    "first_row",
    "head_of",
    "plain",
    "read_head",
    "repair",
    "rows_in",
    "segment_files",
    "segment_name",
    "segment_names",
    "walk",
]

_SUFFIX = ".seg"
_UNREADABLE = (pa.ArrowException, OSError, EOFError)
"""What Arrow raises for a message that it did not write."""


class Head(NamedTuple):
    """What the first frame of a segment tells; `size` bytes of it."""

    schema: pa.Schema
    salt: int
    created: Nanos
    size: int


class Place(NamedTuple):
    """Where in the segment of this salt a frame begins: the number of its first row, and the byte."""

    salt: int
    row: int
    at: int


class Segment(Struct, frozen=True):
    """A segment file as it was found or made: `size` bytes of intact frames, rows `first` to `end`."""

    file: Path
    schema: pa.Schema
    salt: int
    first: int
    end: int
    size: int
    created: Nanos
    last: tuple[str, int] | None
    """The source's own position in the last frame."""


def segment_name(first: int) -> str:
    """The file name of the segment that begins with this row; names sort as their rows do."""
    return f"{first:020d}{_SUFFIX}"


def first_row(name: str) -> int:
    """The number of the first row, as the name of a segment tells it."""
    return int(name[: -len(_SUFFIX)])


def segment_names(listed: Iterable[str]) -> list[str]:
    """Of the names in a folder those of the segments, oldest first."""
    names = [name for name in listed if name.endswith(_SUFFIX)]
    return sorted(name for name in names if name[: -len(_SUFFIX)].isdecimal())


def segment_files(folder: Path) -> list[tuple[int, Path]]:
    """The segments with the number of their first row, oldest first."""
    return [(first_row(name), folder / name) for name in segment_names(os.listdir(folder))]  # noqa: PTH208 - faster


def head_of(schema: pa.Schema, first: int, created: Nanos) -> tuple[int, Encoded]:
    """A new salt, and the first frame of a segment that uses it."""
    salt = secrets.randbits(31)
    body = schema.serialize()
    return salt, encode(HEAD_KIND, body, salt=0, offset=first, watermark=created, mark=salt)


def create_segment(
    folder: Path, first: int, schema: pa.Schema, *, created: Nanos, producers: Producers
) -> tuple[int, Segment]:
    """Make a segment durable, head and name, before any row goes into it; returns its open handle."""
    file = folder / segment_name(first)
    salt, head = head_of(schema, first, created)
    parts = list(head.parts)
    if producers:
        parts += encode(PRODUCERS_KIND, producers.snapshot(), salt=salt, offset=first).parts
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        size = write_all(handle, parts, 0)
        os.fsync(handle)
        sync_folder(folder)
    except OSError:
        os.close(handle)
        file.unlink(missing_ok=True)
        raise
    return handle, Segment(file, schema, salt, first, first, size, created, None)


def plain(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows as they are stored: dictionary-encoded columns have their values."""
    for index, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            values = pa.field(field.name, field.type.value_type, field.nullable, field.metadata)
            rows = rows.set_column(index, values, rows.column(index).dictionary_decode())
    return rows


def encode_rows(
    segment: Segment, offset: int, block: Block, rows: int, body: pa.Buffer, extra: bytes
) -> Encoded:
    """The frame of a Block, serialized as `body`; ContractBroken (B314) when it is too long for one."""
    try:
        return encode(
            ROWS_KIND,
            body,
            salt=segment.salt,
            rows=rows,
            offset=offset,
            watermark=block.watermark,
            label=block.position.partition,
            mark=block.position.offset,
            extra=extra,
        )
    except ValueError as error:
        where, fix = str(segment.file.parent), "cut the Block into smaller ones"
        raise ContractBroken("B314", str(error), where=where, fix=fix) from error


def _head(file: Path, data: memoryview, first: int) -> Head | None:
    frame = frame_at(data, 0, 0)
    if frame is None or frame.kind != HEAD_KIND or frame.offset != first:
        return None
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(frame.body))
    except _UNREADABLE as error:
        raise damaged(file, 0, f"its schema cannot be read: {error}") from error
    # Logs of before retention tell no time: their file was last written after their newest row.
    return Head(schema, frame.mark, frame.watermark or file.stat().st_mtime_ns, frame.end)


def read_head(file: Path, first: int) -> Head:
    """The head of a segment; B311 when it is broken."""
    with file.open("rb", buffering=1 << 12) as source:
        return _read_head(file, source, first)


def _read_head(file: Path, source: BinaryIO, first: int) -> Head:
    start = source.read(HEADER.size)
    claimed = header_of(start)
    if claimed is not None and claimed.size <= os.fstat(source.fileno()).st_size:
        start += source.read(claimed.size - HEADER.size)
    head = _head(file, memoryview(start), first)
    if head is None:
        raise damaged(file, 0, "its head is broken")
    return head


def repair(
    file: Path, first: int, durable: int | None, producers: Producers | None = None
) -> tuple[Segment | None, int]:
    """Find the intact frames of the last segment, and how many torn bytes follow them.

    None when not even its head was written. B311 when what is broken had been durable. What
    idempotent producers had appended is told to `producers`.
    """
    data = memoryview(file.read_bytes())
    head = _head(file, data, first)
    if head is None:
        if durable is None and len(data) > 0:
            raise damaged(file, 0, "its head is broken, and nothing tells whether rows follow")
        if durable is not None and durable > first:
            raise damaged(file, 0, f"rows {first} to {durable} were durable")
        return None, len(data)
    at = head.size
    end, last = first, None
    producers = Producers() if producers is None else producers
    while at < len(data):
        frame = frame_at(data, at, head.salt)
        if frame is None or frame.kind == HEAD_KIND or frame.offset != end:
            break
        _learn(file, at, frame, producers)
        if frame.kind != PRODUCERS_KIND:
            end, last = end + frame.rows, (frame.label, frame.mark)
        at = frame.end
    if durable is not None and end < durable:
        raise damaged(file, at, f"rows {end} to {durable} were durable")
    if at < len(data) and next_frame(data, at, head.salt) is not None:
        raise damaged(file, at, "intact rows follow the broken ones")
    return Segment(file, head.schema, head.salt, first, end, at, head.created, last), len(data) - at


def _learn(file: Path, at: int, frame: Frame, producers: Producers) -> None:
    try:
        producers.saw(frame)
    except ValueError as error:
        raise damaged(file, at, str(error)) from error


def walk(
    file: Path, first: int, start: int, upto: int, known: Place | None = None
) -> Iterator[tuple[Frame, Head, Place]]:
    """The frames with rows from `start` on and before `upto`, each with its head and its own Place.

    `known` is a Place told before: what lies ahead of it is not looked at again. B311 when a frame
    is broken or missing.
    """
    with file.open("rb", buffering=1 << 16) as source:
        size = os.fstat(source.fileno()).st_size
        head = _read_head(file, source, first)
        expected, at = first, head.size
        if known is not None and known.salt == head.salt and known.row <= start:
            expected, at = known.row, known.at
            source.seek(at)
        while expected < upto:
            header = source.read(HEADER.size)
            claimed = header_of(header)
            if claimed is None or at + claimed.size > size:
                raise damaged(file, at, f"rows from {expected} on are broken")
            # Only what producers had appended stands between rows without being one.
            if claimed.offset != expected or (claimed.rows == 0) != (claimed.kind == PRODUCERS_KIND):
                raise damaged(file, at, f"row {claimed.offset} stands where row {expected} belongs")
            at, expected = at + claimed.size, expected + claimed.rows
            rest = claimed.size - HEADER.size
            if expected <= start and claimed.rows:
                source.seek(rest, os.SEEK_CUR)
                continue
            frame = frame_of(header, memoryview(source.read(rest)), head.salt, at)
            if frame is None:
                why = f"rows from {claimed.offset} on do not match their checksum"
                raise damaged(file, at - claimed.size, why)
            yield frame, head, Place(head.salt, frame.offset, at - claimed.size)


def rows_in(
    file: Path, frame: Frame, schema: pa.Schema
) -> tuple[pa.RecordBatch | None, npt.NDArray[np.int64] | None]:
    """The rows of a frame; when compaction left only some, also the number of each.

    None when the frame holds no rows; B311 when they cannot be read.
    """
    if frame.kind == PRODUCERS_KIND:
        return None, None
    numbers = None
    if frame.kind == KEPT_KIND:
        numbers = np.frombuffer(frame.extra, "<u4").astype(np.int64) + frame.offset
        if not _ascending(numbers, frame):
            raise damaged(file, frame.end, "the numbers of its rows are not in order")
        if not len(numbers):
            return None, None
    elif frame.kind != ROWS_KIND:
        raise damaged(file, frame.end, "another head stands between its rows")
    try:
        batch = pa.ipc.read_record_batch(pa.py_buffer(frame.body), schema)
    except _UNREADABLE as error:
        raise damaged(file, frame.end, f"its rows cannot be read: {error}") from error
    expected = frame.rows if numbers is None else len(numbers)
    if batch.num_rows != expected:
        raise damaged(file, frame.end, f"{batch.num_rows} rows where {expected} were written")
    return batch, numbers


def _ascending(numbers: Sequence[int] | npt.NDArray[np.int64], frame: Frame) -> bool:
    if not len(numbers):
        return True
    return bool(np.all(np.diff(numbers) > 0)) and int(numbers[-1]) < frame.offset + frame.rows

"""The bytes of the event log: frames of Arrow rows with a header and a checksum.

    segment  = head, (rows | kept | producers)*     one schema each; file name = offset of its first row
    frame    = header (48 bytes), label, extra, body; each of the three padded to 8
    header   = magic "BCLF", version u8, kind u8, label length u16, body length u32, rows u32,
               offset i64, watermark i64, mark i64, extra length u32, crc u32      little-endian
    head       kind 0: body = Arrow schema message, mark = the segment's random salt,
               watermark = when it was made, ns since 1970 (0 in logs of before retention)
    rows       kind 1: body = Arrow record batch message, offset = number of the first row,
               label and mark = partition and offset of the source's own position,
               extra = nothing, or a producer's sequence i64 and name
    kept       kind 2: what compaction left of `rows` rows: extra = u32 each, which of them the body holds
    producers  kind 3: no rows; body = what idempotent producers had appended before it

The crc (CRC-32 of zlib) covers everything but itself and starts from the segment's salt, so a
copy of a frame inside some payload is never taken for a frame of this segment. The extra length
was a zero before there was an extra, so the first logs read as they are.
"""

import struct
import zlib
from typing import Final, NamedTuple, TypeAlias

import pyarrow as pa

__all__ = [
    "HEADER",
    "HEAD_KIND",
    "KEPT_KIND",
    "PRODUCERS_KIND",
    "ROWS_KIND",
    "Encoded",
    "Frame",
    "Header",
    "encode",
    "frame_at",
    "frame_of",
    "header_of",
    "next_frame",
]

MAGIC: Final = b"BCLF"
VERSION: Final = 1
HEAD_KIND: Final = 0
ROWS_KIND: Final = 1
KEPT_KIND: Final = 2
PRODUCERS_KIND: Final = 3
HEADER: Final = struct.Struct("<4sBBHIIqqqII")
_CHECKED: Final = HEADER.size - 4  # the crc is the last field
_JOINED: Final = 16 << 10  # below this a copy costs less than one more part to write

Part: TypeAlias = bytes | pa.Buffer
"""Bytes to write as they are."""


class Encoded(NamedTuple):
    """A frame in the parts it is written from, without joining them; `size` in bytes."""

    parts: tuple[Part, ...]
    size: int


class Header(NamedTuple):
    """What a header claims, unchecked; `size` is that of the whole frame."""

    kind: int
    rows: int
    offset: int
    size: int


class Frame(NamedTuple):
    """One checked frame, and where it ends in its file."""

    kind: int
    label: str
    rows: int
    offset: int
    watermark: int
    mark: int
    extra: memoryview
    body: memoryview
    end: int


def _padded(length: int) -> int:
    return (length + 7) & ~7


def encode(
    kind: int,
    body: Part,
    *,
    salt: int,
    rows: int = 0,
    offset: int = 0,
    watermark: int = 0,
    label: str = "",
    mark: int = 0,
    extra: bytes = b"",
) -> Encoded:
    """One frame as bytes. ValueError when the body or the label is too long for its length field."""
    name = label.encode()
    size = len(body) if isinstance(body, bytes) else int(body.size)
    length = _padded(size)
    if length >= 1 << 32 or len(name) >= 1 << 16:
        raise ValueError(f"a frame holds up to 4 GiB, not {size} bytes")
    header = HEADER.pack(
        MAGIC, VERSION, kind, len(name), length, rows, offset, watermark, mark, len(extra), 0
    )[:_CHECKED]
    front = b"".join((name, bytes(-len(name) % 8), extra, bytes(-len(extra) % 8)))
    pad = bytes(length - size)
    crc = zlib.crc32(body, zlib.crc32(front, zlib.crc32(header, salt)))
    front = b"".join((header, zlib.crc32(pad, crc).to_bytes(4, "little"), front))
    whole = len(front) + length
    if length <= _JOINED:
        return Encoded((b"".join((front, body, pad)),), whole)
    return Encoded((front, body, pad) if pad else (front, body), whole)


def header_of(header: bytes) -> Header | None:
    """What these bytes claim to be; None when they are no header."""
    if len(header) < HEADER.size:
        return None
    magic, version, kind, label, length, rows, offset, _, _, extra, _ = HEADER.unpack_from(header)
    if magic != MAGIC or version != VERSION or kind > PRODUCERS_KIND or length % 8:
        return None
    return Header(kind, rows, offset, HEADER.size + _padded(label) + _padded(extra) + length)


def frame_of(header: bytes, rest: memoryview, salt: int, end: int) -> Frame | None:
    """The frame of this header and what follows it, up to `end` in its file; None when it is not intact."""
    _, _, kind, label, length, rows, offset, watermark, mark, extra, crc = HEADER.unpack(header)
    if zlib.crc32(rest, zlib.crc32(header[:_CHECKED], salt)) != crc:
        return None
    name = bytes(rest[:label]).decode(errors="replace")
    more = rest[_padded(label) :][:extra]
    return Frame(kind, name, rows, offset, watermark, mark, more, rest[len(rest) - length :], end)


def frame_at(data: memoryview, at: int, salt: int) -> Frame | None:
    """The frame that starts at `at`; None when what stands there is not one whole, intact frame."""
    header = bytes(data[at : at + HEADER.size])
    claimed = header_of(header)
    if claimed is None or at + claimed.size > len(data):
        return None
    return frame_of(header, data[at + HEADER.size : at + claimed.size], salt, at + claimed.size)


def next_frame(data: memoryview, at: int, salt: int) -> int | None:
    """Where the next intact frame begins after `at`; None when there is none."""
    text = bytes(data[at:])
    found = text.find(MAGIC)
    while found >= 0:
        if frame_at(data, at + found, salt) is not None:
            return at + found
        found = text.find(MAGIC, found + 1)
    return None

"""The bytes of the event log: frames of Arrow rows with a header and a checksum.

    segment  = head, rows*                  one schema each; file name = offset of its first row
    frame    = header (48 bytes), label (padded to 8), body (padded to 8)
    header   = magic "BCLF", version u8, kind u8, label length u16, body length u32, rows u32,
               offset i64, watermark i64, mark i64, zero u32, crc u32      little-endian
    head     kind 0: body = Arrow schema message, mark = the segment's random salt
    rows     kind 1: body = Arrow record batch message, offset = number of the first row,
               label and mark = partition and offset of the source's own position

The crc (CRC-32 of zlib) covers everything but itself and starts from the segment's salt, so a
copy of a frame inside some payload is never taken for a frame of this segment.
"""

import struct
import zlib
from typing import Final, NamedTuple

import pyarrow as pa

__all__ = ["HEADER", "HEAD_KIND", "ROWS_KIND", "Frame", "encode", "frame_at", "next_frame", "size_of"]

MAGIC: Final = b"BCLF"
VERSION: Final = 1
HEAD_KIND: Final = 0
ROWS_KIND: Final = 1
HEADER: Final = struct.Struct("<4sBBHIIqqq4xI")
_CHECKED: Final = HEADER.size - 4  # the crc is the last field


class Frame(NamedTuple):
    """One checked frame, and where it ends in its file."""

    kind: int
    label: str
    rows: int
    offset: int
    watermark: int
    mark: int
    body: memoryview
    end: int


def _padded(length: int) -> int:
    return (length + 7) & ~7


def encode(
    kind: int,
    body: pa.Buffer,
    *,
    salt: int,
    rows: int = 0,
    offset: int = 0,
    watermark: int = 0,
    label: str = "",
    mark: int = 0,
) -> bytes:
    """One frame as bytes. ValueError when the body or the label is too long for its length field."""
    name = label.encode()
    length = _padded(body.size)
    if length >= 1 << 32 or len(name) >= 1 << 16:
        raise ValueError(f"a frame holds up to 4 GiB, not {body.size} bytes")
    header = HEADER.pack(MAGIC, VERSION, kind, len(name), length, rows, offset, watermark, mark, 0)
    rest = b"".join((name, bytes(_padded(len(name)) - len(name)), body, bytes(length - body.size)))
    crc = zlib.crc32(rest, zlib.crc32(header[:_CHECKED], salt))
    return b"".join((header[:_CHECKED], crc.to_bytes(4, "little"), rest))


def size_of(header: bytes) -> int | None:
    """How long the frame of this header claims to be; None when these bytes are no header."""
    if len(header) < HEADER.size:
        return None
    magic, version, kind, label, length, *_ = HEADER.unpack_from(header)
    if magic != MAGIC or version != VERSION or kind not in {HEAD_KIND, ROWS_KIND} or length % 8:
        return None
    return int(HEADER.size + _padded(label) + length)


def frame_at(data: memoryview, at: int, salt: int) -> Frame | None:
    """The frame that starts at `at`; None when what stands there is not one whole, intact frame."""
    header = bytes(data[at : at + HEADER.size])
    size = size_of(header)
    if size is None or at + size > len(data):
        return None
    _, _, kind, label_length, length, rows, offset, watermark, mark, crc = HEADER.unpack(header)
    rest = data[at + HEADER.size : at + size]
    if zlib.crc32(rest, zlib.crc32(header[:_CHECKED], salt)) != crc:
        return None
    label = bytes(rest[:label_length]).decode(errors="replace")
    return Frame(kind, label, rows, offset, watermark, mark, rest[len(rest) - length :], at + size)


def next_frame(data: memoryview, at: int, salt: int) -> int | None:
    """Where the next intact frame begins after `at`; None when there is none."""
    text = bytes(data[at:])
    found = text.find(MAGIC)
    while found >= 0:
        if frame_at(data, at + found, salt) is not None:
            return at + found
        found = text.find(MAGIC, found + 1)
    return None

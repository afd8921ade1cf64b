"""Reads the sizes an Arrow IPC stream declares, before anybody allocates what it asks for.

A message of a few bytes may claim a body of terabytes, columns of billions of empty values, or
buffers that decompress to more than the memory. The sizes stand in the FlatBuffers metadata of each
message (Arrow columnar format, "Encapsulated message format"; Message.fbs, MetadataVersion V5):

    message      = 0xFFFFFFFF, int32 metadata length, metadata, body; the end: 0xFFFFFFFF, 0
    Message      = 0 version, 1 header type, 2 header, 3 body length
    Schema       = 0 endianness (0 is little)
    RecordBatch  = 0 length, 1 nodes [length i64, nulls i64], 2 buffers [offset i64, length i64],
                   3 compression
"""

import struct
from typing import Final, NamedTuple

from boucle.arrow_message import I64, PREFIX, U16, U32, field
from boucle.quality.reject import Unreadable

__all__ = ["Sizes", "check_sizes"]

_CONTINUATION: Final = 0xFFFFFFFF
_SCHEMA: Final = 1
_RECORD_BATCH: Final = 3
_END: Final = b"\xff\xff\xff\xff\0\0\0\0"
_PAIR = struct.Struct("<qq")


class Sizes(NamedTuple):
    """What a stream declares: its rows and record batches, and where its schema message ends."""

    rows: int
    batches: int
    schema_end: int


def check_sizes(payload: bytes, max_bytes: int, max_rows: int) -> Sizes:
    """What the stream declares; Unreadable when a declared size cannot be true or allowed.

    What follows the end of the stream is refused too: nobody would ever look at it.
    """
    try:
        sizes = _walk(payload, max_bytes, max_rows)
    except (struct.error, IndexError) as error:
        raise Unreadable("malformed", f"its metadata points outside the payload ({error})") from None
    if sizes.rows > max_rows:
        raise Unreadable("too_large", f"{sizes.rows} rows, at most {max_rows} are taken")
    return sizes


def _walk(payload: bytes, max_bytes: int, max_rows: int) -> Sizes:
    kind, header, _, at = _message(payload, 0)
    endian = field(payload, header, 0) if kind == _SCHEMA else 0
    if kind != _SCHEMA or (endian and U16.unpack_from(payload, endian)[0]):
        raise Unreadable("malformed", "no little-endian schema comes first")
    schema_end, rows, unpacked, batches = at, 0, 0, 0
    while at < len(payload) and payload[at : at + 9] != _END:
        kind, header, body_at, end = _message(payload, at)
        if kind != _RECORD_BATCH:
            raise Unreadable("malformed", f"message kind {kind}; only plain record batches are taken")
        count, size = _batch(payload, header, body_at, end - body_at, max_rows)
        rows, unpacked, batches, at = rows + count, unpacked + size, batches + 1, end
        if unpacked > max_bytes:
            what = f"{unpacked} bytes once decompressed, at most {max_bytes} are taken"
            raise Unreadable("too_large", what)
    return Sizes(rows, batches, schema_end)


def _message(payload: bytes, at: int) -> tuple[int, int, int, int]:
    """Kind, where its header stands, where its body begins and ends."""
    mark, length = PREFIX.unpack_from(payload, at)
    start, left = at + PREFIX.size, len(payload) - at - PREFIX.size
    if mark != _CONTINUATION or not 0 < length <= left:
        raise Unreadable("malformed", f"no whole Arrow message at byte {at}")
    table = start + U32.unpack_from(payload, start)[0]
    kind, header, size = (field(payload, table, number) for number in (1, 2, 3))
    if not kind or not header:
        raise Unreadable("malformed", "an Arrow message without a header")
    body: int = I64.unpack_from(payload, size)[0] if size else 0
    if not 0 <= body <= left - length:
        raise Unreadable("malformed", f"a body of {body} bytes is declared, {left - length} are there")
    body_at = start + length
    return payload[kind], header + U32.unpack_from(payload, header)[0], body_at, body_at + body


def _pairs(payload: bytes, table: int, number: int) -> list[tuple[int, int]]:
    vector = field(payload, table, number)
    if not vector:
        return []
    start = vector + U32.unpack_from(payload, vector)[0]
    count = U32.unpack_from(payload, start)[0]
    if count * _PAIR.size > len(payload) - start:
        raise struct.error(f"a vector of {count} pairs")
    return list(_PAIR.iter_unpack(payload[start + 4 : start + 4 + count * _PAIR.size]))


def _batch(payload: bytes, table: int, body_at: int, body: int, max_rows: int) -> tuple[int, int]:
    """Rows, and bytes once decompressed."""
    length = field(payload, table, 0)
    rows: int = I64.unpack_from(payload, length)[0] if length else 0
    if rows < 0 or rows > max_rows:
        raise Unreadable("too_large" if rows > 0 else "malformed", f"a record batch of {rows} rows")
    if field(payload, table, 3):
        body = _decompressed(payload, table, body_at, body)
    # The narrowest value is one bit: a column longer than that holds nothing but a claim.
    for values, nulls in _pairs(payload, table, 1):
        if not 0 <= nulls <= values or values > max(rows, 8 * body):
            raise Unreadable("malformed", f"a column of {values} values in {body} bytes")
    return rows, body


def _decompressed(payload: bytes, table: int, body_at: int, body: int) -> int:
    total = 0
    for offset, length in _pairs(payload, table, 2):
        if length == 0:
            continue
        if offset < 0 or length < 8 or offset + length > body:
            raise Unreadable("malformed", f"a buffer of {length} bytes outside its body")
        size: int = I64.unpack_from(payload, body_at + offset)[0]
        total += length - 8 if size == -1 else size
        if size < -1:
            raise Unreadable("malformed", f"a buffer of {size} bytes")
    return total

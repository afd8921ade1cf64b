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

from boucle.quality.reject import Unreadable

__all__ = ["Sizes", "check_sizes"]

_CONTINUATION: Final = 0xFFFFFFFF
_SCHEMA: Final = 1
_RECORD_BATCH: Final = 3
_PREFIX = struct.Struct("<Ii")
_PAIR = struct.Struct("<qq")
_I64 = struct.Struct("<q")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_U16 = struct.Struct("<H")


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
    at, rows, unpacked, batches, schema_end = 0, 0, 0, 0, 0
    while at < len(payload):
        mark, length = _PREFIX.unpack_from(payload, at)
        if mark != _CONTINUATION or length < 0:
            raise Unreadable("malformed", f"no Arrow message at byte {at}")
        at += 8
        if length == 0:
            if at != len(payload):
                raise Unreadable("malformed", f"{len(payload) - at} bytes after the end of the stream")
            break
        body_at = at + length
        kind, header, body = _message(payload, at, body_at)
        if body < 0 or body > len(payload) - body_at:
            raise Unreadable(
                "malformed", f"a body of {body} bytes is declared, {len(payload) - body_at} are there"
            )
        if kind != (_RECORD_BATCH if schema_end else _SCHEMA):
            raise Unreadable("malformed", f"message kind {kind}; a schema and plain record batches are taken")
        if (
            kind == _SCHEMA
            and (endian := _field(payload, header, 0))
            and _U16.unpack_from(payload, endian)[0]
        ):
            raise Unreadable("malformed", "big-endian numbers; send little-endian ones")
        if kind == _RECORD_BATCH:
            count, size = _batch(payload, header, body_at, body, max_rows)
            rows, unpacked = rows + count, unpacked + size
            if unpacked > max_bytes:
                what = f"{unpacked} bytes once decompressed, at most {max_bytes} are taken"
                raise Unreadable("too_large", what)
            batches += 1
        at = body_at + body
        schema_end = schema_end or at
    if not schema_end:
        raise Unreadable("malformed", "the payload holds no Arrow message")
    return Sizes(rows, batches, schema_end)


def _message(payload: bytes, at: int, end: int) -> tuple[int, int, int]:
    if end > len(payload):
        raise Unreadable(
            "malformed", f"metadata up to byte {end} is declared, the payload ends at {len(payload)}"
        )
    table = at + _U32.unpack_from(payload, at)[0]
    kind, header, body = (_field(payload, table, number) for number in (1, 2, 3))
    if not kind or not header:
        raise Unreadable("malformed", "an Arrow message without a header")
    inner = header + _U32.unpack_from(payload, header)[0]
    return payload[kind], inner, _I64.unpack_from(payload, body)[0] if body else 0


def _field(payload: bytes, table: int, number: int) -> int:
    """Where a table's field stands; 0 when it is absent."""
    vtable = table - _I32.unpack_from(payload, table)[0]
    if vtable < 0:
        raise struct.error("a table before the payload")
    if 4 + 2 * number >= _U16.unpack_from(payload, vtable)[0]:
        return 0
    offset: int = _U16.unpack_from(payload, vtable + 4 + 2 * number)[0]
    return table + offset if offset else 0


def _pairs(payload: bytes, table: int, number: int) -> list[tuple[int, int]]:
    field = _field(payload, table, number)
    if not field:
        return []
    start = field + _U32.unpack_from(payload, field)[0]
    count = _U32.unpack_from(payload, start)[0]
    if count * _PAIR.size > len(payload) - start:
        raise struct.error(f"a vector of {count} pairs")
    return list(_PAIR.iter_unpack(payload[start + 4 : start + 4 + count * _PAIR.size]))


def _batch(payload: bytes, table: int, body_at: int, body: int, max_rows: int) -> tuple[int, int]:
    """Rows, and bytes once decompressed."""
    length = _field(payload, table, 0)
    rows: int = _I64.unpack_from(payload, length)[0] if length else 0
    if rows < 0 or rows > max_rows:
        raise Unreadable("too_large" if rows > 0 else "malformed", f"a record batch of {rows} rows")
    if _field(payload, table, 3):
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
        size: int = _I64.unpack_from(payload, body_at + offset)[0]
        total += length - 8 if size == -1 else size
        if size < -1:
            raise Unreadable("malformed", f"a buffer of {size} bytes")
    return total

"""Where things stand in an Arrow IPC message (Arrow columnar format, "Encapsulated message format"; Message.fbs).

message      = 0xFFFFFFFF, int32 metadata length, metadata, body
Message      = 0 version, 1 header type, 2 header, 3 body length
RecordBatch  = 0 length, 1 nodes [length i64, nulls i64], 2 buffers [offset i64, length i64]
"""

import struct
from typing import Final

from msgspec import Struct

__all__ = ["I32", "I64", "PREFIX", "U16", "U32", "Places", "field", "places"]

PREFIX: Final = struct.Struct("<Ii")
I64: Final = struct.Struct("<q")
I32: Final = struct.Struct("<i")
U32: Final = struct.Struct("<I")
U16: Final = struct.Struct("<H")


class Places(Struct, frozen=True):
    """Of one message with a record batch: the byte at which each size stands, and where the body begins."""

    length: int
    body_length: int
    nodes: int
    """The first of pairs: values and nulls of a column."""
    buffers: int
    """The first of pairs: offset in the body and length of a buffer."""
    node_count: int
    buffer_count: int
    body: int
    compressed: bool


def field(message: bytes, table: int, number: int) -> int:
    """Where a table's field stands; 0 when it is absent. struct.error when that is outside the message."""
    vtable = table - I32.unpack_from(message, table)[0]
    if vtable < 0:
        raise struct.error("a table before the payload")
    if 4 + 2 * number >= U16.unpack_from(message, vtable)[0]:
        return 0
    offset: int = U16.unpack_from(message, vtable + 4 + 2 * number)[0]
    return table + offset if offset else 0


def places(message: bytes) -> Places:
    """Where the sizes of a whole record batch stand that is known to be sound and has rows and a body."""
    _, length = PREFIX.unpack_from(message, 0)
    table = PREFIX.size + U32.unpack_from(message, PREFIX.size)[0]
    header = field(message, table, 2)
    batch = header + U32.unpack_from(message, header)[0]
    nodes, buffers = (field(message, batch, number) for number in (1, 2))
    nodes, buffers = (at + U32.unpack_from(message, at)[0] for at in (nodes, buffers))
    return Places(
        length=field(message, batch, 0),
        body_length=field(message, table, 3),
        nodes=nodes + U32.size,
        buffers=buffers + U32.size,
        node_count=U32.unpack_from(message, nodes)[0],
        buffer_count=U32.unpack_from(message, buffers)[0],
        body=PREFIX.size + length,
        compressed=bool(field(message, batch, 3)),
    )

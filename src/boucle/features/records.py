"""Feature rows as bytes that sort as the rows do: the newest first, and of one moment the greatest.

A record is the moment and the features, 8 bytes each, big-endian, mapped so that bytes compare as numbers do (null
before every number, NaN behind). What an online store holds of a key is its newest records, newest first. So the
rule of `as_of` — the newest row wins, the greatest of equal moments — is the same comparison of bytes wherever it is
made: here, or within Redis.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["WORD", "decoded", "encoded", "keys_of_rows", "merged", "moments", "numbers"]

WORD = 8
_TOP = np.uint64(1 << 63)
_NULL = np.uint64(0)
"""No number is mapped to it: the least, -inf, is 2⁵² - 1. Nor is a moment, but for the first of all."""

Codes = NDArray[np.uint64]


def encoded(at: NDArray[np.int64], columns: Sequence[pa.Array]) -> list[bytes]:
    """One record for each row of moments (nanoseconds) and features (doubles, null where unknown)."""
    codes = np.empty((len(at), 1 + len(columns)), np.uint64)
    codes[:, 0] = at.view(np.uint64) ^ _TOP
    for place, column in enumerate(columns, 1):
        values = (
            column.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0
        )  # of the two zeros the positive one
        values[np.isnan(values)] = np.nan  # and of all NaN the same
        bits = values.view(np.uint64)
        codes[:, place] = np.where(bits & _TOP, ~bits, bits | _TOP)
        if column.null_count:
            codes[column.is_null().to_numpy(zero_copy_only=False), place] = _NULL
    body, size = codes.astype(">u8").tobytes(), WORD * codes.shape[1]
    return [body[place : place + size] for place in range(0, len(body), size)]


def decoded(held: Sequence[bytes | None], depth: int, columns: int) -> Codes:
    """(keys, depth, 1 + columns) codes of what is held of each key; 0 where there are fewer records."""
    width = depth * WORD * (1 + columns)
    nothing = bytes(width)
    body = b"".join([(one + nothing)[:width] if one else nothing for one in held])
    return np.frombuffer(body, ">u8").astype(np.uint64).reshape(len(held), depth, 1 + columns)


def moments(codes: Codes) -> NDArray[np.int64]:
    """The moments of codes, in nanoseconds."""
    return (codes ^ _TOP).view(np.int64)


def numbers(codes: Codes) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The numbers of codes, and which of them are null."""
    bits = np.where(codes & _TOP, codes ^ _TOP, ~codes)
    null = codes == _NULL
    bits[null] = 0
    return bits.view(np.float64), null


def merged(held: bytes, new: bytes, size: int, depth: int) -> bytes:
    """The newest `depth` records of both, one for each moment; both are sorted, newest first."""
    if not held or new[-size : WORD - size or None] > held[:WORD]:
        return (new + held)[: size * depth]
    both = [new[at : at + size] for at in range(0, len(new), size)]
    both += [held[at : at + size] for at in range(0, len(held), size)]
    found: dict[bytes, bytes] = {}
    for record in sorted(both, reverse=True):
        found.setdefault(record[:WORD], record)
    return b"".join(list(found.values())[:depth])


def keys_of_rows(rows: pa.RecordBatch, entity: Sequence[str]) -> list[bytes | None]:
    """The key of each row by the columns of its entity; None where one of them is null."""
    columns = [rows.column(name).to_pylist() for name in entity]
    encode = msgspec.msgpack.encode
    return [None if None in one else encode(one) for one in zip(*columns, strict=True)]

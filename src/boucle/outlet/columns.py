"""Arrow columns as the bytes PostgreSQL's formats give each value: vectorised, no Python object per value."""

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from numpy.typing import NDArray

from boucle.outlet import pack
from boucle.outlet.pgtype import TYPES, pg_type

__all__ = ["Values", "encode", "framed", "values_of"]

_EPOCH_US = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970: where PostgreSQL counts from."""
_EPOCH_DAYS = 10_957
_NUMERIC = 48
"""Bytes kept for one numeric of 18 digits."""


class Values(Struct, frozen=True):
    """The bytes of one column. `width` > 0: all so wide and none null, `starts` and `lengths` are then empty."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    width: int = 0

    def sizes(self) -> NDArray[np.int64] | int:
        """Bytes of each value with its length before it."""
        if self.width:
            return self.width + 4
        return np.maximum(self.lengths, 0).astype(np.int64) + 4


_NONE = np.empty(0, np.int64)
_NO_LENGTHS = np.empty(0, np.int32)


def encode(columns: list[Values], rows: int, tag: bytes = b"D") -> memoryview:
    """Rows as DataRow messages, or with the tag `d` as CopyData of COPY's binary format: they only differ in it."""
    sizes = np.full(rows, 7, np.int64)
    for column in columns:
        sizes += column.sizes()
    ends = np.cumsum(sizes)
    at = ends - sizes
    out = np.empty(int(ends[-1]) if rows else 0, np.uint8)
    pack.heads(out, at, ends, tag[0], len(columns))
    for column in columns:
        _put(out, at, column)
    return out.data


def framed(column: pa.Array, tag: bytes) -> memoryview:
    """Each text of a column as a message of its own; none may be null."""
    values = _variable(column)
    out = np.empty(int(values.lengths.sum()) + 5 * len(column), np.uint8)
    pack.framed(out, values.data, values.starts, values.lengths, tag[0])
    return out.data


def _put(out: NDArray[np.uint8], at: NDArray[np.int64], column: Values) -> None:
    if column.width:
        pack.put_even(out, at, column.data, column.width)
    else:
        pack.put(out, at, column.data, column.starts, column.lengths)


def values_of(column: pa.Array, kind: str, binary: bool) -> Values:
    """The bytes of a column that `pgtype.as_text` or `as_binary` brought into form; `kind` is its DuckDB type."""
    arrow = column.type
    if pa.types.is_null(arrow):
        return Values(
            np.empty(0, np.uint8), np.zeros(len(column), np.int64), np.full(len(column), -1, np.int32)
        )
    if pa.types.is_string(arrow) or pa.types.is_binary(arrow):
        return _variable(column)
    if not binary:
        return _variable(column.cast(pa.string()))
    if pa.types.is_decimal(arrow):
        return _numeric(column)
    if pa.types.is_list(arrow):
        return _list(column, kind)
    return _fixed(column, _big_endian(column))


def _present(column: pa.Array) -> Any:
    return np.asarray(pc.is_valid(column))


def _variable(column: pa.Array) -> Values:
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    content = column.buffers()[2]
    data = np.frombuffer(content, np.uint8) if content is not None and content.size else np.empty(0, np.uint8)
    lengths = np.diff(offsets)
    if column.null_count:
        lengths = np.where(_present(column), lengths, np.int32(-1))
    return Values(data, offsets[:-1].astype(np.int64), lengths)


def _fixed(column: pa.Array, data: NDArray[Any]) -> Values:
    width = data.dtype.itemsize
    raw = np.ascontiguousarray(data).view(np.uint8)
    if not column.null_count:
        return Values(raw, _NONE, _NO_LENGTHS, width)
    lengths = np.where(_present(column), np.int32(width), np.int32(-1))
    return Values(raw, np.arange(len(column), dtype=np.int64) * width, lengths)


def _plain(column: pa.Array, kind: str) -> NDArray[Any]:
    """The values as they lie in memory; what stands at a null means nothing."""
    return np.frombuffer(column.buffers()[1], kind)[column.offset : column.offset + len(column)]


def _big_endian(column: pa.Array) -> NDArray[Any]:
    arrow = column.type
    if pa.types.is_boolean(arrow):
        return np.asarray(pc.fill_null(column, False)).astype(np.uint8)
    if pa.types.is_date32(arrow):
        return (_plain(column, "i4") - _EPOCH_DAYS).astype(">i4")
    if pa.types.is_timestamp(arrow):
        return (_plain(column.cast(pa.timestamp("us", arrow.tz)), "i8") - _EPOCH_US).astype(">i8")
    if pa.types.is_time64(arrow):
        return _plain(column, "i8").astype(">i8")
    if arrow == pa.month_day_nano_interval():
        spans = _plain(column, "i4,i4,i8")
        told = np.empty(len(column), np.dtype([("us", ">i8"), ("days", ">i4"), ("months", ">i4")]))
        told["us"], told["days"], told["months"] = spans["f2"] // 1000, spans["f1"], spans["f0"]
        return told
    native = np.dtype(arrow.to_pandas_dtype())
    return _plain(column, native.str).astype(native.newbyteorder(">"))


def _numeric(column: pa.Array) -> Values:
    lengths: NDArray[np.int32]
    if column.type.precision <= 18:
        raw = np.frombuffer(column.buffers()[1], np.int64).reshape(-1, 2)
        low = np.ascontiguousarray(raw[column.offset : column.offset + len(column), 0])
        data = np.empty(_NUMERIC * len(column), np.uint8)
        lengths = pack.numerics(low, column.type.scale, data, _NUMERIC)
        starts = np.arange(len(column), dtype=np.int64) * _NUMERIC
        if column.null_count:
            lengths = np.where(_present(column), lengths, np.int32(-1))
        return Values(data, starts, lengths)
    told = [None if one is None else numeric(one) for one in column.to_pylist()]
    return _variable(pa.array(told, pa.binary()))


def numeric(value: Decimal) -> bytes:
    """One number of any length as PostgreSQL's numeric."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return bytes.fromhex("00000000c0000000")
    scale = max(0, -exponent)
    whole = int("".join(map(str, digits))) * 10 ** max(0, exponent) * 10 ** (-scale % 4)
    groups: list[int] = []
    while whole:
        whole, group = divmod(whole, 10_000)
        groups.append(group)
    weight = len(groups) - 1 - (scale + 3) // 4
    last = next((index for index, group in enumerate(groups) if group), len(groups))
    kept = groups[last:][::-1]
    head = (len(kept), weight if kept else 0, 0x4000 if sign and kept else 0, scale)
    return b"".join(int(one & 0xFFFF).to_bytes(2, "big") for one in (*head, *kept))


def _list(column: pa.Array, kind: str) -> Values:
    inner = kind.rpartition("[")[0]
    offsets = np.asarray(column.offsets).astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    flat = column.values.slice(first, last - first)
    elements = values_of(flat, inner, True)
    sizes = np.broadcast_to(elements.sizes(), len(flat))
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    records = np.empty(int(ends[-1]), np.uint8)
    _put(records, ends[:-1].copy(), elements)
    begins = ends[offsets - first]
    counts = np.diff(offsets).astype(np.int32)
    missing = (
        np.concatenate([[0], np.cumsum(~_present(flat))]) if flat.null_count else np.zeros(len(flat) + 1)
    )
    nulls = (np.diff(missing[offsets - first]) > 0).astype(np.uint8)
    lengths = np.where(counts > 0, np.diff(begins) + 20, 12)
    starts = np.cumsum(lengths) - lengths
    data = np.empty(int(lengths.sum()) + 20, np.uint8)
    oid = TYPES[pg_type(kind).element].oid
    pack.arrays(data, starts, records, begins, counts, nulls, oid)
    told = lengths.astype(np.int32)
    if column.null_count:
        told = np.where(_present(column), told, np.int32(-1))
    return Values(data, starts, told)

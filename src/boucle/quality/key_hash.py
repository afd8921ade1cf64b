"""Keys of rows as two 64-bit numbers each, so that keys of any columns can be sorted, stored and compared alike.

One column of whole numbers, times or truth values is exact: the first number is the value, mixed by a bijection
(the finalizer of SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014), the
second is 0. Texts and several columns are hashed to 128 bits; two different keys are taken for one with
probability n²/2¹²⁹, under 10⁻²⁰ for a thousand million keys.
"""

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from boucle.quality.key_table import hash_texts, mix

__all__ = ["Keys", "keys_of"]

Keys: TypeAlias = tuple[np.ndarray[Any, np.dtype[np.uint64]], np.ndarray[Any, np.dtype[np.uint64]]]

_U = np.uint64
_GOLDEN = 0x9E3779B97F4A7C15
_SECOND = 0xD6E8FEB86659FD93


def keys_of(columns: list[Any]) -> Keys:
    """The keys of rows without a null in them; columns are Arrow arrays of one length."""
    with np.errstate(over="ignore"):
        if len(columns) == 1:
            first, second, exact = _one(columns[0])
            return (mix(first), second) if exact else (mix(first), mix(second))
        rows = len(columns[0])
        first, second = np.full(rows, _GOLDEN, _U), np.full(rows, _SECOND, _U)
        for column in columns:
            one, two, exact = _one(column)
            first = mix(first * _U(_SECOND) ^ mix(one))
            second = mix(second * _U(_GOLDEN) ^ (mix(one ^ _U(_SECOND)) if exact else two))
        return first, second


def _one(column: Any) -> tuple[Any, Any, bool]:
    """A column's numbers before mixing, and whether the first alone tells the value."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _one(column.dictionary_decode())
    if pa.types.is_boolean(kind):
        values = np.asarray(column.cast(pa.uint8())).astype(_U)
    elif pa.types.is_integer(kind):
        values = np.asarray(column).astype(np.int64 if not pa.types.is_uint64(kind) else _U).view(_U)
    elif pa.types.is_floating(kind):
        # -0.0 is 0.0, and every NaN the same.
        floats = np.asarray(column.cast(pa.float64())) + 0.0
        values = np.where(np.isnan(floats), np.nan, floats).view(_U)
    elif pa.types.is_temporal(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        values = np.asarray(column.cast(width)).astype(np.int64).view(_U)
    else:
        return *_text_numbers(column), False
    return values, np.zeros(len(values), _U), True


def _text_numbers(column: Any) -> tuple[Any, Any]:
    binary = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    wide = column.cast(pa.large_binary() if binary else pa.large_string())
    _, held, data = wide.buffers()
    offsets = (
        np.frombuffer(held, np.int64, len(wide) + 1, 8 * wide.offset) if len(wide) else np.zeros(1, np.int64)
    )
    first, second = np.empty(len(wide), _U), np.empty(len(wide), _U)
    hash_texts(np.frombuffer(data or b"", np.uint8), offsets, first, second)
    return first, second

"""What is known of a column besides its bad rows: mergeable figures and a histogram, for rules against history.

Means and spreads are merged as Chan, Golub and LeVeque do ("Updating formulae and a pairwise algorithm for
computing sample variances", 1979). Numbers fall into buckets a tenth of a natural logarithm wide, the same for
every run, so that histograms of any cut add up; texts into 64 by their MD5.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

__all__ = [
    "BUCKET",
    "HUGE",
    "OFFSET",
    "TEXT_BUCKETS",
    "ColumnFigures",
    "buckets_of",
    "merged",
    "stability_index",
]

BUCKET = 0.1
"""The width of a bucket of numbers, in natural logarithms."""
OFFSET = 8000
"""Added so that the buckets of positive numbers are positive: the logarithm of a double is over -745."""
TEXT_BUCKETS = 64
HUGE = 1e150
"""Numbers of this size have no square: like NaN and infinity they are left out of means and spreads."""
_BINS = 10
_FLOOR = 1e-4
"""The least share of a bin, so that one that was empty does not make the index infinite (usual practice)."""


class ColumnFigures(Struct, frozen=True):
    """Of the values of a column: how many rows and nulls, and of the numbers smaller than `HUGE` the moments."""

    rows: int = 0
    nulls: int = 0
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of the squared distances from the mean."""
    minimum: float = math.inf
    maximum: float = -math.inf

    @classmethod
    def of(cls, column: Any) -> "ColumnFigures":
        """The figures of an Arrow column."""
        rows, nulls = len(column), column.null_count
        if not (
            pa.types.is_integer(column.type)
            or pa.types.is_floating(column.type)
            or pa.types.is_decimal(column.type)
        ):
            return cls(rows, nulls)
        values = np.asarray(column.drop_null().cast(pa.float64(), safe=False))
        values = values[np.abs(values) < HUGE]
        if not len(values):
            return cls(rows, nulls)
        mean = float(values.mean())
        squares = float(np.square(values - mean).sum())
        return cls(rows, nulls, len(values), mean, squares, float(values.min()), float(values.max()))

    def merged(self, other: "ColumnFigures") -> "ColumnFigures":
        """Of the values of both."""
        count = self.count + other.count
        rows, nulls = self.rows + other.rows, self.nulls + other.nulls
        if not count:
            return ColumnFigures(rows, nulls)
        apart = other.mean - self.mean
        mean = self.mean + apart * other.count / count
        squares = self.squares + other.squares + apart * apart * self.count * other.count / count
        least, most = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        return ColumnFigures(rows, nulls, count, mean, squares, least, most)

    def figure(self, name: str) -> float:
        """One of `rows`, `nulls` (their share), `mean`, `stddev`, `minimum`, `maximum`; NaN when there is none."""
        if name == "rows":
            return float(self.rows)
        if name == "nulls":
            return self.nulls / self.rows if self.rows else math.nan
        if not self.count:
            return math.nan
        return {
            "mean": self.mean,
            "stddev": math.sqrt(self.squares / self.count),
            "minimum": self.minimum,
            "maximum": self.maximum,
        }[name]


def buckets_of(column: Any) -> dict[int, int]:
    """Bucket → values of an Arrow column in it; nulls, NaN and infinity are in none."""
    column = column.drop_null()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if (
        pa.types.is_integer(column.type)
        or pa.types.is_floating(column.type)
        or pa.types.is_decimal(column.type)
    ):
        values = np.asarray(column.cast(pa.float64(), safe=False))
        values = values[np.isfinite(values)]
        zero = values == 0
        size = np.floor(np.log(np.abs(np.where(zero, 1.0, values))) / BUCKET) + OFFSET
        codes = np.where(zero, 0, np.sign(values) * size).astype(np.int64)
        found, counts = np.unique(codes, return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))
    counted = pc.value_counts(column.cast(pa.string()))
    into: dict[int, int] = {}
    for text, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
        # The same 64 bits as DuckDB's md5_number_lower.
        number = int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:], "little")
        bucket = number % TEXT_BUCKETS
        into[bucket] = into.get(bucket, 0) + count
    return into


def merged(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    """The histogram of both."""
    into = dict(one)
    for bucket, count in other.items():
        into[bucket] = into.get(bucket, 0) + count
    return into


def stability_index(before: Mapping[int, int], now: Mapping[int, int]) -> float:
    """Population stability index of two histograms: 0 is the same, over 0.25 is usually called another population.

    Buckets are first joined, in order, to ten bins of about the same share of `before`. NaN when either is empty.
    """
    all_before, all_now = sum(before.values()), sum(now.values())
    if not all_before or not all_now:
        return math.nan
    codes = sorted({*before, *now})
    shares = np.cumsum([before.get(code, 0) for code in codes]) / all_before
    bins = np.minimum((np.concatenate([[0.0], shares[:-1]]) * _BINS).astype(int), _BINS - 1)
    # What is beyond all that was there before is in bins of its own.
    bins = np.where(
        np.array(codes) < min(before), _BINS, np.where(np.array(codes) > max(before), _BINS + 1, bins)
    )
    old, new = np.zeros(_BINS + 2), np.zeros(_BINS + 2)
    for code, place in zip(codes, bins, strict=True):
        old[place] += before.get(code, 0) / all_before
        new[place] += now.get(code, 0) / all_now
    used = (old > 0) | (new > 0)
    old, new = np.maximum(old[used], _FLOOR), np.maximum(new[used], _FLOOR)
    return float(((new - old) * np.log(new / old)).sum())

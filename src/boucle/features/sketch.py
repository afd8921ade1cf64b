"""A column in little memory: a reference learned once, and the counts of later rows against its bins.

A tally holds whole numbers only, so that tallies of parts of a window, added in any order, are the tally of the window
to the last bit: sketches of partitions can be merged, and the cut into Blocks changes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.errors import BoucleError
from boucle.features.dependence import inflation

__all__ = ["OTHER", "Reference", "Tally", "add", "centres", "is_number", "learn", "merge", "tally"]

Wide = NDArray[np.float64]

OTHER = "\0other"
"""The bin of words that were rare or unknown in the reference."""

_BINS = 64
_CATEGORIES = 50
_STEP = 2.0**-16
_FURTHEST = 2.0**17
"""Sums are kept in steps of 2⁻¹⁶ reference deviations, values cut off at 2¹⁷ of them: whole numbers below 2⁵³ for a
million rows, which float64 adds without rounding."""


class Tally(Struct):
    """Rows of one column by bin of its reference. `sums`: of numbers, in steps, from the reference mean."""

    counts: list[int]
    sums: list[float]
    missing: int = 0

    @property
    def present(self) -> int:
        """Rows with a value."""
        return sum(self.counts)


class Reference(Struct):
    """What a column was like: its bins, its own tally, and how much its rows depend on each other."""

    edges: list[float]
    """Of a number: rising; bin k holds values in [edges[k-1], edges[k])."""
    words: list[str]
    """Of words: the frequent ones; the last is OTHER. Empty for a number."""
    mean: float
    deviation: float
    tally: Tally
    inflation: float
    """Rows that tell as much as one independent row, 1 or more (`dependence`)."""
    missing_inflation: float


def learn(column: pa.Array) -> Reference:
    """A reference from its rows in order; B760 for a column that is neither numbers, flags nor words."""
    if is_number(column.type):
        return _learn_numbers(_numbers(column))
    words = _words(column)
    known = [word for word in words if word is not None]
    frequent = [word for word, _ in sorted(Counter(known).items(), key=lambda one: (-one[1], one[0]))]
    frequent = [*frequent[:_CATEGORIES], OTHER]
    reference = Reference([], frequent, 0.0, 1.0, Tally([], []), 1.0, 1.0)
    reference.tally = tally(column, reference)
    reference.inflation = max(
        (inflation(np.array([word == one for word in known])) for one in frequent[:3]), default=1.0
    )
    reference.missing_inflation = inflation(np.array([word is None for word in words]))
    return reference


def _learn_numbers(values: Wide) -> Reference:
    finite = np.isfinite(values)
    known = values[finite]
    if len(known):
        distinct = np.unique(known)
        edges = distinct[1:]  # few values: a bin each, so that the comparison is exact
        if len(distinct) > _BINS:
            edges = np.unique(np.quantile(known, np.arange(1, _BINS) / _BINS, method="lower"))
        with np.errstate(over="ignore", invalid="ignore"):
            mean, deviation = float(known.mean()), float(known.std())
    else:
        edges, mean, deviation = np.zeros(0), 0.0, 0.0
    if not np.isfinite(deviation) or not np.isfinite(mean):  # values so large that their sum is none
        mean, deviation = 0.0, float(np.abs(known).max())
    deviation = deviation or abs(mean) or 1.0
    reference = Reference(edges.tolist(), [], mean, deviation, Tally([], []), 1.0, 1.0)
    reference.tally = _tally_numbers(values, reference)
    reference.inflation = inflation(known)
    reference.missing_inflation = inflation(~finite)
    return reference


def tally(column: pa.Array, reference: Reference) -> Tally:
    """The rows of a column against the bins of its reference; B760 when it changed from numbers to words or back."""
    if not reference.words:
        return _tally_numbers(_numbers(column), reference)
    place = {word: bin_ for bin_, word in enumerate(reference.words)}
    last = len(reference.words) - 1
    found = Tally([0] * len(reference.words), [])
    for word, count in Counter(_words(column)).items():
        if word is None:
            found.missing += count
        else:
            found.counts[place.get(word, last)] += count
    return found


def _tally_numbers(values: Wide, reference: Reference) -> Tally:
    known = values[np.isfinite(values)]
    bins = np.searchsorted(np.array(reference.edges), known, side="right")
    with np.errstate(over="ignore"):
        steps = np.rint(
            np.clip((known - reference.mean) / reference.deviation, -_FURTHEST, _FURTHEST) / _STEP
        )
    size = len(reference.edges) + 1
    counts = np.bincount(bins, minlength=size).tolist()
    sums = np.bincount(bins, steps, minlength=size).tolist()
    return Tally(counts, sums, len(values) - len(known))


def add(one: Tally, other: Tally) -> None:
    """Add the rows of `other`, counted against the same reference, to `one`."""
    one.counts = [mine + theirs for mine, theirs in zip(one.counts, other.counts, strict=True)]
    one.sums = [mine + theirs for mine, theirs in zip(one.sums, other.sums, strict=True)]
    one.missing += other.missing


def merge(tallies: Sequence[Tally]) -> Tally:
    """All rows together, of tallies counted against the same reference (one or more)."""
    first = tallies[0]
    whole = Tally(list(first.counts), list(first.sums), first.missing)
    for one in tallies[1:]:
        add(whole, one)
    return whole


def centres(one: Tally) -> tuple[Wide, Wide]:
    """Of a number: the mean of each filled bin in reference deviations from the reference mean, and its count."""
    counts = np.array(one.counts, np.float64)
    filled = counts > 0
    means: Wide = np.array(one.sums)[filled] / counts[filled] * _STEP
    return means, counts[filled]


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type is compared as numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _numbers(column: pa.Array) -> Wide:
    if not is_number(column.type):
        raise _refused(column.type)
    wide = column.cast(pa.float64(), safe=False)
    values: Wide = wide.to_numpy(zero_copy_only=False).astype(np.float64)
    return values


def _words(column: pa.Array) -> list[str | None]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _words(column.dictionary_decode())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        return [None if word is None else str(word) for word in column.to_pylist()]
    raise _refused(kind)


def _refused(kind: Any) -> BoucleError:
    return BoucleError(
        "B760", f"drift of a column of type {kind} is not told", fix="name columns of numbers, words or flags"
    )

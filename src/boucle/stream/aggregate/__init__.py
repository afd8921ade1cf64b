"""What windows tell of their rows: count, sum, mean and the rest, folded from left to right.

Each keeps a small state per open window and takes rows in their canonical order, one after the other, so
that the answer does not depend on how the stream was cut. Floating sums are double-double (Knuth's TwoSum);
sums of whole numbers are exact int64. Variance after Welford (1962). Quantiles are exact while a window holds
at most 1024 values and from there on DDSketch (Masson et al., VLDB 2019): within 1 % of the value.
"""

import re
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.errors import BoucleError
from boucle.stream.aggregate.numbers import Count, Extreme, Mean, Moments, Sum, WholeSum
from boucle.stream.aggregate.values import Distinct, First, Last, Quantile

__all__ = ["Aggregate", "Declared", "make", "read_aggregates"]

Ints = NDArray[np.int64]
_CALL = re.compile(r"\s*([a-z]+)\s*(?:\(\s*(\w+)\s*(?:,\s*([0-9.]+)\s*)?\))?\s*")


class Declared(Struct, frozen=True):
    """An output column, as declared: `total: sum(amount)`."""

    name: str
    kind: str
    column: str
    number: float


class Aggregate(Protocol):
    """The state of one output column over all open windows; a window is known by its slot."""

    words: int
    """Cells of a window that its state takes (see `boucle.stream.open_windows`)."""

    def lie(self, cells: Ints) -> None:
        """Where its cells lie: a row per slot. To be told whenever they have moved."""

    def fold(self, slots: Ints, column: pa.Array | None) -> None:
        """Take rows in order; `slots` says to which window each belongs."""

    def close(self, slots: Ints) -> pa.Array:
        """What these windows say. The slots may then be opened anew after `clear`."""

    def clear(self, slots: Ints) -> None:
        """Forget what was held for these slots beside their cells."""

    def parts(self, *, everything: bool) -> dict[str, bytes]:
        """State beside the cells by part: what changed since the last call, or everything; empty: it is gone."""

    def snapshot(self) -> dict[str, bytes]:
        """All of it, as `restore_parts` takes it."""

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Continue from parts."""


def read_aggregates(declared: dict[str, str], stream: str) -> list[Declared]:
    """The declared columns; B221 for one that is not understood."""
    found = []
    for name, told in declared.items():
        match = _CALL.fullmatch(str(told))
        kind, column, number = match.groups() if match else ("", None, None)
        known = kind in _KINDS and (column is not None or kind == "count")
        if not known or (kind == "quantile") != (number is not None):
            fix = f"one of {', '.join(_KINDS)} with a column: sum(amount), quantile(amount, 0.95), or count"
            raise BoucleError("B221", f"{stream}: {name}: {told!r} is no aggregate", fix=fix)
        found.append(Declared(name, kind, column or "", float(number or 0)))
    return found


def make(declared: Declared, kind: pa.DataType | None) -> Aggregate:
    """The state of a declared column over values of an Arrow type (None: rows are counted)."""
    maker: Any = _KINDS[declared.kind]
    if declared.kind in {"first", "last", "distinct"}:
        made: Aggregate = maker(kind)
        return made
    if declared.kind == "quantile":
        return Quantile(declared.number)
    if declared.kind == "count":
        return Count()
    if kind is not None and pa.types.is_timestamp(kind) and declared.kind in {"min", "max"}:
        return Extreme(declared.kind == "max", kind)
    if kind is None or not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    ):
        what = f"{declared.kind}({declared.column}): the column is {kind}"
        raise BoucleError("B221", what, fix="aggregate a number, or use first, last, distinct, count")
    whole = not pa.types.is_floating(kind)
    if declared.kind == "sum":
        return WholeSum() if whole else Sum()
    if declared.kind in {"min", "max"}:
        return Extreme(declared.kind == "max", pa.int64() if whole else pa.float64())
    return Mean() if declared.kind == "mean" else Moments(root=declared.kind == "std")


_KINDS: dict[str, Any] = {
    "count": Count,
    "sum": Sum,
    "mean": Mean,
    "min": Extreme,
    "max": Extreme,
    "std": Moments,
    "var": Moments,
    "first": First,
    "last": Last,
    "distinct": Distinct,
    "quantile": Quantile,
}

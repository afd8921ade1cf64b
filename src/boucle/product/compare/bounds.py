"""What a bound, a list of values or a type allows, old against new: more, less, both or the same."""

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from boucle.product.columns import Kind

__all__ = ["Allows", "interval", "kinds", "ranges", "values"]

Allows: TypeAlias = Literal["same", "more", "less", "other"]
"""What the new one allows, seen from the old one."""

_Interval: TypeAlias = tuple[tuple[Any, bool], tuple[Any, bool]]


def _of(more: bool, less: bool) -> Allows:
    if more and less:
        return "other"
    return "more" if more else "less" if less else "same"


def interval(old: _Interval, new: _Interval) -> Allows:
    """Two intervals ((lower, open?), (upper, open?)); None is no bound. Texts of dates are compared as texts."""
    try:
        lower = _end(old[0], new[0], -1)
        upper = _end(old[1], new[1], 1)
    except TypeError:  # a number against a text
        return "other"
    return _of(lower > 0 or upper > 0, lower < 0 or upper < 0)


def _end(old: tuple[Any, bool], new: tuple[Any, bool], outwards: int) -> int:
    """1 where the new end lies further out, -1 further in, 0 in the same place."""
    if old[0] is None or new[0] is None:
        return (old[0] is not None) - (new[0] is not None)
    if old[0] == new[0]:
        return old[1] - new[1]
    return outwards if new[0] > old[0] else -outwards


def ranges(old: Mapping[str, Any], new: Mapping[str, Any], low: str, high: str) -> Allows:
    """The ranges that two sets of options give under names such as `minimum` and `maximum`."""
    return interval(_range(old, low, high), _range(new, low, high))


def _range(options: Mapping[str, Any], low: str, high: str) -> _Interval:
    return _bound(options, low, max), _bound(options, high, min)


def _bound(options: Mapping[str, Any], name: str, tighter: Any) -> tuple[Any, bool]:
    closed = options.get(name)
    strict = options.get("exclusive" + name[0].upper() + name[1:])
    if strict is None or isinstance(strict, bool):
        return closed, bool(strict) and closed is not None
    if closed is None:
        return strict, True
    return (strict, True) if tighter(strict, closed) == strict else (closed, False)


def values(old: Any, new: Any) -> Allows:
    """Two lists of allowed values; an empty one allows everything."""
    # A value and its spelling are one: `1` and `"1"` mean the same in a list of allowed texts.
    before, after = {str(one) for one in old or ()}, {str(one) for one in new or ()}
    if not before or not after:
        return _of(bool(before) and not after, bool(after) and not before)
    return _of(bool(after - before), bool(before - after))


def kinds(old: Kind, new: Kind) -> Allows:  # noqa: C901 - one case a family
    """Two types: a wider integer allows more, another family is another type."""
    if old.family != new.family:
        return "other"
    match old.family:
        case "integer":
            return interval(_span(old), _span(new))
        case "number":
            return _of(new.bits > old.bits, new.bits < old.bits)
        case "decimal":
            whole = (new.precision - new.scale) - (old.precision - old.scale)
            scale = new.scale - old.scale
            return _of(whole > 0 or scale > 0, whole < 0 or scale < 0)
        case "time" | "timestamp":
            if old.family == "timestamp" and old.zone != new.zone:
                return "other"
            finer = _UNITS.index(new.unit) - _UNITS.index(old.unit)
            return _of(finer > 0, finer < 0)
        case "binary":
            if old.length == new.length:
                return "same"
            return (
                _of(new.length is None, old.length is None) if None in {old.length, new.length} else "other"
            )
        case "string":
            if old.format == new.format:
                return "same"
            return _of(not new.format, not old.format) if "" in {old.format, new.format} else "other"
    return "same"


_UNITS = ("s", "ms", "us", "ns")


def _span(kind: Kind) -> _Interval:
    if kind.signed:
        return (-(2 ** (kind.bits - 1)), False), (2 ** (kind.bits - 1) - 1, False)
    return (0, False), (2**kind.bits - 1, False)


def number(value: Any) -> float | None:
    """A number, also one written as text; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        read = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(read) else read

"""Which rows of a Block break a rule, as Arrow and NumPy see it; `sql_pass` says the same in SQL.

A mask is one boolean a row, True where the row is bad, or None where none is. A null is only ever `null` or
`missing`; NaN and infinity are outside every range and a multiple of nothing.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boucle.errors import BoucleError
from boucle.product.rules import Rule
from boucle.quality.formats import FORMAT_PATTERNS

__all__ = ["CLOSE", "Mask", "Test", "impossible", "moment", "row_test"]

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Test: TypeAlias = Callable[[Any], Mask | None]
"""The bad rows of an Arrow array."""

CLOSE = 1e-9
"""How far a quotient may be from a whole number, relative to it, to be a multiple still: floats are not exact."""


def row_test(rule: Rule, kind: pa.DataType) -> Test:
    """The test of a `null`, `missing` or `invalid` rule for a column of this type; B440 where it means nothing."""
    if rule.kind == "null":
        return _null
    if rule.kind == "missing":
        return _missing(rule.given.get("values", []), kind)
    tests = [_one(name, rule, kind) for name in rule.given]
    # `maximum` is looked at together with `minimum`, and so on: each test once.
    return _any_of([test for test in tests if test is not None])


def _null(column: Any) -> Mask | None:
    return None if column.null_count == 0 else np.asarray(column.is_null())


def _missing(values: list[Any], kind: pa.DataType) -> Test:
    options = pc.SetLookupOptions(_as_type(values, kind))

    def missing(column: Any) -> Mask | None:
        bad = np.asarray(pc.is_in(column, options=options))
        if column.null_count:
            bad = bad | np.asarray(column.is_null())
        return bad if bad.any() else None

    return missing


def _any_of(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def either(column: Any) -> Mask | None:
        found = [bad for test in tests if (bad := test(column)) is not None]
        return np.logical_or.reduce(found) if found else None

    return either


_SPAN = ("minimum", "exclusive_minimum", "maximum", "exclusive_maximum")
_LENGTH = ("min_length", "max_length")
_ITEMS = ("min_items", "max_items")


def _one(name: str, rule: Rule, kind: pa.DataType) -> Test | None:
    given = rule.given
    for group, make in ((_SPAN, _span), (_LENGTH, _length), (_ITEMS, _items)):
        if name in group:
            return make(given, kind, rule) if name == next(one for one in group if one in given) else None
    match name:
        case "allowed":
            return _allowed(given[name], kind)
        case "pattern":
            return _pattern(rule, given[name], kind)
        case "format":
            return _pattern(rule, FORMAT_PATTERNS[given[name]], kind)
        case "multiple_of":
            return _multiple(rule, given[name], kind)
        case "unique_items":
            return _unique_items
        case _:
            return _elements(rule, given["elements"], kind)


def _valid(column: Any, bad: Mask) -> Mask | None:
    if column.null_count:
        bad = bad & np.asarray(column.is_valid())
    return bad if bad.any() else None


def _filled(column: Any) -> Any:
    """The values as NumPy sees them; where there is none stands anything."""
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    return np.asarray(column.fill_null(0) if column.null_count else column)


def _number(rule: Rule, kind: pa.DataType) -> None:
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise _nothing(rule, kind, "numbers")


def _text(rule: Rule, kind: pa.DataType) -> None:
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise _nothing(rule, kind, "texts")


def _nothing(rule: Rule, kind: pa.DataType, wanted: str) -> BoucleError:
    return BoucleError(
        "B440",
        f"{rule.id}: this rule means nothing for a column of type {kind}",
        why=f"{', '.join(rule.given)} are said of {wanted}",
        fix="declare the column as it is, or take the rule away",
    )


def _span(given: dict[str, Any], kind: pa.DataType, rule: Rule) -> Test:
    if pa.types.is_temporal(kind):
        return _moments(given, kind)
    _number(rule, kind)
    low, high = given.get("minimum"), given.get("maximum")
    above, below = given.get("exclusive_minimum"), given.get("exclusive_maximum")
    floating = not pa.types.is_integer(kind)

    def outside(values: Any) -> Mask:
        good = np.isfinite(values) if floating else np.ones(len(values), np.bool_)
        for bound, compare in (
            (low, np.greater_equal),
            (high, np.less_equal),
            (above, np.greater),
            (below, np.less),
        ):
            if bound is not None:
                good &= compare(values, bound)
        return ~good

    def test(column: Any) -> Mask | None:
        values = _filled(column)
        if not len(values):
            return None
        if column.null_count == 0:
            # One minimum and one maximum say yes for a whole column; NaN makes every comparison false.
            least, most = values.min(), values.max()
            if not outside(np.array([least, most])).any():
                return None
        return _valid(column, outside(values))

    return test


def moment(text: str, kind: pa.DataType) -> Any:
    """A declared time as a scalar of a column's type."""
    if pa.types.is_date(kind):
        return pa.scalar(dt.date.fromisoformat(text[:10]), kind)
    if pa.types.is_time(kind):
        return pa.scalar(dt.time.fromisoformat(text), kind)
    told = dt.datetime.fromisoformat(text)
    return pa.scalar(told if kind.tz else told.replace(tzinfo=None), kind)


def _moments(given: dict[str, Any], kind: pa.DataType) -> Test:
    compares = {"minimum": pc.greater_equal, "maximum": pc.less_equal,
                "exclusive_minimum": pc.greater, "exclusive_maximum": pc.less}  # fmt: skip
    bounds = [(compares[name], moment(given[name], kind)) for name in _SPAN if name in given]

    def test(column: Any) -> Mask | None:
        bad = np.zeros(len(column), np.bool_)
        for compare, bound in bounds:
            bad |= ~np.asarray(compare(column, bound).fill_null(True))
        return bad if bad.any() else None

    return test


_UNFIT = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, OverflowError)


def _held(value: Any, kind: pa.DataType) -> Any:
    """A declared value as a column holds it; one of `_UNFIT` when it cannot."""
    if pa.types.is_temporal(kind):
        return moment(str(value), kind).as_py()
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    given = str(value) if texts and not isinstance(value, bool) else value
    if isinstance(given, str) and not texts:
        return pa.scalar(given).cast(kind).as_py()
    return pa.scalar(given, kind).as_py()


def _sorted_out(values: list[Any], kind: pa.DataType) -> tuple[list[Any], list[Any]]:
    """Declared values as a column of this type holds them, and those that none can hold."""
    held, unfit = [], []
    for value in values:
        try:
            held.append(_held(value, kind))
        except _UNFIT:
            unfit.append(value)
    return held, unfit


def impossible(values: list[Any], kind: pa.DataType) -> list[Any]:
    """The declared values that no column of this type can hold."""
    return _sorted_out(values, kind)[1]


def _as_type(values: list[Any], kind: pa.DataType) -> Any:
    """Declared values as an array of the column's type; those it cannot hold are left out, being never met."""
    return pa.array(_sorted_out(values, kind)[0], kind)


def _allowed(values: list[Any], kind: pa.DataType) -> Test:
    options = pc.SetLookupOptions(_as_type(values, kind))

    def test(column: Any) -> Mask | None:
        return _valid(column, ~np.asarray(pc.is_in(column, options=options)))

    return test


def _pattern(rule: Rule, pattern: str, kind: pa.DataType) -> Test:
    _text(rule, kind)
    options = pc.MatchSubstringOptions(pattern)
    try:
        pc.match_substring_regex(pa.array([""]), options=options)
    except pa.ArrowInvalid as error:
        raise BoucleError(
            "B441",
            f"{rule.id}: the pattern {pattern!r} cannot be executed",
            why=str(error),
            fix="write a regular expression without look-around and back references (RE2)",
        ) from None

    def test(column: Any) -> Mask | None:
        matched = pc.match_substring_regex(column, options=options)
        return _valid(column, ~np.asarray(matched.fill_null(True) if column.null_count else matched))

    return test


def _length(given: dict[str, Any], kind: pa.DataType, rule: Rule) -> Test:
    _text(rule, kind)
    return _counted(pc.utf8_length, given.get("min_length"), given.get("max_length"))


def _items(given: dict[str, Any], kind: pa.DataType, rule: Rule) -> Test:
    if not pa.types.is_list(kind) and not pa.types.is_large_list(kind):
        raise _nothing(rule, kind, "lists")
    return _counted(pc.list_value_length, given.get("min_items"), given.get("max_items"))


def _counted(count: Callable[[Any], Any], low: int | None, high: int | None) -> Test:
    def test(column: Any) -> Mask | None:
        lengths = _filled(count(column))
        bad = np.zeros(len(lengths), np.bool_)
        if low is not None:
            bad |= lengths < low
        if high is not None:
            bad |= lengths > high
        return _valid(column, bad)

    return test


def _multiple(rule: Rule, step: float, kind: pa.DataType) -> Test:
    _number(rule, kind)

    def test(column: Any) -> Mask | None:
        values = _filled(column)
        if pa.types.is_integer(kind) and float(step).is_integer():
            return _valid(column, values % int(step) != 0)
        with np.errstate(invalid="ignore", over="ignore"):
            quotient = values / float(step)
            near = np.abs(quotient - np.rint(quotient)) <= CLOSE * np.maximum(1.0, np.abs(quotient))
        return _valid(column, ~near)

    return test


def _unique_items(column: Any) -> Mask | None:
    values, rows = column.flatten(), np.asarray(pc.list_parent_indices(column))
    if not len(values):
        return None
    if values.null_count:
        kept = np.asarray(values.is_valid())
        values, rows = values.filter(pa.array(kept)), rows[kept]
    codes = np.asarray(pc.dictionary_encode(values).indices, dtype=np.int64)
    pairs = np.stack([rows, codes], axis=1)
    unique = np.unique(pairs, axis=0)
    bad = np.bincount(rows, minlength=len(column)) != np.bincount(unique[:, 0], minlength=len(column))
    return bad if bad.any() else None


def _elements(rule: Rule, given: dict[str, Any], kind: pa.DataType) -> Test:
    if not pa.types.is_list(kind) and not pa.types.is_large_list(kind):
        raise _nothing(rule, kind, "lists")
    inner = _span(given, kind.value_type, rule)

    def test(column: Any) -> Mask | None:
        wrong = inner(column.flatten())
        if wrong is None:
            return None
        bad = np.zeros(len(column), np.bool_)
        bad[np.asarray(pc.list_parent_indices(column))[wrong]] = True
        return bad

    return test

"""The contract, compiled to one columnar pass over each Block.

A waveform's range and finiteness cost one minimum and one maximum (NaN makes both comparisons
false); only a column that fails is looked at row by row.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct, structs

from boucle.block import Block
from boucle.clock import SECOND, Clock
from boucle.errors import BoucleError
from boucle.product.contract import FieldContract, StreamContract
from boucle.product.duration import seconds
from boucle.product.rules import Rule
from boucle.quality.masks import row_test
from boucle.quality.reject import Reject, reject

__all__ = ["Checker"]

_FEW = 512

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


class _Rule(Struct, frozen=True):
    """`bad` marks the rows of a column that break it, or None when none does."""

    field: FieldContract
    reason: str
    says: str
    bad: Callable[[Any], Mask | None]
    promise: str = ""
    """The id of the contract's rule; empty for what every reading must keep."""


class _Column(Struct, frozen=True):
    """`keeps` says yes cheaply for a column without a fault, and no in doubt; then the rules decide."""

    index: int
    keeps: Callable[[Any], bool]
    rules: tuple[_Rule, ...]


class Checker:
    """Splits a Block of typed rows into those that keep the contract and rejects.

    The first broken promise names the reason. `future` is how far ahead of the clock a time may be.
    A status that is not "Good" is the machine's honest word about a value, and no reject.
    """

    def __init__(self, contract: StreamContract, *, clock: Clock, future: str | float = "5s") -> None:
        self.contract = contract
        self.failed: Counter[str] = Counter()
        """Rule of the contract → readings refused for it."""
        self._clock = clock
        self._future = int(seconds(future) * SECOND)
        self._columns: list[_Column] = []
        for index, field in enumerate(contract.fields):
            rules, keeps = _rules(field), _quick(field)
            promises = [one for one in contract.rules if one.columns == (field.name,) and one.refuses]
            rules = [_promised(rule, promises) for rule in rules]
            if others := [_other(field, one) for one in promises if not _carried(one, field)]:
                rules += others
                keeps = _and_none(keeps, others)
            if field.name == contract.time:
                rules.append(_Rule(field, "future", "ahead of the clock", self._ahead))
                keeps = self._past
            if rules:
                self._columns.append(_Column(index, keeps, tuple(rules)))

    def _past(self, column: Any) -> bool:
        if column.null_count:
            return False
        return bool(column.view(pa.int64()).to_numpy().max() <= self._clock.now() + self._future)

    def _ahead(self, column: Any) -> Mask | None:
        limit = self._clock.now() + self._future
        return _any(np.asarray(_without_nulls(column.cast(pa.int64()))) > limit)

    def check(self, block: Block) -> tuple[Block, list[Reject]]:
        """The good rows, in order, and a Reject for each of the others."""
        if not len(block):
            return block, []
        columns = block.rows.columns
        broken: list[tuple[_Rule, Mask]] = []
        for one in self._columns:
            column = columns[one.index]
            if one.keeps(column):
                continue
            for rule in one.rules:
                bad = rule.bad(column)
                if bad is not None:
                    broken.append((rule, bad))
        if not broken:
            return block, []
        return self._split(block, broken)

    def _split(self, block: Block, broken: list[tuple[_Rule, Mask]]) -> tuple[Block, list[Reject]]:
        first = np.full(len(block), -1)
        for number, (_, bad) in enumerate(broken):
            first[bad & (first < 0)] = number
        now = self._clock.now()
        rejects = []
        for row in np.flatnonzero(first >= 0).tolist():
            rule = broken[first[row]][0]
            detail = f"{rule.field.name} is {_told(block.rows.column(rule.field.name)[row])}: {rule.says}"
            payload = _alone(block.rows.slice(row, 1))
            self.failed[rule.promise] += 1
            rejects.append(
                reject(block.stream, rule.reason, detail, now, payload, "", "arrow", rule=rule.promise)
            )
        good = block.rows.filter(pa.array(first < 0))
        return Block(block.stream, good, block.watermark, block.position), rejects


def _told(value: Any) -> str:
    # Times as text: Python's own would lose nanoseconds, and overflow outside its years.
    if pa.types.is_timestamp(value.type):
        return f"{value.value} ns" if value.is_valid else "null"
    text = str(value.as_py() if not isinstance(value, pa.ListScalar) else value.values)
    return " ".join(text.split())[:120]


def _alone(row: pa.RecordBatch) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, row.schema) as writer:
        writer.write_batch(row)
    return bytes(out.getvalue())


def _any(bad: Any) -> Mask | None:
    return bad if bad.any() else None


def _without_nulls(column: Any) -> Any:
    """The column as it is, or with nulls made 0: a null is only ever `missing`, never out of range."""
    return column if column.null_count == 0 else column.fill_null(_zero(column.type))


def _zero(kind: Any) -> Any:
    return pa.scalar(
        "" if pa.types.is_string(kind) else 0, pa.int64() if pa.types.is_timestamp(kind) else kind
    )


def _rules(field: FieldContract) -> list[_Rule]:
    found = []
    if field.required:
        found.append(_Rule(field, "missing", "a value is required", _missing))
    if pa.types.is_list(field.type):
        return found + _list_rules(field)
    if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
        found += _number_rules(field, _scalars)
    if pa.types.is_string(field.type):
        found += _text_rules(field)
    return found


_CARRIED = {
    "allowed": "one_of", "pattern": "pattern", "minimum": "minimum", "maximum": "maximum",
    "min_items": "min_items", "max_items": "max_items",
}  # fmt: skip
"""What a rule may say → where its FieldContract says it too."""
_REASONS = {
    "multiple_of": "multiple", "format": "format", "min_length": "length", "max_length": "length",
    "unique_items": "repeated_items", "allowed": "not_allowed", "pattern": "pattern",
    "min_items": "length", "max_items": "length",
}  # fmt: skip
_OF_REASON = {
    "missing": ("null",),
    "out_of_range": ("minimum", "maximum", "elements"), "not_finite": ("minimum", "maximum", "elements"),
    "not_allowed": ("allowed",), "unknown_sensor": ("allowed",), "pattern": ("pattern",),
    "length": ("min_items", "max_items"),
}  # fmt: skip


def _carried(promise: Rule, field: FieldContract) -> bool:
    """Whether the rules made of the FieldContract execute it already."""
    if promise.kind == "null":
        return field.required
    if promise.kind == "missing":
        return False
    given = promise.given.get("elements", promise.given)
    told = {name: getattr(field, _CARRIED.get(name, ""), None) for name in given}
    return all(
        told[name] == (tuple(map(str, value)) if isinstance(value, list) else value)
        for name, value in given.items()
    )


def _promised(rule: _Rule, promises: list[Rule]) -> _Rule:
    """The same, with the promise it holds."""
    about = _OF_REASON.get(rule.reason, ())
    for promise in promises:
        if promise.kind in about or any(name in promise.given for name in about):
            return structs.replace(rule, promise=promise.id)
    return rule


def _other(field: FieldContract, promise: Rule) -> _Rule:
    """A promise that the FieldContract has no word for."""
    if promise.kind == "missing":
        reason, says = "missing", f"none of {', '.join(map(repr, promise.given['values']))} is a value"
    else:
        reason = next((_REASONS[name] for name in promise.given if name in _REASONS), "out_of_range")
        says = (
            ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in promise.given.items())
            + " was promised"
        )
    return _Rule(field, reason, says, row_test(promise, field.type), promise.id)


def _and_none(keeps: Callable[[Any], bool], others: list[_Rule]) -> Callable[[Any], bool]:
    return lambda column: keeps(column) and all(rule.bad(column) is None for rule in others)


def _missing(column: Any) -> Mask | None:
    return None if column.null_count == 0 else np.asarray(column.is_null())


def _text_rules(field: FieldContract) -> list[_Rule]:
    found = []
    if field.one_of is not None:
        options = pc.SetLookupOptions(pa.array(field.one_of, pa.string()))
        reason = "unknown_sensor" if field.name in {"sensor", "machine"} else "not_allowed"

        def stranger(column: Any) -> Mask | None:
            bad = ~np.asarray(pc.is_in(column, options=options))
            return _any(bad if column.null_count == 0 else bad & np.asarray(column.is_valid()))

        found.append(_Rule(field, reason, f"one of {', '.join(field.one_of)} was promised", stranger))
    if field.pattern is not None:
        form = _regex(field, field.pattern)

        def misshapen(column: Any) -> Mask | None:
            bad = ~np.asarray(pc.match_substring_regex(_without_nulls(column), options=form))
            return _any(bad if column.null_count == 0 else bad & np.asarray(column.is_valid()))

        found.append(_Rule(field, "pattern", f"it was promised to match {field.pattern}", misshapen))
    return found


def _regex(field: FieldContract, pattern: str) -> Any:
    options = pc.MatchSubstringOptions(pattern)
    try:
        re.compile(pattern)
        pc.match_substring_regex(pa.array([""]), options=options)
    except (re.error, pa.ArrowInvalid) as error:
        fix = "write a regular expression without look-around and back references (RE2)"
        what = f'"{field.name}": the pattern {pattern!r} cannot be executed'
        raise BoucleError("B421", what, why=str(error), fix=fix) from error
    return options


_Rows: TypeAlias = Callable[[Any, Callable[[Any], Any]], Mask | None]
"""Which rows of a column hold a value that a test of values calls bad."""


def _scalars(column: Any, bad: Callable[[Any], Any]) -> Mask | None:
    wrong = bad(np.asarray(_without_nulls(column)))
    return _any(wrong if column.null_count == 0 else wrong & np.asarray(column.is_valid()))


def _elements(column: Any, bad: Callable[[Any], Any]) -> Mask | None:
    values = column.flatten()
    wrong = bad(np.asarray(_without_nulls(values)))
    if values.null_count:
        wrong &= np.asarray(values.is_valid())
    if not wrong.any():
        return None
    rows = np.zeros(len(column), dtype=np.bool_)
    rows[np.asarray(pc.list_parent_indices(column))[wrong]] = True
    return rows


def _limits(field: FieldContract) -> tuple[float, float]:
    low = -np.inf if field.minimum is None else field.minimum
    return low, np.inf if field.maximum is None else field.maximum


def _number_rules(field: FieldContract, rows: _Rows) -> list[_Rule]:
    low, high = _limits(field)
    listed = pa.types.is_list(field.type)
    found = []

    def unbounded(column: Any) -> Mask | None:
        return rows(column, lambda values: ~np.isfinite(values))

    def outside(column: Any) -> Mask | None:
        return rows(column, lambda values: np.isfinite(values) & ((values < low) | (values > high)))

    if not pa.types.is_integer(field.type.value_type if listed else field.type):
        found.append(_Rule(field, "not_finite", "NaN and infinity are no readings", unbounded))
    if field.minimum is not None or field.maximum is not None:
        said = f"{_bound(field.minimum, 'at least')}{_bound(field.maximum, 'at most')}{field.unit}".strip()
        found.append(_Rule(field, "out_of_range", f"{said} was promised", outside))
    return found


def _bound(value: float | None, word: str) -> str:
    return "" if value is None else f"{word} {value:g} "


def _list_rules(field: FieldContract) -> list[_Rule]:
    inner = field.type.value_type
    if not (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
        raise BoucleError(
            "B421", f'"{field.name}": a list of {inner} cannot be checked', fix="use a list of numbers"
        )
    low = 0 if field.min_items is None else field.min_items
    high = 2**31 if field.max_items is None else field.max_items

    def unequal(column: Any) -> Mask | None:
        lengths = np.asarray(_without_nulls(pc.list_value_length(column)))
        bad = (lengths < low) | (lengths > high)
        return _any(bad if column.null_count == 0 else bad & np.asarray(column.is_valid()))

    def holes(column: Any) -> Mask | None:
        values = column.flatten()
        if values.null_count == 0:
            return None
        rows = np.zeros(len(column), dtype=np.bool_)
        rows[np.asarray(pc.list_parent_indices(column))[np.asarray(values.is_null())]] = True
        return rows

    found = [_Rule(field, "missing", "every element is required", holes)]
    if field.min_items is not None or field.max_items is not None:
        said = f"{_bound(field.min_items, 'at least')}{_bound(field.max_items, 'at most')}items were promised"
        found.append(_Rule(field, "length", said, unequal))
    return found + _number_rules(field, _elements)


def _quick(field: FieldContract) -> Callable[[Any], bool]:
    if pa.types.is_list(field.type):
        return _quick_list(field)
    if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
        within = _within(field)
        return lambda column: column.null_count == 0 and within(column.to_numpy())
    if pa.types.is_string(field.type) and not (field.one_of is None and field.pattern is None):
        return _quick_text(field)
    return lambda column: column.null_count == 0


def _quick_text(field: FieldContract) -> Callable[[Any], bool]:
    # A set of Python strings wins over kernel calls while the rows are few and their words the same.
    rules = _text_rules(field)
    known: set[str] = set()

    def keeps(column: Any) -> bool:
        if len(column) > _FEW or column.null_count:
            return False
        words = column.to_pylist()
        if known.issuperset(words):
            return True
        if any(rule.bad(column) is not None for rule in rules):
            return False
        if len(known) < _FEW:
            known.update(words)
        return True

    return keeps


def _within(field: FieldContract) -> Callable[[Any], bool]:
    low, high = _limits(field)

    def within(values: Any) -> bool:
        # NaN makes a minimum NaN, and every comparison with it false.
        least, most = values.min(), values.max()
        return bool(least >= low and most <= high and np.isfinite(least) and np.isfinite(most))

    return within


def _quick_list(field: FieldContract) -> Callable[[Any], bool]:
    low, high = field.min_items or 0, field.max_items or 2**31
    within = _within(field)

    def keeps(column: Any) -> bool:
        elements = column.values
        if column.null_count or elements.null_count or not len(elements):
            return False
        ends = column.offsets.to_numpy()
        lengths = np.diff(ends)
        if lengths.min() < low or lengths.max() > high:
            return False
        values = elements.to_numpy()[ends[0] : ends[-1]]
        return values.size > 0 and within(values)

    return keeps

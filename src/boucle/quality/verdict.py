"""From what was measured to what is said of it: one Outcome a rule."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from boucle.clock import SECOND, Nanos
from boucle.product.rules import SEVERITIES, Rule, Severity
from boucle.quality.figures import ColumnFigures, stability_index

__all__ = ["Measured", "Outcome", "Record", "judge", "unsuited", "worst"]

State = Literal["kept", "broken", "unknown"]


class Measured(Struct):
    """The numbers of one table, however they were come by. Dictionaries are by rule, or by column."""

    rows: int = 0
    bad: dict[str, int] = {}
    """Rule → rows that break it; of `duplicate` rules, keys that occur more than once."""
    surplus: dict[str, int] = {}
    """Rule → rows that repeat the key of another."""
    newest: dict[str, Nanos | None] = {}
    """Column → its newest time."""
    values: dict[str, float] = {}
    """Rule of kind `sql` → its number."""
    figures: dict[str, ColumnFigures] = {}
    buckets: dict[str, dict[int, int]] = {}
    unable: dict[str, str] = {}
    """Rule → why it could not be measured."""
    kinds: dict[str, str] = {}
    """Column → its type, as the data has it."""


class Record(Struct, frozen=True, kw_only=True):
    """What is kept of a run for later ones to be compared with."""

    at: Nanos
    table: str
    rows: int
    figures: dict[str, ColumnFigures] = {}
    buckets: dict[str, dict[int, int]] = {}
    failed: dict[str, float] = {}
    """Rule that was broken → what was measured."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a rule. `unknown`: it could not be executed, and `why` says why; never silence."""

    rule: str
    table: str
    kind: str
    columns: tuple[str, ...]
    severity: Severity
    state: State
    measured: float | None
    """What the limit was held against; None when there is nothing."""
    wanted: str
    checked: int
    """Rows looked at."""
    failed: int
    """Rows that break it, where it is about rows; else 1 when it is broken."""
    dimension: str = ""
    impact: str = ""
    description: str = ""
    why: str = ""
    schedule: str = ""
    line: int = 0


def judge(
    rules: Sequence[Rule], measured: Measured, history: Sequence[Record], now: Nanos
) -> tuple[Outcome, ...]:
    """What the measured numbers say of each rule. `history` are earlier runs of this table, oldest first."""
    return tuple(_outcome(rule, measured, history, now) for rule in rules)


def worst(outcomes: Sequence[Outcome]) -> Severity | None:
    """The gravest severity of the rules that are not known to be kept; None when all are."""
    broken = [SEVERITIES.index(one.severity) for one in outcomes if one.state != "kept"]
    return SEVERITIES[max(broken)] if broken else None


def _outcome(rule: Rule, measured: Measured, history: Sequence[Record], now: Nanos) -> Outcome:
    number, why = _number(rule, measured, history, now)
    if rule.id in measured.unable:
        number, why = None, measured.unable[rule.id]
    held = number
    if number is not None and rule.limit.percent:
        held = 100.0 * number / measured.rows if measured.rows else 0.0
    state: State = "unknown"
    if held is not None:
        state = "kept" if math.isnan(held) or rule.limit.keeps(held) else "broken"
    failed = 0
    if number is not None and not math.isnan(number):
        failed = measured.bad[rule.id] if rule.id in measured.bad else int(state == "broken")
    return Outcome(
        rule=rule.id, table=rule.table, kind=rule.kind, columns=rule.columns, severity=rule.severity, state=state,
        measured=None if held is None or math.isnan(held) else held, wanted=rule.limit.says(), checked=measured.rows,
        failed=failed, dimension=rule.dimension, impact=rule.impact, description=rule.description, why=why,
        schedule=rule.schedule, line=rule.line,
    )  # fmt: skip


def _number(
    rule: Rule, measured: Measured, history: Sequence[Record], now: Nanos
) -> tuple[float | None, str]:
    """What the rule measures, and what is to be said of it; None: not known. NaN: nothing to compare with yet."""
    match rule.kind:
        case "type":
            return _type(rule, measured)
        case "row_count":
            return float(measured.rows), ""
        case "freshness":
            newest = measured.newest.get(rule.columns[0])
            return (math.inf, "there is no value") if newest is None else ((now - newest) / SECOND, "")
        case "sql":
            return measured.values.get(rule.id), ""
        case "anomaly":
            return _deviation(rule, measured, history)
        case "distribution":
            return _drift(rule, measured, history)
        case _:
            bad = measured.bad.get(rule.id)
            surplus = measured.surplus.get(rule.id)
            return None if bad is None else float(bad), f"{surplus} rows repeat a key" if surplus else ""


_WHOLE = (
    "int",
    "uint",
    "INT",
    "BIGINT",
    "TINYINT",
    "SMALLINT",
    "HUGE",
    "UBIG",
    "UINT",
    "USMALL",
    "UTINY",
    "UHUGE",
)
_FAMILIES: dict[str, tuple[str, ...]] = {
    "string": ("string", "large_string", "string_view", "binary", "large_binary", "VARCHAR", "BLOB", "UUID", "ENUM"),
    "integer": _WHOLE,
    "number": (*_WHOLE, "float", "double", "half", "decimal", "FLOAT", "DOUBLE", "DECIMAL"),
    "boolean": ("bool", "BOOLEAN"),
    "timestamp": ("timestamp", "TIMESTAMP"),
    "date": ("date", "DATE", "timestamp", "TIMESTAMP"),
    "time": ("time32", "time64", "TIME_NS"),
    "object": ("struct", "map", "STRUCT", "MAP", "string", "VARCHAR", "JSON"),
}  # fmt: skip


_LIST = re.compile(r"^(?:large_|fixed_size_)?list|\[\d*\]$")


def unsuited(logical: str, kind: str) -> bool:
    """Whether a column of this type, in Arrow's words or DuckDB's, is of another family than was declared."""
    listed = _LIST.search(kind) is not None
    if listed or logical == "array":
        return listed != (logical == "array")
    if kind in {"TIME", "INTERVAL"}:  # the beginnings of other names
        return logical != kind.lower()
    return logical in _FAMILIES and not kind.startswith(_FAMILIES[logical])


def _type(rule: Rule, measured: Measured) -> tuple[float, str]:
    column, logical = rule.columns[0], rule.given["logical"]
    kind = measured.kinds.get(column)
    if kind is None:
        return 1.0, "there is no such column"
    return (1.0, f"it is {kind}, {logical} was promised") if unsuited(logical, kind) else (0.0, "")


def _deviation(rule: Rule, measured: Measured, history: Sequence[Record]) -> tuple[float, str]:
    """How many robust standard deviations the figure is from the median of its history.

    The spread is 1.4826 times the median absolute deviation (as a normal distribution has it), and at least a
    thousandth of the median, so that a figure that never moved does not make every change a catastrophe.
    """
    name = rule.given["of"]
    column = rule.columns[0] if rule.columns else ""

    def figure(rows: int, figures: Mapping[str, Any]) -> float:
        known = figures.get(column)
        return float(rows) if name == "rows" else math.nan if known is None else float(known.figure(name))

    past = [value for one in history if not math.isnan(value := figure(one.rows, one.figures))]
    past = past[-rule.given["runs"] :]
    if len(past) < rule.given["at_least"]:
        return math.nan, f"{len(past)} earlier runs, {rule.given['at_least']} are needed to judge"
    present = figure(measured.rows, measured.figures)
    if math.isnan(present):
        return math.inf, "there is no value"
    middle = statistics.median(past)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in past)
    spread = max(spread, abs(middle) / 1000, 1e-12)
    return abs(present - middle) / spread, f"{name} is {present:g}, its median was {middle:g}"


def _drift(rule: Rule, measured: Measured, history: Sequence[Record]) -> tuple[float, str]:
    column = rule.columns[0]
    known = [one.buckets[column] for one in history if one.buckets.get(column)]
    if not known:
        return math.nan, "this is the first run: nothing to compare with"
    before = known[0] if rule.given["against"] == "first" else known[-1]
    return stability_index(before, measured.buckets.get(column, {})), ""

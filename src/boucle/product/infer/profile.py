# ruff: noqa: S608 - names and texts are quoted by `quoted` and `text`
"""One pass over the data: how many values, how many different, from where to where; types of text guessed first."""

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs

from boucle.product.columns import Column, Kind
from boucle.product.formats import arrow
from boucle.product.infer.opened import Opened, quoted

__all__ = ["FEW", "Profile", "Profiled", "profile"]

FEW = 32
"""So many different values are listed; of more, none."""
_SAMPLE = 20_000
_PER_VALUE = 10
"""A list of values is believed when each stands this often, taken over all."""
_EXACT_UP_TO = 20_000_000
"""Rows in which different values are counted exactly; beyond, the estimate is told as one."""

_INTEGER = re.compile(r"[+-]?(?:0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])")
_MOMENT = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
    r"[T ](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?"
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CANDIDATES: tuple[tuple[Kind, re.Pattern[str], str], ...] = (
    (Kind("boolean"), re.compile(r"true|false", re.IGNORECASE), "try_cast({} as boolean)"),
    (Kind("integer"), _INTEGER, "try_cast({} as bigint)"),
    (Kind("number"), _NUMBER, "try_cast({} as double)"),
    (Kind("date"), _DATE, "try_cast({} as date)"),
    (Kind("timestamp", unit="ns"), _MOMENT, "try_cast({} as timestamptz)"),
    (Kind("string", format="uuid"), _UUID, "try_cast({} as uuid)"),
)
_SHOWN = (
    (re.compile(r"[+-]?\d{1,3}(?:[ .\u00a0\u202f]?\d{3})*,\d+"), "numbers with a decimal comma"),
    (re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{4}"), "dates whose day and month cannot be told apart"),
    (re.compile(r"0\d+"), "digits that begin with zero: a label, not a number"),
    (re.compile(r"[+-]?\d{19,}"), "digits too long for an integer"),
)
_SEVERAL = 0.98
"""Share of the sample that must fit a type; the rest is told."""


class Profile(Struct, frozen=True):
    """What one column holds."""

    column: Column
    rows: int
    filled: int
    misfits: int = 0
    """Values that do not fit the type that nearly all others have."""
    misfit: str = ""
    different: int = 0
    """About how many different values."""
    exactly: bool = False
    """Whether no value stands twice, counted, not estimated."""
    low: Any = None
    high: Any = None
    shortest: int | None = None
    longest: int | None = None
    values: tuple[Any, ...] = ()
    sample: tuple[Any, ...] = ()
    remark: str = ""


class Profiled(Struct, frozen=True):
    """The whole table."""

    rows: int
    columns: tuple[Profile, ...]
    keys: tuple[tuple[str, ...], ...] = ()
    """Columns, or pairs of them, whose values no two rows share."""


def profile(opened: Opened) -> Profiled:
    """Look at a table: a sample for the types, one pass for the figures, one for what may be a key."""
    run = opened.connection
    schema = run.sql("select * from data limit 0").to_arrow_table().schema
    sample = run.sql(f"select * from data limit {_SAMPLE}").to_arrow_table().to_pydict()
    typed = []
    for one in arrow.from_schema(schema):
        values = sample[one.name]
        if opened.untyped:
            guessed = _guessed(one, values, _CANDIDATES)
        elif opened.loose and one.kind == Kind("string"):
            guessed = _guessed(one, values, _WRITTEN)
        else:
            guessed = structs.replace(one, kind=_flowing(one.kind), required=False), quoted(one.name), ""
        typed.append((*guessed, tuple(values)))
    asked = ["count(*)"]
    wanted: list[list[str]] = []
    for column, value, _, values in typed:
        figures = _figures(column, value, values, opened.untyped or opened.loose)
        wanted.append(list(figures))
        asked += figures.values()
    answer = list(run.execute(f"select {', '.join(asked)} from data").fetchall()[0])
    rows = int(answer.pop(0))
    found = []
    for (column, _, remark, values), names in zip(typed, wanted, strict=True):
        told, answer = dict(zip(names, answer[: len(names)], strict=True)), answer[len(names) :]
        found.append(_profile(column, rows, told, remark, values))
    keys = _keys(opened, found, rows)
    unique = {names[0] for names in keys if len(names) == 1 and rows <= _EXACT_UP_TO}
    return Profiled(
        rows, tuple(structs.replace(one, exactly=one.column.name in unique) for one in found), tuple(keys)
    )


_WRITTEN = _CANDIDATES[3:]
"""What JSON, which has numbers of its own, can only say as text."""


def _guessed(
    one: Column, values: Sequence[Any], candidates: Sequence[tuple[Kind, re.Pattern[str], str]]
) -> tuple[Column, str, str]:
    """A column of text as the type its sample has, the SQL that reads it so, and a remark."""
    filled = [str(value).strip() for value in values if value is not None and str(value).strip()]
    name = f"nullif(trim({quoted(one.name)}), '')"
    for kind, pattern, cast in candidates if filled else ():
        fits = sum(pattern.fullmatch(value) is not None for value in filled)
        if fits >= _SEVERAL * len(filled):
            return structs.replace(one, kind=kind), cast.format(name), ""
    for pattern, remark in _SHOWN if filled else ():
        if sum(pattern.fullmatch(value) is not None for value in filled) >= _SEVERAL * len(filled):
            return structs.replace(one, kind=Kind("string")), quoted(one.name), remark
    return (
        structs.replace(one, kind=Kind("string")),
        quoted(one.name),
        "" if filled else "the sample is empty",
    )


def _flowing(kind: Kind) -> Kind:
    """The type as a loop carries it: signed integers, moments in nanoseconds."""
    match kind.family:
        case "integer" if not kind.signed:
            return Kind("integer", min(64, kind.bits * 2))
        case "timestamp":
            return Kind("timestamp", unit="ns")
        case "number" if kind.bits == 16:
            return Kind("number", 32)
        case "string" if kind.format == "json":
            return Kind("string")
        case "array" | "map" if kind.item is not None:
            return structs.replace(kind, item=structs.replace(kind.item, kind=_flowing(kind.item.kind)))
        case "object":
            fields = (structs.replace(one, kind=_flowing(one.kind), required=False) for one in kind.fields)
            return structs.replace(kind, fields=tuple(fields))
    return kind


def _figures(column: Column, value: str, sample: Sequence[Any], texts: bool) -> dict[str, str]:
    family = column.kind.family
    cast = value != quoted(column.name)
    plain = f"nullif(trim({quoted(column.name)}), '')" if cast or (texts and family == "string") else value
    asked = {"filled": f"count({plain})"}
    if cast:
        asked["fits"] = f"count({value})"
        asked["misfit"] = (
            f"any_value(left({plain}, 40)) filter (where {value} is null and {plain} is not null)"
        )
    if family in {"array", "object", "map", "any", "binary"}:
        return asked
    asked["different"] = f"approx_count_distinct({value})"
    if family in {"integer", "number", "decimal", "date", "timestamp", "time"}:
        asked |= {"low": f"min({value})", "high": f"max({value})"}
    if family == "string":
        asked |= {"shortest": f"min(length({plain}))", "longest": f"max(length({plain}))"}
    if family in {"string", "integer"} and 0 < len({one for one in sample if one is not None}) <= FEW:
        asked["values"] = f"approx_top_k({value}, {FEW + 1})"
    return asked


def _profile(
    column: Column, rows: int, told: dict[str, Any], remark: str, sample: tuple[Any, ...]
) -> Profile:
    filled = int(told["filled"])
    misfits = filled - int(told.get("fits", filled))
    if misfits > max(10, filled * (1 - _SEVERAL)):
        # The sample was not like the rest: nothing is known but that it is text.
        remark = f"begins like {column.kind.family}, but {misfits} values are not, e.g. {told['misfit']!r}"
        column = structs.replace(column, kind=Kind("string"))
        told, misfits = {"filled": filled}, 0
    values = tuple(sorted(told.get("values") or ()))
    few = 0 < len(values) <= FEW and filled >= _PER_VALUE * len(values)
    return Profile(
        column=column,
        rows=rows,
        filled=filled,
        misfits=misfits,
        misfit=str(told.get("misfit") or ""),
        different=int(told.get("different") or 0),
        low=told.get("low"),
        high=told.get("high"),
        shortest=told.get("shortest"),
        longest=told.get("longest"),
        values=values if few else (),
        sample=sample,
        remark=remark,
    )


def _keys(opened: Opened, found: Sequence[Profile], rows: int) -> list[tuple[str, ...]]:
    """Columns that hold no value twice; where there is none, pairs of columns."""
    if rows < 2:
        return []
    whole = [
        one
        for one in found
        if one.filled == rows and one.column.kind.family in {"string", "integer", "timestamp", "date"}
    ]
    single = [one for one in whole if one.different >= 0.9 * rows]
    if rows > _EXACT_UP_TO:
        return [(one.column.name,) for one in single if one.different >= 0.97 * rows]
    keys: list[tuple[str, ...]] = []
    if single:
        counts = ", ".join(f"count(distinct {quoted(one.column.name)})" for one in single[:4])
        exact = opened.connection.execute(f"select {counts} from data").fetchall()[0]
        keys = [(one.column.name,) for one, count in zip(single[:4], exact, strict=True) if count == rows]
    pairs = [
        (one.column.name, other.column.name)
        for place, one in enumerate(whole)
        for other in whole[place + 1 :]
        if one.different * other.different >= rows and min(one.different, other.different) > 1
    ]
    for pair in [] if keys else pairs[:4]:
        listed = ", ".join(map(quoted, pair))
        (count,) = opened.connection.execute(
            f"select count(*) from (select distinct {listed} from data)"
        ).fetchall()[0]
        if count == rows:
            keys.append(pair)
    return keys

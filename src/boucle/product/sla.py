"""Compiles the `slaProperties` of an ODCS contract into objectives that a running loop measures.

ODCS says what is promised (property, value, unit, element), not over which time nor how much of it may fail. That is
said beside it: from 3.2.0 on in the `customProperties` of the property itself, before in one of the contract,
`serviceLevelObjectives`, by the property's `id` (its name where it has none):

    slaProperties:
      - {id: fresh, property: freshness, value: 10, unit: s, element: maintenance_summary}
    customProperties:
      - property: serviceLevelObjectives
        value: {fresh: {target: 99.5%, window: 28d}}

`retention` is executed by the lake's upkeep, which drops older rows of its table. `availability`, `completeness`,
`accuracy` and `errorRate` carry their target in `value`. The others bound a number, and `target` says which share of
the time, or of the rows, must keep it (default 99 %). Whatever cannot be measured
here is a problem: a promise nobody checks is none.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError, Problem, near
from boucle.product.contract import StreamContract
from boucle.product.document import LoopDocument
from boucle.product.duration import seconds
from boucle.product.lines import Document, Path_

__all__ = ["LEAST_WINDOW", "Lifetime", "Objective", "Reference", "Sla", "compile_sla"]

Measure = Literal[
    "freshness", "frequency", "latency", "throughput", "availability", "completeness", "accuracy", "errorRate"
]
_SHARES = {"availability", "completeness", "accuracy", "errorRate"}
_NEED_ELEMENT = {"freshness", "frequency", "throughput", "availability", "accuracy"}
_DATES = {"generalAvailability", "endOfSupport", "endOfLife"}
_MEASURES: tuple[str, ...] = (*_NEED_ELEMENT, "latency", "completeness", "errorRate")
_UNITS = {
    "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0,
    "minutes": 60.0, "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0, "day": 86400.0,
    "days": 86400.0, "w": 604800.0, "week": 604800.0, "weeks": 604800.0, "y": 31536000.0, "yr": 31536000.0,
    "year": 31536000.0, "years": 31536000.0,
}  # fmt: skip
_PERCENT = {"%", "percent", "pct"}
_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:rows?)?\s*/\s*(\w+)\s*")
_SPANS = {name: _UNITS[name] for name in ("s", "second", "min", "minute", "h", "hour", "d", "day")}

LEAST_WINDOW = 3600.0
"""Seconds: counts are kept per minute."""


class Reference(Struct, frozen=True):
    """A source of truth: a CSV or Parquet file, and how its rows are found and compared."""

    file: str
    key: tuple[str, ...]
    column: str
    tolerance: float
    relative: bool
    """Whether `tolerance` is a share of the true value."""
    within: float
    """Seconds: the newest truth of the key that is not newer than the row, and not older than this."""
    time: str = ""
    """The reference's column of time; empty: its rows are valid at any time."""


class Objective(Struct, frozen=True, kw_only=True):
    """What is promised, as a share of time or rows that must be good."""

    id: str
    measure: Measure
    target: float
    """The share that must be good, above 0 and below 1."""
    window: float
    """Seconds over which it is counted."""
    element: str = ""
    """The schema object; empty: the whole product."""
    column: str = ""
    bound: float = 0.0
    """Seconds (freshness, frequency, latency) or rows per second (throughput); 0 for the others."""
    stream: str = ""
    """The stream of the Loop whose rows the element is."""
    table: str = ""
    """The table of the Loop; empty for a source."""
    sources: tuple[str, ...] = ()
    """The sources whose counters say it (completeness, errorRate)."""
    rate: float = 0.0
    """Rows per second that are expected; 0: those that arrive."""
    probe: str = ""
    """An address that must answer (availability)."""
    reference: Reference | None = None
    driver: str = ""
    description: str = ""

    @property
    def by_time(self) -> bool:
        """Whether it counts time (ms), not rows."""
        return self.measure in {"freshness", "frequency", "availability"}


class Lifetime(Struct, frozen=True):
    """A date of the product's life: `generalAvailability`, `endOfSupport`, `endOfLife`."""

    name: str
    at: Nanos


class Sla(Struct, frozen=True):
    """All that a contract promises of its service."""

    objectives: tuple[Objective, ...] = ()
    lifetimes: tuple[Lifetime, ...] = ()
    retention: dict[str, float] = {}
    """Table of the lake → seconds of event time its rows are kept, and no longer."""


class _Told(Struct, forbid_unknown_fields=True):
    """What is said beside a property."""

    target: str | float | None = None
    errorBudget: str | float | None = None  # noqa: N815 - the spelling of the standard around it
    window: str | float = "28d"
    rate: str | float | None = None
    probe: str = ""
    reference: str = ""
    key: list[str] = []
    referenceColumn: str = ""  # noqa: N815
    referenceTime: str = ""  # noqa: N815
    tolerance: str | float = 0.0
    within: str | float = "1h"


class _Wrong(Exception):
    def __init__(self, what: str, fix: str, at: str = "", code: str = "B470") -> None:
        super().__init__(what)
        self.what, self.fix, self.at, self.code = what, fix, at, code


def compile_sla(
    contract: Document, loop: LoopDocument, contracts: Mapping[str, StreamContract]
) -> tuple[Sla, list[Problem]]:
    """The objectives of a contract, and every promise that this loop cannot measure (with the line)."""
    compiler = _Compiler(contract, loop, contracts)
    objectives = tuple(compiler.objectives())
    return Sla(objectives, tuple(compiler.lifetimes), compiler.retention), compiler.problems


class _Compiler:
    def __init__(
        self, contract: Document, loop: LoopDocument, contracts: Mapping[str, StreamContract]
    ) -> None:
        self.document, self.loop, self.contracts = contract, loop, contracts
        self.problems: list[Problem] = []
        self.lifetimes: list[Lifetime] = []
        self.retention: dict[str, float] = {}
        self._items: list[dict[str, Any]] = list(contract.value.get("slaProperties") or ())
        self._default = str(contract.value.get("slaDefaultElement") or "")
        self._taken: set[str] = set()

    def objectives(self) -> Iterator[Objective]:
        beside = self._beside()
        for index, item in enumerate(self._items):
            name = str(item["property"])
            path: Path_ = ("slaProperties", index)
            try:
                if name in _DATES:
                    self.lifetimes.append(_lifetime(name, item))
                    continue
                if name == "retention":
                    self._retain(item)
                    continue
                told, place = self._told(index, item, beside)
                for element in self._elements(item):
                    try:
                        yield self._objective(item, element, told)
                    except _Wrong as wrong:
                        here = (*place, wrong.at) if place and wrong.at not in item else (*path, wrong.at)
                        self._problem(here, wrong)
            except _Wrong as wrong:
                self._problem((*path, wrong.at), wrong)

    def _problem(self, path: Path_, wrong: _Wrong) -> None:
        line = self.document.line(path)
        why = "what is promised is measured, or it is an error" if wrong.code == "B471" else ""
        self.problems.append(Problem(wrong.code, wrong.what, self.document.file, line, why, wrong.fix))

    # ── what is said beside ───────────────────────────────────────────────────────────────────

    def _beside(self) -> dict[str, tuple[Any, Path_]]:
        """`serviceLevelObjectives`, by id; those that nobody asked for are problems."""
        found: dict[str, tuple[Any, Path_]] = {}
        names = [self._name(index) for index in range(len(self._items))]
        for place, item in enumerate(self.document.value.get("customProperties") or ()):
            if item.get("property") != "serviceLevelObjectives":
                continue
            path: Path_ = ("customProperties", place, "value")
            if not isinstance(item.get("value"), dict):
                self._problem(
                    path, _Wrong("serviceLevelObjectives is no mapping", "by id: {fresh: {target: 99%}}")
                )
                continue
            for name, value in item["value"].items():
                found[str(name)] = value, (*path, name)
                if name not in names:
                    fix = near(str(name), names, "known: none")
                    self._problem((*path, name), _Wrong(f"{name!r} is the id of no slaProperty", fix))
        return found

    def _name(self, index: int) -> str:
        return str(self._items[index].get("id") or self._items[index].get("property"))

    def _told(
        self, index: int, item: dict[str, Any], beside: Mapping[str, tuple[Any, Path_]]
    ) -> tuple[_Told, Path_]:
        own = {one["property"]: one["value"] for one in item.get("customProperties") or ()}
        value, path = beside.get(self._name(index), ({}, ()))
        if own and value:
            raise _Wrong(
                f"{self._name(index)} is described twice", "in its customProperties or the contract's"
            )
        try:
            return msgspec.convert(own or value, _Told), path
        except msgspec.ValidationError as error:
            known = ", ".join(_Told.__struct_fields__)
            raise _Wrong(f"{self._name(index)}: {error}", f"known: {known}") from error

    def _elements(self, item: dict[str, Any]) -> list[str]:
        named = item.get("element") or self._default
        parts = named if isinstance(named, list) else str(named or "").split(",")
        return [str(one).strip() for one in parts] or [""]

    # ── how long rows are kept ────────────────────────────────────────────────────────────────

    def _retain(self, item: dict[str, Any]) -> None:
        """Kept and no longer: what `lake` says of the same table must not be something else."""
        wanted = self._bound("retention", item)
        for element in self._elements(item):
            table = element.partition(".")[0]
            spec = self.loop.tables.get(table)
            if spec is None or spec.to:
                known = ", ".join(name for name, one in self.loop.tables.items() if not one.to) or "none"
                what = f"retention: {table or 'the product'} is no table of the lake"
                raise _Wrong(what, f"element: one of {known}; a source's log has `keep`", "element", "B471")
            said = self.loop.lake.of(table).rows
            if said and seconds(said) != wanted:
                what = f"retention: {wanted / 86400:g} d are promised of {table}, and lake says rows: {said}"
                raise _Wrong(what, "say the same, or leave `rows` away: the promise is kept", "value", "B471")
            if self.retention.setdefault(table, wanted) != wanted:
                raise _Wrong(f"retention: two promises for {table}", "say it once", "value")

    # ── one objective ─────────────────────────────────────────────────────────────────────────

    def _objective(self, item: dict[str, Any], element: str, told: _Told) -> Objective:
        name = str(item["property"])
        if name not in _MEASURES:
            alike = difflib.get_close_matches(name, [*_MEASURES, *_DATES, "retention"], n=1, cutoff=0.75)
            fix = f'did you mean "{alike[0]}"?' if alike else "say it in the description of the contract"
            raise _Wrong(f"slaProperty {name}: nothing measures it", fix, "property", "B471")
        for setting in ("schedule", "scheduler", "valueExt"):
            if item.get(setting) is not None:
                fix = f"remove {setting}: it is measured all the time, against value"
                raise _Wrong(f"{name}: {setting} cannot be kept", fix, setting, "B471")
        table, _, column = element.partition(".")
        place = self._place(name, table)
        target, bound = self._target(name, item, told), self._bound(name, item)
        window = _seconds(told.window, "window")
        if window < LEAST_WINDOW:
            raise _Wrong(
                f"{name}: a window of {told.window}", "an hour or more: counts are per minute", "window"
            )
        if name == "availability" and place.table and self.loop.tables[place.table].to and not told.probe:
            fix = "probe: https://… in its objective: an address that answers when it can be read"
            raise _Wrong(f"availability: {place.table} is not in the lake", fix, "element", "B471")
        objective = Objective(
            id=self._id(item, name, table),
            measure=name,  # type: ignore[arg-type]  # checked above
            target=target,
            window=window,
            element=table,
            column=self._column(name, table, column),
            bound=bound,
            stream=place.stream,
            table=place.table,
            sources=place.sources,
            rate=self._rate(name, told, place),
            probe=self._only("availability", name, told.probe, "probe"),
            reference=self._reference(name, told, column),
            driver=str(item.get("driver") or ""),
            description=str(item.get("description") or ""),
        )
        self._taken.add(objective.id)
        return objective

    def _id(self, item: dict[str, Any], name: str, table: str) -> str:
        plain = str(item.get("id") or (f"{name}-{table}" if table else name))
        for candidate in (plain, f"{plain}-{table}", *(f"{plain}-{number}" for number in range(2, 1000))):
            if candidate not in self._taken:
                return candidate
        raise _Wrong(f"{plain}: too many of one name", "give each an id")

    def _place(self, name: str, table: str) -> "_Place":
        if not table:
            if name in _NEED_ELEMENT:
                raise _Wrong(f"{name}: of what?", "element: a table, or table.column", "property")
            if name == "latency" and not self.loop.actuators:
                fix = "element: a table, or declare the actuator that is commanded"
                raise _Wrong(
                    "latency: of no element, and this loop commands nothing", fix, "property", "B471"
                )
            return _Place(sources=tuple(self.loop.sources))
        sources = [source for source, spec in self.loop.sources.items() if spec.schema == table]
        if name == "errorRate" and not sources:
            fix = f"element: one of {', '.join(sorted({spec.schema for spec in self.loop.sources.values()}))}"
            raise _Wrong("errorRate: readings are refused at a source", fix, "element", "B471")
        if sources:
            return _Place(stream=sources[0], sources=tuple(sources))
        if table in self.loop.tables:
            return _Place(stream=self.loop.tables[table].from_, table=table)
        fix = f"known: {', '.join([*{s.schema for s in self.loop.sources.values()}, *self.loop.tables])}"
        raise _Wrong(f"{name}: nothing in this Loop fills {table!r}", fix, "element", "B471")

    def _column(self, name: str, table: str, column: str) -> str:
        if name not in {"freshness", "latency"} or not table:
            return column
        contract = self.contracts.get(table)
        found = column or (contract.time if contract else "at")
        if contract is not None and found not in {field.name for field in contract.fields}:
            raise _Wrong(
                f"{name}: {table} has no column {found!r}", "name its column of event time", "element"
            )
        return found

    def _target(self, name: str, item: dict[str, Any], told: _Told) -> float:
        shares = [_share(told.target, "target")] if told.target is not None else []
        if told.errorBudget is not None:
            shares.append(1 - _share(told.errorBudget, "errorBudget"))
        if name in _SHARES:
            value = _share(item["value"], "value", str(item.get("unit") or ""))
            shares.append(1 - value if name == "errorRate" else value)
        if len({round(share, 9) for share in shares}) > 1:
            said = ", ".join(f"{100 * share:g} %" for share in shares)
            raise _Wrong(f"{name}: several targets: {said}", "say it once", "target")
        share = shares[0] if shares else 0.99
        if not 0 < share < 1:
            raise _Wrong(
                f"{name}: {100 * share:g} % leaves no error budget", "less than 100 %: 99.9 %", "target"
            )
        return share

    def _bound(self, name: str, item: dict[str, Any]) -> float:
        if name in _SHARES:
            return 0.0
        value, unit = item["value"], str(item.get("unit") or "")
        bound = _per_second(value, unit) if name == "throughput" else _length(value, unit)
        if not 0 < bound < 1e10:
            raise _Wrong(f"{name}: {value} {unit}".rstrip(), "more than 0", "value")
        return bound

    def _rate(self, name: str, told: _Told, place: "_Place") -> float:
        if told.rate is None:
            if name == "completeness" and not place.sources:
                fix = "rate: 10/s in its objective (a source's own counters say it for a source)"
                raise _Wrong("completeness: how many rows are expected?", fix, "property")
            return 0.0
        self._only("completeness", name, told.rate, "rate")
        if not place.stream:
            raise _Wrong("completeness: rate: rows of what?", "element: a table", "property")
        return _per_second(told.rate, "")

    def _only(self, wanted: str, name: str, value: Any, setting: str) -> Any:
        if value and name != wanted:
            raise _Wrong(f"{name}: {setting} says nothing about it", f"only of {wanted}", setting)
        if setting == "probe" and value and not str(value).startswith(("http://", "https://")):
            raise _Wrong(f"{name}: probe: {value}", "an http:// or https:// address", setting)
        return value

    def _reference(self, name: str, told: _Told, column: str) -> Reference | None:
        self._only("accuracy", name, told.reference, "reference")
        if name != "accuracy":
            return None
        if not told.reference or not told.key or not column:
            fix = "element: table.column, and reference: truth.csv, key: [machine] in its objective"
            raise _Wrong("accuracy: against which source of truth?", fix, "property")
        if Path(told.reference).suffix not in {".csv", ".parquet"}:
            raise _Wrong(f"accuracy: reference: {told.reference}", "a .csv or .parquet file", "reference")
        relative = isinstance(told.tolerance, str) and told.tolerance.strip().endswith("%")
        try:
            tolerance = _share(told.tolerance, "tolerance") if relative else float(told.tolerance)
        except ValueError:
            raise _Wrong(f"accuracy: tolerance: {told.tolerance}", "a number, or 1%", "tolerance") from None
        return Reference(
            told.reference, tuple(told.key), told.referenceColumn or column, tolerance, relative,
            _seconds(told.within, "within"), told.referenceTime,
        )  # fmt: skip


class _Place(Struct, frozen=True):
    stream: str = ""
    table: str = ""
    sources: tuple[str, ...] = ()


def _lifetime(name: str, item: dict[str, Any]) -> Lifetime:
    try:
        at = datetime.fromisoformat(str(item["value"]))
    except ValueError:
        raise _Wrong(f"{name}: {item['value']} is no date", "2027-01-31, or with a time", "value") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return Lifetime(name, int(at.timestamp()) * SECOND)


def _seconds(text: str | float, setting: str) -> float:
    try:
        return seconds(text)
    except BoucleError as error:
        raise _Wrong(f"{setting}: {error.what}", error.fix, setting, error.code) from error


def _length(value: Any, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Wrong(f"{value!r} is no duration", "value: 10, unit: s", "value")
    if isinstance(value, str) and not unit:
        return _seconds(value, "value")
    if unit not in _UNITS:
        raise _Wrong(f"unit {unit!r} is no unit of time", f"one of {', '.join(_UNITS)}", "unit")
    try:
        return float(value) * _UNITS[unit]
    except ValueError:
        raise _Wrong(f"{value!r} is no number of {unit}", "value: 10, unit: s", "value") from None


def _share(value: Any, setting: str, unit: str = "") -> float:
    """A share from `99.9%`, or from 99.9 (percent, which `unit` may say)."""
    text = str(value).strip()
    percent = text.endswith("%") or unit in _PERCENT
    try:
        number = float(text.rstrip("% "))
    except ValueError:
        raise _Wrong(f"{setting}: {value!r} is no share", "write 99.9%", setting) from None
    if unit and not percent:
        raise _Wrong(f"{setting}: a share of unit {unit!r}", "unit: '%'", "unit")
    if not percent and 0 < number <= 1:
        fix = f"write {100 * number:g}% or {number:g}%"
        raise _Wrong(f"{setting}: {value} may mean {100 * number:g} % or {number:g} %", fix, setting)
    if not 0 <= number <= 100:
        raise _Wrong(f"{setting}: {value} is no share", "between 0 % and 100 %", setting)
    return round(number / 100, 12)


def _per_second(value: Any, unit: str) -> float:
    match = _RATE.fullmatch(f"{value} {unit}" if unit else str(value))
    span = _SPANS.get(match[2]) if match else None
    if match is None or span is None or not float(match[1]):
        raise _Wrong(f"{value} {unit} is no rate".replace("  ", " "), "10/s, 600/min, 5000 rows/day", "value")
    return float(match[1]) / span

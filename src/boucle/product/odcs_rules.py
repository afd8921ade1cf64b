"""The promises of an ODCS document about its data, each compiled to a Rule, or a Problem when it cannot be executed.

Read: `required`, `unique`, `primaryKey`, `logicalTypeOptions`, `enum` (3.2), `relationships`, and every kind of
`quality` rule. `type: text` is for people. `type: custom` is executed for `engine: boucle`, whose `implementation`
is the extension point the standard gives an engine:

    {check: freshness, within: 1h}                    age of the newest value of the column
    {check: completeness, atLeast: 99.5}              percent of rows that have a value
    {check: anomaly, of: mean, deviations: 4}         against the figures of earlier runs
    {check: volume, deviations: 4}                    the same for the number of rows
    {check: distribution, atMost: 0.2}                population stability index against an earlier run
    {check: python, use: "module:function"}           rows that a function calls bad
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from boucle.errors import BoucleError
from boucle.product.duration import seconds
from boucle.product.lines import Path_
from boucle.product.rules import NONE_BAD, OPERATORS, SEVERITIES, Kind, Limit, Rule, Severity

__all__ = ["FORMATS", "Figure", "TableRules", "Tell"]

Tell = Callable[[Path_, str, str], None]
"""Told the place, what is wrong, and how to mend it."""

Figure = Literal["rows", "nulls", "mean", "stddev", "minimum", "maximum"]
"""What an `anomaly` may be looked for in; `nulls` is the share of rows without a value."""

FORMATS = ("byte", "date", "date-time", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid")
"""Formats of text that are checked."""
_ISO = re.compile(
    r"yyyy-MM-dd|(yyyy-MM-dd('T'| ))?HH:mm(:ss([.,]S{1,9})?)?( ?(Z{1,5}|X{1,3}|x{1,3}|VV|'Z'))?"
)
"""How the patterns of `java.time.format` say what is read of a text: times as ISO 8601 writes them."""

_METRICS = {
    "nullValues": ("property",),
    "missingValues": ("property",),
    "invalidValues": ("property",),
    "duplicateValues": ("property", "schema"),
    "rowCount": ("schema",),
}
_PERCENTS = {"percent", "percentage", "%"}
_DIMENSIONS: dict[str, str] = {
    "null": "completeness", "missing": "completeness", "invalid": "conformity", "duplicate": "uniqueness",
    "foreign_key": "consistency", "row_count": "coverage", "freshness": "timeliness", "type": "conformity",
}  # fmt: skip
_SPANS = {
    "i8": (-(2**7), 2**7 - 1), "i16": (-(2**15), 2**15 - 1), "i32": (-(2**31), 2**31 - 1),
    "u8": (0, 2**8 - 1), "u16": (0, 2**16 - 1), "u32": (0, 2**32 - 1), "u64": (0, None), "u128": (0, None),
    "i64": (None, None), "i128": (None, None), "f64": (None, None),
    "f32": (-3.4028234663852886e38, 3.4028234663852886e38),
}  # fmt: skip
_TEMPORAL = {"date", "time", "timestamp"}
_REFERENCE = re.compile(r"^[A-Za-z_][\w\-]*\.[A-Za-z_][\w\-]*$")
_PATH = re.compile(r"^/?schema/([^/]+)/properties/([^/]+)$")


class TableRules:
    """Collects the rules of one schema object; problems go to `tell`."""

    def __init__(
        self,
        table: Mapping[str, Any],
        tables: Mapping[str, Mapping[str, Any]],
        tell: Tell,
        line: Callable[[Path_], int],
    ) -> None:
        self.rules: list[Rule] = []
        self._table, self._tables, self._tell, self._line = table, tables, tell, line
        self._name = str(table["name"])
        self._logical = {
            prop.get("name"): prop.get("logicalType", "") for prop in table.get("properties", [])
        }
        self._ids: set[str] = set()

    def add(self, kind: Kind, what: str, path: Path_, columns: tuple[str, ...] = (), **told: Any) -> Rule:
        """Make a Rule with a name of its own."""
        wanted = told.pop("id", "") or ".".join(["+".join(columns), what] if columns else [what])
        name, number = wanted, 2
        while name in self._ids:
            name, number = f"{wanted}-{number}", number + 1
        self._ids.add(name)
        told.setdefault("dimension", _DIMENSIONS.get(kind, ""))
        line = self._line(path)
        rule = Rule(id=name, table=self._name, kind=kind, columns=columns, line=line, **told)
        self.rules.append(rule)
        return rule

    # ── what a property says of itself ────────────────────────────────────────────────────────

    def property(self, prop: Mapping[str, Any], path: Path_) -> None:
        """The promises of one column, its quality rules and relationships included."""
        name = str(prop.get("name", "?"))
        logical = str(prop.get("logicalType", ""))
        if logical:
            self.add("type", "type", path, (name,), given={"logical": logical})
        if prop.get("required"):
            self.add("null", "required", path, (name,))
        if prop.get("unique"):
            self.add("duplicate", "unique", path, (name,))
        self._options(prop, path, name)
        if allowed := [one["value"] for one in prop.get("enum", []) if one.get("value") is not None]:
            self.add("invalid", "enum", path, (name,), given={"allowed": _plain(allowed)})
        for index, rule in enumerate(prop.get("quality", [])):
            self.quality(rule, (*path, "quality", index), name)
        for index, relation in enumerate(prop.get("relationships", [])):
            self.relationship(relation, (*path, "relationships", index), name)

    def _options(self, prop: Mapping[str, Any], path: Path_, name: str) -> None:
        options, logical = prop.get("logicalTypeOptions", {}), prop.get("logicalType")
        if logical == "object":
            for option in options:
                self._tell((*path, "logicalTypeOptions", option), f'"{name}": {option} is not executed',
                           "describe the object's properties as columns of their own")  # fmt: skip
            return
        place = (*path, "logicalTypeOptions")
        if span := self._span(options, place, name, str(logical)):
            self.add("invalid", "range", path, (name,), given=span)
        tests: list[tuple[str, dict[str, str]]] = [
            ("multiple", {"multipleOf": "multiple_of"}),
            ("length", {"minLength": "min_length", "maxLength": "max_length"}),
            ("pattern", {"pattern": "pattern"}),
            ("items", {"minItems": "min_items", "maxItems": "max_items", "uniqueItems": "unique_items"}),
        ]
        for what, named in tests:
            if given := {named[option]: options[option] for option in named if options.get(option)}:
                self.add("invalid", what, path, (name,), given=given)
        self._format(options, place, name, str(logical))
        items = prop.get("items", {})
        if elements := self._span(
            items.get("logicalTypeOptions", {}), (*path, "items"), name, items.get("logicalType")
        ):
            self.add("invalid", "elements", path, (name,), given={"elements": elements})
        for option in set(items.get("logicalTypeOptions", {})) - {
            "minimum",
            "maximum",
            "exclusiveMinimum",
            "exclusiveMaximum",
        }:
            self._tell((*path, "items", "logicalTypeOptions", option), f'"{name}": {option} of items is not executed',
                       "of the elements of an array their range is checked")  # fmt: skip

    def _span(
        self, options: Mapping[str, Any], place: Path_, name: str, logical: str | None
    ) -> dict[str, Any]:
        named = {"minimum": "minimum", "exclusiveMinimum": "exclusive_minimum",
                 "maximum": "maximum", "exclusiveMaximum": "exclusive_maximum"}  # fmt: skip
        span = {named[option]: options[option] for option in named if options.get(option) is not None}
        if logical in _TEMPORAL:
            for option, text in list(span.items()):
                try:
                    span[option] = _moment(str(text), logical)
                except ValueError:
                    self._tell(
                        place,
                        f'"{name}": {text!r} is no {logical}',
                        "write it as ISO 8601 does: 2026-11-21T08:00:00Z",
                    )
                    del span[option]
            return span
        if logical in {"integer", "number"} and (width := options.get("format")):
            low, high = _SPANS[width]
            # What is declared is narrower than what its width says, or it says more than fits.
            if low is not None and "minimum" not in span and "exclusive_minimum" not in span:
                span["minimum"] = low
            if high is not None and "maximum" not in span and "exclusive_maximum" not in span:
                span["maximum"] = high
        return span

    def _format(self, options: Mapping[str, Any], place: Path_, name: str, logical: str) -> None:
        form = options.get("format")
        if form is None or logical in {"integer", "number"}:
            return
        if logical in _TEMPORAL:
            if not _ISO.fullmatch(str(form)):
                self._tell((*place, "format"), f'"{name}": the format {form!r} is not executed',
                           "texts are read as ISO 8601; declare others as strings with a pattern")  # fmt: skip
        elif form in FORMATS:
            self.add("invalid", "format", place, (name,), given={"format": form})
        else:
            self._tell((*place, "format"), f'"{name}": the format {form!r} is not executed',
                       f"one of {', '.join(FORMATS)}, or a pattern")  # fmt: skip

    def keys(self, path: Path_) -> None:
        """The primary key: each of its columns has a value, and together they occur once."""
        marked = [prop for prop in self._table.get("properties", []) if prop.get("primaryKey")]
        marked.sort(key=lambda prop: prop.get("primaryKeyPosition", -1))
        for prop in marked:
            if not prop.get("required"):
                self.add("null", "primaryKey", path, (prop["name"],))
        if marked and not (len(marked) == 1 and marked[0].get("unique")):
            self.add("duplicate", "primaryKey", path, tuple(prop["name"] for prop in marked))

    # ── relationships ─────────────────────────────────────────────────────────────────────────

    def relationship(self, relation: Mapping[str, Any], path: Path_, column: str = "") -> None:
        """A foreign key, of one column or of several."""
        source = [column] if column else _listed(relation.get("from"))
        own = [self._column(one, path) if not column else one for one in source]
        target = [self._reference(one) for one in _listed(relation.get("to"))]
        if None in own:
            return
        if None in target or len({one[0] for one in target if one}) != 1 or len(target) != len(own):
            fix = "write to: table.column of this contract, as many as there are in from, all of one table"
            self._tell(
                (*path, "to"), f"{self._name}: the foreign key leads nowhere that can be looked at", fix
            )
            return
        named = [one for one in target if one]
        keys = [key for _, key in named]
        self.add("foreign_key", "foreignKey", path, tuple(one for one in own if one),
                 given={"table": named[0][0], "keys": keys})  # fmt: skip

    def _column(self, reference: Any, path: Path_) -> str | None:
        found = self._reference(reference)
        if found is not None and found[0] == self._name:
            return found[1]
        self._tell((*path, "from"), f"{self._name}: from {reference!r} is no column of it",
                   f"write {self._name}.column")  # fmt: skip
        return None

    def _reference(self, text: Any) -> tuple[str, str] | None:
        """Table and column that a reference of this document names, by name or by id."""
        if _REFERENCE.match(str(text)):
            table, column = str(text).split(".")
        elif found := _PATH.match(str(text)):
            table, column = found[1], found[2]
        else:
            return None
        for name, declared in self._tables.items():
            if table in (name, declared.get("id")):
                for prop in declared.get("properties", []):
                    if column in (prop.get("name"), prop.get("id")):
                        return name, str(prop["name"])
        return None

    # ── quality rules ─────────────────────────────────────────────────────────────────────────

    def quality(self, rule: Mapping[str, Any], path: Path_, column: str = "") -> None:
        """One rule of a `quality` list, of a column or of the whole table."""
        what = rule.get("metric") or rule.get("rule")
        kind = rule.get("type") or "library"
        if kind == "text":
            return
        told = self._told(rule, path)
        if kind == "library":
            self._library(rule, str(what), path, column, told)
        elif kind == "sql":
            limit = self._limit(rule, path, percent=False)
            if limit is not None:
                self.add("sql", "sql", path, (column,) if column else (), limit=limit,
                         given={"query": str(rule["query"])}, **told)  # fmt: skip
        else:
            self._custom(rule, path, column, told)

    def _told(self, rule: Mapping[str, Any], path: Path_) -> dict[str, Any]:
        severity: Severity = "error"
        declared = str(rule.get("severity", severity)).lower()
        if declared in SEVERITIES:
            severity = declared
        else:
            self._tell((*path, "severity"), f"{self._name}: nobody knows the severity {declared!r}",
                       f"one of {', '.join(SEVERITIES)}")  # fmt: skip
        told = {
            "id": str(rule.get("id") or rule.get("name") or ""),
            "severity": severity,
            "impact": str(rule.get("businessImpact", "")),
            "description": str(rule.get("description", "")),
            "schedule": " ".join(str(rule[word]) for word in ("scheduler", "schedule") if rule.get(word)),
        }
        return told | ({"dimension": rule["dimension"]} if rule.get("dimension") else {})

    def _limit(self, rule: Mapping[str, Any], path: Path_, *, percent: bool) -> Limit | None:
        declared = [operator for operator in OPERATORS if operator in rule]
        if len(declared) != 1:
            self._tell(path, f"{self._name}: a rule compares with one number, here are {len(declared)} comparisons",
                       f"give one of {', '.join(OPERATORS)}")  # fmt: skip
            return None
        operator = declared[0]
        value = rule[operator]
        values = tuple(value) if isinstance(value, list) else (value,)
        wanted = 2 if operator.endswith("Between") else 1
        if len(values) != wanted or not all(isinstance(one, int | float) for one in values):
            self._tell((*path, operator), f"{self._name}: {operator}: {value!r} cannot be compared with a number",
                       "give a number" if wanted == 1 else "give two numbers, the smaller first")  # fmt: skip
            return None
        unit = str(rule.get("unit", "rows")).lower()
        if unit not in {"rows", *_PERCENTS}:
            self._tell((*path, "unit"), f"{self._name}: the unit {unit!r} is not executed", "rows or percent")
            return None
        if unit in _PERCENTS and not percent:
            self._tell(
                (*path, "unit"), f"{self._name}: nothing this could be a percentage of", "leave the unit out"
            )
            return None
        return Limit(operator, tuple(float(one) for one in values), unit in _PERCENTS)

    def _library(
        self, rule: Mapping[str, Any], metric: str, path: Path_, column: str, told: dict[str, Any]
    ) -> None:
        level = "property" if column else "schema"
        if metric not in _METRICS or level not in _METRICS[metric]:
            fits = ", ".join(one for one, levels in _METRICS.items() if level in levels)
            self._tell(path, f"{self._name}: {metric} is no metric of a {level}", f"one of {fits}")
            return
        limit = self._limit(rule, path, percent=metric != "rowCount")
        given = rule.get("arguments", {}) or {}
        if limit is None:
            return
        columns = (column,) if column else ()
        match metric:
            case "nullValues":
                self.add("null", metric, path, columns, limit=limit, **told)
            case "missingValues":
                values = [one for one in given.get("missingValues", []) if one is not None]
                self.add(
                    "missing", metric, path, columns, limit=limit, given={"values": _plain(values)}, **told
                )
            case "invalidValues":
                self._invalid(given, path, column, limit, told)
            case "duplicateValues":
                self._duplicates(given, path, columns, limit, told)
            case _:
                self.add("row_count", metric, path, limit=limit, **told)

    def _invalid(
        self, given: Mapping[str, Any], path: Path_, column: str, limit: Limit, told: dict[str, Any]
    ) -> None:
        tests: dict[str, Any] = {}
        if isinstance(given.get("validValues"), list):
            tests["allowed"] = _plain([one for one in given["validValues"] if one is not None])
        if given.get("pattern"):
            tests["pattern"] = str(given["pattern"])
        if not tests:
            self._tell(path, f'"{column}": invalidValues without what is valid',
                       "give arguments: validValues: […], or a pattern")  # fmt: skip
            return
        self.add("invalid", "invalidValues", path, (column,), limit=limit, given=tests, **told)

    def _duplicates(
        self,
        given: Mapping[str, Any],
        path: Path_,
        columns: tuple[str, ...],
        limit: Limit,
        told: dict[str, Any],
    ) -> None:
        names = columns or tuple(str(one) for one in given.get("properties", []))
        strangers = [one for one in names if one not in self._logical]
        if not names or strangers:
            what = f"no column {strangers[0]!r}" if strangers else "duplicateValues of no columns"
            self._tell(path, f"{self._name}: {what}", "give arguments: properties: […], columns of it")
            return
        self.add("duplicate", "duplicateValues", path, names, limit=limit, **told)

    # ── rules of our own engine ───────────────────────────────────────────────────────────────

    def _custom(self, rule: Mapping[str, Any], path: Path_, column: str, told: dict[str, Any]) -> None:
        engine, declared = rule.get("engine"), rule.get("implementation")
        if engine != "boucle":
            self._tell((*path, "engine"), f"{self._name}: rules of the engine {engine!r} are not executed",
                       "say the same with a library metric, type: sql or engine: boucle")  # fmt: skip
            return
        checks = {
            "freshness": self._freshness, "completeness": self._completeness, "volume": self._volume,
            "anomaly": self._anomaly, "distribution": self._distribution, "python": self._python,
        }  # fmt: skip
        check = declared.get("check") if isinstance(declared, Mapping) else None
        if not isinstance(declared, Mapping) or check not in checks:
            self._tell((*path, "implementation"), f"{self._name}: check: {check!r} is nothing boucle can do",
                       f"one of {', '.join(checks)}")  # fmt: skip
            return
        taker = _Taker({**declared, **({"column": column} if column else {})})
        try:
            checks[check](taker, path, told)
            taker.finish()
        except (BoucleError, TypeError, ValueError, KeyError) as error:
            why = error.what if isinstance(error, BoucleError) else str(error)
            self._tell((*path, "implementation"), f"{self._name}: {check}: {why}",
                       "see docs/how-to/quality.md for what it takes")  # fmt: skip

    def _freshness(self, taken: "_Taker", path: Path_, told: dict[str, Any]) -> None:
        column, within = self._known(taken.text("column")), seconds(taken.any("within"))
        if self._logical[column] not in {"timestamp", "date"}:
            raise ValueError(f'"{column}" is no timestamp and no date')
        self.add(
            "freshness", "freshness", path, (column,), limit=Limit("mustBeLessOrEqualTo", (within,)), **told
        )

    def _completeness(self, taken: "_Taker", path: Path_, told: dict[str, Any]) -> None:
        column, least = self._known(taken.text("column")), taken.number("atLeast")
        limit = Limit("mustBeLessOrEqualTo", (round(100.0 - least, 9),), percent=True)
        self.add("null", "completeness", path, (column,), limit=limit, **told)

    def _volume(self, taken: "_Taker", path: Path_, told: dict[str, Any]) -> None:
        self._against_history("rows", (), taken, path, told)

    def _anomaly(self, taken: "_Taker", path: Path_, told: dict[str, Any]) -> None:
        figure = taken.text("of")
        if figure not in get_args(Figure):
            raise ValueError(f"of: {figure!r} is none of {', '.join(get_args(Figure))}")
        columns = () if figure == "rows" else (self._known(taken.text("column")),)
        if columns and figure != "nulls" and self._logical[columns[0]] not in {"integer", "number"}:
            raise ValueError(f'"{columns[0]}" is no number')
        self._against_history(figure, columns, taken, path, told)

    def _against_history(
        self, figure: str, columns: tuple[str, ...], taken: "_Taker", path: Path_, told: dict[str, Any]
    ) -> None:
        most = taken.number("deviations", 4.0)
        given = {
            "of": figure,
            "runs": int(taken.number("runs", 30)),
            "at_least": int(taken.number("atLeast", 5)),
        }
        limit = Limit("mustBeLessOrEqualTo", (most,))
        self.add("anomaly", f"{figure}.anomaly", path, columns, limit=limit, given=given, **told)

    def _distribution(self, taken: "_Taker", path: Path_, told: dict[str, Any]) -> None:
        column, against = self._known(taken.text("column")), taken.text("against", "first")
        if against not in {"first", "last"}:
            raise ValueError(f"against: {against!r} is neither first nor last")
        if self._logical[column] not in {"integer", "number", "string", "boolean"}:
            raise ValueError(f'"{column}" is no number and no text')
        limit = Limit("mustBeLessOrEqualTo", (taken.number("atMost", 0.2),))
        self.add(
            "distribution", "distribution", path, (column,), limit=limit, given={"against": against}, **told
        )

    def _python(self, taken: "_Taker", path: Path_, told: dict[str, Any]) -> None:
        use = taken.text("use")
        if not re.fullmatch(r"[\w.]+:\w+", use):
            raise ValueError(f"use: {use!r} is not module:function")
        named = taken.any("columns", None)
        columns = tuple(self._known(str(one)) for one in _listed(named)) if named else ()
        if (column := taken.text("column", "")) and not columns:
            columns = (self._known(column),)
        limit = self._limit(taken.rest(OPERATORS, "unit") or {"mustBe": 0}, path, percent=True)
        self.add("python", "python", path, columns, limit=limit or NONE_BAD, given={"use": use}, **told)

    def _known(self, column: str) -> str:
        if column not in self._logical:
            raise ValueError(f"there is no column {column!r}")
        return column


class _Taker:
    """Takes settings out of a mapping; what nobody took is a mistake."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._left = {name: value for name, value in values.items() if name != "check"}

    def any(self, name: str, *default: Any) -> Any:
        if name not in self._left and not default:
            raise ValueError(f"it needs {name}")
        return self._left.pop(name, *default)

    def text(self, name: str, *default: str) -> str:
        return str(self.any(name, *default))

    def number(self, name: str, *default: float) -> float:
        value = self.any(name, *default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name}: {value!r} is no number")
        return float(value)

    def rest(self, *names: Any) -> dict[str, Any]:
        wanted = {*names[0], *names[1:]}
        return {name: self._left.pop(name) for name in list(self._left) if name in wanted}

    def finish(self) -> None:
        left = [name for name in self._left if name != "column"]
        if left:
            raise ValueError(f"there is no setting {left[0]!r}")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _plain(values: list[Any]) -> list[Any]:
    return [value if isinstance(value, int | float | bool) else str(value) for value in values]


def _moment(text: str, logical: str) -> str:
    """An ISO 8601 text in its one form; a timestamp without a zone is UTC, as ODCS says."""
    if logical == "date":
        return dt.date.fromisoformat(text[:10]).isoformat()
    if logical == "time":
        return dt.time.fromisoformat(text).isoformat()
    moment = dt.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC).isoformat()

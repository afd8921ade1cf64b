"""The rules of a whole table as DuckDB reads them: conditions for bad rows, literals, names.

Each condition says exactly what `masks` says of a Block; a law in the tests holds the two together.
"""

import datetime as dt
import re
from typing import Any

from boucle.lake.quoting import literal as quoted
from boucle.lake.quoting import name
from boucle.product.rules import Rule
from boucle.quality.figures import BUCKET, OFFSET, TEXT_BUCKETS
from boucle.quality.formats import FORMAT_PATTERNS
from boucle.quality.masks import CLOSE

__all__ = ["bad_when", "bucket", "literal", "name", "nanos_since_epoch", "placed"]

_FLOATS = ("FLOAT", "DOUBLE")
_INTEGERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
)


def literal(value: Any, kind: str = "VARCHAR") -> str:
    """A declared value as SQL, for a column of this type; NULL when it cannot be one of its values."""
    if kind == "VARCHAR":
        return quoted(str(value))
    if isinstance(value, str) and kind.startswith(("DATE", "TIME")):
        return _time(value, kind)
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return repr(value)
    return f"TRY_CAST({quoted(str(value))} AS {kind})"


def _time(text: str, kind: str) -> str:
    if kind.startswith("TIMESTAMP") and "ZONE" not in kind:
        # Without a zone: UTC is meant on both sides.
        plain = dt.datetime.fromisoformat(text).replace(tzinfo=None)
        return f"CAST({quoted(plain.isoformat(sep=' '))} AS {kind})"
    return f"CAST({quoted(text)} AS {kind})"


def bad_when(rule: Rule, kind: str, column: str = "") -> str:
    """The condition under which a row breaks a `null`, `missing` or `invalid` rule; NULL: it does not."""
    column = column or name(rule.columns[0])
    if rule.kind == "null":
        return f"{column} IS NULL"
    if rule.kind == "missing":
        values = ", ".join(literal(value, kind) for value in rule.given.get("values", []))
        return f"({column} IS NULL OR {column} IN ({values}))" if values else f"{column} IS NULL"
    given = rule.given
    tests = [_span(given, column, kind), _length(given, column), _items(given, column)]
    if "allowed" in given:
        tests.append(f"{column} NOT IN ({', '.join(literal(value, kind) for value in given['allowed'])})")
    if "pattern" in given:
        tests.append(f"NOT regexp_matches({column}, {quoted(given['pattern'])})")
    if "format" in given:
        tests.append(f"NOT regexp_matches({column}, {quoted(FORMAT_PATTERNS[given['format']])})")
    if "multiple_of" in given:
        tests.append(_multiple(given["multiple_of"], column, kind))
    if given.get("unique_items"):
        kept = f"list_filter({column}, lambda one: one IS NOT NULL)"
        tests.append(f"len(list_distinct({kept})) <> len({kept})")
    if "elements" in given:
        inner = _span(given["elements"], "one", kind.removesuffix("[]"))
        tests.append(f"len(list_filter({column}, lambda one: {inner})) > 0")
    return " OR ".join(f"({test})" for test in tests if test)


def _span(given: dict[str, Any], column: str, kind: str) -> str:
    operators = {"minimum": ">=", "exclusive_minimum": ">", "maximum": "<=", "exclusive_maximum": "<"}
    bounds = [
        f"{column} {operator} {literal(given[bound], kind)}"
        for bound, operator in operators.items()
        if bound in given
    ]
    if not bounds:
        return ""
    # DuckDB holds NaN for greater than infinity: two bounds leave neither in, one bound may.
    if kind in _FLOATS and len(bounds) < 2:
        bounds.append(f"isfinite({column})")
    return f"NOT ({' AND '.join(bounds)})"


def _length(given: dict[str, Any], column: str) -> str:
    return _between(f"length({column})", given.get("min_length"), given.get("max_length"))


def _items(given: dict[str, Any], column: str) -> str:
    return _between(f"len({column})", given.get("min_items"), given.get("max_items"))


def _between(measure: str, low: int | None, high: int | None) -> str:
    tests = [f"{measure} < {low}"] if low is not None else []
    tests += [f"{measure} > {high}"] if high is not None else []
    return " OR ".join(tests)


def _multiple(step: float, column: str, kind: str) -> str:
    if kind in _INTEGERS and float(step).is_integer():
        return f"{column} % {int(step)} <> 0"
    quotient = f"(CAST({column} AS DOUBLE) / {float(step)!r})"
    near = f"abs({quotient} - round_even({quotient}, 0)) <= {CLOSE} * greatest(1.0, abs({quotient}))"
    return f"NOT ({near} AND isfinite({quotient}))"


def bucket(column: str, kind: str) -> str:
    """The bucket of a value (`figures.buckets_of`)."""
    if kind == "BOOLEAN":
        return f"CASE WHEN {column} THEN {OFFSET} WHEN NOT {column} THEN 0 END"
    if kind == "VARCHAR":
        return f"CAST(md5_number_lower({column}) % {TEXT_BUCKETS} AS BIGINT)"
    value = f"CAST({column} AS DOUBLE)"
    size = f"CAST(sign({value}) * (floor(ln(abs({value})) / {BUCKET}) + {OFFSET}) AS BIGINT)"
    return f"CASE WHEN {value} = 0 THEN 0 WHEN isfinite({value}) THEN {size} END"


def nanos_since_epoch(column: str, kind: str) -> str:
    """A time as nanoseconds since the epoch."""
    return f"epoch_ns(CAST({column} AS TIMESTAMP))" if kind == "DATE" else f"epoch_ns({column})"


_PLACE = re.compile(r"\$?\{(table|object|column|property)\}")


def placed(query: str, table: str, column: str) -> str:
    """A declared query with its placeholders filled: `${table}` or `{object}`, `${column}` or `{property}`."""
    return _PLACE.sub(lambda match: table if match[1] in {"table", "object"} else column, query)

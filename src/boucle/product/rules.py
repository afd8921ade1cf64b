"""What a contract promises of its data, as values: one Rule a promise, whichever way it was declared.

ODCS says the same thing in many places (`required`, `logicalTypeOptions`, `quality`, `relationships`,
`primaryKey`). Here each becomes a Rule that measures a number and a Limit that says which numbers keep it, so
that a whole table and a Block that flows by are checked by the same list.
"""

import math
from typing import Any, Literal

from msgspec import Struct

__all__ = ["NONE_BAD", "OPERATORS", "ROW_KINDS", "SEVERITIES", "Kind", "Limit", "Rule", "Severity"]

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")

Kind = Literal[
    "type",
    "null",
    "missing",
    "invalid",
    "python",
    "duplicate",
    "foreign_key",
    "row_count",
    "freshness",
    "anomaly",
    "distribution",
    "sql",
]
"""What is measured; `given` of a Rule holds the rest of what was declared.

    type          the column is there, of the declared family of types (`logical`)
    null          rows without a value
    missing       the same, and rows with a value that means nothing (`values`)
    invalid       rows whose value fails a test (`allowed`, `pattern`, `minimum`, `exclusive_minimum`, `maximum`,
                  `exclusive_maximum`, `multiple_of`, `min_length`, `max_length`, `format`, `min_items`,
                  `max_items`, `unique_items`, `elements`); a null is none of them
    python        rows that a function calls bad (`use`)
    duplicate     keys that occur more than once; a key with a null in it is no key
    foreign_key   rows whose key is not in another table (`table`, `keys`)
    row_count     rows
    freshness     seconds from the newest time of a column to now
    anomaly       how many robust standard deviations a figure (`of`) is from its history (`runs`, `at_least`)
    distribution  population stability index against the first run, or the one before (`against`)
    sql           the number that a query gives (`query`)
"""

ROW_KINDS: frozenset[Kind] = frozenset({"null", "missing", "invalid", "python", "foreign_key"})
"""Kinds whose number is a count of rows, each of which can be shown."""

OPERATORS = {
    "mustBe": "exactly {0}",
    "mustNotBe": "anything but {0}",
    "mustBeGreaterThan": "more than {0}",
    "mustBeGreaterOrEqualTo": "at least {0}",
    "mustBeLessThan": "less than {0}",
    "mustBeLessOrEqualTo": "at most {0}",
    "mustBeBetween": "from {0} to {1}",
    "mustNotBeBetween": "not from {0} to {1}",
}
"""The comparisons of ODCS, in words. Both ends of a span belong to it."""


class Limit(Struct, frozen=True):
    """Which measured numbers keep a promise; `percent`: of the rows checked."""

    operator: str
    values: tuple[float, ...]
    percent: bool = False

    def keeps(self, measured: float) -> bool:
        """Whether the promise is kept; NaN (nothing could be measured) keeps none."""
        first = self.values[0]
        match self.operator:
            case "mustBe":
                return measured == first
            case "mustNotBe":
                return measured != first and not math.isnan(measured)
            case "mustBeGreaterThan":
                return measured > first
            case "mustBeGreaterOrEqualTo":
                return measured >= first
            case "mustBeLessThan":
                return measured < first
            case "mustBeLessOrEqualTo":
                return measured <= first
            case "mustBeBetween":
                return first <= measured <= self.values[1]
            case _:
                return measured < first or measured > self.values[1]

    def says(self) -> str:
        """In words: `at most 5 %`."""
        said = OPERATORS[self.operator].format(*(f"{value:g}" for value in self.values))
        return f"{said} %" if self.percent else said


NONE_BAD = Limit("mustBe", (0.0,))
"""Not one row may be bad: a promise about every value."""


class Rule(Struct, frozen=True, kw_only=True):
    """One promise about the data of a schema object."""

    id: str
    """Unique within its table: the id or name that was declared, else `column.what`."""
    table: str
    kind: Kind
    columns: tuple[str, ...] = ()
    limit: Limit = NONE_BAD
    severity: Severity = "error"
    given: dict[str, Any] = {}
    dimension: str = ""
    impact: str = ""
    """The declared `businessImpact`."""
    description: str = ""
    schedule: str = ""
    """When a scheduler outside should start it; boucle carries it and starts nothing by it."""
    line: int = 0
    """Where it stands in the contract's file."""

    @property
    def refuses(self) -> bool:
        """Whether a reading that breaks it is refused one by one: it is about every value, and an error."""
        about_values = self.kind in {"null", "missing", "invalid"}
        return about_values and self.limit == NONE_BAD and self.severity == "error"

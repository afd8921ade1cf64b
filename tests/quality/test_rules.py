# ruff: noqa: E501 - a case is one line
"""Each rule ODCS has, and each of ours: data that keeps it, data that breaks it; whole tables and Blocks agree."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from boucle.product.rules import Limit
from tests.quality.odcs import NOW, column_rules, flowing, rules_of, whole

UTC = pa.timestamp("ns", "UTC")
STRING, INTEGER, NUMBER = "logicalType: string", "logicalType: integer", "logicalType: number"


def rule(text: str) -> str:
    return f"quality: [{{{text}}}]"


def options(kind: str, text: str) -> str:
    return f"{kind}, logicalTypeOptions: {{{text}}}"


def enum(*values: str) -> str:
    return f"metric: invalidValues, arguments: {{validValues: [{', '.join(values)}]}}"


COLUMN_CASES: list[tuple[str, str, pa.Array, pa.Array, float]] = [
    # what, the column's YAML, kept by, broken by, measured
    ("required", f"{STRING}, required: true", pa.array(["a"]), pa.array(["a", None]), 1),
    ("unique", f"{INTEGER}, unique: true", pa.array([1, 2, None, None]), pa.array([1, 1, 1, 2, 2, 3]), 2),
    ("unique text", f"{STRING}, unique: true", pa.array(["1", "2"]), pa.array(["1", "1"]), 1),
    ("primaryKey", f"{INTEGER}, primaryKey: true", pa.array([1, 2]), pa.array([1, 2, 2]), 1),
    ("minimum", options(NUMBER, "minimum: 1"), pa.array([1.0, None]), pa.array([0.9, float("nan"), float("inf")]), 3),
    ("maximum", options(NUMBER, "maximum: 1"), pa.array([1.0]), pa.array([1.1, float("-inf")]), 2),
    ("both", options(INTEGER, "minimum: 1, maximum: 2"), pa.array([1, 2]), pa.array([0, 3, 2]), 2),
    ("exclusiveMinimum", options(INTEGER, "exclusiveMinimum: 1"), pa.array([2]), pa.array([1]), 1),
    ("exclusiveMaximum", options(NUMBER, "exclusiveMaximum: 1"), pa.array([0.99]), pa.array([1.0]), 1),
    ("multipleOf", options(INTEGER, "multipleOf: 5"), pa.array([0, -10, 5]), pa.array([4, 5]), 1),
    ("multipleOf 0.1", options(NUMBER, "multipleOf: 0.1"), pa.array([0.3, 1e9]), pa.array([0.35, float("nan")]), 2),
    ("i8", options(INTEGER, "format: i8"), pa.array([-128, 127]), pa.array([128, -129]), 2),
    ("u16", options(INTEGER, "format: u16"), pa.array([0, 65535]), pa.array([-1]), 1),
    ("u64", options(INTEGER, "format: u64"), pa.array([0]), pa.array([-1]), 1),
    ("f32", options(NUMBER, "format: f32"), pa.array([3e38]), pa.array([4e38]), 1),
    ("decimal", options(NUMBER, "minimum: 1.5"), pa.array([Decimal("1.50")]), pa.array([Decimal("1.49")]), 1),
    ("minLength", options(STRING, "minLength: 2"), pa.array(["é€"]), pa.array(["é"]), 1),
    ("maxLength", options(STRING, "maxLength: 2"), pa.array(["é€"]), pa.array(["abc"]), 1),
    ("pattern", options(STRING, "pattern: '^[a-z]+$'"), pa.array(["ab", None]), pa.array(["aB", ""]), 2),
    ("email", options(STRING, "format: email"), pa.array(["a@b.example"]), pa.array(["a.b", "a@", "@b"]), 3),
    ("uuid", options(STRING, "format: uuid"), pa.array(["123e4567-e89b-12d3-a456-426614174000"]), pa.array(["x"]), 1),
    ("uri", options(STRING, "format: uri"), pa.array(["https://a.example/b?c#d"]), pa.array(["no scheme", "a b:c"]), 2),
    ("hostname", options(STRING, "format: hostname"), pa.array(["a-1.example"]), pa.array(["-a", "a..b"]), 2),
    ("ipv4", options(STRING, "format: ipv4"), pa.array(["255.0.0.1"]), pa.array(["256.0.0.1", "1.2.3"]), 2),
    ("ipv6", options(STRING, "format: ipv6"), pa.array(["::1", "2001:db8::8:800"]), pa.array(["1::2::3", "g::"]), 2),
    ("byte", options(STRING, "format: byte"), pa.array(["aGk="]), pa.array(["aGk"]), 1),
    ("date-time", options(STRING, "format: date-time"), pa.array(["2026-11-21T08:00:00Z"]), pa.array(["2026-13-01"]), 1),
    ("timestamp from", options("logicalType: timestamp", "minimum: '2026-01-01T00:00:00Z'"),
     pa.array([NOW], UTC), pa.array([NOW - 1], UTC), 1),
    ("timestamp before", options("logicalType: timestamp", "exclusiveMaximum: '2026-01-01T01:00:00+01:00'"),
     pa.array([NOW - 1000], UTC), pa.array([NOW], UTC), 1),
    ("date to", options("logicalType: date", "maximum: '2026-01-31'"),
     pa.array([dt.date(2026, 1, 31)]), pa.array([dt.date(2026, 2, 1)]), 1),
    ("time to", options("logicalType: time", "exclusiveMaximum: '12:00:00'"),
     pa.array([dt.time(11, 59)]), pa.array([dt.time(12)]), 1),
    ("minItems", options("logicalType: array, items: {logicalType: integer}", "minItems: 1"),
     pa.array([[1], None]), pa.array([[]], pa.list_(pa.int64())), 1),
    ("maxItems", options("logicalType: array, items: {logicalType: integer}", "maxItems: 1"),
     pa.array([[1]]), pa.array([[1, 2], [1]]), 1),
    ("uniqueItems", options("logicalType: array, items: {logicalType: integer}", "uniqueItems: true"),
     pa.array([[1, 2, None, None], []]), pa.array([[1, 2, 1], [3]]), 1),
    ("elements", "logicalType: array, items: {logicalType: number, logicalTypeOptions: {maximum: 1}}",
     pa.array([[1.0, None]]), pa.array([[0.0, 2.0], [1.0], [float("nan")]]), 2),
    ("nullValues", f"{STRING}, {rule('metric: nullValues, mustBe: 0')}", pa.array(["a"]), pa.array([None, "a"]), 1),
    ("nullValues percent", f"{STRING}, {rule('metric: nullValues, mustBeLessThan: 30, unit: percent')}",
     pa.array(["a", "b", "c", None]), pa.array(["a", None]), 50),
    ("missingValues", f"{STRING}, {rule('metric: missingValues, arguments: {missingValues: [null, , N/A]}, mustBe: 0')}".replace(
        "null, , N/A", "null, '', 'N/A'"), pa.array(["a"]), pa.array([None, "", "N/A", "a"]), 3),
    ("missingValues of numbers", f"{INTEGER}, {rule('metric: missingValues, arguments: {missingValues: [-1, none]}, mustBeLessThan: 1')}",
     pa.array([1]), pa.array([-1, None]), 2),
    ("validValues", f"{STRING}, {rule(enum('kg', 'pounds') + ', mustBe: 0')}", pa.array(["kg", None]), pa.array(["g", "kg"]), 1),
    ("validValues of numbers", f"{INTEGER}, {rule(enum('1', '2') + ', mustBeLessThan: 1')}", pa.array([1, 2]), pa.array([3]), 1),
    ("invalid pattern", f"{STRING}, {rule('''metric: invalidValues, arguments: {pattern: '^[A-Z]{2}$'}, mustBe: 0''')}",
     pa.array(["FR"]), pa.array(["fr", "FRA"]), 2),
    ("3.2 enum", f"{STRING}, enum: [{{value: a}}, {{value: b}}]", pa.array(["a"]), pa.array(["c"]), 1),
    ("duplicateValues", f"{STRING}, {rule('metric: duplicateValues, mustBeLessThan: 2')}",
     pa.array(["a", "a", None, None]), pa.array(["a", "a", "b", "b"]), 2),
    ("duplicateValues percent", f"{INTEGER}, {rule('metric: duplicateValues, mustBeLessThan: 25, unit: percent')}",
     pa.array([1, 1, 2, 3, 4]), pa.array([1, 1, 2, 2]), 50),
    ("completeness", f"{STRING}, {rule('type: custom, engine: boucle, implementation: {check: completeness, atLeast: 60}')}",
     pa.array(["a", "b", None]), pa.array(["a", None]), 50),
]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "good", "bad", "measured"),
    [case[1:] for case in COLUMN_CASES],
    ids=[case[0] for case in COLUMN_CASES],
)
def test_a_column_is_kept_and_broken(column: str, good: pa.Array, bad: pa.Array, measured: float) -> None:
    rules = column_rules(f"{{name: x, {column}}}")
    for outcomes in (
        whole(rules, pa.table({"x": good})).outcomes,
        flowing(rules, pa.record_batch({"x": good})),
    ):
        assert [one.state for one in outcomes] == ["kept"] * len(rules), outcomes
    report = whole(rules, pa.table({"x": bad}))
    for outcomes in (report.outcomes, flowing(rules, pa.record_batch({"x": bad}))):
        broken = [one for one in outcomes if one.state == "broken"]
        assert [one.measured for one in broken] == ([measured] if measured else [])
        assert {one.state for one in outcomes} <= {"kept", "broken"}
    # The rows that break it are shown with their rule, severity and value.
    assert all(one.severity == "error" and one.columns == ("x",) for one in report.failing)
    assert bool(report.failing) == bool(measured)


@pytest.mark.parametrize(
    ("comparison", "kept", "broken"),
    [
        ("mustBe: 2", [2], [1, 3]),
        ("mustNotBe: 2", [1, 3], [2]),
        ("mustBeGreaterThan: 2", [3], [2]),
        ("mustBeGreaterOrEqualTo: 2", [2], [1]),
        ("mustBeLessThan: 2", [1], [2]),
        ("mustBeLessOrEqualTo: 2", [2], [3]),
        ("mustBeBetween: [2, 3]", [2, 3], [1, 4]),
        ("mustNotBeBetween: [2, 3]", [1, 4], [2, 3]),
    ],
)
def test_every_comparison(comparison: str, kept: list[int], broken: list[int]) -> None:
    found, problems = rules_of(
        f"- {{name: t, properties: [{{name: x, logicalType: integer}}], quality: [{{metric: rowCount, {comparison}}}]}}"
    )
    assert problems == []
    for rows, state in [*((n, "kept") for n in kept), *((n, "broken") for n in broken)]:
        table = pa.table({"x": list(range(rows))})
        assert whole(found["t"], table).outcomes[-1].state == state
        assert flowing(found["t"], *table.to_batches())[-1].state == state
    assert not found["t"][-1].limit.keeps(float("nan"))


def test_several_columns_together() -> None:
    found, problems = rules_of(
        "- name: t\n"
        "  properties:\n"
        "    - {name: tenant, logicalType: string, primaryKey: true, primaryKeyPosition: 2}\n"
        "    - {name: id, logicalType: integer, primaryKey: true, primaryKeyPosition: 1}\n"
        "  quality:\n"
        "    - {id: both, metric: duplicateValues, mustBe: 0, arguments: {properties: [tenant, id]}, severity: info}\n"
    )
    assert problems == []
    rules = found["t"]
    keys = [one for one in rules if one.kind == "duplicate"]
    assert [(one.id, one.columns, one.severity) for one in keys] == [
        ("id+tenant.primaryKey", ("id", "tenant"), "error"),
        ("both", ("tenant", "id"), "info"),
    ]
    good = pa.table({"tenant": ["a", "b"], "id": [1, 1]})
    bad = pa.table({"tenant": ["a", "a", "b"], "id": [1, 1, 1]})
    assert {one.state for one in whole(rules, good).outcomes} == {"kept"}
    for outcomes in (whole(rules, bad).outcomes, flowing(rules, *bad.to_batches())):
        assert [one.rule for one in outcomes if one.state == "broken"] == ["id+tenant.primaryKey", "both"]


ORDERS = """
- name: customers
  properties: [{name: id, logicalType: integer}, {name: site, logicalType: string}]
- name: t
  properties:
    - {name: customer, logicalType: integer, relationships: [{type: foreignKey, to: customers.id}]}
    - {name: site, logicalType: string}
  relationships: [{from: [t.customer, t.site], to: [customers.id, customers.site]}]
"""


def test_foreign_keys() -> None:
    found, problems = rules_of(ORDERS)
    assert problems == []
    rules = found["t"]
    others = {"customers": pa.table({"id": [1, 2, 2], "site": ["a", "b", "b"]})}
    good = pa.table({"customer": [1, 2, None], "site": ["a", "b", "z"]})
    bad = pa.table({"customer": [1, 9, 2], "site": ["b", "b", None]})
    assert {one.state for one in whole(rules, good, others=others).outcomes} == {"kept"}
    report = whole(rules, bad, others=others)
    assert {one.rule: one.failed for one in report.outcomes if one.state == "broken"} == {
        "customer.foreignKey": 1,
        "customer+site.foreignKey": 2,
    }
    assert [one.values for one in report.failing][:1] == [(9,)]
    alone = whole(rules, good).outcomes
    assert {one.why for one in alone if one.state == "unknown"} == {
        "the rows of customers are needed: --reference customers=FILE"
    }


SQL = """
- name: t
  properties:
    - name: x
      logicalType: integer
      quality:
        - {id: placed, type: sql, query: 'SELECT COUNT(*) FROM ${table} WHERE ${column} < 0', mustBeLessThan: 1}
        - {id: older, type: sql, query: 'SELECT max({property}) FROM {object}', mustBeBetween: [0, 9]}
"""


def test_queries() -> None:
    found, problems = rules_of(SQL)
    assert problems == []
    rules = found["t"]
    good, bad = pa.table({"x": [1, 9]}), pa.table({"x": [-1, 10]})
    assert [one.state for one in whole(rules, good).outcomes] == ["kept"] * 3
    assert [(one.state, one.measured) for one in whole(rules, bad).outcomes][1:] == [
        ("broken", 1.0),
        ("broken", 10.0),
    ]
    flowing_ones = flowing(rules, *good.to_batches())
    assert [one.state for one in flowing_ones] == ["kept", "unknown", "unknown"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT x FROM ${table}",
        "SELECT 'many' ",
        "SELECT 1, 2",
        "SELECT nothing FROM ${table}",
        "DROP VIEW t",
        "COPY (SELECT 1) TO 'out.csv'",
        "SELECT 1; SELECT 2",
        "SELECT count(*) FROM read_text('/etc/hostname')",
    ],
)
def test_queries_that_cannot_be_answered_are_said(query: str) -> None:
    found, _ = rules_of(SQL.replace("SELECT max({property}) FROM {object}", query.replace("'", "''")))
    (outcome,) = [one for one in whole(found["t"], pa.table({"x": [1, 9]})).outcomes if one.rule == "older"]
    assert (outcome.state, outcome.measured) == ("unknown", None)
    assert outcome.why


def custom(check: str, column: str = "", schema: bool = False) -> str:
    text = f"{{id: c, type: custom, engine: boucle, implementation: {{{check}}}}}"
    on = f", quality: [{text}]"
    return (
        "- {name: t, properties: [{name: x, logicalType: number"
        + ("" if schema else on)
        + "}, {name: at, logicalType: timestamp}]"
        + (on if schema else "")
        + "}"
    )


def test_freshness() -> None:
    found, problems = rules_of(custom("check: freshness, column: at, within: 1h", schema=True))
    assert problems == []
    ages = {"kept": 3600, "broken": 3601}
    for state, age in ages.items():
        rows = pa.table({"x": [1.0, 1.0], "at": pa.array([NOW - age * 10**9, None], UTC)})
        for outcomes in (whole(found["t"], rows).outcomes, flowing(found["t"], *rows.to_batches())):
            assert (outcomes[-1].state, outcomes[-1].measured) == (state, age)
    nothing = pa.table({"x": [1.0], "at": pa.array([None], UTC)})
    assert whole(found["t"], nothing).outcomes[-1].state == "broken"


def odd(batch: pa.RecordBatch) -> list[bool]:
    return [value is not None and value % 2 == 1 for value in batch.column("x").to_pylist()]


def test_python_functions() -> None:
    found, problems = rules_of(
        custom("check: python, use: 'tests.quality.test_rules:odd', mustBeLessThan: 2")
    )
    assert problems == []
    functions: dict[str, Any] = {"c": odd}
    for values, state in (([1.0, 2.0], "kept"), ([1.0, 3.0, None], "broken")):
        rows = pa.table({"x": values, "at": pa.nulls(len(values), UTC)})
        report = whole(found["t"], rows, functions=functions)
        outcome = next(one for one in report.outcomes if one.rule == "c")
        assert (outcome.state, outcome.failed) == (state, sum(map(bool, odd(rows.to_batches()[0]))))
        assert [one.values for one in report.failing] == [
            (value,) for value in values if value and value % 2 == 1
        ]
    assert next(one for one in whole(found["t"], rows).outcomes if one.rule == "c").state == "unknown"


def test_what_is_not_there_or_of_another_type_is_said() -> None:
    rules = column_rules("{name: x, logicalType: integer, required: true, logicalTypeOptions: {minimum: 1}}")
    for rows in (pa.table({"y": [1]}), pa.table({"x": ["a"]})):
        for outcomes in (whole(rules, rows).outcomes, flowing(rules, *rows.to_batches())):
            assert outcomes[0].state == "broken"
            assert outcomes[-1].state == "unknown"
            assert all(one.why for one in outcomes if one.state != "kept")


def test_an_empty_table_keeps_what_it_can() -> None:
    rules = column_rules(
        "{name: x, logicalType: integer, required: true, unique: true, logicalTypeOptions: {minimum: 1}}"
    )
    assert {one.state for one in whole(rules, pa.table({"x": pa.array([], pa.int64())})).outcomes} == {"kept"}


def test_what_is_declared_beside_a_rule_is_carried() -> None:
    (_, rule_) = column_rules(
        "{name: x, logicalType: string, quality: [{name: no nulls, metric: nullValues, mustBe: 0, severity: warning,"
        " dimension: accuracy, businessImpact: operational, description: why, schedule: 0 20 * * *, scheduler: cron}]}"
    )
    (_, outcome) = whole(
        (*column_rules("{name: x, logicalType: string}"), rule_), pa.table({"x": [None, "a"]})
    ).outcomes
    assert (outcome.rule, outcome.severity, outcome.dimension) == ("no nulls", "warning", "accuracy")
    assert (outcome.impact, outcome.description, outcome.schedule) == (
        "operational",
        "why",
        "cron 0 20 * * *",
    )
    assert rule_.limit == Limit("mustBe", (0.0,))
    assert not rule_.refuses


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (f"{STRING}, {rule('metric: nullValues')}", "0 comparisons"),
        (f"{STRING}, {rule('metric: nullValues, mustBe: 0, mustNotBe: 1')}", "2 comparisons"),
        (f"{STRING}, {rule('metric: nullValues, mustBe: many')}", "cannot be compared"),
        (f"{STRING}, {rule('metric: nullValues, mustBeBetween: [1]')}", "cannot be compared"),
        (f"{STRING}, {rule('metric: nullValues, mustBe: 0, unit: furlongs')}", "furlongs"),
        (f"{STRING}, {rule('metric: nullValues, mustBe: 0, severity: loud')}", "loud"),
        (f"{STRING}, {rule('metric: rowCount, mustBe: 0')}", "no metric of a property"),
        (f"{STRING}, {rule('metric: invalidValues, mustBe: 0')}", "without what is valid"),
        (f"{STRING}, {rule('type: custom, engine: soda, implementation: x')}", "'soda'"),
        (f"{STRING}, {rule('type: custom, engine: boucle, implementation: x')}", "nothing boucle can do"),
        (f"{STRING}, {rule('type: custom, engine: boucle, implementation: {check: guess}')}", "'guess'"),
        (f"{STRING}, {rule('type: custom, engine: boucle, implementation: {check: freshness, within: 1h}')}", "no timestamp"),
        (f"{STRING}, {rule('type: custom, engine: boucle, implementation: {check: completeness}')}", "needs atLeast"),
        (f"{STRING}, {rule('type: custom, engine: boucle, implementation: {check: completeness, atLeast: 1, most: 2}')}",
         "no setting 'most'"),
        (f"{STRING}, {rule('type: custom, engine: boucle, implementation: {check: anomaly, of: mode}')}", "'mode'"),
        (f"{STRING}, {rule('type: custom, engine: boucle, implementation: {check: anomaly, of: mean}')}", "no number"),
        (f"{STRING}, {rule('type: custom, engine: boucle, implementation: {check: distribution, against: all}')}", "'all'"),
        (f"{STRING}, {rule('type: custom, engine: boucle, implementation: {check: python, use: nothing}')}", "module:function"),
        (f"{STRING}, {rule('type: sql, query: SELECT 1')}", "0 comparisons"),
        (options(STRING, "format: haiku"), "'haiku'"),
        (options(STRING, "format: password"), "'password' is not executed"),
        (options(STRING, "format: binary"), "'binary' is not executed"),
        (options("logicalType: date", "format: dd/MM/yyyy"), "'dd/MM/yyyy' is not executed"),
        (options("logicalType: timestamp", "format: yyyyMMddHHmm"), "'yyyyMMddHHmm' is not executed"),
        (options("logicalType: timestamp", "minimum: someday"), "is no timestamp"),
        (options("logicalType: object", "maxProperties: 1"), "maxProperties is not executed"),
        ("logicalType: array, items: {logicalType: string, logicalTypeOptions: {pattern: x}}", "pattern of items"),
        (f"{STRING}, relationships: [{{to: nowhere.id}}]", "leads nowhere"),
        (f"{STRING}, relationships: [{{to: other.yaml#schema/a/properties/b}}]", "leads nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_executed_is_a_problem(column: str, said: str) -> None:
    _, problems = rules_of(f"- {{name: t, properties: [{{name: x, {column}}}]}}")
    assert [one.code for one in problems] == ["B210"]
    assert said in problems[0].what, problems
    assert problems[0].fix

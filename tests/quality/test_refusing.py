# ruff: noqa: E501, ISC004 - a case is one line
"""Every promise about one value that may never be broken refuses the reading, with its rule."""

from typing import Any

import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.errors import BoucleError
from boucle.product.odcs import compile_contract
from boucle.quality.check import Checker
from boucle.quality.promises import unexecutable
from boucle.quality.reject import REASONS
from tests.quality.odcs import NOW, contract
from tests.quality.signals import StillClock


def compiled(column: str) -> Any:
    found, problems = compile_contract(
        contract(f"- {{name: t, properties: [{{name: at, logicalType: timestamp}}, {column}]}}")
    )
    assert problems == []
    return found["t"]


@pytest.mark.parametrize(
    ("column", "good", "bad", "reason", "rule"),
    [
        ("{name: x, logicalType: number, logicalTypeOptions: {exclusiveMinimum: 0}}", 1.0, 0.0, "out_of_range", "x.range"),
        ("{name: x, logicalType: number, logicalTypeOptions: {multipleOf: 0.5}}", 1.5, 0.4, "multiple", "x.multiple"),
        ("{name: x, logicalType: integer, logicalTypeOptions: {format: u8}}", 255, 256, "out_of_range", "x.range"),
        ("{name: x, logicalType: string, logicalTypeOptions: {maxLength: 2}}", "ab", "abc", "length", "x.length"),
        ("{name: x, logicalType: string, logicalTypeOptions: {format: uuid}}",
         "123e4567-e89b-12d3-a456-426614174000", "x", "format", "x.format"),
        ("{name: x, logicalType: string, enum: [{value: a}]}", "a", "b", "not_allowed", "x.enum"),
        ("{name: x, logicalType: integer, quality: [{id: r, metric: invalidValues, arguments: {validValues: [1]}, mustBe: 0}]}",
         1, 2, "not_allowed", "r"),
        ("{name: x, logicalType: string, quality: [{metric: missingValues, arguments: {missingValues: [N/A]}, mustBe: 0}]}",
         "a", "N/A", "missing", "x.missingValues"),
        ("{name: x, logicalType: string, quality: [{metric: nullValues, mustBe: 0}]}", "a", None, "missing", "x.nullValues"),
        ("{name: x, logicalType: array, items: {logicalType: integer}, logicalTypeOptions: {uniqueItems: true}}",
         [1, 2], [1, 1], "repeated_items", "x.items"),
    ],
)  # fmt: skip
def test_refused_with_its_rule(column: str, good: Any, bad: Any, reason: str, rule: str) -> None:
    promised = compiled(column)
    checker = Checker(promised, clock=StillClock())
    rows = pa.RecordBatch.from_pylist(
        [{"at": NOW, "x": good}, {"at": NOW, "x": bad}], schema=promised.schema()
    )
    kept, rejects = checker.check(Block("t", rows, 0, Position("t", 0)))
    assert kept.rows.column("x").to_pylist() == [good]
    assert [(one.reason, one.rule) for one in rejects] == [(reason, rule)]
    assert reason in REASONS
    assert checker.failed == {rule: 1}


@pytest.mark.parametrize(
    "how", ["severity: warning, mustBe: 0", "mustBeLessThan: 5", "mustBeLessThan: 5, unit: percent"]
)
def test_what_is_tolerated_or_no_error_refuses_nothing(how: str) -> None:
    promised = compiled(f"{{name: x, logicalType: string, quality: [{{metric: nullValues, {how}}}]}}")
    rows = pa.RecordBatch.from_pylist([{"at": NOW, "x": None}], schema=promised.schema())
    assert Checker(promised, clock=StillClock()).check(Block("t", rows, 0, Position("t", 0)))[1] == []


@pytest.mark.parametrize(
    ("column", "code"),
    [
        ("{name: x, logicalType: string, logicalTypeOptions: {pattern: '(?=a)'}}", "B441"),
        ("{name: x, logicalType: string, quality: [{type: sql, query: SELEC 1, mustBe: 0}]}", "B446"),
        ("{name: x, logicalType: string, quality: [{type: sql, query: DROP TABLE t, mustBe: 0}]}", "B446"),
        ("{name: x, logicalType: string, quality: [{type: custom, engine: boucle,"
         " implementation: {check: python, use: 'no.module:f'}}]}", "B445"),
        ("{name: x, logicalType: integer, quality: [{metric: invalidValues,"
         " arguments: {validValues: [1, many]}, mustBe: 0}]}", "B456"),
        ("{name: x, logicalType: integer, physicalType: int8, quality: [{metric: missingValues,"
         " arguments: {missingValues: [-1, 9999]}, mustBe: 0}]}", "B456"),
    ],
)  # fmt: skip
def test_what_reads_well_and_cannot_be_executed_is_found_before(column: str, code: str) -> None:
    def find(use: str) -> Any:
        raise ImportError(use)

    ((_, error),) = unexecutable(compiled(column), find)
    assert isinstance(error, BoucleError)
    assert error.code == code
    assert error.fix

"""Contracts written as ODCS, compiled and held against small tables."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from boucle.errors import Problem
from boucle.product.lines import Document
from boucle.product.odcs import compile_rules
from boucle.product.rules import Rule
from boucle.quality.relation import arrow_relation
from boucle.quality.state import TableState
from boucle.quality.table_check import TableReport, check_table
from boucle.quality.verdict import Outcome, judge

NOW = 1_767_225_600 * 10**9


def contract(schema: str) -> Document:
    """A DataContract around the YAML of a `schema` list."""
    head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "c", "version": "1.0.0", "status": "active"}
    return Document("contract.yaml", {**head, "schema": yaml.safe_load(schema)}, {(): 1})


def rules_of(schema: str) -> tuple[dict[str, tuple[Rule, ...]], list[Problem]]:
    return compile_rules(contract(schema))


def column_rules(column: str) -> tuple[Rule, ...]:
    """The rules of a table `t` with the one column that the YAML describes."""
    found, problems = rules_of(f"- {{name: t, properties: [{column}]}}")
    assert problems == [], problems
    return found["t"]


def whole(rules: tuple[Rule, ...], rows: pa.Table, **told: Any) -> TableReport:
    others = {name: arrow_relation(table, name) for name, table in told.pop("others", {}).items()}
    return check_table("t", rules, arrow_relation(rows), now=NOW, others=others, **told)


def flowing(
    rules: tuple[Rule, ...], *batches: pa.RecordBatch, folder: Path | None = None
) -> tuple[Outcome, ...]:
    state = TableState(rules, folder)
    for batch in batches:
        state.update(batch)
    return judge(rules, state.measured(), (), NOW)

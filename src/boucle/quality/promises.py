"""What of a contract cannot be executed although it reads well: found before anything runs."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from boucle.errors import BoucleError
from boucle.product.contract import StreamContract
from boucle.product.rules import Rule
from boucle.quality.masks import impossible, row_test
from boucle.quality.sql_text import name, placed

__all__ = ["unexecutable"]


def unexecutable(
    contract: StreamContract, find: Callable[[str], Callable[..., Any]]
) -> Iterator[tuple[Rule, BoucleError]]:
    """Each rule that would fail whatever the data, and why. `find` gives the function of `module:function`."""
    kinds: dict[str, pa.DataType] = {field.name: field.type for field in contract.fields}
    for rule in contract.rules:
        try:
            if rule.kind in {"null", "missing", "invalid"} and rule.columns[0] in kinds:
                row_test(rule, kinds[rule.columns[0]])
                _possible(rule, kinds[rule.columns[0]])
            elif rule.kind == "python":
                _importable(rule, find)
            elif rule.kind == "sql":
                _readable(rule)
        except BoucleError as error:
            yield rule, error


def _possible(rule: Rule, kind: pa.DataType) -> None:
    declared = [*rule.given.get("allowed", ()), *rule.given.get("values", ())]
    if found := impossible(declared, kind):
        raise BoucleError(
            "B456",
            f"{rule.id}: {', '.join(map(repr, found))} can be no value of a column of type {kind}",
            fix="write values of the column's type, or declare the column as it is",
        )


def _importable(rule: Rule, find: Callable[[str], Callable[..., Any]]) -> None:
    use = rule.given["use"]
    try:
        find(use)
    except (ImportError, AttributeError, ValueError) as error:
        raise BoucleError(
            "B445",
            f"{rule.id}: {use} cannot be imported",
            why=str(error),
            fix="write module:function of a module beside product.yaml or of an installed package",
        ) from error


def _readable(rule: Rule) -> None:
    import sqlglot
    from sqlglot.errors import SqlglotError

    text = placed(rule.given["query"], name(rule.table), name(rule.columns[0]) if rule.columns else "*")
    try:
        statements = sqlglot.parse(text, read="duckdb")
    except SqlglotError as error:
        why = " ".join(str(error).split())[:200]
        raise BoucleError(
            "B446", f"{rule.id}: the query cannot be read", why=why, fix="write it as DuckDB reads it"
        ) from None
    if len(statements) != 1 or not isinstance(statements[0], sqlglot.exp.Query):
        raise BoucleError(
            "B446", f"{rule.id}: it is not one SELECT", fix="give one query that answers with one number"
        )

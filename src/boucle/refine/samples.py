"""Transformations tested on rows a person wrote down: given these, expect those. And data cut to a sample.

A sample file stands beside the SQL, `sql/tests/NAME.yaml`, and holds a list of cases:

    - case: rows of one card add up
      given:
        accepted:
          - {id: 1, at: 2026-01-01T10:00:00Z, card: a, amount: 5.0}
      expect:
        - {card: a, since: 2026-01-01T00:00:00Z, payments: 1, spent: 5.0}

A column the given rows do not name is null; columns that `expect` does not name are not compared.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.duck import DuckError, connection, name
from boucle.lake.whole import Lake
from boucle.product.contract import StreamContract
from boucle.product.lines import read_documents
from boucle.product.project import Project
from boucle.refine.transform import CHANGED, REMOVED, Transform, bare

__all__ = ["Sampled", "Tried", "cut", "try_samples"]

_HASHED = 2**32


class Tried(Struct, frozen=True):
    """One case: whether the SQL gave what was expected, and if not, what differs."""

    transform: str
    case: str
    passed: bool
    says: str


def try_samples(transform: Transform, project: Project) -> list[Tried]:
    """Every case of a transformation's sample file; none without a file. B537 for one that is no list of cases."""
    file = transform.file.parent / "tests" / f"{transform.name}.yaml"
    if not file.exists() or transform.spec.use != "sql":
        return []
    documents, problems = read_documents(file)
    if problems:
        raise _unreadable(file, problems[0].what)
    cases = documents[0].value if documents else None
    if not isinstance(cases, list) or not all(isinstance(one, dict) for one in cases):
        raise _unreadable(file, "it is no list of cases")
    return [_case(transform, project, one, file, number) for number, one in enumerate(cases)]


def _case(transform: Transform, project: Project, case: dict[str, Any], file: Path, number: int) -> Tried:
    named = str(case.get("case", f"case {number + 1}"))
    given, expect = case.get("given", {}), case.get("expect")
    if not isinstance(given, dict) or not isinstance(expect, list):
        raise _unreadable(file, f'"{named}" has no rows under `given` and `expect`')
    if unknown := sorted(set(case) - {"case", "given", "expect"}):
        raise _unreadable(file, f'"{named}": there is no such word {unknown[0]!r}')
    try:
        with connection() as duck:
            _show(duck, transform, project, given)
            found = [
                _plain(row)
                for row in duck.sql(transform.text.strip().rstrip(";")).to_arrow_table().to_pylist()
            ]
    except (DuckError, pa.ArrowException) as error:
        return Tried(transform.name, named, False, " ".join(str(error).split())[:300])
    says = _difference(found, [_plain(row) for row in expect])
    return Tried(transform.name, named, not says, says or f"{len(found)} rows as expected")


def _show(duck: Any, transform: Transform, project: Project, given: dict[str, Any]) -> None:
    for schema in (CHANGED, REMOVED):
        duck.execute(f"CREATE SCHEMA {schema}")
    for text in transform.spec.from_:
        table = bare(text)
        rows = _rows(given.get(table, []), _contract_of(table, project))
        duck.register("given_rows", rows)
        duck.execute(f"CREATE TABLE main.{name(table)} AS SELECT * FROM given_rows")
        duck.execute(f"CREATE VIEW {CHANGED}.{name(table)} AS SELECT * FROM main.{name(table)}")
        duck.execute(f"CREATE VIEW {REMOVED}.{name(table)} AS SELECT * FROM main.{name(table)} WHERE false")
        for zone in ("raw", "silver", "gold"):
            duck.execute(f"CREATE SCHEMA IF NOT EXISTS {zone}")
            duck.execute(f"CREATE VIEW {zone}.{name(table)} AS SELECT * FROM main.{name(table)}")


def _contract_of(table: str, project: Project) -> StreamContract | None:
    """The promise that says the types of a table's columns, when one is known."""
    spec = project.loop.tables.get(table)
    source = project.loop.sources.get(spec.from_) if spec else None
    return project.contracts.get(source.schema if source else table)


def _rows(rows: list[dict[str, Any]], contract: StreamContract | None) -> pa.Table:
    values = [{key: _value(value) for key, value in row.items()} for row in rows]
    if contract is None:
        return pa.Table.from_pylist(values)
    known = {field.name: field for field in contract.schema()}
    kinds = [
        pa.field(one.name, pa.timestamp("us", "UTC") if pa.types.is_timestamp(one.type) else one.type)
        for one in known.values()
    ]
    if unknown := sorted({key for row in values for key in row} - set(known)):
        raise pa.ArrowInvalid(f"{contract.name} has no column {', '.join(unknown)}")
    return pa.Table.from_pylist(values, schema=pa.schema(kinds))


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")


def _value(value: Any) -> Any:
    """A value as it was meant: what reads as a moment is one, in UTC unless it says otherwise."""
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    return value


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: _comparable(_value(value)) for key, value in row.items()}


def _comparable(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _difference(found: list[dict[str, Any]], expect: list[dict[str, Any]]) -> str:
    """What tells the rows apart, in any order; empty when nothing does."""
    left = list(found)
    for row in expect:
        match = next((one for one in left if _same(one, row)), None)
        if match is None:
            return f"expected {_told(row)}; found {'; '.join(map(_told, left[:3])) or 'no such row'}"
        left.remove(match)
    return f"{len(left)} rows more than expected: {'; '.join(map(_told, left[:3]))}" if left else ""


def _same(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(key in row and _equal(row[key], value) for key, value in wanted.items())


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) or (
            math.isnan(one) and math.isnan(other)
        )
    return bool(one == other)


def _told(row: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in row.items()) + "}"


class Sampled(Lake):
    """A lake where transformations publish apart, in `apart`, and all other tables are those of `real`."""

    def __init__(self, real: Lake, apart: Path, made: Sequence[str]) -> None:
        super().__init__(apart)
        self._real, self._made = real, frozenset(made)

    def find(self, text: str) -> LakeTable:
        """A transformation's table as it was made from the sample; any other as it is."""
        return super().find(text) if bare(text) in self._made else self._real.find(text)


def cut(text: str, columns: Sequence[str]) -> str:
    """The condition on a row that keeps a share of the rows, the same ones each time: `1%`, or `0.01`.

    Rows that share the values of `columns` stay together. B538 says what can be written.
    """
    share = _share(text)
    key = ", ".join(f"coalesce(CAST({name(one)} AS VARCHAR), '')" for one in columns)
    return f"(md5_number_lower(concat_ws('|', {key})) % {_HASHED}) < {int(share * _HASHED)}"


def _share(text: str) -> float:
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise BoucleError("B538", f'"{text}" is no share of the rows', fix="write 1%, 0.5% or 0.01")
    return share


def _unreadable(file: Path, why: str) -> BoucleError:
    return BoucleError(
        "B537",
        "the samples cannot be read",
        where=str(file),
        why=why,
        fix="a list of cases, each with `case`, `given: {table: [rows]}` and `expect: [rows]`",
    )

"""Compiles an ODCS 3.1 schema object into the StreamContract that decoding and checking use.

`logicalType` gives the family, `physicalType` the width (ODCS leaves it free; we read the Arrow
names: int32, float64, timestamp_ns, …). Ranges come from `logicalTypeOptions`, allowed values from
the library rule `invalidValues` with `validValues` (ODCS 3.1, "Data quality"). A list's element
range is that of its `items`. The unit is the custom property `unit`.
"""

from typing import Any

import pyarrow as pa

from boucle.errors import Problem
from boucle.product.contract import FieldContract, StreamContract
from boucle.product.lines import Document, Path_

__all__ = ["compile_contract"]

_PHYSICAL: dict[str, Any] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "boolean": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "double": pa.float64(),
    "timestamp_ns": pa.timestamp("ns", tz="UTC"),
}
_LOGICAL: dict[str, Any] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("ns", tz="UTC"),
}
_WIDTHS = {
    "string": {"string"},
    "integer": {"int8", "int16", "int32", "int64"},
    "number": {"float32", "float64", "double"},
    "boolean": {"bool", "boolean"},
    "timestamp": {"timestamp_ns"},
}


def compile_contract(document: Document) -> tuple[dict[str, StreamContract], list[Problem]]:
    """Every schema object of an ODCS document by name, and all that cannot be executed."""
    compiler = _Compiler(document)
    contracts = {}
    for index, item in enumerate(document.value.get("schema", [])):
        path: Path_ = ("schema", index)
        fields = tuple(
            field
            for position, prop in enumerate(item.get("properties", []))
            if (field := compiler.field(prop, (*path, "properties", position))) is not None
        )
        time = next((f.name for f in fields if pa.types.is_timestamp(f.type)), "")
        contracts[item["name"]] = StreamContract(item["name"], fields, time)
        if not time:
            compiler.problem(
                path,
                f"{item['name']} has no timestamp column",
                "give its event time a logicalType: timestamp",
            )
    return contracts, compiler.problems


class _Compiler:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def problem(self, path: Path_, what: str, fix: str) -> None:
        self.problems.append(Problem("B210", what, self.document.file, self.document.line(path), fix=fix))

    def field(self, prop: dict[str, Any], path: Path_) -> FieldContract | None:
        name = prop.get("name", "?")
        kind = self.type(prop, path, name)
        if kind is None:
            return None
        options = prop.get("logicalTypeOptions", {})
        bounds = prop.get("items", {}).get("logicalTypeOptions", {}) if pa.types.is_list(kind) else options
        custom = {item["property"]: item["value"] for item in prop.get("customProperties", [])}
        for strict in ("exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
            if strict in bounds:
                self.problem(path, f'"{name}": {strict} is not executed yet', "use minimum and maximum")
        return FieldContract(
            name=name,
            type=kind,
            required=bool(prop.get("required", False)),
            unit=str(custom.get("unit", "")),
            minimum=_number(bounds.get("minimum")),
            maximum=_number(bounds.get("maximum")),
            one_of=self.allowed(prop, path, name),
            pattern=options.get("pattern"),
            min_items=options.get("minItems"),
            max_items=options.get("maxItems"),
            description=prop.get("description", ""),
        )

    def type(self, prop: dict[str, Any], path: Path_, name: str) -> Any:
        logical, physical = prop.get("logicalType"), prop.get("physicalType")
        if logical == "array":
            items = prop.get("items")
            if not items:
                self.problem(path, f'"{name}" is an array of nothing', "describe its items")
                return None
            inner = self.type(items, (*path, "items"), f"{name}[]")
            return None if inner is None else pa.list_(pa.field("item", inner, nullable=True))
        if logical is None:
            self.problem(path, f'"{name}" has no logicalType', f"one of {', '.join([*_LOGICAL, 'array'])}")
            return None
        if logical not in _LOGICAL:
            self.problem(
                path,
                f'"{name}": a {logical} cannot flow yet',
                f"use one of {', '.join([*_LOGICAL, 'array'])}",
            )
            return None
        if physical is None:
            return _LOGICAL[logical]
        if physical not in _WIDTHS[logical]:
            known = ", ".join(sorted(_WIDTHS[logical]))
            self.problem(
                path,
                f'"{name}": physicalType {physical!r} is no {logical}',
                f"one of {known}, or leave it out",
            )
            return None
        return _PHYSICAL[physical]

    def allowed(self, prop: dict[str, Any], path: Path_, name: str) -> tuple[str, ...] | None:
        found = None
        for index, rule in enumerate(prop.get("quality", [])):
            values = rule.get("arguments", {}).get("validValues")
            if rule.get("metric") == "invalidValues" and values:
                found = tuple(str(value) for value in values)
            elif rule.get("type", "library") != "text":
                what = f'"{name}": this quality rule is not executed per reading yet'
                self.problem(
                    (*path, "quality", index), what, "use invalidValues with validValues, or type: text"
                )
        return found


def _number(value: Any) -> float | None:
    return None if value is None else float(value)

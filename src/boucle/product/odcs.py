"""Compiles an ODCS 3.1 or 3.2 schema object into the StreamContract that decoding and checking use.

`logicalType` gives the family, `physicalType` the width (ODCS leaves it free; we read the Arrow
names, int32, float64, timestamp_ns, …, and the common SQL ones, BIGINT, VARCHAR(20), DECIMAL(12,2), …).
Every promise about the data becomes a Rule (`boucle.product.odcs_rules`); those that one value alone can break,
and that may never be broken, are carried by its FieldContract as well, and refuse a reading where it comes in.
A list's element range is that of its `items`. The unit is the custom property `unit`.
"""

import re
from typing import Any

import pyarrow as pa

from boucle.errors import Problem
from boucle.product.contract import FieldContract, StreamContract
from boucle.product.lines import Document, Path_
from boucle.product.odcs_rules import TableRules
from boucle.product.rules import Rule

__all__ = ["compile_contract", "compile_rules"]

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
    "date32": pa.date32(),
    "time64": pa.time64("ns"),
}
_LOGICAL: dict[str, Any] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("ns", tz="UTC"),
    "date": pa.date32(),
    "time": pa.time64("ns"),
}
_WIDTHS = {
    "string": {"string"},
    "integer": {"int8", "int16", "int32", "int64"},
    "number": {"float32", "float64", "double"},
    "boolean": {"bool", "boolean"},
    "timestamp": {"timestamp_ns"},
    "date": {"date32"},
    "time": {"time64"},
}
_SQL_WORDS = {
    "string": {
        "varchar": "string", "char": "string", "character": "string", "character varying": "string",
        "nvarchar": "string", "text": "string", "uuid": "string",
    },
    "integer": {
        "tinyint": "int8", "smallint": "int16", "int": "int32", "integer": "int32", "int2": "int16", "int4": "int32",
        "bigint": "int64", "long": "int64",
    },
    "number": {
        "real": "float32", "float": "float64", "float4": "float32", "float8": "float64", "double precision": "float64",
        "int": "float64", "integer": "float64", "bigint": "float64",
    },
    "boolean": {},
    "timestamp": {
        "timestamp": "timestamp_ns", "timestamptz": "timestamp_ns", "timestamp_tz": "timestamp_ns",
        "timestamp with time zone": "timestamp_ns", "datetime": "timestamp_ns",
    },
    "date": {"date": "date32"},
    "time": {"time": "time64"},
}  # fmt: skip
"""The names SQL has for the same widths, without their lengths."""


def compile_contract(document: Document) -> tuple[dict[str, StreamContract], list[Problem]]:
    """Every schema object of an ODCS document by name, and all that cannot be executed."""
    compiler = _Compiler(document)
    objects = document.value.get("schema") or []
    named = {str(item["name"]): item for item in objects}
    contracts = {}
    for index, item in enumerate(objects):
        path: Path_ = ("schema", index)
        rules = compiler.rules(item, named, path)
        fields = tuple(
            field
            for position, prop in enumerate(item.get("properties", []))
            if (field := compiler.field(prop, rules, (*path, "properties", position))) is not None
        )
        time = next((f.name for f in fields if pa.types.is_timestamp(f.type)), "")
        contracts[item["name"]] = StreamContract(item["name"], fields, time, rules)
    return contracts, compiler.problems


def compile_rules(document: Document) -> tuple[dict[str, tuple[Rule, ...]], list[Problem]]:
    """The rules alone, by schema object: what whole tables of any types are checked by."""
    compiler = _Compiler(document)
    objects = document.value.get("schema") or []
    named = {str(item["name"]): item for item in objects}
    found = {
        str(item["name"]): compiler.rules(item, named, ("schema", index))
        for index, item in enumerate(objects)
    }
    return found, compiler.problems


class _Compiler:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def problem(self, path: Path_, what: str, fix: str) -> None:
        self.problems.append(Problem("B210", what, self.document.file, self.document.line(path), fix=fix))

    def rules(self, item: dict[str, Any], named: dict[str, Any], path: Path_) -> tuple[Rule, ...]:
        found = TableRules(item, named, self.problem, self.document.line)
        for position, prop in enumerate(item.get("properties", [])):
            found.property(prop, (*path, "properties", position))
        found.keys(path)
        for index, relation in enumerate(item.get("relationships", [])):
            found.relationship(relation, (*path, "relationships", index))
        for index, rule in enumerate(item.get("quality", [])):
            found.quality(rule, (*path, "quality", index))
        return tuple(found.rules)

    def field(self, prop: dict[str, Any], rules: tuple[Rule, ...], path: Path_) -> FieldContract | None:
        name = prop.get("name", "?")
        kind = self.type(prop, path, name)
        if kind is None:
            return None
        custom = {item["property"]: item["value"] for item in prop.get("customProperties", [])}
        mine = [rule for rule in rules if rule.columns == (name,) and rule.refuses]
        told: dict[str, Any] = {}
        for rule in mine:
            if rule.kind == "invalid":
                told |= _carried(rule, kind)
        return FieldContract(
            name=name,
            type=kind,
            required=any(rule.kind == "null" for rule in mine),
            unit=str(custom.get("unit", "")),
            description=prop.get("description", ""),
            **told,
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
        width = _width(logical, str(physical))
        if width is None:
            known = ", ".join(sorted(_WIDTHS[logical]))
            self.problem(
                path,
                f'"{name}": physicalType {physical!r} is no {logical}',
                f"one of {known}, or leave it out",
            )
            return None
        return width


def _width(logical: str, physical: str) -> Any:
    """The Arrow type of a declared width; None when it is none of this family."""
    if physical in _WIDTHS[logical]:
        return _PHYSICAL[physical]
    word = physical.lower().partition("(")[0].strip()
    if logical in {"number", "integer"} and (
        match := re.fullmatch(r"(?:decimal|numeric)\((\d+)(?:, ?(\d+))?\)", physical.lower())
    ):
        digits, scale = int(match[1]), int(match[2] or 0)
        return pa.decimal128(digits, scale) if scale <= digits <= 38 else None
    known = _SQL_WORDS[logical].get(word)
    return None if known is None else _PHYSICAL[known]


def _carried(rule: Rule, kind: Any) -> dict[str, Any]:
    """What of a rule its FieldContract says too, in the words of decoding and of screens."""
    given = rule.given
    told: dict[str, Any] = {}
    if "elements" in given:
        given = given["elements"] if pa.types.is_list(kind) else {}
    if pa.types.is_list(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        told |= {name: float(given[name]) for name in ("minimum", "maximum") if name in given}
        told |= {name: given[name] for name in ("min_items", "max_items") if name in given}
    if pa.types.is_string(kind):
        told |= {"one_of": tuple(str(one) for one in given["allowed"])} if "allowed" in given else {}
        told |= {"pattern": given["pattern"]} if "pattern" in given else {}
    return told

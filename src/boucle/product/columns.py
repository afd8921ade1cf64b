"""The columns of an ODCS schema object, each with one type that all schema languages can be told in.

`logicalType` gives the family; `physicalType`, which ODCS leaves free, narrows it: the Arrow names
(`int32`, `decimal(10,2)`, `timestamp_ns`) and the common SQL names are read. What cannot be read
leaves the family as wide as the logical type.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from msgspec import Struct, structs

__all__ = ["Column", "Family", "Kind", "column", "columns", "kind_of_names", "property_of", "schema_object"]

Family: TypeAlias = Literal[
    "string", "boolean", "integer", "number", "decimal", "date", "time", "timestamp", "binary", "array",
    "object", "map", "any",
]  # fmt: skip


class Kind(Struct, frozen=True):
    """A type. Fields that say nothing of a family are at their defaults."""

    family: Family
    bits: int = 64
    """Of an integer or a number."""
    signed: bool = True
    precision: int = 38
    scale: int = 9
    """Of a decimal."""
    length: int | None = None
    """Of a binary of fixed length; the lengths of texts are options of their column."""
    unit: str = "us"
    """Of a time or a timestamp: s, ms, us, ns."""
    zone: bool = True
    """Whether a timestamp is a moment (in UTC), not a reading of a clock on the wall."""
    format: str = ""
    """Of a string: uuid, json, email …"""
    item: "Column | None" = None
    """Of an array, and of a map's values."""
    fields: tuple["Column", ...] = ()
    """Of an object."""


class Column(Struct, frozen=True):
    """A column, a field of an object, or the item of a list."""

    name: str
    kind: Kind
    required: bool = False
    unique: bool = False
    key: int = 0
    """Its place in the primary key, from 1; 0: not part of it."""
    description: str = ""
    options: dict[str, Any] = {}
    """`logicalTypeOptions`: minimum, maximum, minLength, pattern …"""
    values: tuple[Any, ...] = ()
    """All values that are allowed, where they are listed."""
    examples: tuple[Any, ...] = ()


_NAMES: dict[str, Kind] = {
    **dict.fromkeys(
        ("string", "varchar", "text", "char", "character", "character varying", "nvarchar", "nchar", "bpchar",
         "utf8", "large_string", "clob", "name", "keyword", "str"), Kind("string")),
    **dict.fromkeys(("bool", "boolean", "bit"), Kind("boolean")),
    **dict.fromkeys(("int8", "tinyint", "byte"), Kind("integer", 8)),
    **dict.fromkeys(("int16", "int2", "smallint", "short", "smallserial"), Kind("integer", 16)),
    **dict.fromkeys(("int32", "int4", "int", "integer", "serial", "mediumint"), Kind("integer", 32)),
    **dict.fromkeys(("int64", "bigint", "long", "bigserial"), Kind("integer", 64)),
    **{f"uint{bits}": Kind("integer", bits, signed=False) for bits in (8, 16, 32, 64)},
    "utinyint": Kind("integer", 8, signed=False), "usmallint": Kind("integer", 16, signed=False),
    "uinteger": Kind("integer", 32, signed=False), "ubigint": Kind("integer", 64, signed=False),
    "float16": Kind("number", 16), "halffloat": Kind("number", 16),
    **dict.fromkeys(("float32", "float", "float4", "real"), Kind("number", 32)),
    **dict.fromkeys(("float64", "double", "float8", "double precision"), Kind("number", 64)),
    **dict.fromkeys(("decimal", "numeric", "number", "dec", "money", "decimal128"), Kind("decimal")),
    **dict.fromkeys(("date", "date32", "date32[day]"), Kind("date")),
    **dict.fromkeys(("time", "time_us", "time64"), Kind("time")),
    **{f"time_{unit}": Kind("time", unit=unit) for unit in ("s", "ms", "ns")},
    **dict.fromkeys(("timestamptz", "timestamp with time zone", "timestamp_tz", "timestamp_ltz",
                     "timestamp_us", "datetimeoffset"), Kind("timestamp")),
    **{f"timestamp_{unit}": Kind("timestamp", unit=unit) for unit in ("s", "ms", "ns")},
    **dict.fromkeys(("timestamp_ntz", "timestamp without time zone", "datetime"), Kind("timestamp", zone=False)),
    **{f"timestamp_ntz_{unit}": Kind("timestamp", unit=unit, zone=False) for unit in ("s", "ms", "ns")},
    **dict.fromkeys(("binary", "bytes", "bytea", "blob", "varbinary", "large_binary"), Kind("binary")),
    "uuid": Kind("string", format="uuid"), "uniqueidentifier": Kind("string", format="uuid"),
    **dict.fromkeys(("json", "jsonb", "variant"), Kind("string", format="json")),
}  # fmt: skip
"""Names of types in lower case. `int8` has 8 bits, as in Arrow; PostgreSQL's of 64 is `bigint`."""

_LOGICAL: dict[str, Kind] = {
    "string": Kind("string"), "integer": Kind("integer"), "number": Kind("number"),
    "boolean": Kind("boolean"), "date": Kind("date"), "time": Kind("time"),
    "timestamp": Kind("timestamp"), "object": Kind("object"), "array": Kind("array"),
    "map": Kind("map"), "vector": Kind("array"),
}  # fmt: skip
_KEEPS = {
    "string": {"string", "binary"}, "integer": {"integer"}, "number": {"number", "decimal", "integer"},
    "boolean": {"boolean"}, "date": {"date"}, "time": {"time"}, "timestamp": {"timestamp"},
}  # fmt: skip
"""Which families may narrow a logical type; others are left to the logical type."""
_SPELLED = re.compile(
    r"\s*([a-z_][a-z0-9_ ]*?)\s*(?:[(\[]\s*(\d{1,9}|max)\s*(?:,\s*(-?\d{1,9})\s*)?[)\]])?"
    r"\s*((?:with|without) time zone)?\s*"
)


def columns(item: dict[str, Any]) -> tuple[Column, ...]:
    """The columns of a schema object, in their order."""
    return tuple(column(prop) for prop in item.get("properties") or ())


def kind_of_names(logical: str | None, physical: str | None) -> Kind:
    """The type that a logical and a physical name mean together.

    >>> kind_of_names("number", "NUMERIC(10, 2)").scale, kind_of_names("integer", "int32").bits
    (2, 32)
    """
    family = _LOGICAL.get(logical or "")
    narrow = _physical(physical or "")
    if narrow is None:
        return family or Kind("any")
    if family is None or narrow.family in _KEEPS.get(family.family, ()):
        return narrow
    return family


def _physical(text: str) -> Kind | None:
    match = _SPELLED.fullmatch(text.lower())
    if match is None:
        return None
    name, first, second, zoned = match.groups()
    found = _NAMES.get(f"{name} {zoned}" if zoned else name)
    if found is None:
        return None
    if found.family == "timestamp" and name == "timestamp" and not zoned:
        return Kind("timestamp")
    if first is None or first == "max":
        return found
    if found.family == "decimal":
        return structs.replace(found, precision=int(first), scale=int(second or 0))
    if found.family == "binary":
        return structs.replace(found, length=int(first) if name == "binary" else None)
    return found


def column(prop: dict[str, Any]) -> Column:
    """One ODCS property as a column."""
    options = dict(prop.get("logicalTypeOptions") or {})
    kind = kind_of_names(prop.get("logicalType"), prop.get("physicalType"))
    if kind.family == "string" and isinstance(options.get("format"), str):
        kind = structs.replace(kind, format=kind.format or options["format"])
        del options["format"]
    if kind.family == "timestamp" and options.get("timezone") is False:
        kind = structs.replace(kind, zone=False)
    if kind.family == "string" and "maxLength" not in options and (most := _length(prop.get("physicalType"))):
        options["maxLength"] = most
    if kind.family == "array":
        items = prop.get("items")
        kind = structs.replace(kind, item=column({"name": "item", **items}) if items else None)
    if kind.family == "object":
        kind = structs.replace(kind, fields=tuple(map(column, prop.get("properties") or ())))
    if kind.family == "map":
        kind = structs.replace(kind, item=Column("value", Kind("any")))
    position = prop.get("primaryKeyPosition")
    return Column(
        name=str(prop.get("name", "item")),
        kind=kind,
        required=bool(prop.get("required")) or bool(prop.get("primaryKey")),
        unique=bool(prop.get("unique")),
        key=(position if isinstance(position, int) and position > 0 else 1) if prop.get("primaryKey") else 0,
        description=str(prop.get("description") or ""),
        options=options,
        values=_values(prop),
        examples=tuple(prop.get("examples") or ()),
    )


def _length(physical: Any) -> int:
    match = _SPELLED.fullmatch(str(physical or "").lower())
    return int(match[2]) if match and match[2] and match[2] != "max" else 0


def _values(prop: dict[str, Any]) -> tuple[Any, ...]:
    """The allowed values: ODCS 3.2's `enum`, or the rule of 3.1 that no value may be another."""
    listed = prop.get("enum")
    if isinstance(listed, list):
        return tuple(one["value"] if isinstance(one, dict) else one for one in listed)
    for rule in prop.get("quality") or ():
        allowed = (rule.get("arguments") or {}).get("validValues")
        if rule.get("metric") == "invalidValues" and allowed and rule.get("mustBe") == 0:
            return tuple(allowed)
    return ()


def schema_object(name: str, found: tuple[Column, ...], physical: str = "table") -> dict[str, Any]:
    """An ODCS schema object of these columns."""
    return {"name": name, "physicalType": physical, "properties": [property_of(one) for one in found]}


def property_of(one: Column) -> dict[str, Any]:
    """An ODCS property that `columns` reads as this column."""
    logical, physical = _names(one.kind)
    prop: dict[str, Any] = {"name": one.name}
    prop |= {"logicalType": logical} if logical else {}
    prop |= {"physicalType": physical} if physical else {}
    prop |= {"required": True} if one.required else {}
    prop |= {"unique": True} if one.unique else {}
    prop |= {"primaryKey": True, "primaryKeyPosition": one.key} if one.key else {}
    prop |= {"description": one.description} if one.description else {}
    options = dict(_options(one))
    prop |= {"logicalTypeOptions": options} if options else {}
    if one.kind.family == "array" and one.kind.item is not None:
        items = property_of(one.kind.item)
        prop["items"] = {key: value for key, value in items.items() if key != "name" or value != "item"}
    if one.kind.family == "object" and one.kind.fields:
        prop["properties"] = [property_of(field) for field in one.kind.fields]
    if one.values:
        rule = {"metric": "invalidValues", "arguments": {"validValues": list(one.values)}, "mustBe": 0}
        prop["quality"] = [rule]
    prop |= {"examples": list(one.examples)} if one.examples else {}
    return prop


def _options(one: Column) -> Iterator[tuple[str, Any]]:
    yield from one.options.items()
    kind = one.kind
    if kind.family == "string" and kind.format and kind.format not in _NAMES:
        yield "format", kind.format


def _names(kind: Kind) -> tuple[str, str]:
    """Logical and physical name; the physical one is left out where the logical one says it all."""
    match kind.family:
        case "integer":
            return "integer", ("" if kind.signed else "u") + f"int{kind.bits}"
        case "number":
            return "number", f"float{kind.bits}"
        case "decimal":
            return "number", f"decimal({kind.precision},{kind.scale})"
        case "timestamp":
            return "timestamp", f"timestamp_{'' if kind.zone else 'ntz_'}{kind.unit}".replace("ntz_us", "ntz")
        case "time":
            return "time", f"time_{kind.unit}"
        case "binary":
            return "string", "binary" + (f"({kind.length})" if kind.length else "")
        case "string":
            return "string", kind.format if kind.format in _NAMES else ""
        case "map":
            return "map", ""
        case "any":
            return "", ""
    return kind.family, ""

"""JSON Schema 2020-12: an object with the columns; exact types stand in the annotation `x-odcs`."""

import json
import re
from collections.abc import Mapping
from typing import Any

from msgspec import structs

from boucle.errors import BoucleError
from boucle.product.columns import Column, Kind, column, property_of
from boucle.product.formats.losses import Losses, facets, with_facets

__all__ = ["from_schema", "read", "to_schema", "write"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SAID = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
    "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "description", "examples",
)  # fmt: skip
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_FORMATS = {"date": "date", "time": "time", "timestamp": "date-time"}
_DEEPEST = 60


def write(name: str, columns: tuple[Column, ...], losses: Losses) -> str:
    """The schema of one row."""
    return json.dumps(to_schema(name, columns, losses), indent=2, ensure_ascii=False, default=str) + "\n"


def to_schema(name: str, columns: tuple[Column, ...], losses: Losses) -> dict[str, Any]:
    """The schema of one row, as a value."""
    return {"$schema": _DIALECT, "title": name, **_object(columns, losses, "")}


def _object(columns: tuple[Column, ...], losses: Losses, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object"}
    found["properties"] = {one.name: _schema(one, losses, f"{path}{one.name}") for one in columns}
    required = [one.name for one in columns if one.required]
    return found | ({"required": required} if required else {})


def _schema(one: Column, losses: Losses, path: str) -> dict[str, Any]:
    told = facets(one)
    found = _typed(one, losses, path)
    exact = property_of(structs.replace(one, options={}, values=(), description="", examples=()))
    kept: dict[str, Any] = {key: exact[key] for key in ("logicalType", "physicalType") if key in exact}
    for name, value in told.items():
        # Bounds of JSON Schema are numbers; those of dates are ours.
        if name in _SAID and not (name in _BOUNDS and isinstance(value, str)):
            found[name] = value
        elif name == "enum":
            found["enum"] = [*value] if one.required else [*value, None]
        else:
            kept[name] = value
    if one.kind.format in {"email", "uri", "uuid", "ipv4", "ipv6", "hostname", "date", "date-time", "time"}:
        found["format"] = one.kind.format
    if one.kind.family == "string" and one.kind.format and "format" not in found:
        kept["_format"] = one.kind.format
    if not one.required and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found | ({"x-odcs": kept} if kept else {})


def _typed(one: Column, losses: Losses, path: str) -> dict[str, Any]:
    kind = one.kind
    match kind.family:
        case "integer":
            return {"type": "integer", **_bounds(kind, one.options)}
        case "number" | "decimal":
            return {"type": "number"}
        case "boolean":
            return {"type": "boolean"}
        case "array":
            return {"type": "array"} | (
                {"items": _inner(kind.item, losses, f"{path}[]")} if kind.item else {}
            )
        case "object":
            return _object(kind.fields, losses, f"{path}.")
        case "map":
            values = _inner(kind.item, losses, f"{path}{{}}") if kind.item else True
            return {"type": "object", "additionalProperties": values}
        case "any":
            return {}
        case "binary":
            return {"type": "string", "contentEncoding": "base64"}
    return {"type": "string"} | ({"format": _FORMATS[kind.family]} if kind.family in _FORMATS else {})


def _inner(item: Column, losses: Losses, path: str) -> dict[str, Any]:
    if item.required and item.kind.family == "any":
        losses.note(path, "that it cannot be missing is not said")
    return _schema(item, losses, path)


def _bounds(kind: Kind, options: Mapping[str, Any]) -> dict[str, int]:
    """What the width of an integer allows, where nothing narrower is said."""
    if kind.bits == 64 and kind.signed:
        return {}
    low = -(2 ** (kind.bits - 1)) if kind.signed else 0
    high = 2 ** (kind.bits - 1) - 1 if kind.signed else 2**kind.bits - 1
    found = {} if {"minimum", "exclusiveMinimum"} & options.keys() else {"minimum": low}
    return found if {"maximum", "exclusiveMaximum"} & options.keys() else found | {"maximum": high}


def read(content: str | bytes, losses: Losses) -> list[tuple[str, tuple[Column, ...]]]:
    """The columns of an object's schema."""
    try:
        schema = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _not_schema(str(error)) from None
    return from_schema(schema, losses)


def from_schema(schema: Any, losses: Losses) -> list[tuple[str, tuple[Column, ...]]]:
    """The columns of an object's schema that is already a value."""
    reader = _Reader(schema, losses)
    top = reader.resolved(schema)
    if not isinstance(top, dict) or not isinstance(top.get("properties"), dict):
        raise _not_schema("it describes no object with properties")
    name = str(top.get("title") or str(top.get("$id", "")).rpartition("/")[2].partition(".")[0] or "table")
    return [(name, reader.fields(top, "", 0))]


def _not_schema(why: str) -> BoucleError:
    return BoucleError(
        "B247", "this is no JSON Schema of a table", why=why, fix="give the schema of an object"
    )


class _Reader:
    def __init__(self, root: Any, losses: Losses) -> None:
        self._root = root
        self._losses = losses

    def resolved(self, schema: Any) -> Any:
        """Follows `#/…` references within the document."""
        for _ in range(_DEEPEST):
            if not isinstance(schema, dict) or "$ref" not in schema:
                return schema
            found = self._root
            ref = str(schema["$ref"])
            if not ref.startswith("#"):
                raise _not_schema(f"the reference {ref} leads out of the document")
            for escaped in ref.removeprefix("#").split("/")[1:]:
                part = escaped.replace("~1", "/").replace("~0", "~")
                if not isinstance(found, dict) or part not in found:
                    raise _not_schema(f"the reference {ref} leads nowhere")
                found = found[part]
            schema = found
        raise _not_schema("its references go round in a circle")

    def fields(self, schema: dict[str, Any], path: str, depth: int) -> tuple[Column, ...]:
        listed = schema.get("required")
        required = {str(name) for name in listed} if isinstance(listed, list) else set()
        found = []
        for name, inner in schema["properties"].items():
            found.append(self._column(str(name), inner, str(name) in required, f"{path}{name}", depth + 1))
        return tuple(found)

    def _column(self, name: str, schema: Any, required: bool, path: str, depth: int) -> Column:
        if depth > _DEEPEST:
            raise _not_schema(f"it is nested deeper than {_DEEPEST} levels, or holds itself")
        schema = self._one_form(self.resolved(schema), path)
        words = schema.get("type")
        types = (
            [one for one in words if one != "null"] if isinstance(words, list) else [words] if words else []
        )
        if isinstance(words, list) and "null" in words:
            required = False
        kept = schema.get("x-odcs")
        kept = dict(kept) if isinstance(kept, dict) else {}
        kind = self._kind(schema, types, kept, path, depth)
        one = Column(name, kind, required=required)
        told = {key: schema[key] for key in _SAID if key in schema}
        if kind.family == "integer":
            bounds = _bounds(kind, {})
            told = {key: value for key, value in told.items() if key not in bounds or bounds[key] != value}
        if isinstance(schema.get("enum"), list):
            told["enum"] = [value for value in schema["enum"] if value is not None]
        elif "const" in schema:
            told["enum"] = [schema["const"]]
        return with_facets(with_facets(one, told), kept)

    def _one_form(self, schema: Any, path: str) -> dict[str, Any]:
        if not isinstance(schema, dict):
            if schema is False:
                raise _not_schema(f"{path} allows nothing")
            return {}
        for name in ("anyOf", "oneOf"):
            forms = schema.get(name)
            if isinstance(forms, list):
                kept = [self.resolved(one) for one in forms]
                other = [one for one in kept if isinstance(one, dict) and one.get("type") != "null"]
                rest = {key: value for key, value in schema.items() if key != name}
                if len(other) == 1:
                    nullable = len(other) < len(kept)
                    words = other[0].get("type")
                    typed = {"type": [words, "null"]} if nullable and isinstance(words, str) else {}
                    return {**other[0], **typed, **rest}
                self._losses.note(path, f"{name} of several types is told as any")
                return rest
        for name in (
            "allOf",
            "not",
            "if",
            "patternProperties",
            "dependentRequired",
            "dependentSchemas",
            "contains",
        ):
            if name in schema:
                self._losses.note(path, f"{name} is not said")
        return schema

    def _kind(
        self, schema: dict[str, Any], types: list[Any], kept: dict[str, Any], path: str, depth: int
    ) -> Kind:
        spoken = kept.pop("_format", "")
        exact = column(
            {"name": "x", **{key: kept.pop(key, None) for key in ("logicalType", "physicalType")}}
        ).kind
        if len(types) > 1:
            self._losses.note(path, f"one of {', '.join(map(str, types))} is told as any")
            return Kind("any")
        found = self._plain(schema, str(types[0]) if types else "", path, depth)
        if exact.family == "any" or not _same_json(exact, found):
            return found
        if found.family == exact.family:
            # What JSON Schema says better than the names: contents, formats.
            exact = structs.replace(exact, item=found.item, fields=found.fields)
        if exact.family == "string":
            fallback = spoken if isinstance(spoken, str) else ""
            exact = structs.replace(exact, format=exact.format or found.format or fallback)
        return exact if exact.family != "map" else structs.replace(exact, item=found.item)

    def _plain(self, schema: dict[str, Any], word: str, path: str, depth: int) -> Kind:
        match word:
            case "integer":
                return Kind("integer")
            case "number":
                return Kind("number")
            case "boolean":
                return Kind("boolean")
            case "array":
                items = schema.get("items")
                inner = None if items is None else self._item("item", items, f"{path}[]", depth)
                return Kind("array", item=inner)
            case "object":
                if isinstance(schema.get("properties"), dict):
                    return Kind("object", fields=self.fields(schema, f"{path}.", depth + 1))
                values = schema.get("additionalProperties")
                if isinstance(values, dict) or values is True:
                    return Kind("map", item=self._item("value", values, f"{path}{{}}", depth))
                return Kind("object")
            case "string":
                return self._text(schema)
        return Kind("any")

    def _item(self, name: str, schema: Any, path: str, depth: int) -> Column:
        schema = self._one_form(self.resolved(schema), path)
        words = schema.get("type")
        nullable = words is None or (isinstance(words, list) and "null" in words)
        return self._column(name, schema, not nullable, path, depth + 1)

    def _text(self, schema: dict[str, Any]) -> Kind:
        spoken = str(schema.get("format") or "")
        if schema.get("contentEncoding"):
            return Kind("binary")
        families = {word: family for family, word in _FORMATS.items()}
        if spoken in families:
            return Kind(families[spoken])  # type: ignore[arg-type]
        return Kind("string", format=re.sub(r"\s", "", spoken))


def _same_json(exact: Kind, found: Kind) -> bool:
    """Whether both are written alike in JSON; the annotation may be older than what it annotates."""
    numbers, texts = {"number", "decimal"}, {"string", "date", "time", "timestamp"}
    groups = [numbers, texts]
    return exact.family == found.family or any({exact.family, found.family} <= group for group in groups)

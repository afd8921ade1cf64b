"""Avro: a record of the columns; what Avro has no word for stands in the attribute `odcs` of its field."""

import json
import re
from collections.abc import Iterator
from typing import Any

from msgspec import structs

from boucle.errors import BoucleError
from boucle.product.columns import Column, Kind
from boucle.product.formats.losses import Losses, facets, identifier, with_facets

__all__ = ["from_schema", "read", "to_schema", "write"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEEPEST = 60


def write(name: str, columns: tuple[Column, ...], losses: Losses) -> str:
    """The record as JSON."""
    return json.dumps(to_schema(name, columns, losses), indent=2, ensure_ascii=False, default=str) + "\n"


def to_schema(name: str, columns: tuple[Column, ...], losses: Losses) -> dict[str, Any]:
    """The record as the value that Avro libraries take."""
    return _Writer(losses).record(name, columns, "")


class _Writer:
    """Avro wants every record, enum and fixed to have a name of its own."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._names: set[str] = set()

    def record(self, name: str, columns: tuple[Column, ...], path: str) -> dict[str, Any]:
        record: dict[str, Any] = {"type": "record", "name": self._named(name)}
        record |= {"odcsName": name} if record["name"] != name else {}
        taken: set[str] = set()
        fields = []
        for one in columns:
            fields.append(self._field(one, identifier(one.name, taken), f"{path}{one.name}"))
            taken.add(fields[-1]["name"])
        return {**record, "fields": fields}

    def _named(self, wanted: str) -> str:
        name = identifier(wanted, self._names)
        self._names.add(name)
        return name

    def _field(self, one: Column, name: str, path: str) -> dict[str, Any]:
        told = {key: value for key, value in facets(one).items() if key != "description"}
        field: dict[str, Any] = {"name": name}
        field |= {"doc": one.description} if one.description else {}
        kind = self._kind(one, path)
        field["type"] = kind if one.required else ["null", kind]
        field |= {} if one.required else {"default": None}
        told |= {"_name": one.name} if name != one.name else {}
        told |= {"_format": one.kind.format} if one.kind.format not in {"", "uuid"} else {}
        return field | ({"odcs": told} if told else {})

    def _kind(self, one: Column, path: str) -> Any:  # noqa: C901, PLR0912 - one case a family
        kind = one.kind
        match kind.family:
            case "boolean":
                return "boolean"
            case "integer":
                return self._integer(kind, path)
            case "number":
                if kind.bits == 16:
                    self._losses.note(path, "16 bits are told as 32")
                return "double" if kind.bits == 64 else "float"
            case "decimal":
                scale = max(kind.scale, 0)
                if kind.scale < 0:
                    self._losses.note(path, f"the scale {kind.scale} is told as 0")
                return {
                    "type": "bytes",
                    "logicalType": "decimal",
                    "precision": max(kind.precision, scale),
                    "scale": scale,
                }
            case "date":
                return {"type": "int", "logicalType": "date"}
            case "time":
                return self._time(kind, path)
            case "timestamp":
                if kind.unit == "s":
                    self._losses.note(path, "seconds are told as milliseconds")
                unit = {"us": "micros", "ns": "nanos"}.get(kind.unit, "millis")
                return {"type": "long", "logicalType": f"{'' if kind.zone else 'local-'}timestamp-{unit}"}
            case "binary":
                if kind.length is None:
                    return "bytes"
                return {
                    "type": "fixed",
                    "name": self._named(f"{identifier(path)}_fixed"),
                    "size": kind.length,
                }
            case "array":
                return {"type": "array", "items": self._inner(kind.item, f"{path}.item")}
            case "map":
                return {"type": "map", "values": self._inner(kind.item, f"{path}.value")}
            case "object":
                return self.record(identifier(path.replace(".", "_")), kind.fields, f"{path}.")
            case "any":
                self._losses.note(path, "a value of any type is told as text")
        if kind.format == "uuid":
            return {"type": "string", "logicalType": "uuid"}
        return "string"

    def _inner(self, item: Column | None, path: str) -> Any:
        one = item or Column("item", Kind("any"))
        told = facets(one) | ({"_format": one.kind.format} if one.kind.format not in {"", "uuid"} else {})
        if told:
            self._losses.note(path, f"{', '.join(told)} of a list's values is not said")
        kind = self._kind(one, path)
        return kind if one.required else ["null", kind]

    def _integer(self, kind: Kind, path: str) -> str:
        if (kind.bits, kind.signed) not in {(32, True), (64, True)}:
            self._losses.note(path, f"{'' if kind.signed else 'u'}int{kind.bits} is told as a wider integer")
        if kind.bits == 64 and not kind.signed:
            self._losses.note(path, "values from 2**63 on do not fit")
        return "int" if kind.bits < 32 or (kind.bits == 32 and kind.signed) else "long"

    def _time(self, kind: Kind, path: str) -> dict[str, str]:
        if kind.unit in {"s", "ns"}:
            self._losses.note(path, f"a time in {kind.unit} is told in {'ms' if kind.unit == 's' else 'us'}")
        if kind.unit in {"s", "ms"}:
            return {"type": "int", "logicalType": "time-millis"}
        return {"type": "long", "logicalType": "time-micros"}


def read(content: str | bytes, losses: Losses) -> list[tuple[str, tuple[Column, ...]]]:
    """The record of an Avro schema in JSON; of a union, every record."""
    try:
        schema = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _not_avro(str(error)) from None
    return from_schema(schema, losses)


def from_schema(schema: Any, losses: Losses) -> list[tuple[str, tuple[Column, ...]]]:
    """The records of an Avro schema as a library gives it."""
    reader = _Reader(losses)
    tops = schema if isinstance(schema, list) else [schema]
    found = []
    for top in tops:
        kind = reader.kind(top, "", 0)
        if kind.family != "object" or not isinstance(top, dict):
            raise _not_avro("the outermost type is no record")
        found.append((str(top.get("odcsName") or top.get("name", "table")), kind.fields))
    return found


def _not_avro(why: str) -> BoucleError:
    return BoucleError("B247", "this is no Avro schema", why=why, fix="give a record in JSON (.avsc)")


class _Reader:
    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._named: dict[str, Kind] = {}

    def kind(self, schema: Any, path: str, depth: int) -> Kind:  # noqa: C901, PLR0912 - one case a family
        if depth > _DEEPEST:
            raise _not_avro(f"it is nested deeper than {_DEEPEST} levels")
        if isinstance(schema, list):
            return self._union(schema, path, depth)
        if isinstance(schema, str):
            return self._word(schema, path)
        if not isinstance(schema, dict):
            raise _not_avro(f"{path or 'the schema'} is {type(schema).__name__}, not a type")
        logical = _LOGICAL.get(str(schema.get("logicalType")))
        if logical is not None:
            return logical
        match schema.get("type"):
            case "record" | "error":
                return self._record(schema, path, depth)
            case "enum":
                return Kind("string")
            case "fixed":
                if schema.get("logicalType") == "decimal":
                    return _decimal(schema)
                size = schema.get("size")
                found = Kind("binary", length=size if isinstance(size, int) and 0 < size < 2**31 else None)
                self._named[str(schema.get("name"))] = found
                return found
            case "array":
                return Kind("array", item=self._inner(schema.get("items"), "item", path, depth))
            case "map":
                return Kind("map", item=self._inner(schema.get("values"), "value", path, depth))
            case "bytes" if schema.get("logicalType") == "decimal":
                return _decimal(schema)
            case inner:
                return self.kind(inner, path, depth + 1)

    def _word(self, word: str, path: str) -> Kind:
        if word in _PRIMITIVE:
            return _PRIMITIVE[word]
        short = word.rpartition(".")[2]
        if short not in self._named:
            raise _not_avro(f"{path or 'the schema'} names the type {word!r}, which stands nowhere before")
        return self._named[short]

    def _union(self, schema: list[Any], path: str, depth: int) -> Kind:
        kept = [one for one in schema if one != "null"]
        if len(kept) == 1:
            return self.kind(kept[0], path, depth + 1)
        if kept:
            self._losses.note(path, "a union of several types is told as any")
        return Kind("any")

    def _record(self, schema: dict[str, Any], path: str, depth: int) -> Kind:
        name, fields = str(schema.get("name")), schema.get("fields")
        if not isinstance(fields, list) or not all(isinstance(one, dict) and "name" in one for one in fields):
            raise _not_avro(f"the record {name} has no list of fields with names")
        # A record that holds itself is told once; inside, it is any value.
        self._named[name] = Kind("any")
        kind = Kind("object", fields=tuple(self._fields(fields, path, depth)))
        self._named[name] = kind
        return kind

    def _fields(self, fields: list[dict[str, Any]], path: str, depth: int) -> Iterator[Column]:
        for field in fields:
            told = field.get("odcs") if isinstance(field.get("odcs"), dict) else {}
            told = dict(told or {})
            name = str(told.pop("_name", field["name"]))
            spoken = told.pop("_format", "")
            here = f"{path}{name}"
            kind = self.kind(field.get("type"), f"{here}.", depth + 1)
            if kind.family == "string" and not kind.format and isinstance(spoken, str):
                kind = structs.replace(kind, format=spoken)
            one = Column(
                name, kind, required=not _nullable(field.get("type")), values=_symbols(field.get("type"))
            )
            if "default" in field and field["default"] is not None:
                self._losses.note(here, f"the default {field['default']!r} is not said")
            yield with_facets(with_facets(one, {"description": field.get("doc", "")}), told)

    def _inner(self, schema: Any, name: str, path: str, depth: int) -> Column:
        return Column(name, self.kind(schema, f"{path}{name}.", depth + 1), required=not _nullable(schema))


def _nullable(schema: Any) -> bool:
    return schema == "null" or (isinstance(schema, list) and "null" in schema)


def _symbols(schema: Any) -> tuple[str, ...]:
    for one in schema if isinstance(schema, list) else [schema]:
        if isinstance(one, dict) and one.get("type") == "enum":
            return tuple(map(str, one.get("symbols") or ()))
    return ()


def _decimal(schema: dict[str, Any]) -> Kind:
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if not isinstance(precision, int) or not isinstance(scale, int):
        raise _not_avro("a decimal has no precision")
    return Kind("decimal", precision=precision, scale=scale)


_PRIMITIVE = {
    "null": Kind("any"), "boolean": Kind("boolean"), "int": Kind("integer", 32), "long": Kind("integer", 64),
    "float": Kind("number", 32), "double": Kind("number", 64), "bytes": Kind("binary"), "string": Kind("string"),
}  # fmt: skip
_LOGICAL = {
    "date": Kind("date"), "time-millis": Kind("time", unit="ms"), "time-micros": Kind("time", unit="us"),
    "uuid": Kind("string", format="uuid"),
    **{
        f"{local}timestamp-{word}": Kind("timestamp", unit=unit, zone=not local)
        for local in ("", "local-")
        for word, unit in (("millis", "ms"), ("micros", "us"), ("nanos", "ns"))
    },
}  # fmt: skip

"""pydantic: the source of a model of one row; models of objects inside stand before it."""

import keyword
import re
from typing import Any

from boucle.product.columns import Column, Kind
from boucle.product.formats.losses import Losses, facets

__all__ = ["write"]

_BOUNDS = {
    "minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt", "multipleOf": "multiple_of",
}  # fmt: skip
_SIZES = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
}
_PLAIN = {
    "boolean": "bool", "date": "date", "time": "time", "binary": "bytes", "string": "str",
    "any": "Any",
}  # fmt: skip
_OF_MODELS = {
    "model_config", "model_fields", "schema", "json", "dict", "copy", "construct", "validate", "register", "None",
    "bool", "int", "float", "str", "bytes", "date", "time", "datetime", "list",
}  # fmt: skip


def write(name: str, columns: tuple[Column, ...], losses: Losses) -> str:
    """A module that holds one class per table and object."""
    writer = _Writer(losses)
    writer.model(name, columns)
    body = "\n\n".join(writer.classes)
    lines = [f'"""Rows of {_escaped(name)}, written from its contract."""', ""]
    for module, words in (
        ("datetime", ("date", "time")),
        ("decimal", ("Decimal",)),
        ("typing", ("Annotated", "Any", "Literal")),
        ("uuid", ("UUID",)),
    ):
        used = [word for word in words if re.search(rf"\b{word}\b", body)]
        lines += [f"from {module} import {', '.join(used)}"] if used else []
    known = ("AwareDatetime", "BaseModel", "ConfigDict", "Field", "NaiveDatetime")
    used = [word for word in known if re.search(rf"\b{word}\b", body)]
    return "\n".join([*lines, "", f"from pydantic import {', '.join(used)}", "", "", body])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', "'")


class _Writer:
    def __init__(self, losses: Losses) -> None:
        self.classes: list[str] = []
        self._losses = losses
        self._names: set[str] = set()

    def model(self, name: str, columns: tuple[Column, ...], path: str = "") -> str:
        words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
        wanted = "".join(word[:1].upper() + word[1:] for word in words) or "Row"
        wanted = f"Row{wanted}" if wanted[0].isdigit() or wanted in _KNOWN else wanted
        title, number = wanted, 2
        while title in self._names:
            title, number = f"{wanted}{number}", number + 1
        self._names.add(title)
        taken: set[str] = set()
        lines = [self._field(one, taken, f"{path}{one.name}") for one in columns]
        config = "    model_config = ConfigDict(populate_by_name=True, protected_namespaces=())"
        self.classes.append("\n".join([f"class {title}(BaseModel):", config, "", *lines]).rstrip() + "\n")
        return title

    def _field(self, one: Column, taken: set[str], path: str) -> str:
        name = re.sub(r"\W", "_", one.name, flags=re.ASCII).lstrip("_") or "field"
        name = f"field_{name}" if name[0].isdigit() else name
        if keyword.iskeyword(name) or name in _OF_MODELS or name.startswith("model_") or name in _KNOWN:
            name += "_"
        wanted, number = name, 2
        while name in taken:
            name, number = f"{wanted}{number}", number + 1
        taken.add(name)
        said = [] if name == one.name else [f"alias={one.name!r}"]
        said += [f"description={one.description!r}"] if one.description else []
        said += [f"examples={list(one.examples)!r}"] if one.examples else []
        kind = self._annotated(one, path)
        kind = kind if one.required or kind == "Any" else f"{kind} | None"
        if said:
            default = "" if one.required else "default=None, "
            return f"    {name}: {kind} = Field({default}{', '.join(said)})"
        return f"    {name}: {kind}" + ("" if one.required else " = None")

    def _annotated(self, one: Column, path: str) -> str:
        """The type with what its values must keep, so that it also holds inside a list."""
        bounds: list[str] = []
        for name, value in facets(one).items():
            if name in _BOUNDS and one.kind.family in {"integer", "number", "decimal"} and _is_number(value):
                bounds.append(f"{_BOUNDS[name]}={_number(value, one.kind)}")
            elif (
                name in _SIZES and one.kind.family in {"string", "binary", "array"} and isinstance(value, int)
            ):
                bounds.append(f"{_SIZES[name]}={value}")
            elif name == "pattern" and one.kind.family == "string" and not one.kind.format:
                bounds.append(f"pattern={f'^(?:{value})$'!r}")
            elif name not in {"enum", "description", "examples"}:
                self._losses.note(path, f"{name} {value!r} is not said")
        bounds += _widths(one)
        if one.kind.family == "decimal":
            bounds += [f"max_digits={one.kind.precision}", f"decimal_places={max(one.kind.scale, 0)}"]
        plain = self._type(one, path)
        listed = [value for value in one.values if isinstance(value, str | int | bool)]
        if listed and one.kind.family in {"string", "integer", "boolean"}:
            return f"Literal[{', '.join(map(repr, listed))}]"
        if one.values:
            self._losses.note(path, f"enum {list(one.values)!r} is not said")
        return f"Annotated[{plain}, Field({', '.join(bounds)})]" if bounds else plain

    def _type(self, one: Column, path: str) -> str:  # noqa: C901 - one case a family
        kind = one.kind
        match kind.family:
            case "integer":
                return "int"
            case "number":
                if kind.bits != 64:
                    self._losses.note(path, f"{kind.bits} bits are told as 64")
                return "float"
            case "decimal":
                return "Decimal"
            case "timestamp":
                if kind.unit == "ns":
                    self._losses.note(path, "nanoseconds are told as microseconds")
                return "AwareDatetime" if kind.zone else "NaiveDatetime"
            case "array" | "map":
                item = kind.item or Column("item", Kind("any"))
                inner = self._annotated(item, f"{path}[]")
                inner = inner if item.required or inner == "Any" else f"{inner} | None"
                return f"list[{inner}]" if kind.family == "array" else f"dict[str, {inner}]"
            case "object":
                return (
                    self.model(path.replace(".", " "), kind.fields, f"{path}.")
                    if kind.fields
                    else "dict[str, Any]"
                )
        if kind.format == "uuid":
            return "UUID"
        if kind.format and kind.format != "json":
            self._losses.note(path, f"format {kind.format!r} is not said")
        return _PLAIN[kind.family]


_KNOWN = {"Annotated", "Any", "AwareDatetime", "BaseModel", "ConfigDict", "Decimal", "Field", "Literal",
          "NaiveDatetime", "UUID", "True", "False", "None"}  # fmt: skip


def _widths(one: Column) -> list[str]:
    """What the width of an integer allows, where nothing narrower is said."""
    kind = one.kind
    if kind.family != "integer":
        return []
    low = -(2 ** (kind.bits - 1)) if kind.signed else 0
    high = 2 ** (kind.bits - 1) - 1 if kind.signed else 2**kind.bits - 1
    found = [] if {"minimum", "exclusiveMinimum"} & one.options.keys() else [f"ge={low}"]
    return found if {"maximum", "exclusiveMaximum"} & one.options.keys() else [*found, f"le={high}"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any, kind: Kind) -> str:
    return f'Decimal("{value}")' if kind.family == "decimal" else repr(value)

"""Sentences and values filled in from the columns of a row: `{machine}: {z:.1f} times too strong`.

Only plain column names stand in braces, so a template can reach nothing but its row. Numbers in
French sentences have a decimal comma; what is unknown shows as a dash.
"""

import math
import string
from collections.abc import Mapping
from typing import Any

__all__ = ["columns_of", "fill", "fill_value"]

_FORMATTER = string.Formatter()
_DASH = "–"


def columns_of(template: Any) -> set[str]:
    """The columns a template, or a mapping of templates, needs; ValueError when it cannot be read."""
    if isinstance(template, Mapping):
        return set().union(*(columns_of(item) for item in template.values()))
    if isinstance(template, list):
        return set().union(*(columns_of(item) for item in template))
    if not isinstance(template, str):
        return set()
    found = set()
    for _, name, spec, conversion in _FORMATTER.parse(template):
        if name is None:
            continue
        if not name.isidentifier() or conversion is not None or (spec and "{" in spec):
            raise ValueError(f"{{{name}}} is no column name")
        found.add(name)
    return found


def fill(template: str, row: Mapping[str, Any], language: str = "en") -> str:
    """The sentence with its columns; KeyError names a column the row does not have."""
    parts = []
    for text, name, spec, _ in _FORMATTER.parse(template):
        parts.append(text)
        if name is not None:
            parts.append(_told(row[name], spec or "", language))
    return "".join(parts)


def _told(value: Any, spec: str, language: str) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return _DASH
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    try:
        said = format(value, spec)
    except ValueError:
        said = str(value)
    return said.replace(".", ",") if language == "fr" and isinstance(value, float) else said


def fill_value(template: Any, row: Mapping[str, Any]) -> Any:
    """A mapping with its columns filled in; a lone `{health}` stays the number it is, unknown ones are None."""
    if isinstance(template, Mapping):
        return {name: fill_value(item, row) for name, item in template.items()}
    if isinstance(template, list):
        return [fill_value(item, row) for item in template]
    if not isinstance(template, str):
        return template
    pieces = list(_FORMATTER.parse(template))
    if len(pieces) == 1 and pieces[0][0] == "" and pieces[0][1] is not None and not pieces[0][2]:
        value = row[pieces[0][1]]
        return None if isinstance(value, float) and not math.isfinite(value) else value
    return fill(template, row)

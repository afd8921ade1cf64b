"""What no JSON Schema says of a contract: that names are given once, and lead to something.

A table of another contract may be named; a column of a table that stands in this contract must exist.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from boucle.errors import Problem, near
from boucle.product.lines import Document, Path_

__all__ = ["consistency_problems"]


class _Table(Struct):
    columns: list[str]
    """Names and physical names; what stands in an object as `object.inner`."""


def consistency_problems(document: Document) -> list[Problem]:
    """Every name of a DataContract that is given twice or leads nowhere; the document fits its schema."""
    tables: dict[str, _Table] = {}
    problems: list[Problem] = []
    for index, item in enumerate(document.value.get("schema") or ()):
        path: Path_ = ("schema", index)
        problems += _twice(document, path, item)
        table = _Table(list(_columns(item.get("properties") or ())))
        for name in {item.get("name"), item.get("physicalName")} - {None}:
            if item.get("name") == name and name in tables:
                problems.append(_problem(document, path, f"a second schema object {name!r}", "rename one"))
            tables[str(name)] = table
    for index, item in enumerate(document.value.get("schema") or ()):
        problems += _references(document, ("schema", index), item, tables)
    for index, item in enumerate(document.value.get("slaProperties") or ()):
        named = item.get("element")
        for element in named if isinstance(named, list) else str(named or "").split(","):
            problems += _missing(document, ("slaProperties", index, "element"), str(element).strip(), tables)
    return problems


def _columns(properties: Any, before: str = "") -> Iterator[str]:
    for prop in properties:
        for name in {prop.get("name"), prop.get("physicalName")} - {None}:
            yield f"{before}{name}"
            inner = prop.get("properties") or (prop.get("items") or {}).get("properties") or ()
            yield from _columns(inner, f"{before}{name}.")


def _twice(document: Document, path: Path_, item: dict[str, Any]) -> Iterator[Problem]:
    seen: set[Any] = set()
    for index, prop in enumerate(item.get("properties") or ()):
        here: Path_ = (*path, "properties", index)
        if prop.get("name") in seen:
            yield _problem(document, here, f"a second column {prop['name']!r}", "rename or remove one")
        seen.add(prop.get("name"))
        yield from _twice(document, here, prop)
        items = prop.get("items")
        if isinstance(items, dict):
            yield from _twice(document, (*here, "items"), items)


def _references(
    document: Document, path: Path_, item: dict[str, Any], tables: dict[str, _Table]
) -> Iterator[Problem]:
    for index, relation in enumerate(item.get("relationships") or ()):
        for end in ("from", "to"):
            named = relation.get(end)
            for element in named if isinstance(named, list) else [named] if named else []:
                yield from _missing(document, (*path, "relationships", index, end), str(element), tables)
    own = tables.get(str(item.get("name")))
    for index, rule in enumerate(item.get("quality") or ()):
        for name in (rule.get("arguments") or {}).get("properties") or ():
            if own is not None and str(name) not in own.columns:
                here: Path_ = (*path, "quality", index, "arguments", "properties")
                yield _no_column(document, here, str(item["name"]), str(name), own)
    for index, prop in enumerate(item.get("properties") or ()):
        yield from _references(document, (*path, "properties", index), {**prop, "name": None}, tables)


def _missing(document: Document, path: Path_, element: str, tables: dict[str, _Table]) -> Iterator[Problem]:
    table, _, column = element.partition(".")
    known = tables.get(table)
    if known is not None and column and column not in known.columns:
        yield _no_column(document, path, table, column, known)


def _no_column(document: Document, path: Path_, table: str, column: str, known: _Table) -> Problem:
    fix = near(column, known.columns, "known: (none)")
    return _problem(document, path, f"{table} has no column {column!r}", fix)


def _problem(document: Document, path: Path_, what: str, fix: str) -> Problem:
    return Problem("B241", what, document.file, document.line(path), fix=fix)

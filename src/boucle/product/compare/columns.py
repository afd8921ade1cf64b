"""What changed in the tables of a contract and their columns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from boucle.product.columns import Column, Kind, column
from boucle.product.compare.bounds import Allows, kinds, ranges, values
from boucle.product.compare.change import BOTH, CONSUMERS, NOBODY, PRODUCERS, Changes, Party
from boucle.product.compare.protection import compare_protection
from boucle.product.compare.rules import compare_relations, compare_rules

__all__ = ["compare_tables"]

_BREAKS: dict[Allows, tuple[Party, ...]] = {
    "same": NOBODY, "more": CONSUMERS, "less": PRODUCERS, "other": BOTH,
}  # fmt: skip
_RANGES = (
    ("minimum", "maximum", "range"), ("minLength", "maxLength", "length"), ("minItems", "maxItems", "size"),
    ("minProperties", "maxProperties", "size"),
)  # fmt: skip
_CHANGED = {"more": "widened", "less": "narrowed", "other": "changed"}
_WORDS = (
    "description",
    "businessName",
    "tags",
    "examples",
    "authoritativeDefinitions",
    "synonyms",
    "context",
)


def compare_tables(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], changes: Changes) -> None:
    """Tables that came, went or changed; a table is known by its id, else by its name."""
    pairs, removed, added = _matched(old, new)
    for table in removed:
        why = "who reads it finds nothing"
        changes.add(table["name"], "table-removed", f"table {table['name']} removed", CONSUMERS, why)
    for table in added:
        changes.add(table["name"], "table-added", f"table {table['name']} added")
    for before, after in pairs:
        path = str(after["name"])
        if before["name"] != after["name"]:
            what = f"table {before['name']} renamed to {after['name']}"
            changes.add(path, "table-renamed", what, BOTH, "it is asked for, and filled, under its old name")
        if before.get("physicalName") != after.get("physicalName"):
            what = f"physical name {before.get('physicalName')} is now {after.get('physicalName')}"
            changes.add(path, "table-moved", what, BOTH, "the data are found under another name")
        _compare_columns(before.get("properties") or (), after.get("properties") or (), path, changes)
        compare_relations(before, after, path, changes)
        compare_rules(before.get("quality") or (), after.get("quality") or (), path, changes)
        compare_protection(before, after, path, changes)
        for word in (*_WORDS, "dataGranularityDescription"):
            changes.text(path, word, before.get(word), after.get(word))


def _matched(
    old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]
) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Pairs of the same thing, what went, what came: known by name, else by id, else by being alone alike."""
    pairs, gone, come = [], list(old), list(new)
    for key in ("name", "id", "physicalName"):
        known = {one[key]: one for one in come if one.get(key)}
        for before in list(gone):
            after = known.get(before.get(key))
            if after is not None and after in come:
                pairs.append((before, after))
                gone.remove(before)
                come.remove(after)
    order = {id(one): index for index, one in enumerate(new)}
    return sorted(pairs, key=lambda pair: order[id(pair[1])]), gone, come


def _compare_columns(
    old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], path: str, changes: Changes
) -> None:
    _compare_keys(old, new, path, changes)
    pairs, removed, added = _matched(old, new)
    for before, after in list(_lookalikes(removed, added)):
        pairs.append((before, after))
        removed.remove(before)
        added.remove(after)
    for prop in removed:
        why = "who reads it finds nothing"
        changes.add(
            f"{path}.{prop['name']}", "column-removed", f"column {prop['name']} removed", CONSUMERS, why
        )
    for prop in added:
        here = f"{path}.{prop['name']}"
        if column(prop).required:
            why = "who makes the data does not give it yet"
            changes.add(
                here, "required-column-added", f"required column {prop['name']} added", PRODUCERS, why
            )
        else:
            changes.add(here, "optional-column-added", f"optional column {prop['name']} added")
    for before, after in pairs:
        here = f"{path}.{after['name']}"
        if before["name"] != after["name"]:
            why = "it is asked for, and given, under its old name"
            what = f"column {before['name']} renamed to {after['name']}"
            changes.add(here, "column-renamed", what, BOTH, why)
        _compare_column(before, after, here, changes)


def _lookalikes(
    removed: Sequence[dict[str, Any]], added: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Columns that only changed their name: alike in all else, and in nothing else that came or went."""
    for before in removed:
        alike = [after for after in added if _nameless(after) == _nameless(before)]
        if len(alike) == 1 and [_nameless(one) for one in removed].count(_nameless(before)) == 1:
            yield before, alike[0]


def _nameless(prop: Mapping[str, Any]) -> dict[str, Any]:
    words = {"name", "id", "physicalName", "businessName", "description"}
    return {key: value for key, value in prop.items() if key not in words}


def _compare_column(before: dict[str, Any], after: dict[str, Any], path: str, changes: Changes) -> None:
    old, new = column(before), column(after)
    _compare_kinds(old.kind, new.kind, before, after, path, changes)
    if old.required and not new.required:
        changes.add(path, "required-dropped", "no longer required", CONSUMERS, "it may be missing now")
    if new.required and not old.required:
        changes.add(
            path, "required-added", "required now", PRODUCERS, "rows without it are no longer accepted"
        )
    _compare_identity(old, new, path, changes)
    _compare_options(old, new, path, changes)
    if before.get("physicalName") != after.get("physicalName"):
        what = f"physical name {before.get('physicalName')} is now {after.get('physicalName')}"
        changes.add(path, "column-moved", what, BOTH, "the data are found under another name")
    if bool(before.get("deprecated")) != bool(after.get("deprecated")):
        said = "deprecated" if after.get("deprecated") else "no longer deprecated"
        changes.add(path, "deprecated", said)
    for setting in (
        "partitioned",
        "partitionKeyPosition",
        "encryptedName",
        "semanticType",
        "criticalDataElement",
    ):
        if before.get(setting) != after.get(setting):
            changes.add(
                path, f"{setting}-changed", f"{setting}: {before.get(setting)} → {after.get(setting)}"
            )
    compare_relations(before, after, path, changes)
    compare_rules(before.get("quality") or (), after.get("quality") or (), path, changes)
    compare_protection(before, after, path, changes)
    for word in (*_WORDS, "transformLogic", "transformDescription", "transformSourceObjects"):
        changes.text(path, word, before.get(word), after.get(word))
    _compare_columns(before.get("properties") or (), after.get("properties") or (), path, changes)
    inner = [
        {**one, "name": "[]"} for one in (before.get("items"), after.get("items")) if isinstance(one, dict)
    ]
    if len(inner) == 2:
        _compare_column(inner[0], inner[1], f"{path}[]", changes)


def _compare_kinds(
    old: Kind, new: Kind, before: dict[str, Any], after: dict[str, Any], path: str, changes: Changes
) -> None:
    allows = kinds(old, new)
    told = " ".join(_spelled(before)), " ".join(_spelled(after))
    if allows == "same":
        if told[0] != told[1]:
            changes.add(path, "type-respelled", f"type {told[0]} written as {told[1]}", least="patch")
        return
    why = {
        "more": "values may come that did not fit the old type",
        "less": "values that fitted the old type may not fit the new one",
        "other": "what is written as one is not read as the other",
    }[allows]
    what = f"type {_CHANGED[allows]}: {told[0]} → {told[1]}"
    changes.add(path, f"type-{_CHANGED[allows]}", what, _BREAKS[allows], why)


def _spelled(prop: Mapping[str, Any]) -> Iterator[str]:
    yield str(prop.get("logicalType") or "any")
    if prop.get("physicalType"):
        yield f"({prop['physicalType']})"


def _compare_identity(old: Column, new: Column, path: str, changes: Changes) -> None:
    if old.unique and not new.unique:
        changes.add(path, "unique-dropped", "no longer unique", CONSUMERS, "a join may multiply rows now")
    if new.unique and not old.unique:
        changes.add(
            path, "unique-added", "unique now", PRODUCERS, "a value given twice is no longer accepted"
        )


def _compare_keys(
    old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], path: str, changes: Changes
) -> None:
    before, after = _key(old), _key(new)
    if before == after:
        return
    what = (
        f"primary key {_few(before)} is now {_few(after)}" if after else f"primary key {_few(before)} dropped"
    )
    if not before:
        why = "rows that share it are no longer accepted"
        changes.add(path, "key-added", f"primary key {_few(after)} added", PRODUCERS, why)
    elif set(before) == set(after):
        changes.add(path, "key-reordered", what)
    elif set(before) < set(after) or not after:
        why = "several rows may share the old key now"
        changes.add(path, "key-widened" if after else "key-dropped", what, CONSUMERS, why)
    elif set(after) < set(before):
        changes.add(
            path, "key-narrowed", what, PRODUCERS, "rows that share the new key are no longer accepted"
        )
    else:
        changes.add(path, "key-changed", what, BOTH, "a row is known by something else")


def _key(properties: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    found = [one for one in map(column, properties) if one.key]
    return tuple(one.name for one in sorted(found, key=lambda one: one.key))


def _compare_options(old: Column, new: Column, path: str, changes: Changes) -> None:
    for low, high, word in _RANGES:
        allows = ranges(old.options, new.options, low, high)
        if allows != "same":
            told = [f"{_end(one.options, low)} … {_end(one.options, high)}" for one in (old, new)]
            what = f"{word} {_CHANGED[allows]}: {told[0]} → {told[1]}"
            changes.add(path, f"{word}-{_CHANGED[allows]}", what, _BREAKS[allows], _WHY[allows])
    allows = values(old.values, new.values)
    if allows != "same":
        what = f"allowed values {_CHANGED[allows]}: {_few(old.values)} → {_few(new.values)}"
        changes.add(path, f"values-{_CHANGED[allows]}", what, _BREAKS[allows], _WHY[allows])
    for name in sorted({*old.options, *new.options} - _COMPARED):
        before, after = old.options.get(name), new.options.get(name)
        if before != after and (name, old.kind.family) != ("format", "string"):
            given: Allows = "less" if before is None else "more" if after is None else "other"
            changes.add(path, f"{name}-changed", f"{name}: {before} → {after}", _BREAKS[given], _WHY[given])


_COMPARED = {
    f"{strict}{name[0].upper() + name[1:] if strict else name}"
    for low, high, _ in _RANGES
    for name in (low, high)
    for strict in ("", "exclusive")
}
_WHY = {
    "more": "values may come that were ruled out",
    "less": "values that were allowed are no longer accepted",
    "other": "values may come that were ruled out, and some that were allowed no longer are",
}


def _end(options: Mapping[str, Any], name: str) -> Any:
    strict = options.get("exclusive" + name[0].upper() + name[1:])
    return options.get(name, "" if strict is None else f"({strict})")


def _few(listed: tuple[Any, ...]) -> str:
    shown = ", ".join(map(str, listed[:5]))
    return (shown + (", …" if len(listed) > 5 else "")) or "any"

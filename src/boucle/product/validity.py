"""Whether a document has the shape its schema says, fast: most do, and only of the others the mistakes are looked for.

The official schemas end nearly every object with `unevaluatedProperties: false`, for which jsonschema validates every
branch of the object once more, level by level. Here the names of the branches that apply are enough: a branch that is
not kept is a mistake of its own. And the columns of a catalogue are much alike: one that differs from a column seen
before in nothing but its free text is not looked at again.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
from jsonschema.exceptions import ValidationError

__all__ = ["Validity"]

_FREE = ("name", "description", "businessName")
"""Of a column: any text, says every version of ODCS."""


class Validity:
    """A schema, ready to be held against documents. `whole` says every mistake of one."""

    def __init__(self, schema: dict[str, Any]) -> None:
        kind = jsonschema.validators.validator_for(schema)
        self.whole = kind(schema)
        quick: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
            kind, {"unevaluatedProperties": _unevaluated}
        )
        self._once = quick(schema)
        self._seen: set[str] = set()

    def __call__(self, value: dict[str, Any]) -> bool:
        """Whether a document has its shape."""
        fresh = dict[str, Any]()
        thin = self._thin(value, fresh)
        if not self._once.is_valid(thin):
            return False
        self._seen.update(fresh)
        return True

    def _thin(self, value: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
        """The document with one column of each kind that was not seen yet."""
        tables = value.get("schema")
        if not isinstance(tables, list):
            return value
        return value | {"schema": [self._thin_table(table, fresh) for table in tables]}

    def _thin_table(self, table: Any, fresh: dict[str, Any]) -> Any:
        columns = table.get("properties") if isinstance(table, dict) else None
        if not isinstance(columns, list):
            return table
        kept = []
        for column in columns:
            kind = _kind(column)
            if not kind or (kind not in self._seen and kind not in fresh):
                kept.append(column)
                fresh[kind] = None
        return table | {"properties": kept}


def _kind(column: Any) -> str:
    """What a column's validity depends on; empty for what is no plain column."""
    if not isinstance(column, dict) or not all(isinstance(column.get(word, ""), str) for word in _FREE):
        return ""
    try:
        return json.dumps(column | {word: "" for word in _FREE if word in column}, sort_keys=True)
    except (TypeError, ValueError):  # a date that YAML made of it, a key that is no text
        return ""


def _unevaluated(
    validator: Any, allowed: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """`unevaluatedProperties: false`, for whoever needs no list of mistakes; the schemas we hold have no other."""
    if not allowed and isinstance(instance, dict) and set(instance) - _names(validator, instance, schema):
        yield ValidationError("there are unevaluated properties")


def _names(validator: Any, instance: dict[str, Any], schema: Any) -> set[str]:
    """The properties of an object that some branch which applies to it speaks of."""
    if not isinstance(schema, Mapping):
        return set()
    names = set(schema.get("properties", ()))
    if schema.get("additionalProperties"):
        names |= set(instance)
    if "$ref" in schema:
        found = validator._resolver.lookup(schema["$ref"])  # noqa: SLF001 - as the library's own keywords do
        names |= _names(validator.evolve(_resolver=found.resolver), instance, found.contents)
    for branch in schema.get("allOf", ()):
        names |= _names(validator, instance, branch)
    for word in ("anyOf", "oneOf"):
        for branch in schema.get(word, ()):
            if validator.evolve(schema=branch).is_valid(instance):
                names |= _names(validator, instance, branch)
    if "if" in schema:
        holds = validator.evolve(schema=schema["if"]).is_valid(instance)
        names |= _names(validator, instance, schema["if"]) if holds else set()
        names |= _names(validator, instance, schema.get("then" if holds else "else"))
    return names

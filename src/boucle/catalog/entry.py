"""A product.yaml as the catalogue reads it: everything that can be shown, and what could not be understood.

`boucle check` refuses what is not as the standards say; a catalogue of a thousand products must show what is there.
So this reading forgives: a value of a wrong kind is left out and told in `problems`, and a file that cannot be read
at all is an Entry with `broken`, its reason. ODPS 1.0, ODCS 3.x and our Loop document.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from boucle.product.personal import is_personal

__all__ = ["Entry", "Field", "Port", "Promise", "TableEntry", "read_entry"]

_LARGEST = 8 << 20
"""Bytes of a product.yaml; beyond it is no declaration."""
_DEEPEST = 6


class Field(Struct, frozen=True):
    """A column as promised. `rules` are its ranges, lists and patterns in words."""

    name: str
    type: str = ""
    unit: str = ""
    description: str = ""
    required: bool = False
    key: bool = False
    classification: str = ""
    """The PII class: ODCS `classification`, or the custom property `pii`."""
    tags: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    made_from: tuple[str, ...] = ()
    """ODCS `transformSourceObjects`."""

    @property
    def personal(self) -> bool:
        """Whether its values are shown to nobody who was not allowed to see them."""
        return is_personal(self.classification, self.tags)


class TableEntry(Struct, frozen=True):
    """A schema object of a contract."""

    name: str
    kind: str = ""
    """ODCS `physicalType`: table, topic, file, view."""
    description: str = ""
    tags: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    rules: tuple[str, ...] = ()


class Port(Struct, frozen=True):
    """An input or output port of a product (ODPS)."""

    name: str
    contract: str = ""
    type: str = ""
    version: str = ""
    description: str = ""


class Promise(Struct, frozen=True):
    """A service level (ODCS `slaProperties`)."""

    name: str
    value: str = ""
    unit: str = ""
    element: str = ""
    description: str = ""


class Entry(Struct, frozen=True):
    """What a product.yaml says of its product."""

    id: str
    file: str
    """Relative to the catalogue's root."""
    name: str = ""
    version: str = ""
    status: str = ""
    domain: str = ""
    owner: str = ""
    team: str = ""
    tags: tuple[str, ...] = ()
    purpose: str = ""
    limitations: str = ""
    usage: str = ""
    contract: str = ""
    contract_version: str = ""
    tables: tuple[TableEntry, ...] = ()
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    promises: tuple[Promise, ...] = ()
    loop: dict[str, Any] | None = None
    problems: tuple[str, ...] = ()
    broken: str = ""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """As `boucle check` reads: timestamps stay text, and `on`, `no` are words. libyaml reads it ten times as fast."""


_TAKEN_OUT = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TAKEN_OUT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_entry(file: Path, shown: str) -> Entry:
    """The entry of a product.yaml; never raises: what is wrong with it stands in `broken` or `problems`."""
    fallback = Path(shown).parent.name or shown
    try:
        if file.stat().st_size > _LARGEST:
            return Entry(fallback, shown, broken=f"{file.stat().st_size} bytes are no declaration")
        text = file.read_text(encoding="utf-8")
        documents = list(yaml.load_all(text, _Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = " ".join(str(getattr(error, "problem", None) or error).split())
        return Entry(fallback, shown, broken=f"line {mark.line + 1 if mark else 1}: {why}")
    except (OSError, ValueError, RecursionError) as error:
        return Entry(fallback, shown, broken=str(error) or type(error).__name__)
    return _Reader(shown).entry(documents, fallback)


class _Reader:
    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._problems: list[str] = []

    def entry(self, documents: list[Any], fallback: str) -> Entry:
        kinds: dict[str, Mapping[str, Any]] = {}
        for one in documents:
            if isinstance(one, Mapping):
                kinds.setdefault(self.text(one, "kind"), one)
            elif one is not None:
                self._problems.append(f"a document is {_kind(one)}, not a mapping")
        product, contract = kinds.get("DataProduct", {}), kinds.get("DataContract", {})
        name = self.text(product, "id") or self.text(contract, "dataProduct") or self.text(contract, "id")
        if not name:
            why = "it has neither a DataProduct nor a DataContract with an id"
            return Entry(fallback, self._shown, broken=why, problems=tuple(self._problems))
        loop = kinds.get("Loop")
        both = {**contract, **product}
        described = self.mapping(both, "description")
        team, owner = self.owner(product, contract)
        tables = tuple(self.table(one) for one in self.items(contract, "schema"))
        return Entry(
            id=name,
            file=self._shown,
            name=self.text(product, "name") or self.text(contract, "name") or name,
            version=self.text(both, "version"),
            status=self.text(both, "status"),
            domain=self.text(both, "domain"),
            owner=owner,
            team=team,
            tags=tuple(dict.fromkeys((*self.texts(product, "tags"), *self.texts(contract, "tags")))),
            purpose=self.text(described, "purpose"),
            limitations=self.text(described, "limitations"),
            usage=self.text(described, "usage"),
            contract=self.text(contract, "id"),
            contract_version=self.text(contract, "version"),
            tables=tuple({one.name: one for one in tables if one.name}.values()),
            inputs=tuple(self.ports(product, "inputPorts")),
            outputs=tuple(self.ports(product, "outputPorts")),
            promises=tuple(self.promises(contract)),
            loop=dict(loop) if loop is not None else None,
            problems=tuple(dict.fromkeys(self._problems)),
        )

    def owner(self, product: Mapping[str, Any], contract: Mapping[str, Any]) -> tuple[str, str]:
        """The team's name, and who owns: the member of that role, else the team."""
        team, owner = "", ""
        for document in (product, contract):
            told = document.get("team")
            members = told.get("members") if isinstance(told, Mapping) else told
            team = team or (self.text(told, "name") if isinstance(told, Mapping) else "")
            for one in members if isinstance(members, list) else ():
                if isinstance(one, Mapping) and "owner" in self.text(one, "role").lower():
                    owner = owner or self.text(one, "username") or self.text(one, "name")
        return team, owner or team

    def ports(self, product: Mapping[str, Any], name: str) -> Iterator[Port]:
        for one in self.items(product, name):
            if port := self.text(one, "name"):
                told = (self.text(one, key) for key in ("contractId", "type", "version", "description"))
                yield Port(port, *told)

    def promises(self, contract: Mapping[str, Any]) -> Iterator[Promise]:
        for one in self.items(contract, "slaProperties"):
            told = (self.text(one, key) for key in ("value", "unit", "element", "description"))
            yield Promise(self.text(one, "property"), *told)

    def table(self, one: Mapping[str, Any]) -> TableEntry:
        fields = tuple(self.fields(one, "", _DEEPEST))
        return TableEntry(
            name=self.text(one, "name"),
            kind=self.text(one, "physicalType"),
            description=self.text(one, "description"),
            tags=self.texts(one, "tags"),
            fields=tuple({field.name: field for field in fields}.values()),
            rules=tuple(self.rules(one)),
        )

    def fields(self, above: Mapping[str, Any], prefix: str, depth: int) -> Iterator[Field]:
        for one in self.items(above, "properties") if depth else ():
            name = self.text(one, "name")
            if not name:
                self._problems.append("a column has no name")
                continue
            yield self.field(one, prefix + name)
            yield from self.fields(one, f"{prefix}{name}.", depth - 1)

    def field(self, one: Mapping[str, Any], name: str) -> Field:
        custom = self.custom(one)
        items = self.mapping(one, "items")
        kind = self.text(one, "physicalType") or self.text(one, "logicalType")
        if items:
            kind = f"list of {self.text(items, 'physicalType') or self.text(items, 'logicalType') or '?'}"
        personal = custom.get("pii", custom.get("piiClass", ""))
        options = self.mapping(items or one, "logicalTypeOptions")
        return Field(
            name=name,
            type=kind,
            unit=custom.get("unit", ""),
            description=self.text(one, "description") or self.text(one, "businessName"),
            required=one.get("required") is True,
            key=one.get("primaryKey") is True,
            classification=self.text(one, "classification") or ("pii" if personal == "true" else personal),
            tags=self.texts(one, "tags"),
            rules=(*(f"{key} {value}" for key, value in options.items()), *self.rules(one)),
            made_from=self.texts(one, "transformSourceObjects"),
        )

    def rules(self, one: Mapping[str, Any]) -> Iterator[str]:
        """The quality rules of a table or column, each in a line."""
        for rule in self.items(one, "quality"):
            arguments = self.mapping(rule, "arguments")
            words = [self.text(rule, key) for key in ("metric", "rule", "name", "description", "query")]
            words += [f"{key} {value}" for key, value in arguments.items()]
            words += [f"{key} {value}" for key, value in rule.items() if str(key).startswith("mustBe")]
            yield " ".join(word for word in words if word)[:200]

    def custom(self, one: Mapping[str, Any]) -> dict[str, str]:
        told = self.items(one, "customProperties")
        return {self.text(item, "property"): self.text(item, "value") for item in told}

    def text(self, above: Any, key: str) -> str:
        value = above.get(key) if isinstance(above, Mapping) else None
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str | int | float):
            return str(value).strip()
        if value is not None and key not in ("value", "team"):
            self._problems.append(f"{key}: {_kind(value)} where a text was expected")
        return ""

    def texts(self, above: Mapping[str, Any], key: str) -> tuple[str, ...]:
        return tuple(str(one) for one in self.list(above, key) if isinstance(one, str | int | float))

    def items(self, above: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
        for one in self.list(above, key):
            if isinstance(one, Mapping):
                yield one
            else:
                self._problems.append(f"{key}: {_kind(one)} where a mapping was expected")

    def list(self, above: Mapping[str, Any], key: str) -> Sequence[Any]:
        value = above.get(key)
        if value is not None and not isinstance(value, list):
            self._problems.append(f"{key}: {_kind(value)} where a list was expected")
        return value if isinstance(value, list) else ()

    def mapping(self, above: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = above.get(key)
        if isinstance(value, str) and key == "description":
            return {"purpose": value}
        if value is not None and not isinstance(value, Mapping):
            self._problems.append(f"{key}: {_kind(value)} where a mapping was expected")
        return value if isinstance(value, Mapping) else {}


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "a text", type(None): "nothing"}.get(
        type(value), "a value"
    )

"""Two versions of a promise, compared whole: the contract, and the product with its ports."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from boucle.product.compare.change import BOTH, CONSUMERS, PRODUCERS, Changes, Mode, Verdict
from boucle.product.compare.columns import compare_tables
from boucle.product.compare.protection import compare_protection
from boucle.product.compare.service import compare_access, compare_levels, compare_status
from boucle.product.lines import Document
from boucle.product.promise import Promise
from boucle.product.version import Version

__all__ = ["compare", "compare_all"]

_WORDS = ("name", "tags", "domain", "tenant", "dataProduct", "description", "support", "team", "price", "context",
          "authoritativeDefinitions", "contractCreatedTs", "productCreatedTs", "apiVersion",
              "slaDefaultElement")  # fmt: skip


def compare(old: Promise, new: Promise, mode: Mode = "full", against: str = "") -> list[Verdict]:
    """A verdict for the contract and one for the product, where either version holds them."""
    found = []
    for document in ("contract", "product"):
        before, after = getattr(old, document), getattr(new, document)
        if before is not None or after is not None:
            found.append(_verdict(document, before, after, mode, against))
    return found


def compare_all(
    old: Mapping[str, Promise], new: Mapping[str, Promise], mode: Mode = "full", against: str = ""
) -> Iterator[Verdict]:
    """Folders of many: promises are known by their ids; one that is gone is a table that is gone."""
    for name in dict.fromkeys([*old, *new]):
        nothing = Promise(name)
        yield from compare(old.get(name, nothing), new.get(name, nothing), mode, against)


def _verdict(
    kind: Literal["contract", "product"], old: Document | None, new: Document | None, mode: Mode, against: str
) -> Verdict:
    changes = Changes(kind)
    before, after = (one.value if one is not None else {} for one in (old, new))
    if new is None:
        why = "who relies on it finds nothing"
        changes.add("", f"{kind}-removed", f"the {kind} {before.get('id')} is gone", CONSUMERS, why)
    elif old is None:
        changes.add("", f"{kind}-added", f"the {kind} {after.get('id')} is new")
    else:
        _compare(kind, before, after, changes)
    return Verdict(
        document=kind,
        id=str(after.get("id") or before.get("id") or ""),
        mode=mode,
        changes=tuple(changes.found),
        old=str(before.get("version") or ""),
        new=str(after.get("version") or ""),
        against=against,
    )


def _compare(kind: str, old: Mapping[str, Any], new: Mapping[str, Any], changes: Changes) -> None:
    if old.get("id") != new.get("id"):
        what = f"id {old.get('id')} is now {new.get('id')}"
        changes.add("id", "id-changed", what, BOTH, "it is another one: nobody finds it under its old id")
    compare_status(old.get("status"), new.get("status"), changes)
    if kind == "contract":
        compare_tables(old.get("schema") or (), new.get("schema") or (), changes)
        compare_levels(old, new, changes)
        compare_access(old, new, changes)
    else:
        _compare_ports(old, new, changes)
    compare_protection(old, new, kind, changes)
    for word in _WORDS:
        changes.text(word, word, old.get(word), new.get(word))


def _compare_ports(old: Mapping[str, Any], new: Mapping[str, Any], changes: Changes) -> None:
    for section, word in (("outputPorts", "output port"), ("inputPorts", "input port")):
        before, after = _ports(old.get(section) or ()), _ports(new.get(section) or ())
        for key, port in before.items():
            if key not in after:
                _port_gone(port, after, section, word, changes)
        for key, port in after.items():
            if key not in before:
                came = any(other["name"] == port["name"] for other in before.values())
                what = f"{word} {port['name']} {port.get('version', '')} {'in another version' if came else 'added'}"
                changes.add(f"{section}.{port['name']}", "port-added", what)
            else:
                _compare_port(before[key], port, section, word, changes)
    gone, come = ({str(one.get("name")) for one in side.get("managementPorts") or ()} for side in (old, new))
    for name in sorted(gone ^ come):
        said = "removed" if name in gone else "added"
        breaks = CONSUMERS if name in gone else ()
        changes.add(f"managementPorts.{name}", f"port-{said}", f"management port {name} {said}", breaks)


def _ports(ports: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """By name and version, which together are their key in ODPS."""
    return {(str(port.get("name")), str(port.get("version", ""))): port for port in ports}


def _port_gone(
    port: Mapping[str, Any],
    after: Mapping[tuple[str, str], Mapping[str, Any]],
    section: str,
    word: str,
    changes: Changes,
) -> None:
    path = f"{section}.{port['name']}"
    what = f"{word} {port['name']} {port.get('version', '')} removed".replace("  ", " ")
    if section == "inputPorts":
        changes.add(path, "port-removed", what)
        return
    old = Version.read(port.get("version"))
    for name, version in after:
        new = Version.read(version)
        if (
            name == port["name"]
            and old is not None
            and new is not None
            and new >= old
            and new.major == old.major
        ):
            changes.add(path, "port-raised", f"{word} {name}: version {old} is now {new}")
            return
    changes.add(path, "port-removed", what, CONSUMERS, "who reads it finds nothing")


def _compare_port(
    old: Mapping[str, Any], new: Mapping[str, Any], section: str, word: str, changes: Changes
) -> None:
    path, name = f"{section}.{new['name']}", new["name"]
    party = CONSUMERS if section == "outputPorts" else PRODUCERS
    for setting, why in (
        ("contractId", "another contract holds for it"),
        ("type", "it is read in another way"),
    ):
        if old.get(setting) != new.get(setting):
            what = f"{word} {name}: {setting} {old.get(setting)} → {new.get(setting)}"
            changes.add(path, f"port-{setting}-changed".lower(), what, party, why)
    if old.get("inputContracts") != new.get("inputContracts"):
        changes.add(path, "port-inputs-changed", f"{word} {name} is made from other contracts")
    for setting in ("description", "tags", "sbom", "authoritativeDefinitions"):
        changes.text(path, setting, old.get(setting), new.get(setting))
    compare_protection(old, new, path, changes)

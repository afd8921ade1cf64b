"""Products that feed each other: every input port leads to a product that offers it, and never in a circle."""

import difflib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from msgspec import Struct

from boucle.errors import Problem
from boucle.product.lines import Document, Path_
from boucle.product.promise import Promise
from boucle.product.version import Version

__all__ = ["graph_problems"]


class _Offer(Struct, frozen=True):
    """A contract that somebody keeps."""

    product: str
    version: str


def graph_problems(promises: Sequence[Promise], complete: bool = True) -> list[Problem]:
    """Ids given twice, ports that lead nowhere or to another version, and every circle.

    With files missing because they cannot be read (`complete` is false) nobody says what leads nowhere.
    """
    problems = list(_doubles(promises))
    offers = _offers(promises)
    needs: dict[str, dict[str, tuple[Document, Path_]]] = defaultdict(dict)
    for promise in promises:
        document = promise.product
        if document is None:
            continue
        own = str((promise.contract.value if promise.contract else {}).get("id", ""))
        for path, wanted, version in _wanted(document.value):
            offered = offers.get(wanted)
            if offered is None:
                if not complete:
                    continue
                near = difflib.get_close_matches(wanted, offers, n=1)
                fix = f'did you mean "{near[0]}"?' if near else "add the contract, or correct its id"
                problems.append(_problem("B243", document, path, f"no contract {wanted!r} is known", fix))
                continue
            if not any(_keeps(offer.version, version) for offer in offered):
                known = ", ".join(sorted({offer.version for offer in offered}))
                what = f"{wanted} is wanted in version {version} and offered in {known}"
                fix = "name a version that is offered, of the same major number and not above it"
                problems.append(_problem("B244", document, path, what, fix))
            if wanted != own and path[0] == "inputPorts":
                for offer in offered:
                    if offer.product not in {"", promise.id}:
                        needs[promise.id].setdefault(offer.product, (document, path))
    return problems + list(_circles(needs))


def _doubles(promises: Sequence[Promise]) -> Iterator[Problem]:
    for kind in ("product", "contract"):
        seen: dict[tuple[str, str], str] = {}
        for promise in promises:
            document: Document | None = getattr(promise, kind)
            if document is None:
                continue
            named = str(document.value.get("id", "")), str(document.value.get("version", ""))
            if named in seen:
                what = f"the {kind} {named[0]!r} stands in {seen[named]} too"
                yield _problem("B245", document, ("id",), what, "give one of them another id or version")
            seen.setdefault(named, promise.file)


def _offers(promises: Sequence[Promise]) -> dict[str, list[_Offer]]:
    """Contract → who offers it: by an output port, or at least by holding the contract."""
    by_port: dict[str, list[_Offer]] = defaultdict(list)
    held: dict[str, list[_Offer]] = defaultdict(list)
    for promise in promises:
        product = str(promise.product.value.get("id", "")) if promise.product else ""
        if promise.contract is not None:
            value = promise.contract.value
            held[str(value["id"])].append(_Offer(product, str(value.get("version", ""))))
        for port in (promise.product.value.get("outputPorts") if promise.product else None) or ():
            if port.get("contractId"):
                by_port[str(port["contractId"])].append(_Offer(product, str(port.get("version", ""))))
    return {name: by_port.get(name) or held[name] for name in (*held, *by_port)}


def _wanted(product: dict[str, Any]) -> Iterator[tuple[Path_, str, str]]:
    for index, port in enumerate(product.get("inputPorts") or ()):
        yield ("inputPorts", index, "contractId"), str(port["contractId"]), str(port.get("version", ""))
    for index, port in enumerate(product.get("outputPorts") or ()):
        for number, contract in enumerate(port.get("inputContracts") or ()):
            path: Path_ = ("outputPorts", index, "inputContracts", number, "id")
            yield path, str(contract["id"]), str(contract.get("version", ""))


def _keeps(offered: str, wanted: str) -> bool:
    has, needs = Version.read(offered), Version.read(wanted)
    if has is None or needs is None:
        return offered == wanted or not wanted
    return has.major == needs.major and has >= needs


def _circles(needs: dict[str, dict[str, tuple[Document, Path_]]]) -> Iterator[Problem]:
    left = {product: set(feeds) for product, feeds in needs.items()}
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            # graphlib lists a circle from what is needed to who needs it.
            circle: list[str] = error.args[1][::-1]
            left[circle[0]].discard(circle[1])
            document, path = needs[circle[0]][circle[1]]
            what = f"products wait for each other: {' → '.join(circle)}"
            yield Problem(
                "B246",
                what,
                document.file,
                document.line(path),
                "each reads what the next one offers, so none can be made first",
                "take one of these input ports away, or split what both need into a product of its own",
            )
        else:
            return


def _problem(code: str, document: Document, path: Path_, what: str, fix: str) -> Problem:
    return Problem(code, what, document.file, document.line(path), fix=fix)

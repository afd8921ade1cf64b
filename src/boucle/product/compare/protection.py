"""How data are protected: their class, and what `customProperties` say of persons, masks and units."""

from collections.abc import Mapping
from typing import Any

from boucle.product.compare.change import BOTH, CONSUMERS, NOBODY, Changes

__all__ = ["compare_protection", "custom"]

_RANKS: dict[str, int] = {
    **dict.fromkeys(("", "none", "public", "open", "false", "no", "0", "1"), 0),
    **dict.fromkeys(("internal", "2"), 1),
    **dict.fromkeys(("confidential", "private", "sensitive", "3"), 2),
    **dict.fromkeys(("restricted", "pii", "personal", "personal data", "true", "yes", "4"), 3),
    **dict.fromkeys(("secret", "highly confidential", "special category", "phi", "spi", "5"), 4),
}
_PERSONAL = {
    "pii",
    "piiclass",
    "personaldata",
    "pii_class",
    "personal_data",
    "sensitivity",
    "datasensitivity",
}
_MASKS = {"masking", "mask", "anonymizationstrategy", "anonymisation", "pseudonymisation"}
_MEANS = {"unit", "currency", "timezone", "coordinatesystem"}
"""Where another value makes the same number mean something else."""
_LOWERED = (
    "data that were protected are handed on unprotected: "
    "who gave them relied on it, and who passes them on passes personal data on"
)
_ELSEWHERE = "serviceLevelObjectives"
"""Compared with the service levels it speaks of."""
_RAISED = "it may be masked now, or need a right that its readers do not have"


def custom(thing: Mapping[str, Any]) -> dict[str, Any]:
    """`customProperties` as a mapping."""
    return {str(one.get("property")): one.get("value") for one in thing.get("customProperties") or ()}


def compare_protection(old: Mapping[str, Any], new: Mapping[str, Any], path: str, changes: Changes) -> None:
    """Classes raised and lowered, masks, units, and custom properties nobody here knows."""
    _compare_class("classification", old.get("classification"), new.get("classification"), path, changes)
    before, after = custom(old), custom(new)
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        known = name.lower()
        if was == now or name == _ELSEWHERE:
            continue
        if known in _PERSONAL:
            _compare_class(name, was, now, path, changes)
        elif known in _MASKS:
            _compare_mask(name, was, now, path, changes)
        elif known in _MEANS:
            changes.add(
                path,
                f"{known}-changed",
                f"{name}: {was} → {now}",
                BOTH,
                "the same number means something else",
            )
        else:
            changes.add(path, "property-changed", f"{name}: {was} → {now}", least="patch")


def _compare_class(name: str, was: Any, now: Any, path: str, changes: Changes) -> None:
    if was == now:
        return
    ranks = [_RANKS.get(str("" if one is None else one).strip().lower()) for one in (was, now)]
    what = f"{name}: {was} → {now}"
    if None in ranks:
        changes.add(
            path, "class-changed", what, BOTH, "these classes are not known, so neither can be called lower"
        )
    elif ranks[1] < ranks[0]:  # type: ignore[operator]
        changes.add(path, "class-lowered", what, BOTH, _LOWERED)
    elif ranks[1] > ranks[0]:  # type: ignore[operator]
        changes.add(path, "class-raised", what, CONSUMERS, _RAISED)
    else:
        changes.add(path, "class-respelled", what, least="patch")


def _compare_mask(name: str, was: Any, now: Any, path: str, changes: Changes) -> None:
    plain = {None, "", "none", "None", False}
    what = f"{name}: {was} → {now}"
    if str(was) in map(str, plain) and str(now) in map(str, plain):
        changes.add(path, "mask-respelled", what, NOBODY, least="patch")
    elif str(now) in map(str, plain):
        changes.add(path, "mask-removed", what, BOTH, _LOWERED)
    elif str(was) in map(str, plain):
        changes.add(path, "mask-added", what, CONSUMERS, "its readers see less of it")
    else:
        changes.add(path, "mask-changed", what, CONSUMERS, "its readers see it otherwise")

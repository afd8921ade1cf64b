"""Service levels, the life-cycle, roles and servers of a contract, old against new."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from boucle.product.compare.bounds import number
from boucle.product.compare.change import BOTH, CONSUMERS, NOBODY, PRODUCERS, Changes
from boucle.product.compare.protection import custom

__all__ = ["compare_access", "compare_levels", "compare_status"]

_LESS_IS_BETTER = {
    "latency", "freshness", "frequency", "errorrate", "error rate", "timetodetect", "timetonotify", "timetorepair",
    "timebetweenfailures", "delay", "ly", "fy", "td", "tn", "tr", "er",
} - {"timebetweenfailures"}  # fmt: skip
_MORE_IS_BETTER = {
    "availability", "completeness", "accuracy", "throughput", "retention", "endofsupport", "endoflife", "coverage",
    "uniqueness", "validity", "conformity", "timebetweenfailures", "target", "objective", "av", "tp", "re", "es", "el",
}  # fmt: skip
_SECONDS = {
    **dict.fromkeys(("us", "microsecond"), 1e-6), **dict.fromkeys(("ms", "millisecond"), 1e-3),
    **dict.fromkeys(("s", "sec", "second"), 1.0), **dict.fromkeys(("m", "min", "minute"), 60.0),
    **dict.fromkeys(("h", "hr", "hour"), 3600.0), **dict.fromkeys(("d", "day"), 86400.0),
    **dict.fromkeys(("w", "week"), 604800.0), **dict.fromkeys(("mo", "month"), 2629746.0),
    **dict.fromkeys(("y", "yr", "year"), 31556952.0),
}  # fmt: skip
_LIFE = ("proposed", "draft", "development", "active", "deprecated", "retired")
_SPELLED = re.compile(r"\s*([-+]?\d+(?:\.\d+)?)\s*(%|[a-z]+)?\s*", re.IGNORECASE)


def compare_levels(old: Mapping[str, Any], new: Mapping[str, Any], changes: Changes) -> None:
    """Promised levels of a contract that came, went, or were loosened or tightened."""
    before, after = (_keyed(_objectives(one)) for one in (old, new))
    for key, level in before.items():
        if key not in after:
            why = "what was promised is promised no longer"
            changes.add(f"sla.{key}", "level-removed", f"{key} {_told(level)} removed", CONSUMERS, why)
    for key, level in after.items():
        if key not in before:
            what = f"{key} {_told(level)} promised"
            changes.add(f"sla.{key}", "level-added", what, PRODUCERS, "nobody had to keep it so far")
        else:
            _compare_level(before[key], level, key, changes)


def _objectives(contract: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The levels, with what stands of them in the contract's own `serviceLevelObjectives`."""
    said = custom(contract).get("serviceLevelObjectives")
    beside = said if isinstance(said, Mapping) else {}
    found = []
    for level in contract.get("slaProperties") or ():
        told = beside.get(level.get("id") or level.get("property"))
        extra = (
            [{"property": key, "value": value} for key, value in told.items()]
            if isinstance(told, Mapping)
            else []
        )
        found.append({**level, "customProperties": [*(level.get("customProperties") or ()), *extra]})
    return found


def _keyed(levels: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for level in levels:
        parts = [str(level.get(name)) for name in ("property", "element", "driver") if level.get(name)]
        name = str(level["id"]) if level.get("id") else " ".join(parts)
        while name in found:
            name += "'"
        found[name] = level
    return found


def _told(level: Mapping[str, Any]) -> str:
    return f"{level.get('value')}{' ' if level.get('unit') else ''}{level.get('unit') or ''}"


def _compare_level(old: Mapping[str, Any], new: Mapping[str, Any], key: str, changes: Changes) -> None:
    path, name = f"sla.{key}", str(new.get("property", ""))
    if old.get("property") != new.get("property"):
        what = f"{key}: {old.get('property')} is now {new.get('property')}"
        changes.add(path, "level-changed", what, BOTH, "another thing is promised")
        return
    said = f"{key}: {_told(old)} → {_told(new)}"
    _judge(
        name,
        _amount(old.get("value"), old.get("unit")),
        _amount(new.get("value"), new.get("unit")),
        said,
        path,
        changes,
    )
    if old.get("valueExt") != new.get("valueExt"):
        what = f"{key}: {old.get('valueExt')} → {new.get('valueExt')}"
        _judge(
            name, _amount(old.get("valueExt"), None), _amount(new.get("valueExt"), None), what, path, changes
        )
    before, after = custom(old), custom(new)
    for extra in sorted({*before, *after}):
        if before.get(extra) != after.get(extra):
            what = f"{key} {extra}: {before.get(extra)} → {after.get(extra)}"
            _judge(
                extra, _amount(before.get(extra), None), _amount(after.get(extra), None), what, path, changes
            )
    for word in ("description", "schedule", "scheduler", "element", "driver"):
        changes.text(path, word, old.get(word), new.get(word))


def _amount(value: Any, unit: Any) -> Any:
    """A length of time in seconds, a share, a number; text as it is."""
    match = _SPELLED.fullmatch(str(value))
    if match is None or isinstance(value, bool):
        return value
    named = (unit or match[2] or "").lower()
    scale = _SECONDS.get(named) or _SECONDS.get(named.removesuffix("s"))
    amount = number(match[1])
    return value if amount is None else amount * (scale or 1.0)


def _judge(name: str, old: Any, new: Any, said: str, path: str, changes: Changes) -> None:
    if old == new:
        return
    known = name.lower().replace("_", "").replace("-", "")
    comparable = type(old) is type(new) and isinstance(old, float | str)
    if not comparable or known not in _LESS_IS_BETTER | _MORE_IS_BETTER:
        why = "nobody can tell which of the two promises more"
        changes.add(path, "level-changed", said, BOTH, why)
    elif (new > old) == (known in _LESS_IS_BETTER):
        changes.add(path, "level-loosened", said, CONSUMERS, "less is promised than before")
    else:
        changes.add(path, "level-tightened", said, PRODUCERS, "more must be kept than before")


def compare_status(old: Any, new: Any, changes: Changes) -> None:
    """The life-cycle: an active promise that is withdrawn breaks who relies on it."""
    if old == new:
        return
    what = f"status {old} → {new}"
    places = [_LIFE.index(one) if one in _LIFE else None for one in (str(old).lower(), str(new).lower())]
    if places[1] is None or (places[0] is None and places[1] != _LIFE.index("active")):
        changes.add(
            "status", "status-changed", what, CONSUMERS, "this status says nothing of what is still kept"
        )
    elif new == "retired":
        changes.add("status", "status-retired", what, CONSUMERS, "nobody keeps the promise any more")
    elif old in {"active", "deprecated"} and places[1] < _LIFE.index("active"):
        changes.add("status", "status-withdrawn", what, CONSUMERS, "the promise no longer holds")
    elif new == "deprecated":
        changes.add(
            "status", "status-deprecated", what, NOBODY, "it is kept for now: its readers should move on"
        )
    else:
        changes.add("status", "status-advanced", what)


def compare_access(old: Mapping[str, Any], new: Mapping[str, Any], changes: Changes) -> None:
    """Roles that open the data, and servers that hold it."""
    for section, key, one in (("roles", "role", "role"), ("servers", "server", "server")):
        before = {str(item.get(key)): item for item in old.get(section) or ()}
        after = {str(item.get(key)): item for item in new.get(section) or ()}
        for name in before:
            if name not in after:
                why = "who came in this way finds it closed"
                changes.add(f"{section}.{name}", f"{one}-removed", f"{one} {name} removed", CONSUMERS, why)
        for name, item in after.items():
            if name not in before:
                changes.add(f"{section}.{name}", f"{one}-added", f"{one} {name} added")
            else:
                _compare_entry(before[name], item, f"{section}.{name}", one, changes)


_WORDS = {"description", "firstLevelApprovers", "secondLevelApprovers", "customProperties", "id"}


def _compare_entry(
    old: Mapping[str, Any], new: Mapping[str, Any], path: str, one: str, changes: Changes
) -> None:
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        if name in _WORDS:
            changes.text(path, name, old.get(name), new.get(name))
        else:
            what = f"{name}: {old.get(name)} → {new.get(name)}"
            changes.add(path, f"{one}-changed", what, CONSUMERS, "who came in this way finds it otherwise")

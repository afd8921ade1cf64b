"""Quality rules and relationships, old against new."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from boucle.errors import BoucleError
from boucle.product.compare.bounds import Allows, interval, values
from boucle.product.compare.change import BOTH, CONSUMERS, NOBODY, PRODUCERS, Changes, Party
from boucle.product.duration import seconds

__all__ = ["compare_relations", "compare_rules"]

_BREAKS: dict[Allows, tuple[Party, ...]] = {
    "same": NOBODY, "more": CONSUMERS, "less": PRODUCERS, "other": BOTH,
}  # fmt: skip
_LOOSER = "data that would have failed may come now"
_STRICTER = "data that passed may fail now"
_WHY = {"more": _LOOSER, "less": _STRICTER, "other": f"{_LOOSER}, and {_STRICTER}"}
_OPERATORS = (
    "mustBe", "mustNotBe", "mustBeGreaterThan", "mustBeGreaterOrEqualTo", "mustBeLessThan", "mustBeLessOrEqualTo",
    "mustBeBetween", "mustNotBeBetween",
)  # fmt: skip
_SEVERITY = {"info": 0, "information": 0, "notice": 0, "warning": 1, "warn": 1, "error": 2, "": 2, "critical": 3,
             "fatal": 3, "blocker": 3}  # fmt: skip


def compare_rules(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], path: str, changes: Changes
) -> None:
    """Rules that came, went or were loosened or tightened. Lists of allowed values belong to their column."""
    before, after = _keyed(old), _keyed(new)
    for key in before:
        if key not in after:
            changes.add(path, "rule-removed", f"rule {key} removed", _held(before[key], CONSUMERS), _LOOSER)
    for key in after:
        if key not in before:
            changes.add(path, "rule-added", f"rule {key} added", _held(after[key], PRODUCERS), _STRICTER)
        else:
            _compare_rule(before[key], after[key], key, path, changes)


def _held(rule: Mapping[str, Any], broken: tuple[Party, ...]) -> tuple[Party, ...]:
    """Words for people, and what is only told, hold nobody back."""
    told = rule.get("type") == "text" or _SEVERITY.get(str(rule.get("severity", "")).lower(), 2) == 0
    return NOBODY if told else broken


def _keyed(rules: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for rule in rules:
        if _lists_values(rule):
            continue
        name = str(
            rule.get("id") or rule.get("name") or rule.get("metric") or rule.get("rule") or _meant(rule)
        )
        while name in found:
            name += "'"
        found[name] = rule
    return found


def _meant(rule: Mapping[str, Any]) -> str:
    if checks := _checks(rule):
        return " ".join(str(checks[name]) for name in ("check", "of", "column") if name in checks)
    said = rule.get("query") or rule.get("implementation") or rule.get("description") or ""
    return f"{rule.get('type', 'library')} {str(said)[:60]}".strip()


_LOOSER_WHEN_MORE = {"within", "atMost", "deviations"}


def _checks(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a rule of our own engine checks; empty for other rules."""
    told = rule.get("implementation")
    return told if rule.get("engine") == "boucle" and isinstance(told, Mapping) else {}


def _compare_checks(
    old: Mapping[str, Any], new: Mapping[str, Any], key: str, path: str, changes: Changes
) -> None:
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        allows: Allows = "other"
        try:
            more = seconds(now) > seconds(was)  # type: ignore[arg-type]  # what is neither is told below
            if name in _LOOSER_WHEN_MORE or name == "atLeast":
                allows = "more" if more == (name in _LOOSER_WHEN_MORE) else "less"
        except (BoucleError, TypeError):
            pass
        word = {"more": "loosened", "less": "tightened"}.get(allows, "changed")
        changes.add(
            path,
            f"rule-{word}",
            f"rule {key}: {name} {was} → {now}",
            _held(new, _BREAKS[allows]),
            _WHY[allows],
        )


def _lists_values(rule: Mapping[str, Any]) -> bool:
    """What the column itself compares as its list of allowed values."""
    arguments = rule.get("arguments") or {}
    return (
        rule.get("metric") == "invalidValues"
        and rule.get("mustBe") == 0
        and bool(arguments.get("validValues"))
        and set(arguments) == {"validValues"}
    )


def _compare_rule(
    old: Mapping[str, Any], new: Mapping[str, Any], key: str, path: str, changes: Changes
) -> None:
    allows = _threshold(old, new)
    if allows != "same":
        told = [", ".join(f"{name} {one[name]}" for name in _OPERATORS if name in one) for one in (old, new)]
        word = {"more": "loosened", "less": "tightened", "other": "changed"}[allows]
        what = f"rule {key} {word}: {told[0] or 'anything'} → {told[1] or 'anything'}"
        changes.add(path, f"rule-{word}", what, _held(new, _BREAKS[allows]), _WHY[allows])
    _compare_arguments(old.get("arguments") or {}, new.get("arguments") or {}, key, path, changes)
    for name in ("type", "metric", "rule", "query", "engine", "implementation", "unit", "method"):
        if name == "implementation" and _checks(old) and _checks(new):
            _compare_checks(_checks(old), _checks(new), key, path, changes)
        elif old.get(name) != new.get(name):
            what = f"rule {key}: another {name}"
            changes.add(path, "rule-changed", what, _held(new, BOTH), "nobody can tell what passes now")
    ranks = [_SEVERITY.get(str(one.get("severity", "")).lower(), 2) for one in (old, new)]
    if ranks[0] != ranks[1]:
        what = f"rule {key}: severity {old.get('severity')} → {new.get('severity')}"
        lowered = ranks[1] < ranks[0]
        kind, why = ("severity-lowered", _LOOSER) if lowered else ("severity-raised", _STRICTER)
        changes.add(path, kind, what, CONSUMERS if lowered else PRODUCERS, why)
    for name in ("schedule", "scheduler", "dimension"):
        if old.get(name) != new.get(name):
            changes.add(path, "rule-planned", f"rule {key}: {name} {old.get(name)} → {new.get(name)}")
    for name in ("description", "businessImpact", "tags", "customProperties", "authoritativeDefinitions"):
        changes.text(path, f"rule {key} {name}", old.get(name), new.get(name))


def _compare_arguments(
    old: Mapping[str, Any], new: Mapping[str, Any], key: str, path: str, changes: Changes
) -> None:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        allows: Allows = "other"
        if name == "validValues":
            allows = values(before, after)
        elif name == "missingValues":
            # What counts as missing: a longer list allows less.
            allows = {"more": "less", "less": "more", "same": "same", "other": "other"}[_added(before, after)]  # type: ignore[assignment]
        if allows != "same":
            what = f"rule {key}: {name} {before} → {after}"
            changes.add(path, "rule-changed", what, _BREAKS[allows], _WHY[allows])


def _added(old: Any, new: Any) -> Allows:
    before, after = set(map(str, old or ())), set(map(str, new or ()))
    if before == after:
        return "same"
    return "more" if before < after else "less" if after < before else "other"


def _threshold(old: Mapping[str, Any], new: Mapping[str, Any]) -> Allows:
    """What the figure a rule counts may be."""
    told = [{name: one[name] for name in _OPERATORS if name in one} for one in (old, new)]
    if told[0] == told[1]:
        return "same"
    spans = [_span(one) for one in told]
    if spans[0] is None or spans[1] is None:
        return "other"
    return interval(spans[0], spans[1])


def _span(told: Mapping[str, Any]) -> tuple[tuple[Any, bool], tuple[Any, bool]] | None:
    none = (None, False)
    match list(told.items()):
        case []:
            return none, none
        case [("mustBe", value)]:
            return (value, False), (value, False)
        case [("mustBeGreaterThan", value)]:
            return (value, True), none
        case [("mustBeGreaterOrEqualTo", value)]:
            return (value, False), none
        case [("mustBeLessThan", value)]:
            return none, (value, True)
        case [("mustBeLessOrEqualTo", value)]:
            return none, (value, False)
        case [("mustBeBetween", [low, high])]:
            return (low, False), (high, False)
    return None


def compare_relations(old: Mapping[str, Any], new: Mapping[str, Any], path: str, changes: Changes) -> None:
    """Foreign keys that came or went."""
    before, after = (
        {_relation(one): one for one in thing.get("relationships") or ()} for thing in (old, new)
    )
    for named in before:
        if named not in after:
            why = "what it pointed to may be missing now"
            changes.add(path, "reference-removed", f"reference {named} removed", CONSUMERS, why)
    for named in after:
        if named not in before:
            why = "what it points to must exist"
            changes.add(path, "reference-added", f"reference {named} added", PRODUCERS, why)


def _relation(one: Mapping[str, Any]) -> str:
    ends = [one.get("from"), one.get("to")]
    told = [", ".join(map(str, end)) if isinstance(end, list) else str(end) for end in ends if end]
    kind = one.get("type") or "foreignKey"
    return " → ".join(told) if kind == "foreignKey" else f"{json.dumps(kind)} {' → '.join(told)}"

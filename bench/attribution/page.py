"""The benchmark's tables for docs/why/sensor-or-machine.md."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from bench.attribution.score import Outcome, Score, score

__all__ = ["confidences", "confusion", "delays", "groups", "in_table", "rivals"]

_COLUMNS = (
    "gain", "offset", "stuck", "noise", "dropout", "loose", "clock",
    "outer_race", "inner_race", "imbalance", "lubrication", "operation", "unknown", "none",
)  # fmt: skip


def in_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table of Markdown."""
    lines = [" | ".join(head), "|".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" if index != 1 else f"|{line}|" for index, line in enumerate(lines))


def _called(one: Outcome) -> str:
    if one.last is not None:
        return one.last.cause
    return one.said[-1].family if one.said else "none"


def confusion(outcomes: Sequence[Outcome]) -> str:
    """What was wrong (rows) and what was said at last (columns), for everything that breaks alone or not at all."""
    counts: dict[str, Counter[str]] = {}
    for one in outcomes:
        if one.episode.group != "healthy" and not one.episode.group.startswith(("pair", "changed")):
            counts.setdefault(one.episode.group, Counter())[_called(one)] += 1
    rows = [[group, *(str(count[column] or "") for column in _COLUMNS)] for group, count in counts.items()]
    return in_table(["truth", *_COLUMNS], rows)


def groups(outcomes: Sequence[Outcome]) -> str:
    """Right family, decided and exact cause of what does not break alone."""
    rows = []
    for group in dict.fromkeys(one.episode.group for one in outcomes):
        if group.startswith(("pair", "changed")):
            part = [one for one in outcomes if one.episode.group == group]
            of = score(part)
            shares = [f"{share:.0f} %" for share in (of.decided, of.family_right, of.exact_cause)]
            sensors = any(one.last is not None and one.last.family == "sensor" for one in part)
            rows.append([group, str(of.episodes), *shares, f"{of.sensor_in_set:.0f} %" if sensors else ""])
    head = [
        "episodes",
        "number",
        "decided",
        "right family",
        "exact cause of one of them",
        "true sensor named",
    ]
    return in_table(head, rows)


def delays(outcomes: Sequence[Outcome]) -> str:
    """Median seconds from onset to the first right verdict, for the slighter, middle and graver third of each cause."""
    of: dict[str, list[tuple[float, float, float]]] = {}
    for one in outcomes:
        group = one.episode.group
        if len(one.episode.faults) != 1 or group.startswith(("pair", "changed")):
            continue
        fault = one.episode.faults[0]
        right = [said for said in one.issued if one.right_family(said)]
        if right:
            size = fault.severity if fault.family == "machine" else _size(fault.kind, fault.to)
            late = right[0].begun - fault.onset
            of.setdefault(group, []).append((size, late, abs(right[-1].onset - fault.onset)))
    rows = []
    for group, known in of.items():
        known.sort()
        third = max(1, len(known) // 3)
        parts = (known[:third], known[third:-third] or known, known[-third:])
        middles = [f"{median(late for _, late, _ in part):.0f}" for part in parts]
        rows.append([group, *middles, f"{median(error for *_, error in known):.0f}"])
    return in_table(["cause", "slight", "middle", "grave", "onset off by"], rows)


def _size(kind: str, to: float | None) -> float:
    if to is None:
        return 0.0
    return abs(to - 1) if kind == "gain" else abs(to)


def confidences(outcomes: Sequence[Outcome]) -> tuple[str, float]:
    """Confidence when first stated against the share that was right in family and sensor; how far apart they are."""
    said = [(v.confidence, one.right(v)) for one in outcomes for v in one.issued]
    rows, apart = [], 0.0
    for low, high in ((0.0, 0.8), (0.8, 0.9), (0.9, 0.97), (0.97, 1.01)):
        part = [(stated, right) for stated, right in said if low <= stated < high]
        if part:
            stated = sum(stated for stated, _ in part) / len(part)
            right = sum(right for _, right in part) / len(part)
            apart += abs(stated - right) * len(part) / len(said)
            rows.append([f"{low:g}-{min(high, 1):g}", str(len(part)), f"{stated:.2f}", f"{right:.2f}"])
    return in_table(["confidence", "verdicts", "stated", "right"], rows), apart


def rivals(scores: Mapping[str, Score]) -> str:
    """Ours and the detectors', on the same episodes."""
    rows = []
    for name, of in scores.items():
        hours = of.quiet_seconds / 3600
        shares = (of.decided, of.family_right, of.wear_called_sensor, of.sensor_in_set)
        rows.append([name, *(f"{share:.0f} %" for share in shares), f"{of.alarms / max(hours, 1e-9):.1f}"])
    head = ["", "decided", "right family", "wear called sensor", "true sensor named", "false alarms an hour"]
    return in_table(head, rows)

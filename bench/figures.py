"""What every benchmark reports, and how: a table for people, one JSON object for machines.

A figure names its goal (`>= 80`, `<= 50`; empty when there is none) and, where one was measured in
the same run on the same work, a peer. `ratio` is always value over peer value.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, structs

__all__ = [
    "Figure",
    "Options",
    "commit",
    "figure",
    "machine",
    "met",
    "options",
    "percentile",
    "publish",
    "table",
]

ROOT = Path(__file__).resolve().parent.parent


class Figure(Struct, frozen=True):
    """One measured number."""

    name: str
    value: float
    unit: str
    goal: str = ""
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None


class Options(Struct, frozen=True):
    """`quick`: end within a minute; `json`: print one object and nothing else on standard output."""

    quick: bool
    json: bool


def options(description: str | None) -> Options:
    """What was asked on the command line; `description` is the benchmark's docstring."""
    parser = argparse.ArgumentParser(
        description=(description or "").strip().partition("\n")[0],
        epilog=(description or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="end within a minute; fewer repetitions")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    asked = parser.parse_args()
    return Options(quick=asked.quick, json=asked.json)


def figure(
    name: str, value: float, unit: str, *, goal: str = "", peer: str = "", peer_value: float | None = None
) -> Figure:
    """A Figure, rounded to four significant digits, with its ratio to the peer."""
    if goal and goal.split(maxsplit=1)[0] not in {">=", "<="}:
        raise ValueError(f'a goal reads ">= 80" or "<= 50", not "{goal}"')
    ratio = None if not peer_value else _short(value / peer_value)
    return Figure(
        name, _short(value), unit, goal, peer, None if peer_value is None else _short(peer_value), ratio
    )


def met(one: Figure) -> bool | None:
    """Whether the goal is reached; None when there is none."""
    if not one.goal:
        return None
    sign, bound = one.goal.split()
    return one.value >= float(bound) if sign == ">=" else one.value <= float(bound)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not exceed; nearest rank."""
    if not values:
        raise ValueError("no values were measured")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def machine() -> str:
    """The machine in one line: processor, cores, memory, system, Python."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}"
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB, {system}, Python {platform.python_version()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """The commit measured, with `+changes` when the tree differs from it; `unknown` outside git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return f"{head}+changes" if _git("status", "--porcelain", "--", "src", "bench") else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def publish(figures: Sequence[Figure], asked: Options) -> None:
    """Print the figures as asked: a table, or exactly one JSON object."""
    if asked.json:
        body = {"figures": [structs.asdict(one) for one in figures], "machine": machine(), "commit": commit()}
        sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
        return
    print(table(figures))
    print(f"\n{machine()}; commit {commit()}")


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = [["figure", "value", "unit", "goal", "met", "peer", "peer value", "ratio"]]
    for one in figures:
        reached = {None: "", True: "yes", False: "**no**"}[met(one)]
        peer_value = "" if one.peer_value is None else _text(one.peer_value)
        ratio = "" if one.ratio is None else f"{_text(one.ratio)} ×"
        rows.append([one.name, _text(one.value), one.unit, one.goal, reached, one.peer, peer_value, ratio])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _text(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1000 else f"{value:g}"

"""How often a sound machine is accused: months of sound presses, judged second by second.

    python -m bench.attribution.quiet --final --minutes 20     go on for so long, then say how far it got

A day is one hall of two presses (`bench.attribution.plant`), its rows drawn without waveforms (`sound`) and judged in
Blocks by `Attribute` itself, learning anew at the day's start. What a day gave is kept under run/drift by a digest of
every source it depends on, so a run that was broken off goes on where it was. An alarm is what a person would have been
called for: sensor, machine or unknown, from its first second to its last; only seconds in which a press runs count.
"""

import argparse
import ast
import hashlib
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from bench.attribution.plant import DAY, RATES, Day, day
from bench.attribution.rows import _TESTING, START
from bench.attribution.sound import rows_of_day
from bench.figures import ROOT
from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.drift import Attribute

__all__ = [
    "DAY",
    "HOUR",
    "MONTH",
    "Alarm",
    "Judged",
    "at_most",
    "by_cause",
    "judged",
    "judged_day",
    "judged_rows",
    "months",
    "table",
]

HOUR = 3600
MONTH = 30 * DAY
"""Seconds of a machine-month."""

_TUNING, _FINAL = 730_000, 980_000
"""Where the seeds of days begin: those that rules may be mended on, and those that are only counted."""
_CALLS = pa.array(["sensor", "machine", "unknown"])
_SAME = 30
"""Seconds in which the same accusation is the same alarm."""
_TELL = ("sentences", "picture", "compensate", "isolability")
"""Of the drift room what decides nothing."""


class Alarm(Struct, frozen=True):
    """One accusation of a sound press, and what had happened before; times in seconds of the day."""

    machine: str
    family: str
    cause: str
    subject: str
    begun: int
    ended: int
    confidence: float
    evidence: str
    since: dict[str, float]
    """Seconds since set-point and load were last changed, the PLC silent, the gateway away, the loop restarted."""

    @property
    def about(self) -> str:
        """What is said, without the machine's name."""
        return " ".join(part for part in (self.family, self.cause, self.subject.partition("/")[2]) if part)


class Judged(Struct, frozen=True):
    """What a day gave."""

    seed: int
    rows: int
    running: int
    """Rows of presses that were to run."""
    alarms: tuple[Alarm, ...]
    families: dict[str, int]
    """Rows per family."""


def judged(seed: int, seconds: int = DAY) -> Judged:
    """A day, or its first seconds, judged."""
    return judged_day(day(seed, seconds), seed)


def judged_day(plan: Day, seed: int) -> Judged:
    """A plan of a day, judged."""
    return judged_rows(rows_of_day(plan, seed), plan, seed)


def judged_rows(batches: Iterator[pa.RecordBatch], plan: Day, seed: int) -> Judged:
    """The rows of a day, judged by the step the loop runs."""
    step, rows, running = Attribute("verdicts"), 0, 0
    families: Counter[str] = Counter()
    restarts = list(plan.restarts)
    open_alarms: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    done: list[list[dict[str, Any]]] = []
    for batch in batches:
        begins = batch.column("at")[0].value if batch.num_rows else 0
        while restarts and START + restarts[0] * SECOND <= begins:
            restarts.pop(0)
            kept, step = step.snapshot(), Attribute("verdicts")
            step.restore(kept)
        running += int(pc.sum(pc.greater(batch.column("setpoint"), 0)).as_py() or 0)
        rows += batch.num_rows
        for told in step.step(Block("health", batch, 0, Position("rows", rows))):
            for one in told.rows.column("family").value_counts().to_pylist():
                families[one["values"]] += one["counts"]
            accused = told.rows.filter(pc.is_in(told.rows.column("family"), _CALLS))
            for row in accused.to_pylist():
                key = (row["subject"], row["family"], row["cause"])
                run = open_alarms.get(key)
                if run is not None and _second(row) - _second(run[-1]) <= _SAME:
                    run.append(row)
                    del run[1:-1]
                else:
                    open_alarms[key] = [row]
                    done.append(open_alarms[key])
    alarms = tuple(_alarm(run, plan) for run in done)
    return Judged(seed, rows, running, alarms, dict(families))


def _second(row: dict[str, Any]) -> int:
    return int(row["at"].timestamp()) - START // SECOND


def _alarm(run: Sequence[dict[str, Any]], plan: Day) -> Alarm:
    first, begun = run[0], _second(run[0])
    index = int(first["machine"].partition("-")[2]) - 1
    since = {
        "set-point": _since(plan.setpoint[index], begun),
        "load": _since(plan.load[index], begun),
        "PLC": _since(plan.heard, begun),
        "restart": min([begun - at for at in plan.restarts if at <= begun], default=-1),
        "lost": min([begun - one.second for one in plan.lost[index] if one.second <= begun], default=-1),
    }
    away = plan.away[: begun + 1].nonzero()[0]
    since["away"] = float(begun - away[-1]) if len(away) else -1
    names = ("machine", "family", "cause", "subject")
    return Alarm(
        **{name: first[name] for name in names},
        begun=begun,
        ended=_second(run[-1]),
        confidence=run[-1]["confidence"],
        evidence=first["evidence"],
        since=since,
    )


def _since(values: Any, second: int) -> float:
    """Seconds since a course of ticks last changed; -1: never."""
    seen = values[: 10 * (second + 1)]
    changed = (seen[1:] != seen[:-1]).nonzero()[0]
    return (len(seen) - 1 - int(changed[-1])) / 10 if len(changed) else -1.0


@cache
def _folder() -> Path:
    """Where the days of the present sources are kept."""
    sources = [Path(__file__).parent / f"{name}.py" for name in ("motion", "spectrum", "plant", "sound")]
    sources += [ROOT / "src/boucle/testing" / f"{name}.py" for name in _TESTING]
    sources += sorted(Path(str(sys.modules[Attribute.__module__].__file__)).parent.glob("*.py"))
    decide = [_code(one) for one in sources if one.stem not in _TELL]
    digest = hashlib.sha256("".join(decide).encode()).hexdigest()[:12]
    return ROOT / "run" / "drift" / f"sound-{digest}"


def _code(file: Path) -> str:
    """What a source does; what it says about it may change without a month being judged again."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [
                one
                for one in node.body
                if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
            ]
    return ast.dump(tree)


def _kept(seconds: int, seed: int) -> Judged:
    file = _file(seed, seconds)
    if file.exists():
        return msgspec.json.decode(file.read_bytes(), type=Judged)
    found = judged(seed, seconds)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(msgspec.json.encode(found))
    unfinished.replace(file)
    return found


def _file(seed: int, seconds: int) -> Path:
    return _folder() / (f"{seed}.json" if seconds == DAY else f"{seed}-{seconds}.json")


def months(
    days: int, workers: int = 1, seconds: int = DAY, first: int = 0, *, tuning: bool = False
) -> Iterator[Judged]:
    """Days of two presses each, or their first `seconds`; what is kept comes at once."""
    begin = first + (_TUNING if tuning else _FINAL)
    seeds = range(begin, begin + days)
    _folder()  # the sources as they are now
    if workers == 1:
        yield from map(partial(_kept, seconds), seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        for done, one in enumerate(pool.map(partial(_kept, seconds), seeds), 1):
            print(f"{days - done} sound days to judge ...", file=sys.stderr, flush=True)
            yield one


def at_most(alarms: int, months: float) -> float:
    """The rate that so few alarms do not contradict, with 95 % confidence, one-sided.

    Exact for a Poisson number: Garwood (1936), *Fiducial limits for the Poisson distribution*, Biometrika 28; none in T
    months: 3/T.
    """
    from scipy.stats import chi2

    return float(chi2.ppf(0.95, 2 * alarms + 2)) / 2 / months


def by_cause(days: Sequence[Judged]) -> str:
    """What was said of sound presses, as a Markdown table."""
    total = sum(one.running for one in days) / MONTH
    found = Counter(alarm.about for one in days for alarm in one.alarms)
    lines = ["| said of a sound press | times | per machine-month | at most, 95 % |", "|---|---|---|---|"]
    for about, count in [*found.most_common(), ("in all", found.total())]:
        lines.append(f"| {about} | {count} | {count / total:.2f} | {at_most(count, total):.2f} |")
    return "\n".join(lines)


def table(days: Sequence[Judged]) -> str:
    """For the page: how long was judged, what was said, and what the plant was like."""
    rows, running = sum(one.rows for one in days), sum(one.running for one in days)
    families = sum((Counter(one.families) for one in days), Counter())
    shares = ", ".join(f"{family} {100 * count / rows:.1f} %" for family, count in families.most_common())
    seconds = (
        f"{rows / MONTH:.2f} machine-months judged second by second, {running / MONTH:.2f} of them running"
    )
    plant = "\n".join(f"| {what} | {how} |" for what, how in RATES.items())
    return f"{by_cause(days)}\n\n{seconds}; what was said, by rows: {shares}.\n\n| the plant | |\n|---|---|\n{plant}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--days", type=int, default=54, help="days of two presses (default 54: three months)")
    parser.add_argument(
        "--first", type=int, default=0, help="begin with this day, so that two can share the work"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no day after so many minutes")
    parser.add_argument(
        "--final", action="store_true", help="the days that are counted, not those for tuning"
    )
    parser.add_argument("--each", action="store_true", help="print every alarm")
    asked = parser.parse_args()
    end = time.monotonic() + 60 * asked.minutes
    seed, days = (_FINAL if asked.final else _TUNING), list[Judged]()
    for index in range(asked.first, asked.first + asked.days):
        if _file(seed + index, DAY).exists() or time.monotonic() < end:
            days += months(1, first=index, tuning=not asked.final)
    for one in days if asked.each else ():
        for alarm in one.alarms:
            print(one.seed, json.dumps(msgspec.to_builtins(alarm)))
    print(table(days))


if __name__ == "__main__":
    main()

"""Objectives of a running loop: measured beside the path, kept in the run's folder, told when their budget burns."""

import math
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from boucle.block import Block, Position
from boucle.clock import SECOND, Clock, Nanos
from boucle.errors import BoucleError, Unavailable
from boucle.event import Event, Outcome, Receipt, Severity
from boucle.lake import LakeTable
from boucle.loop.intake import Intake
from boucle.loop.view import BurnView, ObjectiveView
from boucle.product.project import Project
from boucle.product.sla import Objective, Sla, compile_sla
from boucle.quality.slo.budget import Burn, Rule, rules_for, standing
from boucle.quality.slo.counts import MINUTE_MS, Cell, Minutes
from boucle.quality.slo.history import Counted, History, Past, history_cells, minutes_of
from boucle.quality.slo.measures import Measure, measure_of
from boucle.quality.slo.truth import Truth

__all__ = ["Objectives", "in_words", "sla_of", "view_of", "views_of"]

_MINUTE = MINUTE_MS * SECOND // 1000
_KEEP_EVERY = 10 * SECOND
"""Between two entries of the history; a kill loses the rows that were counted since the last."""
_PATIENCE = 1.0
"""Seconds that a probe waits for an answer."""


def sla_of(project: Project) -> Sla:
    """What a product promises of its service; it was checked when the project was read."""
    return compile_sla(project.contract, project.loop, project.contracts)[0]


class _Objective:
    """One objective at work."""

    def __init__(self, objective: Objective, measure: Measure) -> None:
        self.objective, self.measure = objective, measure
        self.minutes: Minutes = minutes_of(objective)
        self.rules = rules_for(objective.target, objective.window)
        self.fresh: dict[int, list[int]] = {}
        """Minute → good and total since the last entry of the history."""
        self.counted: Position | None = None
        """Rows up to here were counted by a run before."""
        self.reached: Position | None = None
        self.within: Position | None = None
        """The Block that rows come of now, and the last one that is whole."""

    def count(self, cells: Iterable[Cell]) -> None:
        for minute, good, total in cells:
            self.minutes.add(minute, good, total)
            fresh = self.fresh.setdefault(minute, [0, 0])
            fresh[0] += good
            fresh[1] += total

    def see(self, block: Block, now: Nanos) -> None:
        position = block.position
        if self.within is not None and position != self.within:
            self.reached = self.within
        self.within = position
        before = self.counted
        if before is not None and position.partition == before.partition and position.offset <= before.offset:
            return
        self.count(self.measure.see(block, now))

    def mark(self) -> dict[str, Any]:
        reached = self.reached or self.counted
        told = [reached.partition, reached.offset] if reached else None
        return {"mark": self.measure.mark(), "reached": told}

    def resume(self, minutes: Minutes, mark: Any) -> None:
        self.minutes = minutes
        if not isinstance(mark, dict):
            return
        self.measure.resume(mark.get("mark"))
        match mark.get("reached"):
            case [str(partition), int(offset)]:
                self.counted = Position(partition, offset)


class Objectives:
    """The objectives of one product. `look` often, from beside the path; safe to use from several threads."""

    def __init__(
        self,
        sla: Sla,
        project: Project,
        folder: Path,
        intakes: Mapping[str, Intake],
        clock: Clock,
        tell: Callable[[Event], None],
    ) -> None:
        self.sla = sla
        self._project, self._folder, self._intakes, self._clock, self._tell = (
            project,
            folder,
            intakes,
            clock,
            tell,
        )
        self._all = [_Objective(one, self._measure(one)) for one in self.sla.objectives]
        self._history = History(folder)
        self._firing: dict[str, Nanos] = {}
        self._kept: Nanos = 0
        self._judged = 0
        """The second in which budgets were looked at."""
        self._open = False
        self._lock = threading.Lock()

    @property
    def streams(self) -> set[str]:
        """The streams whose Blocks it wants to see."""
        return {one.objective.stream for one in self._all} - {""}

    def _measure(self, objective: Objective) -> Measure:
        truth = None
        if objective.reference is not None:
            contract = self._project.contracts.get(objective.element)
            time = contract.time if contract else "at"
            truth = Truth(objective.reference, objective.column, time, self._project.folder)

        def ask() -> bool | None:
            return self._answers(objective)

        def count() -> tuple[int, int]:
            return self._tally(objective)

        return measure_of(objective, ask, count, truth)

    def _answers(self, objective: Objective) -> bool | None:
        if objective.probe:
            return _answers(objective.probe)
        if not objective.table:
            states = [self._intakes[name].source.state() for name in objective.sources]
            return all(state in {"connected", "finished"} for state in states)
        spec = self._project.loop.tables[objective.table]
        return _readable(self._folder / "lake" / spec.zone / objective.table)

    def _tally(self, objective: Objective) -> tuple[int, int]:
        good = total = 0
        for name in objective.sources:
            counted = self._intakes[name].counted()
            bad = counted.quarantined
            if objective.measure == "completeness":
                bad += counted.late + counted.shed
                total += counted.stored + bad
                good += counted.stored
            else:
                total += counted.received - counted.pending
                good += counted.received - counted.pending - bad
        return good, total

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Go on where the run before left off."""
        if not self._all:
            return
        past = self._history.open(self._project.id, self.sla, self._clock.now())
        for one in self._all:
            one.resume(past.minutes[one.objective.id], past.marks.get(one.objective.id))
        self._firing, self._open = past.firing, True
        self._kept = self._clock.now()

    def see(self, block: Block) -> None:
        """A Block flowed by."""
        now = self._clock.now()
        with self._lock:
            for one in self._all:
                if one.objective.stream == block.stream:
                    one.see(block, now)

    def receipt(self, receipt: Receipt) -> None:
        """A command was answered: done and read back after so long, or never."""
        seconds = math.inf
        if receipt.outcome is Outcome.applied:
            if receipt.latency_ms is None or not isinstance(receipt.read_back, int | float):
                return
            seconds = receipt.latency_ms / 1000
        elif receipt.outcome not in {Outcome.failed, Outcome.expired}:
            return
        now = self._clock.now()
        with self._lock:
            for one in self._all:
                one.count(one.measure.took(seconds, now))

    def look(self) -> None:
        """Count the time that passed, tell what burns and what no longer does, and keep the history now and then."""
        if not self._open:
            return
        now = self._clock.now()
        for one in self._all:
            one.measure.ask(now)
        with self._lock:
            for one in self._all:
                one.count(one.measure.look(now))
            told = list(self._judge(now)) if now // SECOND != self._judged else []
        for event in told:
            self._tell(event)
        if told or abs(now - self._kept) >= _KEEP_EVERY:
            self._keep(now)

    def _judge(self, now: Nanos) -> Iterable[Event]:
        self._judged, minute = now // SECOND, now // _MINUTE
        for one in self._all:
            stands = standing(one.minutes, one.objective.target, one.objective.window, minute, one.rules)
            graver = False
            for burn in stands.burns:
                name = f"{one.objective.id}/{burn.rule.name}"
                began = self._firing.get(name)
                if began is not None and not burn.fires:
                    del self._firing[name]
                    yield _over(self._project.id, one.objective, burn.rule, stands.left, began, now)
                elif burn.fires and began is None and not graver:
                    self._firing[name] = now
                    yield _burns(self._project.id, one.objective, burn, stands.left, now)
                # Who was told that it burns fast needs not be told that it burns.
                graver = graver or burn.fires

    def _keep(self, now: Nanos) -> None:
        with self._lock:
            fresh = {one.objective.id: one.fresh for one in self._all if one.fresh}
            cells = {
                name: [(minute, good, total) for minute, (good, total) in told.items()]
                for name, told in fresh.items()
            }
            marks = {one.objective.id: one.mark() for one in self._all}
            entry = Counted(now, cells, marks, dict(self._firing))
            for one in self._all:
                one.fresh = {}
            self._kept = now
        try:
            self._history.append(entry)
        except Unavailable:
            with self._lock:  # a disk that is full: with the next
                for one in self._all:
                    _put_back(one.fresh, cells.get(one.objective.id, ()))
            raise

    def close(self) -> None:
        """Keep what was counted. Safe to call twice."""
        if not self._open:
            return
        self._open = False
        try:
            self._keep(self._clock.now())
        finally:
            self._history.close()

    def view(self) -> tuple[ObjectiveView, ...]:
        """Where every objective stands."""
        minute = self._clock.now() // _MINUTE
        with self._lock:
            return tuple(
                view_of(one.objective, one.minutes, minute, self._firing, one.measure.why)
                for one in self._all
            )


def _put_back(fresh: dict[int, list[int]], cells: Iterable[Cell]) -> None:
    for minute, good, total in cells:
        held = fresh.setdefault(minute, [0, 0])
        held[0] += good
        held[1] += total


def views_of(past: Past) -> list[ObjectiveView]:
    """The objectives of a run as they stood when it last said so."""
    minute = past.at // (MINUTE_MS * 10**6)
    return [view_of(one, past.minutes[one.id], minute, past.firing) for one in past.sla.objectives]


def view_of(
    objective: Objective, minutes: Minutes, minute: int, firing: Iterable[str], why: str = ""
) -> ObjectiveView:
    """An objective as screens show it, in the minute `minute`."""
    rules = rules_for(objective.target, objective.window)
    stands = standing(minutes, objective.target, objective.window, minute, rules)
    return ObjectiveView(
        id=objective.id,
        measure=objective.measure,
        element=".".join(filter(None, (objective.element, objective.column))),
        bound=objective.bound,
        target=objective.target,
        window_s=objective.window,
        by_time=objective.by_time,
        good=stands.good,
        total=stands.total,
        compliance=stands.compliance,
        left=stands.left,
        burns=tuple(
            BurnView(
                burn.rule.name, burn.rule.burn, burn.long, burn.short, 60.0 * burn.rule.long, 60.0 * burn.rule.short,
                f"{objective.id}/{burn.rule.name}" in firing,
            )
            for burn in stands.burns
        ),
        exhausts_s=stands.exhausts,
        history=tuple((60.0 * ago, share) for ago, share in history_cells(minutes, minute)),
        driver=objective.driver,
        description=objective.description,
        why=why,
    )  # fmt: skip


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as answer:  # noqa: S310 - http(s) only, see the compiler
            return bool(answer.status < 500)
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError):
        return False


def _readable(table: Path) -> bool | None:
    """Whether the newest version of a table can be read; None while there is none."""
    if not table.exists():
        return None
    try:
        files = LakeTable(table).files()
        if files:
            pq.read_metadata(files[-1].path)
    except (BoucleError, OSError, ValueError):
        return False
    return True if files else None


_NAMES = {
    "freshness": ("freshness", "fraîcheur"),
    "frequency": ("frequency", "fréquence"),
    "latency": ("latency", "latence"),
    "throughput": ("throughput", "débit"),
    "availability": ("availability", "disponibilité"),
    "completeness": ("completeness", "complétude"),
    "accuracy": ("accuracy", "exactitude"),
    "errorRate": ("error rate", "taux d'erreur"),
}


def _named(objective: Objective) -> tuple[str, str]:
    en, fr = _NAMES[objective.measure]
    of = objective.element
    return (f"{en} of {of}", f"{fr} de {of}") if of else (en, fr)


def in_words(seconds: float, *, french: bool = False) -> str:
    """A duration as a sentence has it: 2.5 h."""
    for unit, size in (("j" if french else "d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            text = f"{seconds / size:.3g} {unit}"
            return text.replace(".", ",") if french else text
    return f"{seconds:.0f} s"


def _burns(product: str, objective: Objective, burn: Burn, left: float, now: Nanos) -> Event:
    en, fr = _named(objective)
    rule, rate = burn.rule, f"{burn.long:.3g}"
    spans = [
        (in_words(60 * rule.long, french=french), in_words(60 * rule.short, french=french))
        for french in (False, True)
    ]
    window = [in_words(objective.window, french=french) for french in (False, True)]
    says = {
        "en": f"{en}: the error budget of {window[0]} burns {rate} times too fast "
        f"(over {spans[0][0]} and {spans[0][1]}); {max(left, 0):.0%} of it is left.",
        "fr": f"{fr} : le budget d'erreur de {window[1]} se consume {rate.replace('.', ',')} fois trop vite "
        f"(sur {spans[1][0]} et {spans[1][1]}) ; il en reste {100 * max(left, 0):.0f} %.",
    }
    evidence = {"target": objective.target, "burn_long": burn.long, "burn_short": burn.short, "left": left}
    return Event(
        f"slo-{objective.id}-{rule.name}-{now}", product, f"slo {objective.id}", f"slo_burn_{rule.name}", now,
        rule.severity, says, {name: round(value, 6) for name, value in evidence.items()},
    )  # fmt: skip


def _over(product: str, objective: Objective, rule: Rule, left: float, began: Nanos, now: Nanos) -> Event:
    en, fr = _named(objective)
    took = [in_words(max(0, now - began) / SECOND, french=french) for french in (False, True)]
    says = {
        "en": f"{en}: the error budget no longer burns too fast (after {took[0]}); {max(left, 0):.0%} of it is left.",
        "fr": f"{fr} : le budget d'erreur ne se consume plus trop vite (après {took[1]}) ; "
        f"il en reste {100 * max(left, 0):.0f} %.",
    }
    evidence = {"left": round(left, 6) if math.isfinite(left) else 0.0, "seconds": (now - began) / SECOND}
    return Event(
        f"slo-{objective.id}-{rule.name}-{began}-over", product, f"slo {objective.id}", f"slo_burn_{rule.name}_over",
        now, Severity.info, says, evidence,
    )  # fmt: skip

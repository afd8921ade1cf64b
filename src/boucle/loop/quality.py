"""The contract's rules about whole streams, held while they flow: beside the path, from the durable logs.

What one reading alone can break is refused where it comes in (`quality.check`). The rest (uniqueness over all time,
foreign keys, row counts, freshness, tolerances, and every rule of a derived table) is counted here: a thread reads each
log behind the path, Block by Block, into a mergeable state, and keeps that state with the row it belongs to. So the
decision path pays nothing, and a restart counts every row once. Rules against history compare hour with hour; queries
are asked of the table behind the stream (`quality_sql`).
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from boucle.block import Block, Position
from boucle.bus.log import EventLog, Group, Retention
from boucle.bus.log_groups import committed_rows
from boucle.clock import SECOND, Clock, Nanos
from boucle.errors import PositionLost, Unavailable
from boucle.event import Event, Severity
from boucle.loop.intake import Intake
from boucle.loop.outcomes import OutcomeBook
from boucle.loop.parts import replace_file
from boucle.loop.plan import find_operator
from boucle.loop.quality_sql import TableQuestions
from boucle.loop.view import QualityView
from boucle.product.contract import StreamContract
from boucle.product.project import Project
from boucle.product.rules import Rule
from boucle.quality.history import History
from boucle.quality.ledger import Ledger
from boucle.quality.state import Function, TableState
from boucle.quality.table_check import failing_rows
from boucle.quality.verdict import Outcome, judge

__all__ = ["GROUP", "QualityWatch", "watched_streams"]

_log = logging.getLogger("boucle.loop.quality")

GROUP = "quality"
"""The consumer group that stands for the counting in each log that forgets."""

_PERIOD = 3600.0
"""Seconds of the clock that rules against history compare."""
_SAVE_EVERY = 30.0
_NOTE_EVERY = 10.0
"""Seconds of the clock between two points of a rule's course."""
_JUDGE_EVERY = 2.0
"""Foreign keys are counted anew each time: not for every Block."""
_ASK_EVERY = 60.0
"""Seconds between two looks whether a table that a query is about has changed."""
_AT_ONCE = 50_000
"""Rows of a log that are looked at before the next log has its turn."""
_KEPT_OF_A_RULE = 100
_ROOM = 64 << 20
_AGAINST_HISTORY = {"anomaly", "distribution"}
_SEVERITIES = {"info": Severity.info, "warning": Severity.warning, "error": Severity.alarm}


def watched_streams(project: Project) -> dict[str, tuple[str, StreamContract, tuple[Rule, ...]]]:
    """Schema object → its stream, its contract, and the rules left to be counted; only where there are any.

    A schema object is that of a source, or the table of its name. A source's readings were refused one by one for
    what one value can break, and have the declared types: those rules are not counted again.
    """
    sources = {spec.schema: name for name, spec in reversed(project.loop.sources.items())}
    found = {}
    for name, contract in project.contracts.items():
        if name in sources:
            rules = tuple(rule for rule in contract.rules if not rule.refuses and rule.kind != "type")
            stream = sources[name]
        elif name in project.loop.tables:
            rules, stream = contract.rules, project.loop.tables[name].from_
        else:
            continue
        if rules:
            found[name] = (stream, contract, rules)
    return found


class _Saved(Struct):
    rules: bytes
    position: Position
    state: bytes


class _Watched:
    """One stream: its log, how far it was counted, and what is known."""

    def __init__(self, table: str, log: EventLog, rules: Sequence[Rule], folder: Path,
                 functions: Mapping[str, Function], references: Sequence[tuple[str, ...]]) -> None:  # fmt: skip
        self.table, self.log, self.folder = table, log, folder
        self.rules = [rule for rule in rules if rule.kind not in _AGAINST_HISTORY]
        self.historic = [rule for rule in rules if rule.kind in _AGAINST_HISTORY]
        self._functions = functions
        self._mark = msgspec.msgpack.encode([self.rules, references])
        self.state = TableState(self.rules, folder, functions=functions, references=references)
        self.period = TableState(self.historic)
        self.position: Position | None = None
        self.outcomes: tuple[Outcome, ...] = ()
        self.compared: tuple[Outcome, ...] = ()
        self._saved: Position | None = None
        self._group: Group | None = None

    def open(self) -> None:
        """Go on from what was kept; from the log's beginning when the rules are other ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.log.keep != Retention():
            self._group = self.log.group(
                GROUP
            )  # what was not counted yet, or would be again, is not forgotten
        try:
            kept = msgspec.msgpack.decode((self.folder / "state").read_bytes(), type=_Saved)
            if kept.rules == self._mark:
                self.state.load(kept.state)
                self.position = self._saved = kept.position
        except FileNotFoundError:
            pass
        except (msgspec.MsgspecError, OSError, ValueError) as error:
            _log.warning("%s: what was counted cannot be read, it is counted anew: %s", self.folder, error)

    def step(self, failing: Callable[[Rule, Any], None]) -> bool:
        """Count some rows in; whether there may be more."""
        rows = 0
        try:
            for block in self.log.read(self.position, _AT_ONCE):
                self._count(block, failing)
                rows += len(block)
        except PositionLost:
            lost = self.log.start()
            _log.warning(
                "%s: rows up to %d are gone from the log and were not counted", self.table, lost.offset
            )
            self.position = lost
            return True
        return rows >= _AT_ONCE

    def _count(self, block: Block, failing: Callable[[Rule, Any], None]) -> None:
        found = self.state.update(block.rows)
        self.period.update(block.rows)
        self.position = block.position
        for rule in self.rules:
            if rule.id in found:
                failing(rule, lambda bad=found[rule.id]: block.rows.filter(_mask(bad)))

    def save(self) -> None:
        """Keep what was counted, when anything was since."""
        if self.position is None or self.position == self._saved:
            return
        state = self.state.save()
        replace_file(self.folder / "state", msgspec.msgpack.encode(_Saved(self._mark, self.position, state)))
        self._saved = self.position
        self.state.sweep()
        if self._group is not None:
            self._group.commit(self.position)


def _mask(bad: Any) -> Any:
    import pyarrow as pa

    return pa.array(bad)


class QualityWatch:
    """Counts the rules of every watched stream. One thread calls `step`; `view` may be called by any."""

    def __init__(
        self,
        project: Project,
        logs: Mapping[str, EventLog],
        folder: Path,
        clock: Clock,
        tell: Callable[[Event], None],
        intakes: Mapping[str, Intake] | None = None,
        lake: str = "",
    ) -> None:
        self._project, self._clock, self._tell = project, clock, tell
        self._intakes = dict(intakes or {})
        self._folder = folder / "quality"
        self._history = History(self._folder / "history.ndjson")
        wanted = {name: one for name, one in watched_streams(project).items() if one[0] in logs}
        references: dict[str, list[tuple[str, ...]]] = {}
        for _, _, rules in wanted.values():
            for rule in rules:
                if rule.kind == "foreign_key":
                    references.setdefault(rule.given["table"], []).append(tuple(rule.given["keys"]))
        for table in references:  # a table that others lead to is counted even when it has no rule of its own
            for stream, spec in project.loop.sources.items():
                if spec.schema == table and table not in wanted and stream in logs:
                    wanted[table] = (stream, project.contracts[table], ())
        self.watched = {
            name: _Watched(
                name, logs[stream], rules, self._folder / "state" / name,
                {rule.id: find_operator(rule.given["use"], project.folder) for rule in rules if rule.kind == "python"},
                references.get(name, []),
            )
            for name, (stream, _, rules) in wanted.items()
        }  # fmt: skip
        self._book = OutcomeBook(folder)
        self._questions = TableQuestions(
            project.loop, lake, {name: (stream, rules) for name, (stream, _, rules) in wanted.items()}
        )
        self._failing: Ledger | None = None
        self._shown: Counter[tuple[str, str]] = Counter()
        self._broken: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._due = _Due(clock)
        watched = {one.log.stream for one in self.watched.values()}
        self._others = [log for log in logs.values() if log.stream not in watched]

    def open(self) -> None:
        """Go on from where the counting was."""
        for log in self._others:
            if GROUP in committed_rows(log.folder):
                log.group(GROUP).forget()  # of rules that are gone: they must not hold the log back
        if self.watched:
            self._failing = Ledger(self._folder / "failing.ndjson")
        for one in self.watched.values():
            one.open()
        self._due.restart()

    def step(self) -> bool:
        """Count what the logs have gained, judge now and then; whether there may be more."""
        if self._failing is None:
            return False
        more = False
        for one in self.watched.values():
            more = one.step(self._keep_failing) or more
        if self._due.ask(_ASK_EVERY):
            self._questions.ask(self._clock.now())
        if self._due.judge(_JUDGE_EVERY):
            self._judge()
        if self._due.note(_NOTE_EVERY):
            self._note()
        if self._due.period(_PERIOD):
            self._compare()
        if self._due.save(_SAVE_EVERY):
            self.save()
        return more

    def save(self) -> None:
        """Keep what was counted. A disk that takes nothing is tried again later."""
        try:
            for one in self.watched.values():
                one.save()
            if self._failing is not None:
                self._failing.flush()
        except (Unavailable, OSError) as error:
            _log.warning("what quality rules counted is not kept yet: %s", error)

    def _note(self) -> None:
        try:
            self._book.add(self._clock.now(), self.view())
        except OSError as error:
            _log.warning("how the quality rules came out is not kept yet: %s", error)

    def close(self) -> None:
        """Count what is left, judge, keep. Safe to call twice."""
        if self._failing is None:
            return
        while self.step():
            pass
        self._judge()
        self._note()
        self.save()
        try:
            self._failing.close()
        except Unavailable as error:
            _log.warning("rows that break rules are not kept: %s", error)
        self._failing = None

    def _judge(self) -> None:
        now = self._clock.now()
        states = {name: one.state for name, one in self.watched.items()}
        for one in self.watched.values():
            if not one.state.rows:
                continue  # nothing came yet: nothing to be said of it
            one.outcomes = self._questions.answered(judge(one.rules, one.state.measured(states), (), now))
            for outcome in one.outcomes:
                self._say(outcome, now)

    def _compare(self) -> None:
        """The hour that is over, with those before it."""
        now = self._clock.now()
        for one in self.watched.values():
            if one.historic:
                measured = one.period.measured()
                name = f"{one.table}/hour"
                one.compared = judge(one.historic, measured, self._history.of(name), now)
                self._history.add(now, name, measured, one.compared)
                one.period = TableState(one.historic)
                for outcome in one.compared:
                    self._say(outcome, now)

    def _say(self, outcome: Outcome, now: Nanos) -> None:
        """An Event when a rule is broken, and when it is kept again; not for every row."""
        key = (outcome.table, outcome.rule)
        if outcome.state == "unknown" or (outcome.state == "broken") == (key in self._broken):
            return
        broken = outcome.state == "broken"
        (self._broken.add if broken else self._broken.discard)(key)
        severity = _SEVERITIES[outcome.severity] if broken else Severity.info
        en, fr = _sentences(outcome, broken=broken)
        self._tell(
            Event(
                id=f"quality-{outcome.table}-{outcome.rule}-{now}", product=self._project.id, subject=outcome.table,
                kind="quality_broken" if broken else "quality_kept", at=now, severity=severity,
                evidence={"rule": outcome.rule, "measured": outcome.measured, "wanted": outcome.wanted,
                          "impact": outcome.impact, "failed": outcome.failed, "checked": outcome.checked},
                says={"en": en, "fr": fr},
            )
        )  # fmt: skip

    def _keep_failing(self, rule: Rule, rows: Callable[[], Any]) -> None:
        assert self._failing is not None
        key = (rule.table, rule.id)
        left = _KEPT_OF_A_RULE - self._shown[key]
        if left <= 0 or self._failing.size() > _ROOM:
            return
        import pyarrow as pa

        kept = failing_rows(rule, pa.Table.from_batches([rows().slice(0, left)]))
        self._shown[key] += len(kept)
        try:
            for one in kept:
                self._failing.append(msgspec.json.encode(one, enc_hook=str))
        except Unavailable as error:
            _log.warning("rows that break %s are not kept: %s", rule.id, error)

    def view(self) -> tuple[QualityView, ...]:
        """Rule by rule: checked, failed, and what was measured; what sources refuse for a rule included."""
        views = []
        for source, intake in self._intakes.items():
            received = intake.counted().received
            views += [
                QualityView(
                    source, rule.id, rule.severity, "refuses", received, intake.refused.get(rule.id, 0)
                )
                for rule in intake.contract.rules
                if rule.refuses
            ]
        for one in self.watched.values():
            views += [
                QualityView(out.table, out.rule, out.severity, out.state, out.checked, out.failed, out.why,
                            out.measured, out.wanted)
                for out in (*one.outcomes, *one.compared)
            ]  # fmt: skip
        return tuple(views)


class _Due:
    """When the next of each is, by the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[str, Nanos] = {}

    def restart(self) -> None:
        """Count from now."""
        now = self._clock.now()
        self._last = {"ask": 0, "judge": 0, "note": now, "period": now, "save": now}

    def _is(self, name: str, seconds: float) -> bool:
        now = self._clock.now()
        if now - self._last[name] < int(seconds * SECOND):
            return False
        self._last[name] = now
        return True

    def ask(self, seconds: float) -> bool:
        """Whether it is time to look at the tables."""
        return self._is("ask", seconds)

    def judge(self, seconds: float) -> bool:
        """Whether it is time to say what the numbers mean."""
        return self._is("judge", seconds)

    def note(self, seconds: float) -> bool:
        """Whether it is time for a point of each rule's course."""
        return self._is("note", seconds)

    def period(self, seconds: float) -> bool:
        """Whether a period is over."""
        return self._is("period", seconds)

    def save(self, seconds: float) -> bool:
        """Whether it is time to keep what was counted."""
        return self._is("save", seconds)


def _sentences(outcome: Outcome, *, broken: bool) -> tuple[str, str]:
    measured = "–" if outcome.measured is None else f"{outcome.measured:g}"
    if not broken:
        return (
            f"{outcome.table}: {outcome.rule} is kept again.",
            f"{outcome.table} : {outcome.rule} est à nouveau tenue.",
        )
    return (
        f"{outcome.table}: {outcome.rule} is broken: {measured} where {outcome.wanted} was promised.",
        f"{outcome.table} : {outcome.rule} n'est pas tenue : {measured.replace('.', ',')} au lieu de {outcome.wanted}.",
    )

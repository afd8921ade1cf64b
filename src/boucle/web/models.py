"""What the page of models shows, made from ScoreViews: who scores, how fast and dear, how well, on what evidence."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from boucle.event import Event
from boucle.loop.view import LoopView, ScoreView, StepView, VersionView
from boucle.loop.view_models import ChangeView, FigureView, ReasonView, TrialView
from boucle.serve.monitor.service import quantile_of
from boucle.web.speech import NONE, Speech, local

__all__ = ["ModelPanel", "events_of_models", "panels_of"]

_FIGURES = ("auc", "f1", "precision", "recall", "calibration_error", "base_rate", "mae", "rmse", "bias")
_ARMS = ("champion", "canary", "shadow", "previous", "fallback", "past")
_GROUPS = 8
"""Rows of the table of quality; the worst stand first."""
_DRIFTED = 6
_SMALL = -4
"""The power of ten below which a price is told with one."""
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_KINDS = ("model_", "data_drift", "concept_drift")


class Who(Struct, frozen=True):
    """A version in an arm."""

    arm: str
    name: str
    since: str
    by: str
    rows: str
    p50: str
    p95: str
    cost: str
    past: bool


class Cell(Struct, frozen=True):
    """One figure: as measured and its error of sampling, as estimated, and what is usual."""

    value: str = ""
    error: str = ""
    estimated: str = ""
    usual: str = ""
    unusual: bool = False


class Doing(Struct, frozen=True):
    """How well a version does, for a group."""

    name: str
    labels: str
    share: float
    """Of the window's rows that have a label."""
    window: str
    cells: tuple[Cell, ...]
    unusual: bool


class Fact(Struct, frozen=True):
    """A line of a list: what, how much, and how full a bar is (None: no bar)."""

    name: str
    value: str
    share: float | None = None
    bad: bool = False


class Change(Struct, frozen=True):
    """A change of roles."""

    when: str
    says: str
    detail: str


class Reason(Struct, frozen=True):
    """What an input added; `width` of the longest, `more` whether it speaks for a higher score."""

    feature: str
    value: str
    added: str
    width: float
    more: bool


class ModelPanel(Struct, frozen=True):
    """One step that scores, ready to be shown; `state` is normal or attention."""

    step: str
    title: str
    state: str
    troubles: tuple[str, ...]
    rate: str
    p50: str
    p95: str
    deadline: str
    late: bool
    """Whether p95 lies beyond the deadline."""
    fallback: str
    fallback_why: str
    unscored: str
    unscored_why: str
    rows: str
    cost: str
    cpu: str
    who: tuple[Who, ...]
    figures: tuple[str, ...]
    doing: tuple[Doing, ...]
    quality_watched: bool
    shadow: tuple[Fact, ...]
    shadow_name: str
    trial: tuple[Fact, ...]
    trial_name: str
    trial_there: bool
    changes: tuple[Change, ...]
    drift: tuple[str, ...]
    drift_said: str
    reasons: tuple[Reason, ...]
    reasons_of: str


def events_of_models(events: Sequence[Event]) -> list[Event]:
    """What was told of models and of drift."""
    return [event for event in events if event.kind.startswith(_KINDS)]


def panels_of(view: LoopView, speech: Speech) -> list[ModelPanel]:
    """A panel for each step that scores, in path order."""
    steps = {one.id: one for one in view.steps}
    watched = any(one.use.rpartition(":")[2] == "Performance" for one in view.steps)
    return [_panel(one, steps.get(one.step), speech, watched=watched) for one in view.scores]


def _panel(one: ScoreView, step: StepView | None, speech: Speech, *, watched: bool) -> ModelPanel:
    fallback, unscored = sum(one.fallback.values()), sum(one.unscored.values())
    doing, figures = _doing(one.figures, speech)
    p95_s = math.nan if step is None else step.p95_us / 1e6
    late = bool(one.deadline_s) and p95_s > one.deadline_s
    drifted = [verdict for verdict in one.drift if verdict.drifted]
    wrong = bool(one.troubles) or late or bool(drifted) or any(row.unusual for row in doing)
    deadline = speech("models.deadline", deadline=_seconds(one.deadline_s, speech)) if one.deadline_s else ""
    cpu = sum(version.cpu_s for version in one.versions if version.arm != "shadow")
    return ModelPanel(
        step=one.step,
        title=speech.said(one.title),
        state="attention" if wrong else "normal",
        troubles=tuple(speech.name("trouble", name) for name in one.troubles),
        rate=speech.quantity(step.rows_per_s, "rows/s", None if step.rows_per_s >= 0.1 else 0)
        if step
        else NONE,
        p50=speech.micros(step.p50_us) if step else NONE,
        p95=speech.micros(step.p95_us) if step else NONE,
        deadline=deadline or speech("models.no_deadline"),
        late=late,
        fallback=speech.number(fallback, 0),
        fallback_why=_counted(one.fallback, speech),
        unscored=speech.number(unscored, 0),
        unscored_why=_counted(one.unscored, speech),
        rows=speech("models.of_rows", rows=speech.number(one.rows, 0)),
        cost=_cost(
            math.fsum(v.cost for v in one.versions if v.arm != "shadow"), one.rows, one.currency, speech
        ),
        cpu=speech("models.cpu", cpu=speech.span(cpu)),
        who=tuple(_who(one, speech)),
        figures=tuple(speech.name("figure", name) for name in figures),
        doing=doing,
        quality_watched=watched,
        shadow=tuple(_shadow(one.shadow, speech)),
        shadow_name=str(one.shadow.get("shadow", "")),
        trial=tuple(_trial(one.trial, speech)) if one.trial else (),
        trial_name=_named(one.trial) if one.trial else "",
        trial_there=one.trial is not None,
        changes=tuple(_change(change, speech) for change in one.changes),
        drift=tuple(speech.said(verdict.says) for verdict in drifted[-_DRIFTED:]),
        drift_said=_drift_said(one, speech),
        reasons=_reasons(one.reasons, speech),
        reasons_of=_of(one.reasons, speech),
    )


def _seconds(seconds: float, speech: Speech) -> str:
    return speech.micros(1e6 * seconds)


def _counted(counts: Mapping[str, int], speech: Speech) -> str:
    worst = sorted(counts.items(), key=lambda one: -one[1])
    return ", ".join(
        f"{speech.name('trouble', name)} {speech.number(count, 0)}" for name, count in worst if count
    )


def _cost(cost: float, rows: int, currency: str, speech: Speech) -> str:
    """Of 1000 predictions; a dash where no tariff is declared or nothing was scored."""
    if not rows or not math.isfinite(cost):
        return NONE
    each = 1000 * cost / rows
    power = math.floor(math.log10(each)) if each > 0 else 0
    if power >= _SMALL:
        return f"{speech.number(each, max(2, 1 - power))}\u00a0{currency}"
    return f"{speech.number(each / 10.0**power, 1)}\u00a0·\u00a010{str(power).translate(_RAISED)}\u00a0{currency}"


# ── who scores ────────────────────────────────────────────────────────────────────────────────


def _who(one: ScoreView, speech: Speech) -> Iterator[Who]:
    counted = {(version.arm, version.name, version.version): version for version in one.versions}
    for arm in sorted(one.arms, key=lambda arm: _ARMS.index(arm.arm)):
        version = counted.pop((arm.arm, arm.name, arm.version), None)
        since = _day(arm.since, speech) if arm.since else NONE
        by = speech("models.by", by=arm.by) if arm.by else ""
        yield _row(arm.arm, f"{arm.name} {arm.version}", since, by, version, one, speech)
    for (arm_of, name, number), version in sorted(counted.items(), key=lambda item: -item[1].rows)[:4]:
        if version.rows:
            past = arm_of if arm_of == "fallback" else "past"
            yield _row(past, f"{name} {number}", "", "", version, one, speech)


def _row(
    arm: str, name: str, since: str, by: str, version: VersionView | None, one: ScoreView, speech: Speech
) -> Who:
    rows = version.rows if version else 0
    p50, p95 = (quantile_of(version.spread, share) if version else math.nan for share in (0.5, 0.95))
    return Who(
        arm=speech(f"models.arm.{arm}"),
        name=name,
        since=since,
        by=by,
        rows=speech.number(rows, 0),
        p50=_seconds(p50, speech),
        p95=_seconds(p95, speech),
        cost=_cost(version.cost if version else math.nan, rows, one.currency, speech),
        past=arm in {"past", "fallback"},
    )


def _day(at: int, speech: Speech) -> str:
    when = local(at)
    return when.strftime("%d/%m/%Y %H:%M") if speech.language == "fr" else when.strftime("%Y-%m-%d %H:%M")


# ── how well ──────────────────────────────────────────────────────────────────────────────────


def _doing(figures: Sequence[FigureView], speech: Speech) -> tuple[tuple[Doing, ...], list[str]]:
    """A row per version and group, the unusual first, and the figures that are its columns."""
    there = {one.figure for one in figures}
    columns = [name for name in _FIGURES if name in there]
    keys = dict.fromkeys((one.version, one.group) for one in figures)
    rows = [
        _do(key, [one for one in figures if (one.version, one.group) == key], columns, speech) for key in keys
    ]
    rows.sort(key=lambda row: (not row.unusual, row.name))
    return tuple(rows[:_GROUPS]), columns


def _do(key: tuple[str, str], mine: Sequence[FigureView], columns: Sequence[str], speech: Speech) -> Doing:
    sure = {one.figure: one for one in mine if not one.estimated}
    guessed = {one.figure: one for one in mine if one.estimated}
    whole = next(iter(sure.values()), None)
    newest = whole or next(iter(guessed.values()))
    cells = tuple(_cell(sure.get(name), guessed.get(name), speech) for name in columns)
    labels, said = speech("models.no_labels"), speech("models.no_version")
    if whole is not None:
        counts = {"labelled": speech.number(whole.labelled, 0), "rows": speech.number(whole.rows, 0)}
        labels = speech("models.labels_of", **counts)
    return Doing(
        name=" · ".join(word for word in (key[0] or said, key[1]) if word),
        labels=labels,
        share=whole.labelled / whole.rows if whole is not None and whole.rows else 0.0,
        window=speech("models.window", at=_day(newest.window_start, speech)),
        cells=cells,
        unusual=any(cell.unusual for cell in cells),
    )


def _cell(sure: FigureView | None, guessed: FigureView | None, speech: Speech) -> Cell:
    wait = sure is None or not sure.complete
    held = (
        sure
        if sure is not None and sure.unusual
        else guessed
        if guessed is not None and guessed.unusual
        else None
    )
    estimated = speech.number(guessed.value, 3) if guessed is not None and wait else ""
    return Cell(
        value=speech.number(sure.value, 3) if sure is not None else NONE,
        error=f"±\u00a0{speech.number(sure.error, 3)}"
        if sure is not None and math.isfinite(sure.error)
        else "",
        estimated=speech("models.estimated", value=estimated) if estimated else "",
        usual=""
        if held is None
        else speech("models.usual", low=speech.number(held.low, 3), high=speech.number(held.high, 3)),
        unusual=held is not None,
    )


# ── shadow and trial ──────────────────────────────────────────────────────────────────────────


def _percent(share: float, speech: Speech) -> str:
    return speech.quantity(100 * share, "%", 1)


def _shadow(told: Mapping[str, Any], speech: Speech) -> Iterator[Fact]:
    for output, said in told.get("outputs", {}).items():
        if not said["rows"]:
            continue
        rows = speech("models.of_rows", rows=speech.number(said["rows"], 0))
        share = said["agreement"]
        yield Fact(speech("models.agrees", output=output), f"{_percent(share, speech)} {rows}", share)
        yield Fact(speech("models.differs"), f"{speech.number(said['p50'])} / {speech.number(said['p99'])}")
        if said["raised"] or said["lowered"]:
            counts = {name: speech.number(said[name], 0) for name in ("raised", "lowered")}
            yield Fact(speech("models.flips"), speech("models.flips_of", **counts))
    for name, limit in told.get("limits", {}).items():
        key = "models.limit_broken" if limit["broken"] else "models.limit_kept"
        said = speech(key, limit=_percent(limit["limit"], speech), share=_percent(limit["share"], speech))
        yield Fact(speech(f"models.limit.{name}"), said, bad=limit["broken"])
    if told.get("shed"):
        yield Fact(speech("models.shed"), speech.number(told["shed"], 0))


def _named(trial: TrialView) -> str:
    return f"{trial.challenger} / {trial.champion}" if trial.challenger and trial.champion else ""


def _trial(trial: TrialView, speech: Speech) -> Iterator[Fact]:
    if not trial.pairs:
        return
    leader = trial.challenger if trial.difference > 0 else trial.champion
    by = speech("models.leads_by", version=leader, difference=speech.number(abs(trial.difference), 3))
    yield Fact(speech("models.leads"), by if trial.difference else speech("models.tie"))
    sure = trial.better if trial.difference > 0 else trial.worse
    decided = f" · {speech(f'models.decided.{trial.decision}')}" if trial.decision else ""
    yield Fact(speech("models.sure"), f"{speech.percent(sure)}{decided}", sure)
    low, high = speech.number(trial.low, 3), speech.number(trial.high, 3)
    yield Fact(speech("models.between"), speech("models.range", low=low, high=high))
    losses = (speech.number(one, 3) for one in (trial.champion_loss, trial.challenger_loss))
    yield Fact(speech("models.losses"), " / ".join(losses))
    least = f" / {speech.number(trial.least, 0)}" if trial.pairs < trial.least else ""
    yield Fact(speech("models.pairs"), f"{speech.number(trial.pairs, 0)}{least}")


# ── what was told ─────────────────────────────────────────────────────────────────────────────


def _change(one: ChangeView, speech: Speech) -> Change:
    role = speech(f"models.arm.{one.role}").partition(",")[0].lower() if one.role == "champion" else one.role
    verb = "ended" if not one.version else one.verb if one.verb in {"promote", "rollback"} else "promote"
    says = speech(f"models.verb.{verb}", version=one.version, before=one.before, role=role)
    detail = [
        speech("models.instead", before=one.before) if one.before and one.version else "",
        speech("models.by", by=one.by) if one.by else "",
        one.why,
    ]
    return Change(_day(one.at, speech) if one.at else "", says, " · ".join(word for word in detail if word))


def _drift_said(one: ScoreView, speech: Speech) -> str:
    if not one.drift_watched:
        return speech("models.drift_none")
    if not one.drift:
        return speech("models.drift_wait")
    columns = {verdict.column for verdict in one.drift}
    calm = not any(verdict.drifted for verdict in one.drift)
    return speech("models.drift_calm", count=len(columns)) if calm else ""


def _reasons(reasons: Sequence[ReasonView], speech: Speech) -> tuple[Reason, ...]:
    most = max((abs(one.contribution) for one in reasons), default=0.0) or 1.0
    return tuple(
        Reason(
            one.feature,
            speech.number(one.value),
            f"{'+' if one.contribution > 0 else ''}{speech.number(one.contribution, 2)}",
            abs(one.contribution) / most,
            one.contribution > 0,
        )
        for one in reasons
    )


def _of(reasons: Sequence[ReasonView], speech: Speech) -> str:
    if not reasons:
        return ""
    said = [f"{name} {speech.anything(value)}" for name, value in reasons[0].of.items()]
    return " · ".join([*said, speech.moment(reasons[0].at)] if reasons[0].at else said)

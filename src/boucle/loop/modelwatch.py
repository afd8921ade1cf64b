"""Looks at the models of a running loop from beside the path: what screens show of them, and what is watched.

What the steps that watch a model give (`Performance`, `DataDrift`, `ConceptDrift`, `Explain`) is shown with the step
that scores which they look at: the one they are made from, or whose inputs they share.
"""

import datetime as dt
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path as Folder
from typing import Any

import msgspec

from boucle.block import Block, as_dicts
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.loop.path import Path, Step
from boucle.loop.scored import scored
from boucle.loop.view import ScoreView
from boucle.loop.view_models import ArmView, ChangeView, DriftView, FigureView, ReasonView, TrialView, number
from boucle.models.registry import SCHEME, Change, Reference, Registry, Roles, registry_of
from boucle.serve.monitor.service import Service
from boucle.serve.score import Score
from boucle.serve.trial import Trial

__all__ = ["ModelWatch"]

_EVERY = 2 * SECOND
"""Between two looks at a registry."""
_MOST = 400
"""Versions and groups, or columns, that are remembered for the screens."""
_CHANGES = 5
_ROLES = {"champion": "champion", "challenger": "canary", "candidate": "shadow"}
_LOOKS = {"Performance", "DataDrift", "ConceptDrift", "Explain"}


class ModelWatch:
    """The models of one loop. `look` is called now and then by one thread; `views` by any."""

    def __init__(self, path: Path, folder: Folder, now: Callable[[], Nanos]) -> None:
        self._path, self._folder, self._now = path, folder, now
        self._lock = threading.Lock()
        self._scores = [step for step in path.steps if isinstance(step.operator, Score)]
        self._services = {
            step.id: Service(step.operator.alerts, declared.watch, declared.cost)
            for step in self._scores
            if isinstance(step.operator, Score) and (declared := step.operator.declared).watch is not None
        }
        self._registry: Registry | None = None
        self._generations: dict[str, int] = {}
        self._roles: dict[str, Roles] = {}
        self._due: Nanos = 0
        self._figures: dict[str, dict[tuple[str, str, bool], dict[str, FigureView]]] = {}
        self._drift: dict[str, dict[tuple[str, ...], DriftView]] = {}
        self._reasons: dict[str, tuple[ReasonView, ...]] = {}
        self._of = _owners(path.steps, self._scores)
        for step in path.steps:
            kind = step.use.rpartition(":")[2]
            if step.id in self._of and step.use.startswith("boucle.") and kind in _LOOKS:
                path.tap(
                    step.id,
                    {"Performance": self._performs, "Explain": self._explains}.get(kind, self._drifts),
                )

    # ── what flows by ─────────────────────────────────────────────────────────────────────────

    def _performs(self, block: Block) -> None:
        with self._lock:
            mine = self._figures.setdefault(block.stream, {})
            for row in as_dicts(block.rows):
                found = _figure(row)
                if found.figure in ("rows", "unscored") or not (found.estimated or found.labelled):
                    continue
                key = (found.version, found.group, found.estimated)
                held = mine.get(key)
                if held and next(iter(held.values())).window_start > found.window_start:
                    continue  # an earlier window, told anew
                if not held or next(iter(held.values())).window_start < found.window_start:
                    mine.pop(key, None)
                    held = mine[key] = {}
                held[found.figure] = found
            _shorten(mine)

    def _drifts(self, block: Block) -> None:
        with self._lock:
            mine = self._drift.setdefault(block.stream, {})
            names = block.rows.schema.names
            about = "concept" if "before" in names else "data"
            keyed = names[: names.index("at")] + (["model"] if "model" in names else [])
            for row in as_dicts(block.rows):
                key = (*(str(row[name]) for name in keyed), row["column"], row["kind"])
                mine.pop(key, None)
                mine[key] = DriftView(
                    about, row["column"], row["kind"], row["effect"], row["drifted"], row["at"], row["since"] or 0,
                    {"en": row["says_en"], "fr": row["says_fr"]},
                )  # fmt: skip
            _shorten(mine)

    def _explains(self, block: Block) -> None:
        told = as_dicts(block.rows.slice(max(0, len(block) - 50)))
        first = max((place for place, row in enumerate(told) if row["rank"] == 1), default=None)
        if first is None:
            return
        made = ("rank", "feature", "value", "contribution", "base", "margin")
        of = {name: value for name, value in told[first].items() if name not in (*made, "at")}
        reasons = tuple(
            ReasonView(row["feature"], number(row["value"]), row["contribution"], of, row.get("at") or 0)
            for row in told[first:]
        )
        with self._lock:
            self._reasons[block.stream] = reasons

    # ── looking ───────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Judge the windows of service that ended, and learn what the registry says of roles."""
        now = self._now()
        for step in self._scores:
            if step.id in self._services and isinstance(step.operator, Score):
                self._services[step.id].look(now, step.operator.ledger)
        if now >= self._due:
            self._due = now + _EVERY
            for name in {Reference.parse(one).name for step in self._scores for one in _references(step)}:
                self._learn(name)

    def _learn(self, name: str) -> None:
        try:
            if self._registry is None:
                self._registry = registry_of(self._folder)
            generation = self._registry.generation(name)
            if generation != self._generations.get(name):
                self._roles[name] = self._registry.roles(name)
                self._generations[name] = generation
        except (BoucleError, OSError):
            return  # the step that follows the roles says so; what is known stays

    def views(self) -> tuple[ScoreView, ...]:
        """Every step that scores, with what looks at it."""
        return tuple(self._whole(view) for view in scored(self._path))

    def _whole(self, view: ScoreView) -> ScoreView:
        step = next(one for one in self._scores if one.id == view.step)
        assert isinstance(step.operator, Score)
        declared = step.operator.declared
        looking = [one for one in self._path.steps if self._of.get(one.id) == step.id]
        trial = next((one.operator for one in looking if isinstance(one.operator, Trial)), None)
        service = self._services.get(step.id)
        names = {Reference.parse(one).name for one in _references(step)}
        changes = [_change(one) for name in names if name in self._roles for one in self._roles[name].history]
        with self._lock:
            figures = [
                figure
                for one in looking
                for held in self._figures.get(one.id, {}).values()
                for figure in held.values()
            ]
            drift = [verdict for one in looking for verdict in self._drift.get(one.id, {}).values()]
            reasons = next((self._reasons[one.id] for one in looking if one.id in self._reasons), ())
        return msgspec.structs.replace(
            view,
            title=step.title,
            deadline_s=declared.deadline,
            arms=tuple(self._arms(view, declared.model)),
            changes=tuple(sorted(changes, key=lambda one: -one.at)[:_CHANGES]),
            service=dict(service.last) if service else {},
            figures=tuple(figures),
            trial=None if trial is None else _trial(trial),
            drift=tuple(drift),
            drift_watched=any(one.use.endswith("Drift") for one in looking),
            reasons=reasons,
        )

    def _arms(self, view: ScoreView, model: str) -> Iterator[ArmView]:
        playing = dict(view.playing)
        if view.shadow and view.shadow["shadow"]:
            playing["shadow"] = view.shadow["shadow"]
        for arm, who in playing.items():
            name, _, version = who.rpartition(" ")
            roles = self._roles.get(name)
            taken: Iterable[Change] = reversed(roles.history) if roles else ()
            change = next(
                (one for one in taken if str(one.version) == version and _ROLES.get(one.role) == arm), None
            )
            if change is None and roles and arm != "previous":
                change = next((one for one in reversed(roles.history) if str(one.version) == version), None)
            since, by = (_nanos(change.at), change.by) if change and model.startswith(SCHEME) else (0, "")
            yield ArmView(arm, name, version, since, by)


def _references(step: Step) -> list[str]:
    assert isinstance(step.operator, Score)
    declared = step.operator.declared
    said = [declared.model, *(one.model for one in (declared.canary, declared.shadow) if one is not None)]
    return [one for one in said if one.startswith(SCHEME)]


def _owners(steps: Iterable[Step], scores: list[Step]) -> dict[str, str]:
    """Step → the step that scores which it is made from, the nearest; or the one whose inputs it shares."""
    made_from: dict[str, list[str]] = {}
    for step in steps:
        made_from[step.id] = [*step.inputs, *(far for one in step.inputs for far in made_from.get(one, ()))]
    ids = {one.id for one in scores}
    found = {}
    for step in steps:
        above = [one for one in made_from[step.id] if one in ids]
        if above:
            found[step.id] = above[0]
            continue
        beside = [one.id for one in scores if {one.id, *made_from[one.id]} & set(step.inputs)]
        if beside and step.id not in ids:
            found[step.id] = beside[0]
    return found


def _figure(row: dict[str, Any]) -> FigureView:
    return FigureView(
        row["version"], row["group"], row["figure"], number(row["value"]), number(row["error"]),
        number(row["low"]), number(row["high"]), row["unusual"], row["estimated"], row["complete"],
        row["rows"], row["labelled"], row["window_start"],
    )  # fmt: skip


def _trial(trial: Trial) -> TrialView:
    state = trial.state
    told, limit = state.evidence.told(), state.evidence.limit
    losses = {arm: state.losses[arm] / count for arm, count in dict(state.counts).items() if count}
    return TrialView(
        champion=state.versions.get("champion", ""),
        challenger=state.versions.get("canary", ""),
        pairs=int(told["pairs"]),
        champion_loss=losses.get("champion", math.nan),
        challenger_loss=losses.get("canary", math.nan),
        difference=told["mean_difference"],
        low=told["low"],
        high=told["high"],
        better=min(1.0, max(0.0, told["log_capital_better"] / limit)),
        worse=min(1.0, max(0.0, told["log_capital_worse"] / limit)),
        alpha=told["alpha"],
        decision=str(state.decision.get("decision", "")),
        least=trial.least,
    )


def _change(one: Change) -> ChangeView:
    version, before = (str(number or "") for number in (one.version, one.before))
    return ChangeView(_nanos(one.at), one.verb, one.role, version, before, one.by, one.why)


def _nanos(text: str) -> Nanos:
    try:
        return round(dt.datetime.fromisoformat(text).timestamp() * SECOND)
    except ValueError:
        return 0


def _shorten(kept: dict[Any, Any]) -> None:
    while len(kept) > _MOST:
        del kept[next(iter(kept))]

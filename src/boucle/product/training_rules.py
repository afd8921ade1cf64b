"""Whether the feature views and models of a Loop document fit together; every problem with line and fix."""

from collections.abc import Collection, Iterator

from boucle.errors import BoucleError, Problem
from boucle.product.document import LoopDocument
from boucle.product.duration import seconds
from boucle.product.lines import Document, Path_
from boucle.product.suggestion import near
from boucle.product.training import FeatureViewSpec, LabelSpec, ModelGateSpec, ModelSpec

__all__ = ["ALGORITHMS", "HIGHER_IS_BETTER", "METRICS", "training_problems"]

ALGORITHMS = {
    "lightgbm": ("classification", "regression"),
    "gradient_boosting": ("classification", "regression"),
    "random_forest": ("classification", "regression"),
    "logistic": ("classification",),
    "ridge": ("regression",),
}
"""What can be trained, for which tasks."""

METRICS = {
    "classification": (
        "auc",
        "average_precision",
        "log_loss",
        "brier",
        "f1",
        "accuracy",
        "true_positive_rate",
    ),
    "regression": ("mae", "rmse", "r2"),
}
HIGHER_IS_BETTER = frozenset({"auc", "average_precision", "f1", "accuracy", "true_positive_rate", "r2"})


def training_problems(document: Document, loop: LoopDocument, personal: Collection[str]) -> Iterator[Problem]:
    """Everything wrong with `features` and `models`; `personal` are columns the contract classes as personal."""
    for name, view in loop.features.items():
        at: Path_ = ("features", name)
        yield from _table_problems(document, loop, (*at, "from"), view.from_)
        yield from _durations(document, at, {"ttl": view.ttl} if view.ttl else {})
        if not view.entity or not view.columns:
            lacks = "entity" if not view.entity else "columns"
            yield _problem(document, (*at, lacks), f"features.{name}: {lacks} is empty", "name at least one")
        for column in view.columns:
            if column in {*view.entity, view.time}:
                what = f"features.{name}: {column} is no feature"
                yield _problem(document, (*at, "columns"), what, "it says whose or when; leave it out")
    for name, model in loop.models.items():
        yield from _model_problems(document, loop, name, model, personal)


def _model_problems(
    document: Document, loop: LoopDocument, name: str, model: ModelSpec, personal: Collection[str]
) -> Iterator[Problem]:
    at: Path_ = ("models", name)
    known: dict[str, FeatureViewSpec] = {}
    for one in model.views:
        if one in loop.features:
            known[one] = loop.features[one]
            continue
        what = f"models.{name}: there is no feature view {one!r}"
        yield _problem(document, (*at, "view"), what, near(one, loop.features))
    columns = [column for view in known.values() for column in view.columns]
    if doubled := sorted({one for one in columns if columns.count(one) > 1}):
        what = f"models.{name}: two views give {', '.join(doubled)}"
        yield _problem(document, (*at, "view"), what, "rename a column in its table")
    for column in columns:
        if column in personal and column not in model.allow_personal:
            what = f"models.{name}: the feature {column} is personal data"
            fix = f"leave it out, or write allow_personal: [{column}] if that is lawful"
            yield _problem(document, (*at, "view"), what, fix, "B632")
    yield from _label_problems(document, loop, (*at, "label"), model.label, columns)
    yield from _algorithm_problems(document, at, model)
    yield from _split_problems(document, at, model)
    if model.metric and model.metric not in METRICS[model.task]:
        what = f"models.{name}: {model.metric!r} is no figure of a {model.task}"
        yield _problem(document, (*at, "metric"), what, near(model.metric, METRICS[model.task]))
    if model.rule and columns and model.rule.column not in columns:
        what = f"models.{name}: the rule looks at {model.rule.column!r}, which is no feature"
        yield _problem(document, (*at, "rule", "column"), what, near(model.rule.column, columns))
    for index, gate in enumerate(model.gates):
        yield from _gate_problems(document, (*at, "gates", index), model, gate)


def _label_problems(
    document: Document, loop: LoopDocument, at: Path_, label: LabelSpec, features: Collection[str]
) -> Iterator[Problem]:
    if label.column in features:
        what = f"{'.'.join(map(str, at))}: {label.column} is a feature too"
        yield _problem(document, (*at, "column"), what, "take it out of the view")
    yield from _table_problems(document, loop, (*at, "from"), label.from_)
    yield from _durations(document, at, {"delay": label.delay})


def _algorithm_problems(document: Document, at: Path_, model: ModelSpec) -> Iterator[Problem]:
    if model.algorithm not in ALGORITHMS:
        what = f"models.{at[1]}: there is no algorithm {model.algorithm!r}"
        yield _problem(document, (*at, "algorithm"), what, near(model.algorithm, ALGORITHMS))
    elif model.task not in ALGORITHMS[model.algorithm]:
        what = f"models.{at[1]}: {model.algorithm} does no {model.task}"
        fix = f"one of {', '.join(one for one, tasks in ALGORITHMS.items() if model.task in tasks)}"
        yield _problem(document, (*at, "algorithm"), what, fix)


def _split_problems(document: Document, at: Path_, model: ModelSpec) -> Iterator[Problem]:
    yield from _durations(document, (*at, "split"), {"gap": model.split.gap})
    if not 0.01 <= model.split.test <= 0.9:
        what = f"{'.'.join(map(str, at))}: test: {model.split.test:g} is no share"
        yield _problem(document, (*at, "split", "test"), what, "between 0.01 and 0.9")
    if not 2 <= model.split.folds <= 20:
        what = f"{'.'.join(map(str, at))}: {model.split.folds} folds"
        yield _problem(document, (*at, "split", "folds"), what, "between 2 and 20")
    if model.search and (model.search.trials < 1 or (model.search.seconds or 1) <= 0):
        what = f"{'.'.join(map(str, at))}: the search has no budget"
        yield _problem(document, (*at, "search"), what, "trials: 20, or seconds: 60, or leave search out")
    for name, values in (model.search.space if model.search else {}).items():
        if not values:
            what = f"{'.'.join(map(str, at))}: nothing to choose {name} from"
            yield _problem(document, (*at, "search", "space", name), what, "give its values in a list")


def _gate_problems(document: Document, at: Path_, model: ModelSpec, gate: ModelGateSpec) -> Iterator[Problem]:
    asked = {
        "fairness": bool(gate.fairness),
        "metric": bool(gate.metric) and not gate.fairness,
        "latency_ms": gate.latency_ms is not None,
        "drift": gate.drift is not None,
        "approval": gate.approval is not False,
    }
    where = ".".join(map(str, at))
    if sum(asked.values()) != 1:
        fix = f"exactly one of {', '.join(asked)}; write further conditions as gates of their own"
        yield _problem(document, at, f"{where}: which condition is meant?", fix)
        return
    if gate.metric and gate.metric not in METRICS[model.task]:
        what = f"{where}: {gate.metric!r} is no figure of a {model.task}"
        yield _problem(document, (*at, "metric"), what, near(gate.metric, METRICS[model.task]))
    bounds = gate.at_least is not None or gate.at_most is not None or gate.beats
    if asked["metric"] and not bounds:
        yield _problem(document, at, f"{where}: no bound", "at_least, at_most, or beats: champion")
    if gate.fairness and gate.fairness not in model.slices:
        what = f"{where}: {gate.fairness!r} is not among the slices"
        yield _problem(document, (*at, "fairness"), what, f"add it to slices: {model.slices}")


def _table_problems(document: Document, loop: LoopDocument, path: Path_, table: str) -> Iterator[Problem]:
    if table.endswith(".parquet"):
        return
    known = [*loop.tables, *loop.transforms]
    if known and table.rpartition(".")[2] not in known:
        yield _problem(document, path, f"no table {table!r}", near(table, known))


def _durations(document: Document, at: Path_, told: dict[str, str]) -> Iterator[Problem]:
    for name, text in told.items():
        try:
            seconds(text)
        except BoucleError as error:
            yield _problem(document, (*at, name), error.what, error.fix, error.code)


def _problem(document: Document, path: Path_, what: str, fix: str, code: str = "B624") -> Problem:
    return Problem(code, what, document.file, document.line(path), "", fix)

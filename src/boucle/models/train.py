"""Training: from feature views at a moment to a model that beat its baselines, proven equal to its ONNX.

    rows known at the cut → train | gap | test → folds and search in train → fit → ONNX → held-out figures

Nothing is registered unless the model beats every baseline by the metric that decides.
"""

import datetime as dt
import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct, structs
from numpy.typing import NDArray

from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.features.asof import as_of, decisions
from boucle.features.source import DataVersion, Source
from boucle.features.view import FeatureView, Label
from boucle.models.algorithms import fit, predict, space_of, to_onnx, trees
from boucle.models.card import card, plots
from boucle.models.file import Column, ModelFile
from boucle.models.measure import baselines, better, by_slice, metrics, psi
from boucle.models.onnx import OnnxModel
from boucle.models.record import SKETCHES, Record, commit, environment
from boucle.models.search import search
from boucle.models.split import folds, split
from boucle.product.duration import seconds
from boucle.product.training import ModelSpec

__all__ = ["Dataset", "Trained", "assemble", "retrain", "train"]

_EQUAL = 1e-5
_KEPT = 20_000
"""Held-out rows that go with a version, so that a later candidate can be measured on the same."""

Told = Callable[[str, int, int], None]


class Dataset(Struct, frozen=True):
    """Rows to learn from, oldest first; none holds anything that was not known at its moment."""

    names: tuple[str, ...]
    inputs: NDArray[np.float32]
    truth: NDArray[np.float64]
    at: NDArray[np.int64]
    entities: list[Any]
    slices: dict[str, list[Any]]
    data: dict[str, DataVersion]
    incomplete: int
    """Rows left out because a feature was not known: they would not be scored either."""


class Trained(Struct, frozen=True):
    """A model, how it came about, and what is kept with it."""

    model: ModelFile
    record: Record
    files: dict[str, bytes]


def assemble(
    spec: ModelSpec,
    views: Sequence[FeatureView],
    source: Source,
    cut: Nanos,
    pinned: Mapping[str, DataVersion] | None = None,
) -> Dataset:
    """Join the views to the labels known at the cut; B625, B626 and B628 tell what stands in the way."""
    label, pinned = Label.declared(spec.label), pinned or {}
    entity = list(dict.fromkeys(column for view in views for column in view.entity))
    wanted = [label.column, label.time, *([label.known] if label.known else []), *entity, *spec.slices]
    data: dict[str, DataVersion] = {}
    rows, data[label.table] = source.read(label.table, wanted, pinned.get(label.table))
    also = [one for one in spec.slices if one not in entity]
    spine = decisions(rows, label, entity, cut, also)
    parts = []
    for view in views:
        # Label and features may be of one table: the same version of it.
        seen = pinned.get(view.table) or data.get(view.table)
        columns = [*view.entity, view.time, *view.columns]
        part, data[view.table] = source.read(view.table, columns, seen)
        parts.append((view, part))
    joined = as_of(spine, parts, cut)
    names = tuple(column for view in views for column in view.columns)
    inputs = np.stack([joined.column(one).to_numpy() for one in names], axis=1).astype(np.float32)
    whole = np.isfinite(inputs).all(axis=1)
    kept = joined.filter(pa.array(whole))
    if kept.num_rows == 0:
        why = f"{spine.num_rows} labels known by then, none with all its features"
        fix = "look at the views' entity, time and ttl, or move the cut"
        raise BoucleError("B628", "there is nothing to learn from", why=why, fix=fix)
    return Dataset(
        names=names,
        inputs=np.ascontiguousarray(inputs[whole]),
        truth=kept.column("_label").to_numpy().astype(np.float64),
        at=kept.column("_at").to_numpy(),
        entities=list(zip(*(kept.column(one).to_pylist() for one in entity), strict=True)),
        slices={one: kept.column(one).to_pylist() for one in spec.slices},
        data=data,
        incomplete=int((~whole).sum()),
    )


def train(
    name: str,
    spec: ModelSpec,
    views: Sequence[FeatureView],
    source: Source,
    *,
    cut: Nanos | None = None,
    told: Told = lambda _what, _done, _of: None,
) -> Trained:
    """Search, fit, measure, convert; B630 when a baseline is better, B631 when the ONNX differs from the trainer.

    `cut` is the moment of training (now by default): only what was known then is looked at.
    """
    begun, cut = time.monotonic(), time.time_ns() if cut is None else cut
    told("reading", 0, 0)
    rows = assemble(spec, views, source, cut)
    learnt, tested = split(rows.at, spec.split.test, _gap(spec))
    _both_answers(spec, rows, learnt, tested)
    parameters, searched = _chosen(spec, rows, learnt, told)
    told("fitting", 0, 0)
    made = _made(name, spec, rows, learnt, tested, parameters)
    truth, found = rows.truth[tested], made.found
    measured = metrics(spec.task, truth, found)
    below = {
        one: metrics(spec.task, truth, answer)
        for one, answer in baselines(
            spec,
            rows.names,
            rows.truth[learnt],
            [rows.entities[index] for index in tested],
            truth,
            rows.inputs[tested],
            [rows.entities[index] for index in learnt],
        ).items()
    }
    _beats(spec, measured, below)
    slices = {one: [values[index] for index in tested] for one, values in rows.slices.items()}
    record = Record(
        name=name,
        spec=spec,
        views=tuple(views),
        cut=cut,
        data=rows.data,
        parameters=parameters,
        searched=searched,
        rows={"train": len(learnt), "test": len(tested), "incomplete": rows.incomplete},
        metrics=measured,
        baselines=below,
        slices=by_slice(spec.task, truth, found, slices),
        drift={
            one: round(psi(rows.inputs[learnt, index], rows.inputs[tested, index]), 6)
            for index, one in enumerate(rows.names)
        },
        equal=made.equal,
        sha256=made.model.manifest.sha256,
        seed=spec.seed,
        code=commit(source.folder),
        environment=environment(source.folder),
        seconds=round(time.monotonic() - begun, 3),
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    manifest = structs.replace(
        made.model.manifest, created=record.created, metrics={**measured, "baselines": below}
    )
    model = structs.replace(made.model, manifest=manifest)
    files = {
        "record.json": record.bytes(),
        "held_out.arrow": _packed(rows, tested, slices),
        SKETCHES: _sketched(rows, learnt),
        **card(record, manifest),
        **plots(spec.task, truth, found),
        **made.explains,
    }
    return Trained(model, record, files)


def retrain(record: Record, source: Source) -> ModelFile:
    """The model of a record, trained again on the versions of its data with the parameters it chose."""
    rows = assemble(record.spec, record.views, source, record.cut, record.data)
    learnt, tested = split(rows.at, record.spec.split.test, _gap(record.spec))
    return _made(record.name, record.spec, rows, learnt, tested, record.parameters).model


class _Made(Struct, frozen=True):
    model: ModelFile
    found: NDArray[np.float64]
    equal: float
    explains: dict[str, bytes]


def _gap(spec: ModelSpec) -> Nanos:
    return int((seconds(spec.split.gap) + seconds(spec.label.delay)) * 1e9)


def _both_answers(spec: ModelSpec, rows: Dataset, learnt: NDArray[Any], tested: NDArray[Any]) -> None:
    """A classification needs yes and no in both parts, and nothing else."""
    if spec.task != "classification":
        return
    for part, indices in (("training", learnt), ("test", tested)):
        values = sorted(set(np.unique(rows.truth[indices]).tolist()))
        if values != [0.0, 1.0]:
            what = f"the {part} rows do not hold both answers, 0 and 1"
            why = f"{spec.label.column} is {', '.join(f'{one:g}' for one in values[:5])} there"
            fix = "wait for more labels, lessen split.test, or write task: regression"
            raise BoucleError("B628", what, why=why, fix=fix)


def _chosen(
    spec: ModelSpec, rows: Dataset, learnt: NDArray[np.int64], told: Told
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The best parameters by cross-validation within the training rows, and how they were found."""
    at, metric = rows.at[learnt], spec.measured_by

    def try_it(parameters: dict[str, Any]) -> float:
        scores = []
        for past, next_ in folds(at, spec.split.folds, _gap(spec)):
            truth = rows.truth[past]
            if spec.task == "classification" and truth.min() == truth.max():
                continue
            all_ = {**spec.parameters, **parameters}
            model = fit(spec.algorithm, spec.task, all_, rows.inputs[past], truth, spec.seed)
            figure = metrics(spec.task, rows.truth[next_], predict(model, rows.inputs[next_])).get(metric)
            if figure is not None:
                scores.append(better(metric, figure, 0.0))
        return float(np.mean(scores)) if scores else float("-inf")

    if spec.search is None:
        try:
            validated = _finite(try_it({}))
        except BoucleError as error:
            if error.code != "B628":
                raise
            validated = None  # too few days for folds, with the gap between: nothing is chosen by them here
        return dict(spec.parameters), {"validated": validated, "metric": metric}
    free = spec.search.space or space_of(spec.algorithm)
    space = {one: values for one, values in free.items() if one not in spec.parameters}
    trials, by = search(
        spec.search, space, try_it, spec.seed, lambda done, of, _: told("searching", done, of)
    )
    best = max(trials, key=lambda trial: trial.score)
    shown = [{"parameters": one.parameters, "score": _finite(one.score)} for one in trials]
    searched = {"by": by, "metric": metric, "validated": _finite(best.score), "trials": shown}
    return {**spec.parameters, **best.parameters}, searched


def _finite(score: float) -> float | None:
    return round(score, 9) if np.isfinite(score) else None


def _made(
    name: str,
    spec: ModelSpec,
    rows: Dataset,
    learnt: NDArray[np.int64],
    tested: NDArray[np.int64],
    parameters: Mapping[str, Any],
) -> _Made:
    """Fit, convert, and prove that both say the same of the held-out rows."""
    trained = fit(spec.algorithm, spec.task, parameters, rows.inputs[learnt], rows.truth[learnt], spec.seed)
    content = to_onnx(trained, spec.algorithm, spec.task, len(rows.names), spec.gives)
    model = ModelFile.build(
        content,
        name=name,
        inputs=tuple(Column(one) for one in rows.names),
        outputs=(Column(spec.gives, description=spec.purpose),),
        created="",
        trained_on={"rows": len(learnt), "seed": spec.seed, "algorithm": spec.algorithm},
        metrics={},
    )
    scored = OnnxModel(model).run(rows.inputs[tested])[:, 0].astype(np.float64)
    wanted = predict(trained, rows.inputs[tested])
    scale = max(1.0, float(np.abs(wanted).max()))
    apart = float(np.abs(scored - wanted).max()) / scale
    if not apart <= _EQUAL:
        raise BoucleError(
            "B631",
            f"the ONNX of {name} does not say what {spec.algorithm} says",
            why=f"they differ by {apart:.2g} of {scale:.3g} on {len(tested)} held-out rows",
            fix="choose another algorithm, and report this with the versions of the libraries",
        )
    return _Made(model, scored, apart, trees(trained, spec.algorithm))


def _beats(spec: ModelSpec, measured: Mapping[str, float], below: Mapping[str, Mapping[str, float]]) -> None:
    metric = spec.measured_by
    mine = measured[metric]
    lost = {one: told[metric] for one, told in below.items() if better(metric, mine, told[metric]) <= 0}
    if lost:
        raise BoucleError(
            "B630",
            f"the model is no better than {' and '.join(lost)}",
            why=f"{metric} {mine:.6g} on held-out rows, {', '.join(f'{n} {v:.6g}' for n, v in lost.items())}",
            fix="give it better features or more rows; what is no better than a rule is not registered",
        )


def _sketched(rows: Dataset, learnt: NDArray[np.int64]) -> bytes:
    """What each input was like in the training rows, oldest first."""
    from boucle.features.sketch import learn

    told = {one: learn(pa.array(rows.inputs[learnt, index])) for index, one in enumerate(rows.names)}
    return msgspec.json.encode(told)


def _packed(rows: Dataset, tested: NDArray[np.int64], slices: Mapping[str, Sequence[Any]]) -> bytes:
    """The newest held-out rows as an Arrow file: features, `_label`, and slices as `_slice_NAME`."""
    kept = tested[-_KEPT:]
    columns = {one: pa.array(rows.inputs[kept, index]) for index, one in enumerate(rows.names)}
    columns["_label"] = pa.array(rows.truth[kept])
    columns |= {f"_slice_{one}": pa.array(map(str, values[-_KEPT:])) for one, values in slices.items()}
    out = io.BytesIO()
    table = pa.table(columns)
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()

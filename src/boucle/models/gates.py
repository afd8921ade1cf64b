"""What a version must prove before it is champion: each declared gate with what was found, kept as evidence."""

import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct, structs
from numpy.typing import NDArray

from boucle.errors import BoucleError
from boucle.models.file import ModelFile
from boucle.models.measure import better, metrics
from boucle.models.onnx import OnnxModel
from boucle.models.record import Record
from boucle.models.registry import Reference, Registry, Roles
from boucle.product.training import ModelGateSpec

__all__ = ["GateResult", "evaluate", "promote_by_gates"]

_SCORES = 500


class GateResult(Struct, frozen=True):
    """One gate: what it asks, what was found, whether that is enough."""

    gate: str
    passed: bool
    found: str


def promote_by_gates(
    registry: Registry,
    name: str,
    number: int,
    role: str = "champion",
    *,
    gates: Sequence[ModelGateSpec] | None = None,
    approved_by: str = "",
    by: str = "",
    why: str = "",
) -> tuple[Roles, list[GateResult]]:
    """Promote when every gate passes; B633 lists those that do not, B634 asks for the approval.

    `gates` are those of the version's own record when they are not given: a model brings its conditions along. A
    challenger only watches, so it needs no gate.
    """
    results: list[GateResult] = []
    if role == "champion":
        results = evaluate(registry, name, number, gates=gates, approved_by=approved_by)
        lost = [one for one in results if not one.passed]
        if lost:
            asked = all(one.gate.startswith("approval") for one in lost)
            raise BoucleError(
                "B634" if asked else "B633",
                f"{name}/{number} waits for approval" if asked else f"{name}/{number} may not be champion",
                where=registry.address,
                why="; ".join(f"{one.gate}: {one.found}" for one in lost),
                fix="boucle promote … --approve YOUR-NAME"
                if asked
                else "train a better one, or change the gates",
            )
    evidence: dict[str, Any] = {"gates": [structs.asdict(one) for one in results]}
    if approved_by:
        evidence["approved_by"] = approved_by
    return registry.promote(name, number, role, evidence=evidence, by=by, why=why), results


def evaluate(
    registry: Registry,
    name: str,
    number: int,
    *,
    gates: Sequence[ModelGateSpec] | None = None,
    approved_by: str = "",
) -> list[GateResult]:
    """Every gate of a version, on the rows that were kept with it; latency is measured here and now."""
    reference = Reference(name, number=number)
    files = registry.files(reference)
    if gates is None and "record.json" not in files:
        return []
    record = Record.read(files.get("record.json"), str(reference))
    rows = held_out(files, str(reference))
    model = registry.load(reference)
    champion = registry.roles(name).roles.get("champion")
    other = registry.load(Reference(name, number=champion)) if champion not in {None, number} else None
    judge = _Judge(record, model, other, rows, approved_by)
    return [judge.of(gate) for gate in (record.spec.gates if gates is None else gates)]


class _Rows(Struct, frozen=True):
    inputs: NDArray[np.float32]
    truth: NDArray[np.float64]
    names: tuple[str, ...]
    slices: dict[str, list[str]]


def held_out(files: Mapping[str, bytes], of: str) -> _Rows:
    """The rows that were kept with a version; B629 when there are none."""
    try:
        table = pa.ipc.open_file(io.BytesIO(files["held_out.arrow"])).read_all()
        names = tuple(one for one in table.column_names if not one.startswith("_"))
        inputs = np.stack([table.column(one).to_numpy() for one in names], axis=1)
        truth = table.column("_label").to_numpy()
    except (KeyError, ValueError, pa.ArrowException) as error:
        what = f"{of} has no held-out rows to be measured on"
        raise BoucleError("B629", what, why=str(error), fix="train it with `boucle train`") from error
    prefix = "_slice_"
    slices = {
        one.removeprefix(prefix): table.column(one).to_pylist()
        for one in table.column_names
        if one.startswith(prefix)
    }
    return _Rows(np.ascontiguousarray(inputs, dtype=np.float32), truth, names, slices)


class _Judge:
    def __init__(
        self, record: Record, model: ModelFile, champion: ModelFile | None, rows: _Rows, approved_by: str
    ) -> None:
        self._record, self._rows, self._approved = record, rows, approved_by
        self._model, self._champion = OnnxModel(model), champion
        self._found = self._model.run(rows.inputs)[:, 0].astype(np.float64)
        self._metrics = metrics(record.spec.task, rows.truth, self._found)

    def of(self, gate: ModelGateSpec) -> GateResult:
        """What a gate says of this version."""
        if gate.fairness:
            return self._fair(gate)
        if gate.latency_ms is not None:
            return self._fast(gate.latency_ms)
        if gate.drift is not None:
            worst = max(self._record.drift.items(), key=lambda one: one[1])
            return GateResult(
                f"drift at most {gate.drift:g}", worst[1] <= gate.drift, f"{worst[0]} {worst[1]:.4g}"
            )
        if gate.approval is not False:
            return GateResult(
                f"approval by {gate.approval}", bool(self._approved), self._approved or "nobody yet"
            )
        if gate.beats:
            return self._beats(gate)
        found = self._metrics.get(gate.metric, float("nan"))
        bounds = (
            [("at least", gate.at_least, found >= (gate.at_least or 0.0))]
            if gate.at_least is not None
            else []
        )
        if gate.at_most is not None:
            bounds.append(("at most", gate.at_most, found <= gate.at_most))
        said = " and ".join(f"{word} {bound:g}" for word, bound, _ in bounds)
        return GateResult(f"{gate.metric} {said}", all(kept for _, _, kept in bounds), f"{found:.6g}")

    def _beats(self, gate: ModelGateSpec) -> GateResult:
        says = f"{gate.metric} better than the champion's by {gate.by:g}"
        if self._champion is None:
            return GateResult(says, passed=True, found="there is no other champion")
        wanted = [one.name for one in self._champion.manifest.inputs]
        if missing := [one for one in wanted if one not in self._rows.names]:
            return GateResult(says, passed=False, found=f"the champion needs {', '.join(missing)}")
        columns = [self._rows.names.index(one) for one in wanted]
        inputs = np.ascontiguousarray(self._rows.inputs[:, columns])
        found = OnnxModel(self._champion).run(inputs)[:, 0].astype(np.float64)
        theirs = metrics(self._record.spec.task, self._rows.truth, found).get(gate.metric, float("nan"))
        mine = self._metrics.get(gate.metric, float("nan"))
        return GateResult(
            says, better(gate.metric, mine, theirs) >= gate.by, f"{mine:.6g}, the champion's {theirs:.6g}"
        )

    def _fair(self, gate: ModelGateSpec) -> GateResult:
        metric = gate.metric or "true_positive_rate"
        groups = np.array(self._rows.slices.get(gate.fairness, []))
        figures: dict[str, float] = {}
        for group in sorted(set(groups.tolist())):
            these = groups == group
            told = metrics(self._record.spec.task, self._rows.truth[these], self._found[these])
            if metric in told:
                figures[str(group)] = told[metric]
        says = f"{metric} alike by {gate.fairness} within {gate.within:g}"
        if not figures:
            return GateResult(says, passed=False, found="no group has held-out rows that tell")
        apart = max(figures.values()) - min(figures.values())
        shown = ", ".join(f"{group} {value:.4g}" for group, value in figures.items())
        return GateResult(says, apart <= gate.within, shown)

    def _fast(self, most: float) -> GateResult:
        """One row at a time, as on the path."""
        row = self._rows.inputs[:1]
        for _ in range(20):
            self._model.run(row)
        took = np.empty(_SCORES)
        for index in range(_SCORES):
            begun = time.perf_counter()
            self._model.run(self._rows.inputs[index % len(self._rows.inputs)][None])
            took[index] = (time.perf_counter() - begun) * 1e3
        p99 = float(np.quantile(took, 0.99))
        return GateResult(f"p99 of one row at most {most:g} ms", p99 <= most, f"{p99:.3g} ms")

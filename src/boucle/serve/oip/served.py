"""One version of a model, ready to answer: what the protocol says of it, and its scores."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boucle.models.file import ModelFile
from boucle.serve.oip.refusal import Malformed, NoSuchThing
from boucle.serve.oip.request import InferRequest
from boucle.serve.oip.scored import Version
from boucle.serve.oip.tensor import DATATYPES, Tensor, datatype_of
from boucle.serve.ready import prepare

__all__ = ["MATRIX", "Served"]

MATRIX = "features"
"""The name of the one tensor (rows, columns) that may stand for an input of each column."""
AT_ONCE = 64
"""Rows scored without letting go of the model, or looking at the clock."""
QUICK_S = 0.001
"""What takes longer is scored on a thread of its own, so that nobody else waits."""


class Served:
    """A model that was loaded, verified and run once. One object serves several threads."""

    def __init__(self, name: str, version: str, file: ModelFile) -> None:
        self.name, self.version = name, version
        self.columns = tuple(one.name for one in file.manifest.inputs)
        self._place = {column: index for index, column in enumerate(self.columns)}
        self._inputs = [datatype_of(field.type) for field in file.manifest.signature()]
        self._outputs = {field.name: datatype_of(field.type) for field in file.manifest.gives()}
        self.gives = tuple(self._outputs)
        self.of = Version(name, version, self.columns, self.gives)
        self._ready = prepare(file, int(version) if version.isdigit() else 0)
        self._lock = threading.Lock()
        self.row_s = self._warm()
        """Seconds a row takes, as measured when it was loaded and then by longer requests."""

    def _warm(self) -> float:
        """See how long a row takes."""
        row = np.zeros((1, len(self.columns)), np.float32)
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            self.score(row)
            times.append(time.perf_counter() - begun)
        return min(times)

    def quick(self, rows: int) -> bool:
        """Whether so many rows may be scored where the request was read."""
        return rows * self.row_s < QUICK_S

    def metadata(self, versions: Sequence[str]) -> dict[str, Any]:
        """What the protocol tells of a model: an input of each column, an output of each score."""
        inputs = zip(self.columns, self._inputs, strict=True)
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": "onnx_onnxv1",
            "inputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in inputs],
            "outputs": [
                {"name": name, "datatype": kind, "shape": [-1]} for name, kind in self._outputs.items()
            ],
        }

    def matrix(self, request: InferRequest) -> NDArray[np.float32]:
        """The rows (rows, columns); Malformed when the tensors are not those of the signature.

        Either one tensor (rows, columns) called `features`, or one (rows) or (rows, 1) of each column.
        """
        inputs = request.inputs
        if len(inputs) == 1 and len(inputs[0].shape) == 2 and inputs[0].name not in self._place:
            return self._whole(inputs[0])
        given: list[Tensor | None] = [None] * len(self.columns)
        for one in inputs:
            index = self._place.get(one.name, -1)
            if index < 0:
                raise self._other(f"it has no input {one.name!r}")
            if given[index] is not None:
                raise self._other(f"input {one.name!r} is given twice")
            given[index] = one
        first = inputs[0].shape if inputs else ()
        if len(first) not in {1, 2} or (len(first) == 2 and first[1] != 1):
            raise self._other("a column is a tensor of shape [rows] or [rows, 1]")
        rows = np.empty((first[0], len(self.columns)), np.float64)
        for index, column in enumerate(given):
            if column is None:
                raise self._other(f"input {self.columns[index]!r} is missing")
            if column.shape != first:
                raise self._other(f"input {column.name!r} has another shape than {inputs[0].name!r}")
            self._check_kind(column, self._inputs[index])
            rows[:, index] = column.values
        return _narrow(rows)

    def _whole(self, one: Tensor) -> NDArray[np.float32]:
        if one.name != MATRIX or one.shape[1] != len(self.columns):
            wanted = f"{MATRIX!r} of shape [rows, {len(self.columns)}]"
            raise self._other(f"one tensor for all columns is {wanted}, not {one.name!r} {list(one.shape)}")
        self._check_kind(one, "FP64")
        return _narrow(one.values).reshape(one.shape)

    def _check_kind(self, given: Tensor, wanted: str) -> None:
        """Numbers for numbers; whole ones where the column holds whole ones."""
        kinds = "fiub" if DATATYPES[wanted].kind == "f" else "iub"
        if DATATYPES[given.datatype].kind not in kinds or wanted == "BYTES":
            raise self._other(f"input {given.name!r} is {wanted}, not {given.datatype}")

    def _other(self, why: str) -> Malformed:
        return Malformed(
            f"the model {self.name} takes other tensors", why=why, fix=f"see /v2/models/{self.name}"
        )

    def score(
        self, rows: NDArray[np.float32], alive: Callable[[], bool] = lambda: True
    ) -> NDArray[np.float64]:
        """Outputs (rows, outputs); a row with a number missing or infinite has NaN. Ends early when not `alive`."""
        if len(rows) <= AT_ONCE:
            return self._some(rows)
        parts = []
        for begin in range(0, len(rows), AT_ONCE):
            if not alive():
                break
            parts.append(self._some(rows[begin : begin + AT_ONCE]))
        return np.concatenate(parts) if parts else np.empty((0, len(self._outputs)))

    def _some(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        if len(rows) and math.isfinite(rows.sum()):  # all are, without an array to say so
            with self._lock:
                return self._ready.run(rows).astype(np.float64)
        kept = np.isfinite(rows).all(axis=1)
        scores = np.full((len(rows), len(self._outputs)), np.nan)
        if kept.any():
            with self._lock:
                scores[kept] = self._ready.run(rows[kept])
        return scores

    def outputs(self, scores: NDArray[np.float64], request: InferRequest) -> tuple[Tensor, ...]:
        """The tensors that were asked for, all of them when none was named."""
        made = {}
        for index, (name, kind) in enumerate(self._outputs.items()):
            values = scores[:, index]
            if DATATYPES[kind].kind != "f":
                if not np.isfinite(values).all():
                    raise self._other("a row lacks a number, and a whole number cannot say so")
                values = values.astype(DATATYPES[kind])
            made[name] = Tensor(name, kind, (len(scores),), values)
        if not request.outputs:
            return tuple(made.values())
        for one in request.outputs:
            if one.name not in made:
                what = f"the model {self.name} has no output {one.name!r}"
                raise Malformed(what, fix=f"it has {', '.join(made)}")
        return tuple(made[one.name] for one in request.outputs)


def _narrow(values: NDArray[Any]) -> NDArray[np.float32]:
    """As the model reads numbers; what is beyond them becomes infinite, and the row unusable."""
    if values.dtype == np.float32:
        return values
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def none_such(name: str, version: str = "", known: Sequence[str] = ()) -> NoSuchThing:
    """B671 for a model or a version of it that is not served."""
    if version:
        return NoSuchThing(
            f"the model {name} has no version {version!r}", fix=f"versions: {', '.join(known)}"
        )
    return NoSuchThing(f"there is no model {name!r}", fix=f"models: {', '.join(known) or 'none'}")

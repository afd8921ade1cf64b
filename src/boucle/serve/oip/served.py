"""One version of a model, ready to answer: what the protocol says of it, and its scores."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.serve.oip.refusal import Malformed, NoSuchThing
from boucle.serve.oip.request import InferRequest
from boucle.serve.oip.scored import Version
from boucle.serve.oip.tensor import DATATYPES, Tensor, datatype_of
from boucle.serve.ready import Ready

__all__ = ["MATRIX", "Served"]

MATRIX = "features"
"""The name of the one tensor (rows, columns) that may stand for an input of each column."""
AT_ONCE = 64
"""Rows scored without letting go of the model, or looking at the clock."""
QUICK_S = 0.001
"""What takes longer is scored on a thread of its own, so that nobody else waits."""


class Served:
    """A model that was loaded, verified and run once. One object serves several threads."""

    def __init__(self, name: str, version: str, ready: Ready) -> None:
        self.name, self.version, self.ready = name, version, ready
        manifest = ready.file.manifest
        self.columns = tuple(ready.inputs)
        self._optional = frozenset(manifest.optional)
        self._place = {column: index for index, column in enumerate(self.columns)}
        self._inputs = [datatype_of(field.type) for field in ready.signature]
        self._outputs = {field.name: datatype_of(field.type) for field in manifest.gives()}
        self.gives = tuple(self._outputs)
        self.of = Version(name, version, self.columns, self.gives)
        self._lock = threading.Lock()
        self.row_s = self._warm()
        """Seconds a row takes, as measured when it was loaded and then by longer requests."""

    def _warm(self) -> float:
        """See how long a row takes; a child process is never asked where requests are read."""
        if self.ready.by_rows:
            return QUICK_S
        row = np.zeros((1, len(self.columns)), np.float32)
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            self.score(row)
            times.append(time.perf_counter() - begun)
        return min(times)

    def quick(self, rows: int) -> bool:
        """Whether so many rows may be scored where the request was read."""
        return rows * self.row_s < QUICK_S and not self.ready.by_rows

    def metadata(self, versions: Sequence[str]) -> dict[str, Any]:
        """What the protocol tells of a model: an input of each column, an output of each score."""
        inputs = zip(self.columns, self._inputs, strict=True)
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": "mlflow_pyfunc" if self.ready.by_rows else "onnx_onnxv1",
            "inputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in inputs],
            "outputs": [
                {"name": name, "datatype": kind, "shape": [-1]} for name, kind in self._outputs.items()
            ],
        }

    def rows(self, request: InferRequest) -> Any:
        """The rows as the model takes them; Malformed when the tensors are not those of the signature.

        One tensor (rows) or (rows, 1) of each column, or, where all are numbers, one (rows, columns) called `features`.
        """
        if self.ready.by_rows:
            return self._batch(*self._by_column(request))
        inputs = request.inputs
        if len(inputs) == 1 and len(inputs[0].shape) == 2 and inputs[0].name not in self._place:
            return self._whole(inputs[0])
        given, count = self._by_column(request)
        rows = np.empty((count, len(self.columns)), np.float64)
        for index, column in enumerate(given):
            assert column is not None, "an ONNX has no optional input"
            rows[:, index] = column.values
        return _narrow(rows)

    def noted(self, rows: Any) -> NDArray[np.float32]:
        """The rows as numbers for the prediction log (rows, columns); a text is NaN."""
        if not self.ready.by_rows:
            return np.asarray(rows, np.float32)
        noted = np.full((len(rows), len(self.columns)), np.nan, np.float32)
        for index, column in enumerate(rows.columns):
            if DATATYPES[self._inputs[index]].kind != "O":
                values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
                noted[:, index] = _narrow(values)
        return noted

    def _by_column(self, request: InferRequest) -> tuple[list[Tensor | None], int]:
        """A tensor of each column, None where an optional one was not given, and how many rows they have."""
        inputs = request.inputs
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
        for index, column in enumerate(given):
            if column is None:
                if self.columns[index] in self._optional:
                    continue
                raise self._other(f"input {self.columns[index]!r} is missing")
            if column.shape != first:
                raise self._other(f"input {column.name!r} has another shape than {inputs[0].name!r}")
            self._check_kind(column, self._inputs[index])
        return given, first[0]

    def _batch(self, given: list[Tensor | None], count: int) -> pa.RecordBatch:
        arrays = []
        for field, one in zip(self.ready.signature, given, strict=True):
            if one is None:
                arrays.append(pa.nulls(count, field.type))
                continue
            try:
                values = [text.decode() for text in one.values] if one.datatype == "BYTES" else one.values
                arrays.append(pa.array(values).cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
                raise self._other(f"input {one.name!r} is not of {field.type}: {error}") from None
        return pa.record_batch(arrays, schema=self.ready.signature)

    def _whole(self, one: Tensor) -> NDArray[np.float32]:
        if one.name != MATRIX or one.shape[1] != len(self.columns):
            wanted = f"{MATRIX!r} of shape [rows, {len(self.columns)}]"
            raise self._other(f"one tensor for all columns is {wanted}, not {one.name!r} {list(one.shape)}")
        self._check_kind(one, "FP64")
        return _narrow(one.values).reshape(one.shape)

    def _check_kind(self, given: Tensor, wanted: str) -> None:
        """Numbers for numbers; whole ones where the column holds whole ones."""
        kinds = {"f": "fiub", "O": "O" if self.ready.by_rows else ""}.get(DATATYPES[wanted].kind, "iub")
        if DATATYPES[given.datatype].kind not in kinds:
            raise self._other(f"input {given.name!r} is {wanted}, not {given.datatype}")

    def _other(self, why: str) -> Malformed:
        return Malformed(
            f"the model {self.name} takes other tensors", why=why, fix=f"see /v2/models/{self.name}"
        )

    def score(self, rows: Any, alive: Callable[[], bool] = lambda: True) -> NDArray[np.float64]:
        """Outputs (rows, outputs); a row with a number missing or infinite has NaN. Ends early when not `alive`."""
        if len(rows) <= AT_ONCE or self.ready.by_rows:
            return self._some(rows)
        parts = []
        for begin in range(0, len(rows), AT_ONCE):
            if not alive():
                break
            parts.append(self._some(rows[begin : begin + AT_ONCE]))
        return np.concatenate(parts) if parts else np.empty((0, len(self._outputs)))

    def _some(self, rows: Any) -> NDArray[np.float64]:
        if (
            not self.ready.by_rows and len(rows) and math.isfinite(rows.sum())
        ):  # all are, with no array to say so
            with self._lock:
                return self.ready.run(rows).astype(np.float64)
        kept = self.ready.sound(rows)
        scores = np.full((len(rows), len(self._outputs)), np.nan)
        if kept.any():
            with self._lock:
                scores[kept] = self.ready.run(self.ready.some(rows, kept.nonzero()[0]))
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

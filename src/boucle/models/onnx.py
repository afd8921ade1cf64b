"""Scores a model file through ONNX Runtime, in process and on one thread.

One thread on purpose: a score of a few rows takes tens of microseconds, and threads that wait for
each other cost milliseconds. ONNX Runtime sends telemetry by default since 1.29; it is told not to
before it is loaded.
"""

import os
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import Block
from boucle.errors import BoucleError, SignatureMismatch
from boucle.models.file import ModelFile
from boucle.stream.appended import Extended

__all__ = ["OnnxModel"]

_ROWS_APART = frozenset(
    {
        "Abs", "Add", "ArrayFeatureExtractor", "Cast", "Clip", "Concat", "Div", "Gather", "Greater", "Identity", "Less",
        "Max", "Min", "Mul", "Neg", "Not", "Relu", "Reshape", "Scaler", "Slice", "Sqrt", "Squeeze", "Sub",
        "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "Unsqueeze", "Where",
    }
)  # fmt: skip
"""Operators that give each row the same bits whatever rows are beside it, on one thread. Not among them: matrix
products, and functions such as Exp that are taken several numbers at a time but for the last few."""


class OnnxModel:
    """A model file ready to score: one float32 input (rows, inputs), one output (rows, outputs)."""

    def __init__(self, file: ModelFile) -> None:
        self.manifest = file.manifest
        self.signature = file.manifest.signature()
        self._gives = file.manifest.gives()
        self.session = _session(file)
        self.together = _rows_apart(file.content)
        """Whether rows may be given together: each gets the same bits as alone."""
        self.input: str = self.session.get_inputs()[0].name
        self.outputs = [self.session.get_outputs()[0].name]
        self._checked: pa.Schema | None = None
        self._rows: Extended | None = None
        Extended.prepare()

    def score(self, block: Block) -> Block:
        """The Block with the outputs appended.

        A row with a null, NaN or infinite input is kept and its outputs are null. SignatureMismatch
        when a column of the signature is missing or of another type; other columns may be there.
        """
        self._check(block)
        rows = self._rows
        if rows is None or len(block) == 0:
            return Block(block.stream, self._by_arrays(block.rows), block.watermark, block.position)
        rows.take(block.rows)
        given = rows.numbers[:, : len(block)].view(np.float64).T.astype(np.float32, order="C")
        rows.begin()
        values = rows.values()
        finite = np.isfinite(given)
        if finite.all():
            values[:] = self.run(given).T
        else:
            usable = finite.all(axis=1)
            values[:] = np.nan
            if usable.any():
                values[:, usable] = self.run(given[usable]).T
        return Block(block.stream, rows.give(block.rows), block.watermark, block.position)

    def _by_arrays(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The same by Arrow's objects: for outputs other than double, or a signature that is not of plain numbers."""
        tensor = rows.select(self.signature.names).to_tensor(null_to_nan=True)
        matrix = np.asarray(tensor.to_numpy(), dtype=np.float32)
        usable = np.isfinite(matrix).all(axis=1)
        outputs = np.full((len(matrix), len(self._gives)), np.nan, dtype=np.float32)
        if usable.any():
            outputs[usable] = self.run(matrix[usable])
        for index, field in enumerate(self._gives):
            values = pa.array(outputs[:, index].astype(np.float64), mask=~usable).cast(field.type)
            rows = rows.append_column(field, values)
        return rows

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (rows, outputs) of inputs (rows, inputs).

        Trees take all rows at once. Other models go row by row: a matrix product may differ in its last bit with
        the number of rows, and a score must not depend on how the stream was cut into Blocks.
        """
        if self.together:
            together: NDArray[np.float32] = self.session.run(self.outputs, {self.input: matrix})[0]
            return together
        given = [
            self.session.run(self.outputs, {self.input: matrix[row : row + 1]})[0]
            for row in range(len(matrix))
        ]
        scored: NDArray[np.float32] = given[0] if len(given) == 1 else np.concatenate(given)
        return scored

    def _check(self, block: Block) -> None:
        schema = block.rows.schema
        if self._checked is not None and schema.equals(self._checked):
            return
        wrong = []
        for field in self.signature:
            index = schema.get_field_index(field.name)
            if index < 0:
                wrong.append(f"{field.name} is missing")
            elif schema.field(index).type != field.type:
                wrong.append(f"{field.name} is {schema.field(index).type}, not {field.type}")
        if wrong:
            raise SignatureMismatch(
                "B612",
                f"the model {self.manifest.name} was trained on other columns",
                where=block.stream,
                why="; ".join(wrong),
                fix="give it the columns of its manifest, or train it on these",
            )
        self._checked = schema
        rows = Extended(schema, [(name, True) for name in self.signature.names], list(self._gives))
        doubles = all(pa.types.is_float64(field.type) for field in self._gives)
        self._rows = rows if doubles and all(rows.read) else None


def _rows_apart(content: bytes) -> bool:
    """Whether every operator of a model is known to keep rows apart to the last bit."""
    import onnx

    graph = onnx.load_from_string(content).graph
    return all(node.op_type in _ROWS_APART for node in graph.node)


def _session(file: ModelFile) -> Any:
    if file.manifest.flavour != "onnx":
        raise SignatureMismatch(
            "B649",
            f"{file.manifest.name} is no ONNX model",
            why=f"a {file.manifest.flavour} is run by a child process of its own environment, in the path only",
            fix="score it by a step boucle.serve.score:Score, or export it as ONNX",
        )
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    failures = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        session = onnxruntime.InferenceSession(file.content, options, providers=["CPUExecutionProvider"])
    except (
        failures.Fail,
        failures.InvalidGraph,
        failures.InvalidProtobuf,
        failures.InvalidArgument,
    ) as error:
        raise BoucleError(
            "B610",
            f"ONNX Runtime cannot load the model {file.manifest.name}",
            why=str(error),
            fix="export it again for the installed onnxruntime",
        ) from error
    width = session.get_inputs()[0].shape[-1]
    if width != len(file.manifest.inputs):
        raise SignatureMismatch(
            "B612",
            f"the model {file.manifest.name} takes {width} numbers",
            why=f"its manifest names {len(file.manifest.inputs)} columns",
            fix="save model and manifest together",
        )
    return session

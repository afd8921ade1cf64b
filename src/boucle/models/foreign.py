"""ONNX models that somebody else made: their signature read from the graph and from what was told beside it."""

import json
from collections.abc import Mapping
from typing import Any

from boucle.errors import SignatureMismatch
from boucle.models.file import Column, ModelFile

__all__ = ["columns_of", "onnx_model"]


def onnx_model(content: bytes, name: str, described: Mapping[str, Any]) -> ModelFile:
    """A model of one float32 input (rows, columns) and a first output (rows, columns); B640 for another shape.

    Columns are named by the signature of an `MLmodel`, else `input_0` … and the graph's name of the output.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load_from_string(content).graph
        # Old exporters list weights among the inputs.
        weights = {one.name for one in graph.initializer}
        taken = [one for one in graph.input if one.name not in weights]
        widths = [_width(one) for one in (taken[0], graph.output[0])]
        kind = taken[0].type.tensor_type.elem_type
    except (DecodeError, ValueError, IndexError, OSError) as error:
        raise _refused(name, str(error)) from error
    if len(taken) != 1 or kind != onnx.TensorProto.FLOAT or not widths[0]:
        raise _refused(name, f"{len(taken)} inputs, of type {kind}, {widths[0] or 'any number of'} columns")
    signature = described.get("signature") or {}
    inputs = columns_of(signature.get("inputs")) or [f"input_{index}" for index in range(widths[0])]
    wide = widths[1] or 1
    outputs = columns_of(signature.get("outputs"))
    if len(outputs) != wide:
        base = graph.output[0].name
        outputs = [base] if wide == 1 else [f"{base}_{index}" for index in range(wide)]
    if len(inputs) != widths[0]:
        inputs = [f"input_{index}" for index in range(widths[0])]
    return ModelFile.build(
        content,
        name=name,
        inputs=tuple(Column(one) for one in inputs),
        outputs=tuple(Column(one) for one in outputs),
        created=str(described.get("utc_time_created", "")),
        trained_on={"run": str(described.get("run_id", ""))},
        metrics={},
    )


def columns_of(told: Any) -> list[str]:
    """The column names of an MLflow schema (JSON text); empty for tensors and for what cannot be read."""
    try:
        columns = json.loads(told) if isinstance(told, str) else []
    except ValueError:
        return []
    named = [one.get("name") for one in columns if isinstance(one, dict)] if isinstance(columns, list) else []
    return [str(one) for one in named] if all(named) else []


def _width(value: Any) -> int:
    shape = value.type.tensor_type.shape.dim
    return int(shape[-1].dim_value) if len(shape) == 2 else 0 if len(shape) else 1


def _refused(name: str, why: str) -> SignatureMismatch:
    return SignatureMismatch(
        "B640",
        f"the ONNX model {name} cannot be scored here",
        why=why,
        fix="export it with one float32 input of (rows, columns)",
    )

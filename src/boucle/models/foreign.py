"""Models that somebody else made: ONNX, or the folders of MLflow, with the signature that was told beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from boucle.errors import BoucleError, SignatureMismatch
from boucle.models.archive import pack
from boucle.models.file import Column, ModelFile

__all__ = ["columns_of", "mlflow_model", "model_folder", "onnx_model"]

_ARROW = {
    "boolean": "bool", "integer": "int32", "long": "int64", "float": "float", "double": "double",
    "string": "string", "binary": "binary", "datetime": "timestamp[ns]",
}  # fmt: skip
"""MLflow's types of columns → Arrow's (MLflow, `mlflow.types.schema.DataType`)."""


def model_folder(folder: Path) -> ModelFile:
    """A model folder of ours, or one that MLflow made (`MLmodel`); B610, B611, B639 or B640 when it is neither."""
    if (folder / "manifest.json").exists() or not (folder / "MLmodel").exists():
        return ModelFile.load(folder)
    try:
        files = {
            str(one.relative_to(folder)): one.read_bytes()
            for one in sorted(folder.rglob("*"))
            if one.is_file()
        }
    except OSError as error:
        what, fix = "the MLflow model cannot be read", "log it again"
        raise BoucleError("B610", what, where=str(folder), why=str(error), fix=fix) from error
    return mlflow_model(files, folder.name)


def mlflow_model(files: Mapping[str, bytes], name: str) -> ModelFile:
    """A model of the files that MLflow logged: its ONNX where it has one, else the whole as a `pyfunc`.

    B639 when it is neither, B640 when it says nothing of its columns.
    """
    told = _described(files, name)
    flavours = told.get("flavors")
    flavours = flavours if isinstance(flavours, dict) else {}
    onnx = flavours.get("onnx")
    data = str(onnx.get("data", "model.onnx")) if isinstance(onnx, dict) else ""
    if data in files:
        return onnx_model(files[data], name, told)
    if "python_function" not in flavours:
        raise BoucleError(
            "B639",
            f"{name} can neither be scored as ONNX nor as a pyfunc",
            why=f"its flavours: {', '.join(flavours) or 'none'}",
            fix="log it with a python_function flavour (mlflow.pyfunc, mlflow.sklearn …)",
        )
    return _pyfunc_model(files, name, told)


def _described(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """What `MLmodel` says; B639 when there is none, or none that can be read."""
    try:
        told = yaml.safe_load(files["MLmodel"])
    except (KeyError, ValueError, yaml.YAMLError, RecursionError) as error:
        why, fix = str(error)[:200], "log it again"
        raise BoucleError("B639", f"{name} is no MLflow model", why=why, fix=fix) from error
    return told if isinstance(told, dict) else {}


def _pyfunc_model(files: Mapping[str, bytes], name: str, told: Mapping[str, Any]) -> ModelFile:
    signature = told.get("signature")
    signature = signature if isinstance(signature, dict) else {}
    inputs, optional = _inputs(signature.get("inputs"), name)
    outputs = columns_of(signature.get("outputs")) or [
        "prediction" if width == 1 else f"prediction_{index}"
        for width in [_tensor_width(signature.get("outputs"))]
        for index in range(width)
    ]
    return ModelFile.build(
        pack(files),
        name=name,
        inputs=tuple(inputs),
        outputs=tuple(Column(one) for one in outputs),
        created=str(told.get("utc_time_created", "")),
        trained_on={"run": str(told.get("run_id", ""))},
        metrics={},
        flavour="pyfunc",
        optional=tuple(optional),
    )


def _inputs(told: Any, name: str) -> tuple[list[Column], list[str]]:
    """The columns of a schema, and those that may be null; B640 when it names none, or has types of no column."""
    named = columns_of(told)
    if not named:
        raise _refused(name, "its signature names no columns")
    columns, optional = [], []
    for one in json.loads(told):
        kind = _ARROW.get(str(one.get("type")))
        if kind is None:
            raise _refused(name, f"its input {one['name']} is {one.get('type')}")
        columns.append(Column(str(one["name"]), type=kind))
        if one.get("required") is False:
            optional.append(str(one["name"]))
    return columns, optional


def _tensor_width(told: Any) -> int:
    """How many numbers a row has in an answer without names: 1, or the last number of its shape."""
    try:
        shape = json.loads(told)[0]["tensor-spec"]["shape"]
        return int(shape[-1]) if len(shape) == 2 and 0 < int(shape[-1]) < 1_000 else 1
    except (ValueError, TypeError, KeyError, IndexError):
        return 1


def onnx_model(content: bytes, name: str, told: Mapping[str, Any]) -> ModelFile:
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
    signature = told.get("signature")
    signature = signature if isinstance(signature, dict) else {}
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
        created=str(told.get("utc_time_created", "")),
        trained_on={"run": str(told.get("run_id", ""))},
        metrics={},
    )


def columns_of(told: Any) -> list[str]:
    """The column names of an MLflow schema (JSON text); empty for tensors and for what cannot be read."""
    try:
        columns = json.loads(told) if isinstance(told, str) else []
    except (ValueError, RecursionError):
        return []
    named = [one.get("name") for one in columns if isinstance(one, dict)] if isinstance(columns, list) else []
    return [str(one) for one in named] if all(named) else []


def _width(value: Any) -> int:
    shape = value.type.tensor_type.shape.dim
    return int(shape[-1].dim_value) if len(shape) == 2 else 0 if len(shape) else 1


def _refused(name: str, why: str) -> SignatureMismatch:
    return SignatureMismatch(
        "B640",
        f"the model {name} cannot be scored here",
        why=why,
        fix="export ONNX with one float32 input of (rows, columns); log a pyfunc with a signature of named columns",
    )

"""A model small enough to check by hand: health = 1 - 0.1·a, rul_h = 2·a + b."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from boucle.models.file import Column, ModelFile

WEIGHTS = np.array([[-0.1, 2.0], [0.0, 1.0]], dtype=np.float32)
BIAS = np.array([1.0, 0.0], dtype=np.float32)


def content(width: int = 2) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["input", "weights", "bias"], ["output"])],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 2])],
        [
            numpy_helper.from_array(np.resize(WEIGHTS, (width, 2)), "weights"),
            numpy_helper.from_array(BIAS, "bias"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    serialised: bytes = made.SerializeToString()
    return serialised


def tiny(width: int = 2) -> ModelFile:
    return ModelFile.build(
        content(width),
        name="tiny",
        inputs=(Column("a", unit="g"), Column("b", type="int64")),
        outputs=(Column("health"), Column("rul_h", unit="h")),
        created="2026-11-21T00:00:00Z",
        trained_on={"seeds": [1]},
        metrics={"mae": 0.0},
    )

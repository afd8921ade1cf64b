"""Models small enough to check by hand, in a registry of their own."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from boucle.models.file import Column, ModelFile
from boucle.models.registry import Registry, registry_of


def linear(
    *weights: float, bias: float = 0.0, name: str = "risk", output: str = "risk", loops: int = 0
) -> ModelFile:
    """output = weights · (a, b, …) + bias; `loops` > 0 makes a score of it that takes long."""
    inputs = [chr(ord("a") + number) for number in range(len(weights))]
    nodes = [helper.make_node("Gemm", ["input", "weights", "bias"], ["straight" if loops else "output"])]
    constants = [
        numpy_helper.from_array(np.array([[one] for one in weights], np.float32), "weights"),
        numpy_helper.from_array(np.array([bias], np.float32), "bias"),
    ]
    if loops:
        body = helper.make_graph(
            [
                helper.make_node("MatMul", ["big_in", "big"], ["big_out"]),
                helper.make_node("Identity", ["on"], ["on_out"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("turn", TensorProto.INT64, []),
                helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("big_in", TensorProto.FLOAT, [256, 256]),
            ],
            [
                helper.make_tensor_value_info("on_out", TensorProto.BOOL, []),
                helper.make_tensor_value_info("big_out", TensorProto.FLOAT, [256, 256]),
            ],
        )
        constants += [
            numpy_helper.from_array(np.zeros((256, 256), np.float32), "big"),
            numpy_helper.from_array(np.array(loops, np.int64), "turns"),
            numpy_helper.from_array(np.array(True), "go"),
        ]
        nodes += [
            helper.make_node("Loop", ["turns", "go", "big"], ["end"], body=body),
            helper.make_node("ReduceSum", ["end"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["straight", "nothing"], ["output"]),
        ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, len(weights)])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return ModelFile.build(
        made.SerializeToString(),
        name=name,
        inputs=tuple(Column(one) for one in inputs),
        outputs=(Column(output),),
        created="2026-11-22T00:00:00Z",
        trained_on={"seeds": [1]},
        metrics={},
    )


def registered(folder: Path, *models: ModelFile) -> Registry:
    """A product's registry with these versions; the first is champion."""
    folder.mkdir(parents=True, exist_ok=True)
    registry = registry_of(folder)
    for model in models:
        registry.add(model, by="tests")
    registry.promote(models[0].manifest.name, 1, by="tests")
    return registry

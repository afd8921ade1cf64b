"""Scoring: the numbers of the model, null where an input is missing, refusal of other columns."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.errors import BoucleError, SignatureMismatch
from boucle.models.file import ModelFile
from boucle.models.onnx import OnnxModel
from boucle.ports import Model
from tests.models.tiny import tiny


def block(**columns: Any) -> Block:
    return Block("features", pa.record_batch(columns), 7, Position("p", 1))


def test_it_is_a_model() -> None:
    assert isinstance(OnnxModel(tiny()), Model)


def test_the_outputs_are_appended() -> None:
    given = block(machine=pa.array(["m", "n"]), a=pa.array([1.0, 4.0]), b=pa.array([5, 6]))
    scored = OnnxModel(tiny()).score(given)
    assert scored.rows.schema.names == ["machine", "a", "b", "health", "rul_h"]
    np.testing.assert_allclose(scored.rows["health"], [0.9, 0.6], rtol=1e-6)
    np.testing.assert_allclose(scored.rows["rul_h"], [7, 14], rtol=1e-6)
    assert (scored.watermark, scored.position) == (given.watermark, given.position)


def test_a_missing_number_gives_null_not_a_guess() -> None:
    a = pa.array([1.0, None, float("nan"), float("inf"), 2.0])
    scored = OnnxModel(tiny()).score(block(a=a, b=pa.array([0, 0, 0, 0, None], pa.int64())))
    assert scored.rows["health"].is_null().to_pylist() == [False, True, True, True, True]
    assert OnnxModel(tiny()).score(scored_empty()).rows.num_rows == 0


def scored_empty() -> Block:
    return block(a=pa.array([], pa.float64()), b=pa.array([], pa.int64()))


def test_other_columns_are_refused_with_all_reasons() -> None:
    with pytest.raises(SignatureMismatch, match="a is string, not double; b is missing"):
        OnnxModel(tiny()).score(block(a=pa.array(["1"])))


def test_a_file_that_is_no_model_is_refused() -> None:
    manifest = tiny().manifest
    with pytest.raises(BoucleError, match="B610"):
        OnnxModel(ModelFile(manifest, b"no model"))
    with pytest.raises(SignatureMismatch, match="takes 3 numbers"):
        OnnxModel(tiny(width=3))


def test_onnx_runtime_is_told_not_to_send_telemetry_before_it_is_loaded() -> None:
    code = (
        "import sys, os\n"
        "import boucle.models.onnx as o\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "from tests.models.tiny import tiny\n"
        "o.OnnxModel(tiny())\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=clean, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["1", "True"], done.stderr

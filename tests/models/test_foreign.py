"""Models that others made: what cannot be scored is refused, what hangs or dies is told."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.errors import BoucleError, SignatureMismatch, Unavailable
from boucle.models.foreign import columns_of, onnx_model
from boucle.models.onnx import OnnxModel
from boucle.models.pyfunc import PyfuncModel
from boucle.models.registry import Registry
from tests.models.tiny import content

ROWS = Block("s", pa.record_batch({"a": [1.0, 2.0]}), 0, Position("p", 0))


def test_columns_are_named_by_what_is_told_beside_the_model() -> None:
    told = {
        "signature": {"inputs": '[{"name": "a"}, {"name": "b"}]', "outputs": '[{"name": "h"}, {"name": "r"}]'}
    }
    model = onnx_model(content(), "m", told)
    assert [one.name for one in (*model.manifest.inputs, *model.manifest.outputs)] == ["a", "b", "h", "r"]
    bare = onnx_model(content(), "m", {"signature": {"inputs": "[{]"}})
    assert [one.name for one in bare.manifest.inputs] == ["input_0", "input_1"]
    assert OnnxModel(bare).run(np.zeros((1, 2), np.float32)).shape == (1, 2)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_model_or_refused(told: bytes) -> None:
    with pytest.raises(SignatureMismatch):
        onnx_model(told, "m", {})


@given(st.text(max_size=50))
def test_any_text_is_a_schema_or_none(text: str) -> None:
    assert all(isinstance(one, str) for one in columns_of(text))


def child(folder: Path, code: str) -> PyfuncModel:
    """A model whose environment is a stand-in: a script that speaks on the pipes."""
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\nimport sys, time\nout = sys.stdout.buffer\n{code}\n")
    script.chmod(0o755)
    return PyfuncModel(folder, script, inputs=["a"], outputs=["s"], deadline=0.3, start=20)


READY = "out.write(b'ok'); out.flush()\n"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("sys.exit(1)", "cannot be started"),
        (READY + "time.sleep(60)", "deadline"),
        (READY + "sys.stdin.buffer.read(8); sys.exit(3)", "ended"),
        (
            READY + "out.write((4).to_bytes(8, 'big') + b'oops'); out.flush(); time.sleep(60)",
            "did not answer",
        ),
    ],
)
def test_a_child_that_fails_is_told_and_ended(tmp_path: Path, code: str, says: str) -> None:
    model = child(tmp_path, code)
    with pytest.raises(Unavailable) as caught:
        model.score(ROWS)
    assert says in str(caught.value)
    assert caught.value.code == "B641"
    assert not model.child.alive


def test_what_a_model_refuses_is_told(tmp_path: Path) -> None:
    model = child(
        tmp_path, READY + "out.write((5).to_bytes(8, 'big') + b'!nope'); out.flush(); time.sleep(60)"
    )
    try:
        with pytest.raises(BoucleError, match="refuses these rows"):
            model.score(ROWS)
        with pytest.raises(SignatureMismatch):
            model.score(Block("s", pa.record_batch({"b": [1.0]}), 0, Position("p", 0)))
        assert model.score(Block("s", ROWS.rows.slice(0, 0), 0, Position("p", 0))).rows.schema.names == [
            "a",
            "s",
        ]
    finally:
        model.close()


def test_a_server_that_was_never_seen_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Unavailable) as caught:
        Registry.at("mlflow+http://127.0.0.1:1").load("m@champion")
    assert caught.value.code == "B636"

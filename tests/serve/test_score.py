"""A model as a step: every row goes on, scored or marked as unscored."""

from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.errors import BoucleError
from boucle.ports import Operator
from boucle.serve import Score
from tests.models.tiny import tiny


@pytest.fixture
def step(tmp_path: Path) -> Score:
    tiny().save(tmp_path / "models" / "tiny")
    return Score("health", model="models/tiny", folder=tmp_path)


def test_rows_without_all_numbers_go_on_unscored(step: Score) -> None:
    rows = pa.record_batch({"a": pa.array([1.0, None, 3.0]), "b": pa.array([1, 2, 3])})
    (scored,) = step.step(Block("features", rows, 5, Position("p", 9)))
    assert (scored.stream, scored.watermark, scored.position) == ("health", 5, Position("p", 9))
    assert scored.rows["health"].to_pylist() == [pytest.approx(0.9), None, pytest.approx(0.7)]
    assert step.unscored == 1
    assert isinstance(step, Operator)


def test_a_restart_keeps_the_count(step: Score, tmp_path: Path) -> None:
    rows = pa.record_batch({"a": pa.array([None], pa.float64()), "b": pa.array([1])})
    step.step(Block("features", rows, 0, Position("p", 0)))
    again = Score("health", model="models/tiny", folder=tmp_path)
    again.restore(step.snapshot())
    assert again.unscored == 1
    for wrong in (b"\xc1", msgspec.msgpack.encode((99, "", 0))):
        with pytest.raises(BoucleError, match="B602"):
            again.restore(wrong)


def test_a_model_that_is_not_there_says_where(tmp_path: Path) -> None:
    with pytest.raises(BoucleError, match="B610"):
        Score("health", model="models/none", folder=tmp_path)

"""A model in the shadow: compared row by row, shed when it is behind, never in the way."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.serve import Score
from boucle.serve.agreement import Agreement
from tests.serve.models import linear, registered

numbers = st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=60)


@given(numbers, st.integers(0, 60), st.floats(-10, 10))
@settings(max_examples=30, deadline=None)
def test_comparisons_of_parts_add_up_to_that_of_the_whole(
    values: list[float], cut: int, shift: float
) -> None:
    acting = np.array(values)
    shadow = acting * 1.01 + shift
    whole = Agreement(threshold=0.5)
    whole.add(acting, shadow)
    parts = Agreement(threshold=0.5)
    parts.add(acting[:cut], shadow[:cut])
    rest = Agreement(threshold=0.5)
    rest.add(acting[cut:], shadow[cut:])
    parts.merge(rest)
    assert (parts.rows, parts.agreed, parts.raised, parts.lowered) == (
        whole.rows, whole.agreed, whole.raised, whole.lowered,
    )  # fmt: skip
    assert parts.classes == whole.classes
    assert parts.sums == pytest.approx(whole.sums)
    size = np.sort(np.abs(shadow - acting))
    for share in (0.1, 0.5, 0.99, 1.0):
        exact = size[math.ceil(share * len(size)) - 1]
        assert whole.quantile(share) == pytest.approx(exact, rel=0.051, abs=2e-9)


def step(score: Score, values: list[float | None]) -> Any:
    rows = pa.record_batch({"a": pa.array(values, pa.float64())})
    return score.step(Block("f", rows, 0, Position("p", 0)))[0].rows


def test_row_by_row(tmp_path: Path) -> None:
    registry = registered(tmp_path, linear(1.0), linear(2.0))
    registry.promote("risk", 2, "challenger", by="tests")
    score = Score(
        "risk",
        model="models:risk@champion",
        folder=tmp_path,
        shadow={"model": "models:risk@challenger", "flips": {"risk": 3.0}},
    )
    assert step(score, [0.0, 2.0, 5.0, None])["risk"].to_pylist() == [0.0, 2.0, 5.0, None]
    assert score.shadow is not None
    score.shadow.settle()
    told = score.shadow.told()
    assert (told["acting"], told["shadow"]) == ("risk 1", "risk 2")
    assert told["outputs"]["risk"] == {
        "rows": 3, "agreement": pytest.approx(1 / 3), "mean_difference": pytest.approx(7 / 3),
        "p50": pytest.approx(2.0, rel=0.06), "p99": 5.0, "largest": 5.0, "raised": 1, "lowered": 0,
    }  # fmt: skip
    score.close()


def test_behind_it_sheds_and_the_path_does_not_wait(tmp_path: Path) -> None:
    registry = registered(tmp_path, linear(1.0), linear(1.0, loops=6))
    registry.promote("risk", 2, "challenger", by="tests")
    score = Score(
        "risk",
        model="models:risk@champion",
        folder=tmp_path,
        shadow={"model": "models:risk@challenger", "queue": 2},
    )
    for value in range(40):
        assert step(score, [float(value)])["risk"].to_pylist() == [float(value)]
    assert score.shadow is not None
    score.shadow.settle()
    told = score.shadow.told()
    assert score.shadow.shed > 0
    assert told["outputs"]["risk"]["rows"] + score.shadow.shed == 40
    assert score.ledger.scored == 40
    score.close()


def test_a_shadow_with_other_columns_or_none_at_all_is_no_trouble_for_the_path(tmp_path: Path) -> None:
    registry = registered(tmp_path, linear(1.0), linear(1.0, 1.0))
    declared: dict[str, Any] = {
        "model": "models:risk@champion",
        "folder": tmp_path,
        "shadow": "models:risk@challenger",
    }
    score = Score("risk", **declared)
    assert step(score, [1.0])["risk"].to_pylist() == [1.0]
    score.close()
    registry.promote("risk", 2, "challenger", by="tests")
    score = Score("risk", **declared)
    assert step(score, [1.0])["risk"].to_pylist() == [1.0]
    assert score.shadow is not None
    assert score.shadow.told()["outputs"] == {}
    score.close()

"""Concept drift: each detector tells a change of the error level, since when, and goes on after a restart."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.clock import SECOND
from boucle.drift.change import ConceptDrift
from boucle.errors import BoucleError
from boucle.ports import Operator
from tests.drift.change.rows import START, block, cut, told

pytest.importorskip("river", reason="needs river: pip install 'boucle[drift]'")


def errors(seed: int, before: float = 0.1, after: float = 0.4, rows: int = 1200, change: int = 800) -> Any:
    draw = np.random.default_rng(seed).random(rows)
    return (draw < np.where(np.arange(rows) < change, before, after)).astype(float)


@pytest.mark.parametrize(
    ("detector", "declared"),
    [
        ("adwin", {"delta": 0.002}),
        ("page_hinkley", {"threshold": 30.0}),
        ("kswin", {"alpha": 1e-5, "stat_size": 30}),
    ],
)
def test_a_model_that_grew_worse_is_told_with_its_onset(detector: Any, declared: dict[str, Any]) -> None:
    step = ConceptDrift("drift", columns=["wrong"], detector=detector, settings=declared, least=0.1)
    assert isinstance(step, Operator)
    wrong = errors(1)
    if detector == "kswin":  # thirty zeros and ones are too few for it
        wrong = np.random.default_rng(1).gamma(4, np.repeat([0.025, 0.1], [800, 400]))[600:900]
    row = told(step, block({"wrong": wrong}))[0]
    assert (row["kind"], row["drifted"], row["p"]) == (detector, True, None)
    assert row["effect"] == pytest.approx(0.35, abs=0.2)
    onset = 200 if detector == "kswin" else 800
    assert abs(row["since"].timestamp() - START // SECOND - onset) < 60
    assert row["at"] > row["since"]
    assert "the error went from 0." in row["says_en"]
    assert "l'erreur est passée de 0," in row["says_fr"]


def test_adwin_is_silent_when_nothing_changed_and_when_it_grew_better() -> None:
    quiet = sum(
        len(told(ConceptDrift("d", columns=["wrong"]), block({"wrong": errors(seed, 0.2, 0.2)})))
        for seed in range(5)
    )
    assert quiet <= 1  # of 6 000 rows
    better = block({"wrong": errors(3, 0.4, 0.1)})
    assert told(ConceptDrift("d", columns=["wrong"]), better) == []
    (row,) = told(ConceptDrift("d", columns=["wrong"], direction="both"), better)
    assert row["effect"] < -0.2
    assert told(ConceptDrift("d", columns=["wrong"], least=0.5), block({"wrong": errors(3)})) == []


@pytest.mark.parametrize("detector", ["adwin", "page_hinkley", "kswin"])
def test_cuts_and_restarts_change_nothing(detector: Any) -> None:
    rows = 240 if detector == "kswin" else 1200

    @settings(max_examples=2, deadline=None)
    @given(st.sets(st.integers(1, rows - 1), max_size=4))
    def law(places: set[int]) -> None:
        wrong = errors(1, rows=rows, change=rows // 2)
        whole = block({"wrong": wrong, "unit": ["a", "b"] * (rows // 2)})
        declared: dict[str, Any] = {"columns": ["wrong"], "by": ["unit"], "detector": detector}
        expected = told(ConceptDrift("d", **declared), whole)
        step, found = ConceptDrift("d", **declared), []
        for part in cut(whole, sorted(places)):
            found += told(step, part)
            again = ConceptDrift("d", **declared)
            again.restore(step.snapshot())
            step = again
        assert found == expected

    law()


def test_missing_errors_are_passed_over_and_keys_are_bounded() -> None:
    step = ConceptDrift("d", columns=["wrong"], by=["unit"], keys=2)
    told(step, *(block({"wrong": [None, 1.0, float("nan")], "unit": [unit] * 3}) for unit in "abc"))
    again = ConceptDrift("d", columns=["wrong"], by=["unit"], keys=2)
    again.restore(step.snapshot())
    assert again.snapshot() == step.snapshot()
    assert len(again._keys) == 2
    assert [list(one.values) for watched in again._keys.values() for one in watched] == [[1.0], [1.0]]


@pytest.mark.parametrize(
    "declared",
    [
        {"detector": "ddm"},
        {"settings": {"colour": 1}},
        {"detector": "kswin", "settings": {"alpha": 7}},
        {"least": -1},
        {"memory": 3},
    ],
)
def test_settings_that_cannot_work_are_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(BoucleError, match="B764"):
        ConceptDrift("d", columns=["wrong"], **declared)


def test_wrong_columns_and_states_are_refused_in_words() -> None:
    step = ConceptDrift("d", columns=["wrong"])
    with pytest.raises(BoucleError, match="B762"):
        step.step(block({"other": [1.0]}))
    with pytest.raises(BoucleError, match="B762"):
        step.step(block({"wrong": ["much"]}))
    other = ConceptDrift("d", columns=["wrong"], detector="page_hinkley").snapshot()
    for state, code in ((b"junk", "B602"), (other, "B763")):
        with pytest.raises(BoucleError, match=code):
            step.restore(state)

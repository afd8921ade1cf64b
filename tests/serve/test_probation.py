"""A champion on probation: gone back from when the one before would have done better, and only then; gates hold."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.errors import BoucleError
from boucle.serve.decisions import promoted
from boucle.serve.probation import Probation
from tests.serve.models import linear, registered

OUTCOMES = {"model": "models:risk", "loss": "abs(bad - risk)", "version": "version"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """risk = a of version 1, 1 - a of version 2, a of version 3."""
    here = tmp_path_factory.mktemp("probation")
    registered(here, linear(1.0), linear(-1.0, bias=1.0), linear(1.0, bias=0.0))
    return here


def outcomes(told: Sequence[tuple[str | None, float]], first: int = 0) -> Block:
    """Rows of (version, a): a = 1 was bad; the risk is what that version says."""
    a = np.array([value for _, value in told])
    says = [value if version != "2" else 1 - value for version, value in told]
    rows = pa.record_batch(
        {
            "at": pa.array(np.arange(first, first + len(told)) * 10**9, pa.timestamp("ns", "UTC")),
            "a": pa.array(a),
            "risk": pa.array(says, pa.float64()),
            "bad": pa.array((a > 0.5).astype(np.int64)),
            "version": [version for version, _ in told],
        }
    )
    return Block("outcomes", rows, 0, Position("p", first + len(told)))


def rows(step: Probation, told: Sequence[tuple[str | None, float]], first: int = 0) -> list[dict[str, Any]]:
    (block,) = step.step(outcomes(told, first))
    given: list[dict[str, Any]] = block.rows.to_pylist()
    return given


def made(folder: Path, **more: Any) -> Probation:
    return Probation("probation", folder=folder, **{**OUTCOMES, **more})


def test_a_champion_that_is_worse_than_the_one_before_is_gone_back_from(folder: Path) -> None:
    step = made(folder)
    assert rows(step, [("1", 0.9)] * 50) == []
    (told,) = rows(step, [("2", 0.9)] * 60)
    assert (told["decision"], told["champion"], told["before"]) == ("rollback", "2", "1")
    assert told["outcomes"] == 30  # `least`: nothing so clear takes more
    assert told["champion_loss"] == pytest.approx(0.9, abs=1e-6)
    assert told["before_loss"] == pytest.approx(0.1, abs=1e-6)
    assert rows(step, [("1", 0.9)] * 60 + [("2", 0.9)] * 60) == []  # both were tried already
    assert step.counts["stale"] == 60


def test_labels_that_come_late_neither_end_nor_begin_a_probation(folder: Path) -> None:
    step = made(folder)
    (told,) = rows(step, [("1", 0.9), ("2", 0.9)] * 35)
    assert (told["decision"], told["outcomes"], step.counts["stale"]) == ("rollback", 30, 34)
    assert rows(step, [("1", 0.9)] * 2 + [("3", 0.9)] * 20 + [("1", 0.9)] * 2, first=100) == []
    assert (step.state.champion, step.state.before) == ("3", "1")  # who acted last before it


def test_a_champion_as_good_as_the_one_before_is_confirmed(folder: Path) -> None:
    step = made(folder, outcomes=200)
    (told,) = rows(step, [("2", 0.2)] * 5 + [("3", 0.2)] * 300)
    assert (told["decision"], told["outcomes"]) == ("confirmed", 200)


def test_outcomes_that_cannot_be_compared_are_counted(folder: Path) -> None:
    step = made(folder)
    told: list[tuple[str | None, float]] = [
        ("1", 0.5),
        ("3", float("nan")),
        ("3", 3.0),
        (None, 0.5),
        ("1", 0.5),
    ]
    assert rows(step, told) == []
    assert step.counts == {"compared": 1, "clipped": 2, "unscored": 0, "stale": 1}
    assert rows(step, [("2", 0.5), ("2", 0.2)]) == []
    assert step.counts["compared"] == 2


@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=12), restart=st.integers(0, 100))
@settings(max_examples=6, deadline=None)
def test_any_cut_and_any_restart_decides_the_same(folder: Path, cuts: list[int], restart: int) -> None:
    told = [("1", 0.9)] * 20 + [("2", 0.6)] * 100
    (whole,) = rows(made(folder), told)
    step, found, at = made(folder), list[dict[str, Any]](), 0
    while at < len(told):
        count = cuts[at % len(cuts)]
        (block,) = step.step(outcomes(told[at : at + count], at))
        found += block.rows.to_pylist()
        at += count
        if at >= restart:
            kept, step, restart = step.snapshot(), made(folder), 10_000
            step.restore(kept)
    (one,) = found
    assert one == whole


@pytest.mark.parametrize("approval", [False, True])
def test_going_back_is_done_once_with_its_evidence(tmp_path: Path, approval: bool) -> None:
    registry = registered(tmp_path, linear(1.0), linear(-1.0, bias=1.0))
    registry.promote("risk", 2, by="tests")
    told: list[dict[str, Any]] = []
    step = made(tmp_path, approval=approval)
    step.attach(tmp_path, lambda kind, severity, says, evidence: told.append({**evidence, **says}))
    step.live()
    rows(step, [("1", 0.9)] + [("2", 0.9)] * 40)
    until = time.monotonic() + 20
    while not told:
        assert time.monotonic() < until
        time.sleep(0.002)
    kept = step.snapshot()
    step.close()
    roles = registry.roles("risk")
    if approval:
        assert told[0]["done"] == "waits for approval"
        assert "boucle rollback risk" in told[0]["en"]
        assert roles.roles["champion"] == 2
        return
    assert told[0]["done"] == "done"
    assert roles.roles["champion"] == 1
    assert roles.history[-1].by == "probation probation"
    assert "30 outcomes" in roles.history[-1].why
    again = made(tmp_path)  # killed before its next checkpoint: it decides again, and nothing is done twice
    again.attach(tmp_path, lambda kind, severity, says, evidence: told.append(evidence))
    again.restore(kept)
    again.live()
    while len(told) < 2:
        assert time.monotonic() < until
        time.sleep(0.002)
    again.close()
    assert told[1]["done"] == "done before"
    assert registry.roles("risk").generation == roles.generation


def test_settings_that_cannot_work_are_refused(folder: Path) -> None:
    for wrong in ({"alpha": 0.0}, {"margin": 1.0}, {"least": 0}, {"outcomes": 5}):
        with pytest.raises(BoucleError, match="B717"):
            made(folder, **wrong)


@given(st.binary(max_size=120))
@settings(max_examples=20, deadline=None)
def test_any_bytes_as_a_state_are_refused(folder: Path, content: bytes) -> None:
    with pytest.raises(BoucleError, match="B602"):
        made(folder).restore(content)


def test_a_decision_to_promote_is_held_to_the_gates_of_the_version(tmp_path: Path) -> None:
    from boucle.features.source import Source
    from boucle.features.view import FeatureView
    from boucle.models.registry import registry_of
    from boucle.models.train import train
    from boucle.product.project import load_project
    from tests.models.fraud import CUT, fraud_product

    product = fraud_product(tmp_path, ("    rule: {column: amount, above: 150}\n", ""), cards=20)
    project = load_project(product)
    spec = project.loop.models["fraud"]
    views = [FeatureView.declared(one, project.loop.features[one]) for one in spec.views]
    trained = train("fraud", spec, views, Source(product), cut=CUT)
    registry = registry_of(product)
    record = msgspec.json.decode(trained.files["record.json"])
    asked = {
        "refused: auc": {"metric": "auc", "at_least": 1.1},
        "waits": {"approval": "risk"},
        "done": {"latency_ms": 1e6},
    }
    for number, (wanted, gate) in enumerate(asked.items(), start=1):
        kept = msgspec.json.encode({**record, "spec": {**record["spec"], "gates": [gate]}})
        registry.add(trained.model, files={**trained.files, "record.json": kept})
        told = promoted(registry, "fraud", number, {"pairs": 9}, by="trial t", why="better")
        assert told.startswith(wanted)
        assert registry.roles("fraud").roles == ({"champion": 3} if number == 3 else {})
    (change,) = registry.roles("fraud").history
    assert change.evidence["pairs"] == 9
    assert change.evidence["gates"][0]["passed"]

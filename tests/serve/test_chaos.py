"""What goes wrong with models: the declared fallback answers, every row is accounted for, one alert says so."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from boucle.block import Block, Position
from boucle.errors import BoucleError, SignatureMismatch
from boucle.models.file import ModelFile
from boucle.serve import Score
from tests.serve.models import linear, registered

MARKS = {"model": "model", "version": "version", "fallback": "why"}
SAFE = [{"rule": {"risk": "a / 10"}}, {"constants": {"risk": 0.5}}]
Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def make(tmp_path: Path, told: Told) -> Iterator[Callable[..., Score]]:
    made: list[Score] = []

    def scored(model: ModelFile, **declared: Any) -> Score:
        model.save(tmp_path / "models" / "risk")
        score = Score("risk", model="models/risk", folder=tmp_path, marks=MARKS, **declared)
        score.attach(
            tmp_path / f"run-{len(made)}",
            lambda kind, severity, says, evidence: told.append((kind, evidence)),
        )
        score.live()
        made.append(score)
        return score

    yield scored
    for score in made:
        score.close()


def block(**columns: Any) -> Block:
    return Block("features", pa.record_batch(columns), 0, Position("p", 0))


def one(score: Score, **columns: Any) -> pa.RecordBatch:
    (given,) = score.step(block(**columns))
    return given.rows


def test_missing_numbers_take_the_fallback(make: Callable[..., Score], told: Told) -> None:
    score = make(linear(1.0), fallback=SAFE)
    given = one(score, a=pa.array([1.0, None, math.nan, math.inf]))
    assert given["risk"].to_pylist() == [1.0, 0.5, 0.5, 0.5]
    assert given["why"].to_pylist() == [None, *["null_features"] * 3]
    assert given["model"].to_pylist() == ["risk", *["constants"] * 3]
    assert (score.ledger.scored, score.ledger.fallback, score.ledger.unscored) == (
        1,
        {"null_features": 3},
        {},
    )
    one(score, a=pa.array([None], pa.float64()))
    assert [kind for kind, _ in told] == ["model_trouble"]


def test_without_a_fallback_they_go_on_marked(make: Callable[..., Score], told: Told) -> None:
    score = make(linear(1.0))
    given = one(score, a=pa.array([1.0, None]))
    assert given["risk"].to_pylist() == [1.0, None]
    assert given["why"].to_pylist() == [None, "null_features"]
    assert score.ledger.unscored == {"null_features": 1}
    assert told == []


def test_a_model_that_sleeps_past_its_deadline(make: Callable[..., Score], told: Told) -> None:
    score = make(linear(1.0, loops=100), deadline="1ms", fallback=SAFE, queue=2)  # some 100 ms of products
    given = [one(score, a=pa.array([2.0])) for _ in range(6)]
    assert all(rows["risk"].to_pylist() == [0.2] for rows in given)
    assert {rows["why"][0].as_py() for rows in given} == {"deadline", "queue"}
    assert score.ledger.balanced()
    assert not score.ledger.unscored
    reasons = [evidence["reason"] for kind, evidence in told if kind == "model_trouble"]
    assert sorted(reasons) == ["deadline", "queue"]
    until = time.monotonic() + 20
    while not score.late_rows and time.monotonic() < until:
        time.sleep(0.01)
    assert score.late_rows >= 1


def test_within_its_deadline_nothing_falls_back(make: Callable[..., Score], told: Told) -> None:
    score = make(linear(1.0), deadline="10s", fallback=SAFE)
    assert one(score, a=pa.array([2.0, 3.0]))["risk"].to_pylist() == [2.0, 3.0]
    assert score.ledger.scored == 2
    assert told == []


def test_what_fell_back_falls_back_again_after_a_crash(tmp_path: Path) -> None:
    linear(1.0, loops=100).save(tmp_path / "models" / "risk")
    declared: dict[str, Any] = {"model": "models/risk", "folder": tmp_path, "marks": MARKS, "fallback": SAFE}
    score = Score("risk", deadline="1ms", **declared)
    score.attach(tmp_path / "run", lambda *_: None)
    score.live()
    first = [one(score, a=pa.array([float(value)])) for value in range(3)]
    score.close()
    again = Score("risk", deadline="1ms", **declared)
    again.attach(tmp_path / "run", lambda *_: None)
    second = one(again, a=pa.array([0.0, 1.0, 2.0]))
    again.close()
    assert pa.Table.from_batches(first).combine_chunks().to_batches()[0]["risk"].equals(second["risk"])
    assert set(second["why"].to_pylist()) <= {"deadline", "queue"}


def test_the_version_before_answers_first(tmp_path: Path, told: Told) -> None:
    registry = registered(tmp_path, linear(1.0), linear(1.0, bias=math.nan))
    registry.promote("risk", 2, by="tests")
    score = Score(
        "risk", model="models:risk@champion", folder=tmp_path, marks=MARKS, fallback=["previous", *SAFE]
    )
    given = one(score, a=pa.array([7.0, None]))
    assert given["risk"].to_pylist() == [7.0, 0.5]
    assert given["version"].to_pylist() == ["1", None]
    assert given["why"].to_pylist() == ["not_finite", "null_features"]
    assert score.ledger.fallback == {"not_finite": 1, "null_features": 1}
    assert score.ledger.balanced()
    score.close()


def test_a_block_of_another_schema(make: Callable[..., Score], told: Told) -> None:
    score = make(linear(1.0), fallback=SAFE)
    given = one(score, other=pa.array(["x", "y"]))
    assert given["risk"].to_pylist() == [0.5, 0.5]
    assert given["why"].to_pylist() == ["signature", "signature"]
    assert one(score, a=pa.array([3.0]))["risk"].to_pylist() == [3.0]
    assert one(score, a=pa.array([3], pa.int64()))["why"].to_pylist() == ["signature"]
    assert score.ledger.balanced()
    assert [kind for kind, _ in told] == ["model_trouble"]
    with pytest.raises(SignatureMismatch, match="B612"):
        one(make(linear(1.0)), other=pa.array(["x"]))


def test_empty_blocks(make: Callable[..., Score]) -> None:
    for declared in ({}, {"fallback": SAFE}, {"deadline": "1s"}):
        score = make(linear(1.0), **declared)
        given = one(score, a=pa.array([], pa.float64()))
        assert given.num_rows == 0
        assert "risk" in given.schema.names
        assert score.ledger.balanced()


def test_recovery_is_told_once(
    make: Callable[..., Score], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boucle.serve.alerts._QUIET", 0.05)
    score = make(linear(1.0), fallback=SAFE)
    for _ in range(5):
        one(score, a=pa.array([None], pa.float64()))
    time.sleep(0.06)
    for _ in range(5):
        one(score, a=pa.array([1.0]))
    assert [kind for kind, _ in told] == ["model_trouble", "model_well"]


def test_a_version_that_needs_more_memory_than_allowed(tmp_path: Path) -> None:
    # Twice 16 MiB of weights that the output depends on: what does not is folded away, and its memory given back.
    small = linear(1.0)
    model = onnx.load_from_string(small.content)
    size = 1 << 22
    wide, tall = np.ones((1, size), np.float32), np.full((size, 1), 1 / size, np.float32)
    model.graph.initializer.extend(
        [numpy_helper.from_array(wide, "wide"), numpy_helper.from_array(tall, "tall")]
    )
    model.graph.node.append(onnx.helper.make_node("MatMul", ["output", "wide"], ["wider"]))
    model.graph.node.append(onnx.helper.make_node("MatMul", ["wider", "tall"], ["sum"]))
    model.graph.output[0].name = "sum"
    _again(small, model).save(tmp_path / "big")
    with pytest.raises(BoucleError, match="B653"):
        Score("risk", model="big", folder=tmp_path, memory="1MB")
    Score("risk", model="big", folder=tmp_path, memory="1GB")


def test_a_model_that_runs_out_of_memory_falls_back(make: Callable[..., Score], told: Told) -> None:
    score = make(_greedy(), fallback=SAFE)
    assert one(score, a=pa.array([0.0]))["risk"].to_pylist() == [0.0]
    given = one(score, a=pa.array([2.0, 3.0]))
    assert given["risk"].to_pylist() == pytest.approx([0.2, 0.3])
    assert given["why"].to_pylist() == ["failed", "failed"]
    assert score.ledger.balanced()
    assert [(kind, evidence["reason"]) for kind, evidence in told] == [("model_trouble", "failed")]
    assert one(score, a=pa.array([0.0]))["why"].to_pylist() == [None]


def _greedy() -> ModelFile:
    """A model that asks for a × 400 TB of memory."""
    small = linear(1.0)
    model = onnx.load_from_string(small.content)
    node = onnx.helper.make_node
    model.graph.node.extend(
        [
            node("ReduceMax", ["input"], ["most"], keepdims=0),
            node("Mul", ["most", "many"], ["size"]),
            node("Cast", ["size"], ["whole"], to=onnx.TensorProto.INT64),
            node("Reshape", ["whole", "one"], ["shape"]),
            node("ConstantOfShape", ["shape"], ["zeros"]),
            node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
            node("Add", ["output", "nothing"], ["sum"]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(1e14, np.float32), "many"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    model.graph.output[0].name = "sum"
    return _again(small, model)


def _again(small: ModelFile, model: onnx.ModelProto) -> ModelFile:
    told = {
        name: getattr(small.manifest, name) for name in small.manifest.__struct_fields__ if name != "sha256"
    }
    return ModelFile.build(model.SerializeToString(), **told)


@given(
    st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=40),
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
)
@settings(max_examples=12, deadline=None)
def test_every_row_is_accounted_for_whatever_comes(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None], cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    linear(2.0).save(folder / "m")
    whole = Score("risk", model="m", folder=folder, fallback=[{"rule": {"risk": "a"}}], marks=MARKS)
    cut = Score("risk", model="m", folder=folder, fallback=[{"rule": {"risk": "a"}}], marks=MARKS)
    expected = one(whole, a=pa.array(values, pa.float64()))
    pieces, at = [], 0
    for place in range(len(values)):
        count = cuts[place % len(cuts)]
        pieces.append(one(cut, a=pa.array(values[at : at + count], pa.float64())))
        at += count
    assert whole.ledger.balanced()
    assert whole.ledger.rows == len(values)
    if pieces:
        together = pa.Table.from_batches(pieces).combine_chunks()
        assert together["risk"].to_pylist() == expected["risk"].to_pylist()
        assert together["why"].to_pylist() == expected["why"].to_pylist()
        assert cut.ledger.told() == whole.ledger.told()


@pytest.mark.parametrize(
    "declared",
    [
        {"fallback": "yesterday"},
        {"fallback": [{"constants": {"risk": 0.5}}, "previous"]},
        {"fallback": [{"constants": {"other": 0.5}}]},
        {"canary": {"model": "models:risk@challenger", "percent": 120, "key": "card"}},
        {"canary": {"percent": 10}},
        {"deadline": "soon"},
        {"queue": 0},
        {"marks": {"colour": "x"}},
        {"cost": {"per_cpu_hour": "much"}},
        {"shadow": {"model": "models:risk@challenger", "queue": 0}},
        {"memory": "a lot"},
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, declared: dict[str, Any]) -> None:
    linear(1.0).save(tmp_path / "m")
    with pytest.raises(BoucleError) as refused:
        one(Score("risk", model="m", folder=tmp_path, **declared), a=pa.array([1.0]))
    assert refused.value.code in {"B650", "B205", "B208"} or refused.value.code.startswith("B2")

"""A pyfunc in the path: as any version, with deadline, fallbacks and a restart beside the path when its child dies."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.cli.main import main
from boucle.errors import BoucleError
from boucle.models.foreign import mlflow_model, model_folder
from boucle.models.onnx import OnnxModel
from boucle.models.registry import open_model, registry_of
from boucle.serve import Score
from boucle.serve.pyfunc import PyfuncReady
from tests.serve.foreign import logged, python
from tests.serve.models import linear

MARKS = {"version": "version", "fallback": "why"}
SAFE = {"constants": {"risk": 0.5}}
Told = list[tuple[str, dict[str, Any]]]
Make = Callable[..., Score]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def make(tmp_path: Path, told: Told) -> Iterator[Make]:
    made: list[Score] = []
    logged(tmp_path / "models" / "risk")
    (tmp_path / "boucle.toml").write_text(f'[models]\npython = "{python(tmp_path)}"\n')

    def scored(model: str = "models/risk", run: str = "run", **declared: Any) -> Score:
        score = Score("risk", model=model, folder=tmp_path, marks=MARKS, **declared)
        score.attach(tmp_path / run, lambda kind, severity, says, evidence: told.append((kind, evidence)))
        score.live()
        made.append(score)
        return score

    yield scored
    for score in made:
        score.close()


def one(score: Score, a: list[float | None], b: list[int | None] | None = None) -> pa.RecordBatch:
    rows = pa.record_batch({"a": pa.array(a, pa.float64()), "b": pa.array(b or [0] * len(a), pa.int64())})
    (scored,) = score.step(Block("features", rows, 0, Position("p", 0)))
    return scored.rows


def child(score: Score) -> PyfuncReady:
    ready = score._arms["champion"]
    assert isinstance(ready, PyfuncReady)
    return ready


def until(met: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_rows_are_given_as_they_are_and_scored(make: Make) -> None:
    score = make(fallback=SAFE, cost={"per_cpu_hour": 1.0})
    given = one(score, [1.0, None, 3.0, float("nan")], [1, 2, None, 4])
    assert given["risk"].to_pylist() == [3.0, 0.5, 6.0, 0.5]
    assert given["why"].to_pylist() == [None, "null_features", None, "null_features"]
    assert one(score, []).num_rows == 0
    assert score.ledger.balanced()
    (tally,) = score.ledger.versions.values()
    assert tally.cpu_ns >= 1000  # the child's time is counted


def test_a_killed_child_costs_one_block_and_is_started_again(make: Make, told: Told) -> None:
    score = make(fallback=SAFE)
    first = child(score).child.pid
    os.kill(first, signal.SIGKILL)
    assert one(score, [1.0])["why"].to_pylist() == ["failed"]
    assert one(score, [1.0])["risk"].to_pylist() == [0.5]  # at once: nobody waits for the start
    until(lambda: one(score, [1.0])["risk"].to_pylist() == [2.0])
    assert child(score).child.pid != first
    assert child(score).child.restarts == 1
    assert one(score, [-1.0])["why"].to_pylist() == ["failed"]  # rows that end the process
    until(lambda: one(score, [2.0])["risk"].to_pylist() == [4.0])
    assert [kind for kind, _ in told] == ["model_trouble"]
    until(lambda: bool(one(score, [2.0])) and ("model_well", {"reason": "failed"}) in told)
    assert score.ledger.balanced()


def test_a_child_that_hangs_is_left_behind_and_then_killed(make: Make) -> None:
    score = make(fallback=SAFE, deadline="100ms", queue=1, pyfunc={"hang": "400ms"})
    first = child(score).child.pid
    begun = time.monotonic()
    assert one(score, [-2.0])["why"].to_pylist() == ["deadline"]
    assert time.monotonic() - begun < 0.4
    until(lambda: one(score, [1.0])["why"].to_pylist() == [None])
    assert child(score).child.pid != first


def test_what_it_refuses_falls_back_and_it_lives_on(make: Make) -> None:
    score = make(fallback=SAFE)
    first = child(score).child.pid
    assert one(score, [-4.0])["why"].to_pylist() == ["failed"]
    assert one(score, [1.0])["why"].to_pylist() == [None]
    assert child(score).child.pid == first


def test_one_that_grows_too_large_is_killed(make: Make, told: Told) -> None:
    score = make(fallback=SAFE, memory="250MB", pyfunc={"hang": "20s"})
    begun = time.monotonic()
    assert one(score, [-3.0])["why"].to_pylist() == ["failed"]
    assert time.monotonic() - begun < 15
    assert "MiB are allowed" in told[0][1]["why"]


def test_one_that_is_too_large_to_begin_with_is_refused(make: Make, told: Told) -> None:
    score = make(fallback=SAFE, memory="1MB")
    assert one(score, [1.0])["why"].to_pylist() == ["unavailable"]
    assert "MiB are allowed" in told[0][1]["why"]


def test_it_needs_a_python(make: Make, tmp_path: Path) -> None:
    (tmp_path / "boucle.toml").unlink()
    with pytest.raises(BoucleError) as caught:
        make()
    assert caught.value.code == "B692"
    with pytest.raises(BoucleError) as caught:
        make(pyfunc={"python": "envs/none/bin/python"})
    assert caught.value.code == "B641"
    wrongs: list[Any] = [{"start": "0s"}, {"pyton": "x"}, {"hang": []}, [1]]
    for wrong in wrongs:
        with pytest.raises(BoucleError) as caught:
            make(pyfunc=wrong)
        assert caught.value.code == "B650"


def test_after_a_restart_the_copy_beside_the_checkpoint_scores(make: Make, tmp_path: Path) -> None:
    score = make()
    one(score, [1.0])
    state = score.snapshot()
    score.close()
    assert not child(score).child.alive
    (tmp_path / "models" / "risk" / "MLmodel").write_text("flavors: {}\n")  # the folder is spoilt meanwhile
    again = Score("risk", model="models/risk", folder=tmp_path, marks=MARKS, fallback=SAFE)
    again.attach(tmp_path / "run", lambda *_: None)
    again.restore(state)
    try:
        assert one(again, [1.0])["risk"].to_pylist() == [2.0]
    finally:
        again.close()


def test_a_promotion_goes_from_onnx_to_pyfunc_and_back(make: Make, tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    registry.add(linear(1.0, name="risk"))
    theirs = open_model("models/risk", tmp_path)
    assert theirs == model_folder(tmp_path / "models" / "risk")
    assert registry.add(theirs).flavour == "pyfunc"
    assert registry.load("risk/2") == theirs  # signed and checked like any other
    registry.promote("risk", 1)
    score = make("models:risk@champion", shadow="models:risk/2")
    assert one(score, [3.0])["risk"].to_pylist() == [3.0]
    assert score.shadow is not None
    score.shadow.settle()
    assert score.shadow.agreements["risk"].told()["rows"] == 1
    registry.promote("risk", 2)
    until(lambda: one(score, [3.0])["risk"].to_pylist() == [6.0])
    registry.rollback("risk")
    until(lambda: one(score, [3.0])["risk"].to_pylist() == [3.0])
    assert set(score.ledger.unscored) | set(score.ledger.fallback) == set()


def test_outputs_can_be_named_at_the_step(make: Make) -> None:
    score = make(pyfunc={"outputs": ["churn"]})
    assert one(score, [1.0])["churn"].to_pylist() == [2.0]
    traced = Score.trace({"features": ["a", "b"]}, model="models/risk", folder=score._follower._folder,
                         pyfunc={"outputs": ["churn"]})  # fmt: skip
    assert "churn" in traced.columns


def test_the_command_line_registers_and_verifies_it(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del make
    there = ["--product", str(tmp_path)]
    folder = str(tmp_path / "models" / "risk")
    assert main(["models", "add", folder, "--name", "churn", *there, "--json"]) == 0
    assert '"churn/1"' in capsys.readouterr().out
    assert main(["models", "verify", "churn", *there]) == 0
    assert main(["models", "package", "churn/1", "--to", str(tmp_path / "dist"), *there]) == 1
    assert "B649" in capsys.readouterr().err
    assert main(["promote", "churn", "1", *there]) == 0
    assert open_model("models:churn@champion", tmp_path).manifest.flavour == "pyfunc"


def test_elsewhere_it_is_refused(make: Make, tmp_path: Path) -> None:
    del make
    with pytest.raises(BoucleError) as caught:
        OnnxModel(model_folder(tmp_path / "models" / "risk"))
    assert caught.value.code == "B649"


@given(st.binary(max_size=200) | st.text(max_size=60).map(lambda text: f"signature: {text}".encode()))
def test_any_bytes_are_a_description_or_refused(told: bytes) -> None:
    with pytest.raises(BoucleError):
        mlflow_model({"MLmodel": told}, "m")
    prefix = b"flavors: {python_function: {}}\nsignature:\n  inputs: "
    with pytest.raises(BoucleError):
        mlflow_model({"MLmodel": prefix + told}, "m")

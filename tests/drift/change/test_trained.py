"""Data drift against what a model was trained on: the version that is meant, or that scored each row."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from boucle.drift.change import DataDrift
from boucle.errors import BoucleError
from boucle.features.sketch import learn
from boucle.models.record import SKETCHES
from boucle.models.registry import Registry, registry_of
from tests.drift.change.rows import block, cut, told
from tests.serve.models import linear


def normal(mean: float, rows: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(mean, 1.0, rows)


def registered(folder: Path, *means: float, sketches: bytes | None = None) -> Registry:
    """Versions of `risk`, which reads a and b, trained where `a` was around these means."""
    registry = registry_of(folder)
    for number, mean in enumerate(means):
        known = {
            name: learn(pa.array(normal(mean if name == "a" else 0.1, 3000).astype(np.float32)))
            for name in "ab"
        }
        files = {SKETCHES: msgspec.json.encode(known) if sketches is None else sketches}
        registry.add(linear(1.0, 1.0, bias=number), by="tests", files=files)
    if means:
        registry.promote("risk", 1, by="tests")
    return registry


def columns(mean: float, rows: int = 400, **more: Any) -> Any:
    return block({"a": normal(mean, rows, 7), "b": normal(0.1, rows, 8), **more})


def drifted(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(row["model"], row["column"]) for row in rows if row["drifted"]}


def drift(folder: Path, **declared: Any) -> DataDrift:
    given: dict[str, Any] = {
        "columns": ["a", "b"],
        "reference": "models:risk@champion",
        "window": 200,
        "folder": folder,
    }
    return DataDrift("drift", **(given | declared))


def test_the_champions_training_data_is_the_reference_from_the_first_row(tmp_path: Path) -> None:
    registry = registered(tmp_path, 0.0, 2.0)
    step = drift(tmp_path)
    assert drifted(told(step, columns(0.0))) == set()
    assert drifted(told(step, columns(2.0))) == {("risk/1", "a")}
    registry.promote("risk", 2, by="tests")
    assert drifted(told(step, columns(2.0))) == set(), "a promotion is followed when a window begins"
    assert drifted(told(step, columns(0.0))) == {("risk/2", "a")}


def test_each_row_is_held_against_the_version_that_scored_it(tmp_path: Path) -> None:
    registered(tmp_path, 0.0, 2.0)
    step = drift(tmp_path, version="scored_by", by=["line"])
    marks = ["risk/1", "2", None, "1"] * 200
    rows = columns(0.0, 800, scored_by=marks, line=["x"] * 800)
    found = told(step, rows)
    assert drifted(found) == {("risk/2", "a")}
    assert {row["line"] for row in found} == {"x"}
    assert {row["model"] for row in found} == {"risk/1", "risk/2"}


def test_cuts_and_restarts_change_nothing(tmp_path: Path) -> None:
    registered(tmp_path, 0.0)
    whole = told(drift(tmp_path), columns(0.5, 1000))
    step, found = drift(tmp_path), []
    for one in cut(columns(0.5, 1000), [37, 300, 555, 900]):
        found += told(step, one)
        state, step = step.snapshot(), drift(tmp_path)
        step.restore(state)
    assert found == whole
    assert len(state) < 3000, "the sketches stay in the registry"


def test_a_value_between_float64_and_float32_is_in_its_own_bin(tmp_path: Path) -> None:
    tenths = np.random.default_rng(3).integers(0, 9, 3000) / 10
    known = {"a": learn(pa.array(tenths.astype(np.float32)))}
    registry_of(tmp_path).add(linear(1.0), files={SKETCHES: msgspec.json.encode(known)})
    step = drift(tmp_path, columns=["a"], reference="models:risk/1")
    assert drifted(told(step, block({"a": tenths[:400]}))) == set()


@pytest.mark.parametrize(
    ("sketches", "declared"),
    [
        (b"{}", {}),
        (b"junk", {}),
        (b'{"a": {"edges": 3}}', {}),
        (None, {"columns": ["a", "c"]}),
    ],
)
def test_a_version_that_does_not_tell_is_refused(
    tmp_path: Path, sketches: bytes | None, declared: dict[str, Any]
) -> None:
    registered(tmp_path, 0.0, sketches=sketches)
    with pytest.raises(BoucleError, match="B754"):
        drift(tmp_path, **declared)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    registry_of(tmp_path).add(linear(1.0, 1.0))
    with pytest.raises(BoucleError, match="B754"):
        drift(tmp_path, reference="models:risk/1")
    with pytest.raises(BoucleError, match="B761"):
        drift(tmp_path, reference=2000, version="scored_by")
    registered(tmp_path / "two", 0.0)
    with pytest.raises(BoucleError, match="B760"):
        told(drift(tmp_path / "two"), block({"a": ["x"], "b": [1.0]}))
    learnt = DataDrift("drift", columns=["a", "b"], reference=50, window=20)
    told(learnt, columns(0.0, 60))
    with pytest.raises(BoucleError, match="B763"):
        drift(tmp_path / "two").restore(learnt.snapshot())

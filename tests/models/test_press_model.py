"""The press's model: what is committed, and that ONNX says what scikit-learn said."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boucle.models import ModelFile
from boucle.models.onnx import OnnxModel

PRESS = Path(__file__).parents[2] / "examples" / "press"


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(PRESS))
    yield importlib.import_module("train")
    for name in ("train", "operators"):
        sys.modules.pop(name, None)


def inputs(train: Any, rows: int = 400) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    made = rng.lognormal(-2, 2, (rows, len(train.COLUMNS))).astype(np.float32)
    made[:, 0] = rng.uniform(24, 40, rows)
    return made


def test_the_committed_model_is_small_verified_and_better_than_the_mean() -> None:
    file = ModelFile.load(PRESS / "models" / "press_health")
    assert len(file.content) < 500_000
    assert file.manifest.trained_on["first_seed"] >= 10_000, "tests and demos use smaller seeds"
    assert [column.name for column in file.manifest.outputs] == ["health", "rul_h"]
    for target in ("health", "rul_h"):
        metrics = file.manifest.metrics[target]
        assert metrics["mae"] < 0.5 * metrics["mae_of_mean"]
        assert metrics["r2"] > 0.8


def test_onnx_scores_what_scikit_learn_fitted(train: Any) -> None:
    given = inputs(train)
    prepared = train.prepare(given)
    damage = np.clip(0.3 + 0.2 * np.tanh(prepared[:, 5]), 0, 1).astype(float)
    hours = 200 * (1 - damage)
    forests = [train.fit(prepared, truth) for truth in (damage, hours)]
    told = {"name": "m", "created": "", "trained_on": {}, "metrics": {}}
    columns = {
        "inputs": tuple(train.Column(name) for name in train.COLUMNS),
        "outputs": (train.Column("health"), train.Column("rul_h")),
    }
    content = train.export(*forests, prepared.shape[1])
    scored = OnnxModel(ModelFile.build(content, **told, **columns)).run(given)
    expected = np.column_stack(
        [np.clip(1 - forests[0].predict(prepared), 0, 1), np.clip(forests[1].predict(prepared), 0, 200)]
    )
    np.testing.assert_allclose(scored[:, 0], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(scored[:, 1], expected[:, 1], atol=1e-2)


def test_the_preparation_is_the_median_of_what_is_relative_to_the_gear_mesh(train: Any) -> None:
    given = inputs(train, 50)
    names = list(train.COLUMNS)
    column = {name: given[:, index].astype(float) for index, name in enumerate(names)}
    prepared = train.prepare(given)
    np.testing.assert_array_equal(prepared[:, 0], given[:, 0])
    for index, name in enumerate(train._PER_AXIS):
        per_axis = []
        for axis in "xyz":
            value = np.log(column[f"{axis}_{name}"])
            if name.startswith("band"):
                value = 0.5 * (value - np.log(column[f"{axis}_band_4"] + column[f"{axis}_band_5"]))
            per_axis.append(value)
        expected = np.median(per_axis, axis=0)
        np.testing.assert_allclose(prepared[:, 1 + index], expected, rtol=1e-4, atol=1e-4)


def test_neither_a_gain_nor_one_lying_axis_changes_the_health(train: Any) -> None:
    model = OnnxModel(ModelFile.load(PRESS / "models" / "press_health"))
    given = inputs(train, 20)
    names = list(train.COLUMNS)
    for name in names:
        if "_band_" in name:
            given[:, names.index(name)] = np.float32(0.01)
    louder = given.copy()
    for index, name in enumerate(names):
        if name.startswith("x_band"):
            louder[:, index] *= 4
    np.testing.assert_allclose(model.run(louder), model.run(given), atol=0.02)


def test_training_twice_gives_the_same_bytes(train: Any) -> None:
    given = inputs(train, 60)
    prepared = train.prepare(given)
    truth = np.clip(prepared[:, 1].astype(float), 0, 1)
    one, two = (
        train.export(*(train.fit(prepared, truth) for _ in range(2)), prepared.shape[1]) for _ in "ab"
    )
    assert one == two


def test_an_episode_is_reproducible_and_labelled(train: Any) -> None:
    table, truth = train.episode(10_001)
    again, truth_again = train.episode(10_001)
    assert table.equals(again)
    assert np.array_equal(truth, truth_again)
    assert len(table) == len(truth) == train.SECONDS - train.SETTLE
    assert ((truth[:, 0] >= 0) & (truth[:, 0] <= 1)).all()
    assert (truth[:, 1] <= train.RUL_CAP).all()

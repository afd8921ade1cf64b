"""Explanations against Shapley's formula itself, over the trees as LightGBM dumps them."""

import itertools
import math
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.errors import BoucleError
from boucle.models.algorithms import TREES
from boucle.models.file import Column, ModelFile
from boucle.models.registry import registry_of
from boucle.ports import From, Operator
from boucle.serve.explain import Explain
from tests.models.tiny import content

NAMES = ["amount", "age", "spent"]


def trained(seed: int) -> Any:
    chance = np.random.default_rng(seed)
    features = chance.random((400, 3))
    truth = (features[:, 0] + features[:, 1] * features[:, 2] + chance.normal(0, 0.1, 400) > 0.9).astype(int)
    told = {"objective": "binary", "num_leaves": 5, "verbose": -1, "num_threads": 1, "seed": seed}
    return lightgbm.train(told, lightgbm.Dataset(features, truth), 4)


def model() -> ModelFile:
    return ModelFile.build(
        content(3),
        name="fraud",
        inputs=tuple(Column(name) for name in NAMES),
        outputs=(Column("health"), Column("rul_h")),
        created="2026-11-22T00:00:00Z",
        trained_on={},
        metrics={},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model().save(tmp_path / "model")
    (tmp_path / "model" / TREES).write_text(trained(1).model_to_string(), encoding="utf-8")
    return tmp_path


def expected(node: dict[str, Any], row: np.ndarray, known: frozenset[int]) -> float:
    """What a tree says when only some inputs are known: over the others, by how many rows went each way."""
    if "leaf_value" in node:
        return float(node["leaf_value"])
    left, right = node["left_child"], node["right_child"]
    if node["split_feature"] in known:
        return expected(left if row[node["split_feature"]] <= node["threshold"] else right, row, known)
    counts = [one.get("internal_count", one.get("leaf_count")) for one in (left, right)]
    both = expected(left, row, known) * counts[0] + expected(right, row, known) * counts[1]
    return float(both / sum(counts))


def shapley(booster: Any, row: np.ndarray, feature: int) -> float:
    trees = [one["tree_structure"] for one in booster.dump_model()["tree_info"]]
    others = [one for one in range(3) if one != feature]
    total = 0.0
    for size in range(3):
        weight = math.factorial(size) * math.factorial(2 - size) / math.factorial(3)
        for some in itertools.combinations(others, size):
            known = frozenset(some)
            total += weight * sum(
                expected(tree, row, known | {feature}) - expected(tree, row, known) for tree in trees
            )
    return total


def rows(count: int = 6, **more: Any) -> pa.RecordBatch:
    chance = np.random.default_rng(9)
    columns = {name: chance.random(count) for name in NAMES}
    at = pa.array(np.arange(count), pa.timestamp("ns", "UTC"))
    return pa.record_batch({"at": at, "payment": np.arange(count), **columns, **more})


def explained(step: Explain, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    (out,) = step.step(Block("scored", batch, 7, Position("p", 1)))
    assert (out.stream, out.watermark) == ("why", 7)
    told: list[dict[str, Any]] = out.rows.to_pylist()
    return told


def test_they_are_shapley_values_and_add_up(folder: Path) -> None:
    step = Explain("why", model="model", keep=["payment"], top=3, folder=folder)
    assert isinstance(step, Operator)
    batch = rows()
    matrix = np.column_stack([batch.column(name).to_numpy() for name in NAMES])
    booster = trained(1)
    margins = booster.predict(matrix, raw_score=True)
    told = explained(step, batch)
    assert [row["payment"] for row in told] == np.repeat(np.arange(6), 3).tolist()
    for row in told:
        place, feature = row["payment"], NAMES.index(row["feature"])
        assert row["value"] == matrix[place, feature]
        assert row["contribution"] == pytest.approx(shapley(booster, matrix[place], feature), abs=1e-9)
        assert row["margin"] == pytest.approx(margins[place])
    for place in range(6):
        own = [row for row in told if row["payment"] == place]
        assert own[0]["base"] + sum(row["contribution"] for row in own) == pytest.approx(margins[place])
        sizes = [abs(row["contribution"]) for row in own]
        assert sizes == sorted(sizes, reverse=True)
        assert [row["rank"] for row in own] == [1, 2, 3]


def test_only_what_matters_and_only_the_strongest(folder: Path) -> None:
    step = Explain("why", model="model", keep=["payment"], top=1, where="payment >= 4", folder=folder)
    assert [(row["payment"], row["rank"]) for row in explained(step, rows())] == [(4, 1), (5, 1)]
    assert explained(step, rows(3)) == []
    again = Explain("why", model="model", keep=["payment"], top=1, folder=folder)
    again.restore(step.snapshot())
    assert again.explained == 2


def test_each_row_by_the_version_that_scored_it(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    for seed in (1, 2):
        registry.add(model(), files={TREES: trained(seed).model_to_string().encode()})
    said = pa.array(["fraud/2", "fraud/1", None, "1", "fraud/2", "fraud/1"])
    step = Explain(
        "why", model="models:fraud@champion", version="version", keep=["payment"], top=3, folder=tmp_path
    )
    batch = rows(version=said)
    matrix = np.column_stack([batch.column(name).to_numpy() for name in NAMES])
    margins = {seed: trained(seed).predict(matrix, raw_score=True) for seed in (1, 2)}
    found = {row["payment"]: row["margin"] for row in explained(step, batch)}
    wanted = {0: 2, 1: 1, 3: 1, 4: 2, 5: 1}
    assert found == pytest.approx({place: margins[seed][place] for place, seed in wanted.items()})
    assert (step.explained, step.unexplained) == (5, 1)


def test_a_missing_input_is_null(folder: Path) -> None:
    batch = rows(1).set_column(2, "amount", pa.array([None], pa.float64()))
    told = {
        row["feature"]: row["value"]
        for row in explained(Explain("why", model="model", top=3, folder=folder), batch)
    }
    assert told["amount"] is None
    assert told["age"] is not None


def test_what_cannot_be_explained_says_why(folder: Path) -> None:
    with pytest.raises(BoucleError, match="B753"):
        Explain("why", model="models:fraud@champion", folder=folder)
    with pytest.raises(BoucleError, match="B753"):
        Explain("why", model="model", version="version", folder=folder)
    (folder / "model" / TREES).write_bytes(b"\xff\xfe not trees")
    with pytest.raises(BoucleError, match="B752"):
        Explain("why", model="model", folder=folder)
    (folder / "model" / TREES).unlink()
    with pytest.raises(BoucleError, match="B752"):
        Explain("why", model="model", folder=folder)
    registry_of(folder).add(model())
    with pytest.raises(BoucleError, match="B752"):
        Explain("why", model="models:fraud/1", folder=folder)


def test_lineage_knows_what_is_kept() -> None:
    traced = Explain.trace({"scored": ["at", "payment", "amount"]}, keep=["payment"])
    assert traced.columns["payment"] == (From("scored", "payment"),)
    assert {one.column for one in traced.columns["contribution"]} == {"at", "payment", "amount"}

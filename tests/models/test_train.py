"""Training from files to a registered version, and what is refused on the way."""

import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boucle.cli.main import main
from boucle.errors import BoucleError
from boucle.features import FeatureView, Source
from boucle.lake.delta import LakeTable
from boucle.models.algorithms import TREES, fit, predict, to_onnx
from boucle.models.file import Column, ModelFile
from boucle.models.gates import evaluate, promote_by_gates
from boucle.models.onnx import OnnxModel
from boucle.models.record import SKETCHES, Record
from boucle.models.registry import Registry, registry_of
from boucle.models.reproduce import reproduce
from boucle.models.split import folds, split
from boucle.models.train import Trained, assemble, train
from boucle.product.project import read_project
from boucle.product.training import ModelGateSpec
from tests.models.fraud import CUT, fraud_product


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fraud_product(tmp_path_factory.mktemp("fraud"))


def trained(folder: Path) -> Trained:
    project, problems = read_project(folder)
    assert not problems
    assert project is not None
    spec = project.loop.models["fraud"]
    views = [FeatureView.declared(one, project.loop.features[one]) for one in spec.views]
    return train("fraud", spec, views, Source(folder), cut=CUT)


@pytest.fixture(scope="module")
def one(product: Path) -> Trained:
    return trained(product)


@pytest.fixture
def registry(tmp_path: Path, one: Trained) -> Registry:
    made = Registry.at(tmp_path / "registry")
    made.add(one.model, files=one.files)
    return made


def test_what_was_trained_is_told(one: Trained) -> None:
    record = one.record
    assert record.metrics["average_precision"] > record.baselines["rule"]["average_precision"]
    assert set(record.baselines) == {"mean", "last value", "rule"}
    assert record.equal < 1e-5
    assert {"python", "lightgbm", "onnx"} <= set(record.environment)
    assert record.data["data/labels.parquet"].digest
    assert len(record.searched["trials"]) == 2
    assert set(record.slices["region"]) == {"north", "south", "east"}
    assert Record.read(one.files["record.json"], "it") == record
    assert b"<svg" in one.files["calibration.svg"]
    card = one.files["card.md"].decode()
    assert all(word in card for word in ("risk@demo-bank.example", "By region", "PSI", record.sha256))
    assert json.loads(one.files["card.json"])["rows"] == record.rows
    sketches = json.loads(one.files[SKETCHES])
    assert list(sketches) == [column.name for column in one.model.manifest.inputs]
    assert all(sum(told["tally"]["counts"]) == record.rows["train"] for told in sketches.values())


def test_the_trees_kept_beside_it_say_what_it_says(one: Trained) -> None:
    with pa.ipc.open_file(pa.py_buffer(one.files["held_out.arrow"])) as reader:
        rows = reader.read_all()
    inputs = [column.name for column in one.model.manifest.inputs]
    matrix = np.column_stack([rows.column(name).to_numpy() for name in inputs]).astype(np.float32)
    booster = lightgbm.Booster(model_str=one.files[TREES].decode())
    scores = OnnxModel(one.model).run(matrix)[:, 0]
    np.testing.assert_allclose(booster.predict(matrix, num_threads=1), scores, atol=1e-5)


def test_the_same_record_gives_the_same_bytes(product: Path, registry: Registry) -> None:
    found = reproduce(registry, "fraud/1", Source(product))
    assert (found.same, found.differs) == (True, "")


def test_data_that_was_exchanged_is_noticed(tmp_path: Path, registry: Registry) -> None:
    other = fraud_product(tmp_path / "other", cards=12)
    with pytest.raises(BoucleError, match="is not what it was"):
        reproduce(registry, "fraud/1", Source(other))


def test_gates_are_evidence(registry: Registry, one: Trained) -> None:
    with pytest.raises(BoucleError) as caught:
        promote_by_gates(registry, "fraud", 1)
    assert caught.value.code == "B634"
    roles, results = promote_by_gates(registry, "fraud", 1, approved_by="A. Martin")
    assert roles.roles == {"champion": 1}
    assert roles.history[-1].evidence["approved_by"] == "A. Martin"
    assert [gate["passed"] for gate in roles.history[-1].evidence["gates"]] == [True] * len(results)
    registry.add(one.model, files=one.files)
    strict = [
        ModelGateSpec(metric="average_precision", beats="champion", by=0.01),
        ModelGateSpec(metric="auc", at_least=0.5, at_most=0.6),
        ModelGateSpec(latency_ms=1e-6),
        ModelGateSpec(drift=-1.0),
        ModelGateSpec(fairness="region", metric="brier", within=0.0),
        ModelGateSpec(fairness="nothing"),
    ]
    assert [gate.passed for gate in evaluate(registry, "fraud", 2, gates=strict)] == [False] * len(strict)
    with pytest.raises(BoucleError) as caught:
        promote_by_gates(registry, "fraud", 2, gates=strict, approved_by="eve")
    assert caught.value.code == "B633"
    assert registry.roles("fraud").roles == {"champion": 1}


def test_what_is_no_better_than_a_baseline_is_refused(tmp_path: Path) -> None:
    folder = fraud_product(
        tmp_path, ("columns: [amount, count_1h, count_24h, sum_24h, ratio]", "columns: [amount]")
    )
    labels = pq.read_table(folder / "data" / "labels.parquet")
    coin = np.random.default_rng(1).random(len(labels)) < 0.3
    pq.write_table(labels.set_column(3, "fraud", [coin]), folder / "data" / "labels.parquet")
    try:
        figures = trained(folder).record.metrics
    except BoucleError as error:
        assert error.code == "B630"  # noqa: PT017
    else:
        assert figures["average_precision"] < 0.4  # by chance it was a hair better than the best of three


def test_the_command_line_trains_promotes_and_goes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fraud_product(tmp_path, cards=20)
    there = ["--product", str(folder), "--json"]
    for _ in range(2):
        assert main(["train", "fraud", "--cut", "2026-09-01T00:00:00Z", *there]) == 0
        assert json.loads(capsys.readouterr().out)["version"].startswith("fraud/")
    gates = registry_of(folder)
    gates.promote("fraud", 1)
    assert main(["promote", "fraud", "2", "--role", "challenger", *there]) == 0
    gates.promote("fraud", 2)
    capsys.readouterr()
    assert main(["rollback", "fraud", *there]) == 0
    assert json.loads(capsys.readouterr().out)["roles"] == {"champion": 1, "previous": 2}
    assert main(["models", "list", *there]) == 0
    assert [row["role"] for row in json.loads(capsys.readouterr().out)] == ["champion", "previous"]
    assert main(["models", "verify", "fraud", *there]) == 0
    assert main(["models", "show", "fraud", *there]) == 0
    assert main(["models", "reproduce", "fraud/1", *there]) == 0
    capsys.readouterr()
    assert main(["train", "nobody", *there]) == 1
    assert "B635" in capsys.readouterr().out + capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "code", "says"),
    [
        ("view: card_features", "view: card_feature", "B624", "did you mean"),
        ("algorithm: lightgbm", "algorithm: lightgbn", "B624", "no algorithm"),
        ("metric: average_precision\n", "metric: mae\n", "B624", "no figure"),
        ("test: 0.25", "test: 2", "B624", "no share"),
        ("column: amount, above", "column: amonut, above", "B624", "the rule"),
        ("{metric: auc, at_least: 0.8}", "{metric: auc}", "B624", "no bound"),
        ("{latency_ms: 5}", "{latency_ms: 5, drift: 1}", "B624", "which condition"),
        ("delay: 7d", "delay: soon", "B203", "duration"),
        ("{name: amount,", "{name: amount, classification: pii,", "B632", "personal"),
    ],
)
def test_a_wrong_declaration_is_told_with_its_line(
    tmp_path: Path, before: str, after: str, code: str, says: str
) -> None:
    text = (Path(__file__).parents[2] / "examples" / "fraud" / "product.yaml").read_text(encoding="utf-8")
    assert before in text
    (tmp_path / "product.yaml").write_text(text.replace(before, after), encoding="utf-8")
    _, problems = read_project(tmp_path)
    found = [one for one in problems if one.code == code]
    assert found
    assert says in f"{found[0].what} {found[0].fix}"
    assert found[0].line > 40


@pytest.mark.parametrize(
    ("algorithm", "task"),
    [
        ("lightgbm", "classification"),
        ("lightgbm", "regression"),
        ("gradient_boosting", "classification"),
        ("random_forest", "regression"),
        ("logistic", "classification"),
        ("ridge", "regression"),
    ],
)
def test_every_algorithm_is_its_onnx(algorithm: str, task: str) -> None:
    chance = np.random.default_rng(3)
    inputs = np.round(chance.normal(size=(400, 4)), 1).astype(np.float32)  # many rows lie on thresholds
    truth = inputs[:, 0] * 2 + inputs[:, 1] + chance.normal(size=400)
    truth = (truth > 0).astype(float) if task == "classification" else truth
    few = {"n_estimators": 10} if algorithm not in {"logistic", "ridge"} else {}
    model = fit(algorithm, task, few, inputs, truth.astype(np.float64), 0)
    made = [to_onnx(model, algorithm, task, 4, "score") for _ in range(2)]
    assert made[0] == made[1]
    told: dict[str, Any] = {"name": "m", "created": "", "trained_on": {}, "metrics": {}}
    file = ModelFile.build(
        made[0], inputs=tuple(Column(name) for name in "abcd"), outputs=(Column("score"),), **told
    )
    np.testing.assert_allclose(OnnxModel(file).run(inputs)[:, 0], predict(model, inputs), atol=2e-5)


def test_a_parameter_that_does_not_exist_is_told() -> None:
    rows, truth = np.zeros((20, 1), np.float32), np.arange(20.0)
    for algorithm, wrong in (("ridge", {"alfa": 1}), ("ridge", {"alpha": -1})):
        with pytest.raises(BoucleError) as caught:
            fit(algorithm, "regression", wrong, rows, truth, 0)
        assert caught.value.code == "B627"


def test_tests_are_newer_than_training_by_the_gap() -> None:
    at = np.repeat(np.arange(50), 2)
    learnt, tested = split(at, 0.2, 5)
    assert at[tested[0]] - at[learnt[-1]] > 5
    assert tested[-1] == len(at) - 1
    for past, part in folds(at, 3, 5):
        assert at[part[0]] - at[past[-1]] > 5
    with pytest.raises(BoucleError, match="too few rows"):
        split(at, 0.2, 100)
    with pytest.raises(BoucleError, match="too few rows"):
        split(np.array([], dtype=np.int64), 0.2, 0)


def test_nothing_known_is_nothing_to_learn(product: Path, one: Trained) -> None:
    with pytest.raises(BoucleError) as caught:
        assemble(one.record.spec, one.record.views, Source(product), 0)
    assert caught.value.code == "B628"
    with pytest.raises(BoucleError, match="no column"):
        Source(product).read("data/labels.parquet", ["nothing"])
    with pytest.raises(BoucleError, match="no table"):
        Source(product).read("silver.nothing", ["at"])
    with pytest.raises(BoucleError, match="cannot be read"):
        Source(product).read("product.yaml.parquet", ["at"])


def test_tables_of_the_lake_are_read_at_the_version_of_the_record(product: Path, tmp_path: Path) -> None:
    folder = fraud_product(
        tmp_path / "product",
        ("data/card_features.parquet", "silver.card_features"),
        ("data/labels.parquet", "labels"),
    )
    lake = tmp_path / "run" / "lake"
    for zone, name in (("silver", "card_features"), ("raw", "labels")):
        rows = pq.read_table(folder / "data" / f"{name}.parquet")
        LakeTable(lake / zone / name, partition_by=()).put(rows.to_batches())
    project, _ = read_project(folder)
    assert project is not None
    spec = project.loop.models["fraud"]
    views = [FeatureView.declared(one, project.loop.features[one]) for one in spec.views]
    source = Source(folder, lake)
    found = train("fraud", spec, views, source, cut=CUT)
    assert {one.table for one in found.record.data.values()} == {"silver.card_features", "raw.labels"}
    assert all(one.version >= 0 for one in found.record.data.values())
    assert found.model.manifest.sha256 == trained(product).model.manifest.sha256
    registry = Registry.at(tmp_path / "registry")
    registry.add(found.model, files=found.files)
    more = pq.read_table(folder / "data" / "labels.parquet").slice(0, 100)
    LakeTable(lake / "raw" / "labels").put(more.to_batches())
    assert reproduce(registry, "fraud/1", source).same

"""A real MLflow server as the registry: what is ours appears there, what is others' is served here."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bench.peers import Unusable, environment

from boucle.block import Block, Position
from boucle.errors import BoucleError, Unavailable
from boucle.features.source import Source
from boucle.features.view import FeatureView
from boucle.models.mlflow import MlflowRegistry
from boucle.models.onnx import OnnxModel
from boucle.models.pyfunc import PyfuncChild, PyfuncModel
from boucle.models.train import train
from boucle.product.project import read_project
from boucle.serve import Score
from boucle.serve.pyfunc import PyfuncReady
from tests.models.fraud import CUT, fraud_product
from tests.models.tiny import tiny

pytestmark = [pytest.mark.real, pytest.mark.slow]


def block(**columns: list[float]) -> Block:
    rows = pa.record_batch({name: pa.array(values, pa.float64()) for name, values in columns.items()})
    return Block("s", rows, 0, Position("p", 0))


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest) -> Path:
    if "real" not in str(request.config.getoption("-m")):
        pytest.skip("an MLflow server takes a minute: make real, or pytest -m real tests/models")
    try:
        return environment("mlflow", make=False)
    except Unusable:
        pytest.skip("no MLflow: python -m bench.peers mlflow makes its environment (9 s, 711 MB)")


@pytest.fixture(scope="module")
def server(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Without this the server starts nine helpers of its own, which take longer to start than all the rest.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [
        str(python),
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/m.db",
        "--artifacts-destination",
        str(folder / "art"),
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, **quiet},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{address}/health", timeout=2).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        else:
            pytest.fail("the MLflow server did not start in two minutes")
        script = Path(__file__).with_name("mlflow_log.py")
        subprocess.run(
            [python, script, address],
            check=True,
            capture_output=True,
            env={**os.environ, **quiet},
            cwd=folder,
        )
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def registry(server: str, tmp_path: Path) -> Iterator[MlflowRegistry]:
    made = MlflowRegistry(f"mlflow+{server}", cache=tmp_path)
    yield made
    made.close()


def test_our_runs_versions_and_aliases_appear_there(registry: MlflowRegistry, server: str) -> None:
    record = b'{"metrics": {"auc": 0.9}, "parameters": {"n": 10}, "code": {"commit": "abc"}}'
    one = registry.add(tiny(), files={"record.json": record}, note="first")
    two = registry.add(tiny(3), by="ada")
    assert (str(one), str(two)) == ("tiny/1", "tiny/2")
    registry.promote("tiny", 1)
    registry.promote("tiny", 2, "challenger")
    before = registry.roles("tiny").generation
    after = registry.promote("tiny", 2, evidence={"auc": 0.9}, by="ada", why="better")
    assert after.roles == {"champion": 2, "previous": 1}
    assert (after.history[-1].by, after.history[-1].evidence) == ("ada", {"auc": 0.9})
    assert before != after.generation
    told = httpx.get(f"{server}/api/2.0/mlflow/registered-models/get", params={"name": "tiny"}).json()
    aliases = {one["alias"]: one["version"] for one in told["registered_model"]["aliases"]}
    assert aliases == {"champion": "2", "previous": "1"}
    found = httpx.post(f"{server}/api/2.0/mlflow/runs/search", json={"experiment_ids": ["2"]}).json()["runs"]
    runs = [
        (one["data"]["metrics"][0]["value"], one["data"]["params"])
        for one in found
        if "params" in one["data"]
    ]
    assert (0.9, [{"key": "n", "value": "10"}]) in runs
    assert registry.load("tiny@champion") == tiny(3)
    assert registry.rollback("tiny").roles == {"champion": 1, "previous": 2}
    assert registry.load("tiny") == tiny()
    with pytest.raises(BoucleError, match="no model 'nobody'"):
        registry.load("nobody")


def test_a_change_made_elsewhere_is_noticed(registry: MlflowRegistry, server: str) -> None:
    before = registry.generation("theirs_onnx")
    body = {"name": "theirs_onnx", "alias": "challenger", "version": "1"}
    httpx.post(f"{server}/api/2.0/mlflow/registered-models/alias", json=body).raise_for_status()
    end = time.monotonic() + 20
    while registry.generation("theirs_onnx") == before and time.monotonic() < end:
        time.sleep(0.05)
    assert registry.generation("theirs_onnx") != before


def test_an_onnx_model_of_somebody_else_is_scored(registry: MlflowRegistry) -> None:
    model = registry.load("theirs_onnx@champion")
    assert OnnxModel(model).run(np.array([[1, 1]], np.float32)).tolist() == [[5.0]]


def test_a_pyfunc_of_somebody_else_is_served(registry: MlflowRegistry, python: Path) -> None:
    assert registry.load("theirs_pyfunc@champion").manifest.flavour == "pyfunc"
    folder = registry.folder("theirs_pyfunc@champion")
    model = PyfuncModel(folder, python, inputs=["a", "b"], outputs=["score"], deadline=30)
    try:
        scored = model.score(block(a=[0.0, 1.0], b=[0.0, 1.0]))
        np.testing.assert_allclose(scored.rows.column("score"), [1.0, 6.0], atol=1e-9)
        end_of(model.child)
        assert model.score(block(a=[1.0], b=[0.0])).rows.column("score").to_pylist() == pytest.approx([3.0])
        assert model.child.restarts == 1
    finally:
        model.close()


def test_a_pyfunc_of_somebody_else_scores_in_the_path(
    server: str, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "boucle.toml").write_text(f'[models]\nregistry = "mlflow+{server}"\npython = "{python}"\n')
    score = Score(
        "scored",
        model="models:theirs_pyfunc@champion",
        folder=tmp_path,
        fallback={"constants": {"score": -1.0}},
        pyfunc={"outputs": ["score"], "hang": "30s"},
    )
    try:
        score.attach(tmp_path / "run", lambda *_: None)
        score.live()
        (scored,) = score.step(block(a=[0.0, 1.0], b=[0.0, 1.0]))
        np.testing.assert_allclose(scored.rows.column("score"), [1.0, 6.0], atol=1e-12)
        ready = score._arms["champion"]
        assert isinstance(ready, PyfuncReady)
        end_of(ready.child)
        (scored,) = score.step(block(a=[1.0], b=[0.0]))
        assert scored.rows.column("score").to_pylist() == [-1.0]
        end = time.monotonic() + 60
        while score.step(block(a=[1.0], b=[0.0]))[0].rows.column("score").to_pylist() == [-1.0]:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert score.ledger.balanced()
        assert sum(score.ledger.unscored.values()) == 0
    finally:
        score.close()


def end_of(child: PyfuncChild) -> None:
    os.kill(child.pid, signal.SIGKILL)
    while child.alive:
        time.sleep(0.01)


def test_mlflow_loads_what_was_trained_here(
    server: str, registry: MlflowRegistry, python: Path, tmp_path: Path
) -> None:
    product = fraud_product(tmp_path / "fraud", cards=120)
    project, _ = read_project(product)
    assert project is not None
    spec = project.loop.models["fraud"]
    views = [FeatureView.declared(one, project.loop.features[one]) for one in spec.views]
    trained = train("fraud", spec, views, Source(product), cut=CUT)
    version = registry.add(trained.model, files=trained.files, by="ada")
    registry.promote("fraud", version.number)
    names = [one.name for one in trained.model.manifest.inputs]
    chance = np.random.default_rng(1)
    rows = pa.table({name: chance.random(50, np.float32) * 100 for name in names})
    pq.write_table(rows, tmp_path / "rows.parquet")
    script = Path(__file__).with_name("mlflow_load.py")
    done = subprocess.run(
        [python, script, server, "models:/fraud@champion", tmp_path / "rows.parquet"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    matrix = np.column_stack([rows[name].to_numpy() for name in names])
    assert told["scores"] == OnnxModel(trained.model).run(matrix)[:, 0].astype(np.float64).tolist()
    record = trained.record
    assert told["inputs"] == names
    assert told["status"] == "FINISHED"
    assert told["metrics"]["auc"] == pytest.approx(record.metrics["auc"])
    assert told["metrics"]["baseline/mean/auc"] == pytest.approx(record.baselines["mean"]["auc"])
    assert told["steps"] == [
        at for at, one in enumerate(record.searched["trials"]) if one["score"] is not None
    ]
    assert len(told["steps"]) == 2
    assert told["params"]["algorithm"] == "lightgbm"
    assert {f"boucle.data.{table}" for table in record.data} <= {*told["tags"]} | {
        f"boucle.data.{table.replace('/', '_')}" for table in record.data
    }
    assert sorted(told["datasets"]) == sorted(record.data)
    assert {"model/record.json", "model/card.md", "model/model.onnx", "model/MLmodel"} <= set(
        told["artifacts"]
    )
    # Older ones of ours go, those with an alias and those of others stay.
    for _ in range(3):
        registry.add(trained.model)
    assert registry.keep("fraud", 1) == [2, 3]
    assert [one.number for one in registry.versions("fraud")] == [1, 4]
    assert registry.keep("theirs_onnx", 1) == []


def test_when_the_server_is_away_what_was_seen_is_used(
    registry: MlflowRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    assert registry.versions("theirs_onnx")
    content = registry.load("theirs_onnx@champion").content
    away = MlflowRegistry("mlflow+http://127.0.0.1:1", cache=registry._cache, timeout=0.5)
    assert away.load("theirs_onnx@champion").content == content
    assert away.roles("theirs_onnx").roles["champion"] == 1
    assert [record.message.count("cannot be reached") for record in caplog.records] == [1]
    with pytest.raises(Unavailable):
        away.load("never_seen@champion")

"""The model server under one and eight clients over REST and a thousand requests a second over gRPC, beside its peers.

One row of 24 features, a LightGBM model of 200 trees, validation, metrics, the prediction log (inputs kept, committed
to the lake) and a challenger in shadow all on. `rest_p50_ms`, `rest_p99_ms`: one client that asks again when it was
answered; `rest_p99_ms_8`, `rest_req_per_s_8`: eight. `grpc_*`: an open loop, each request timed from when it was due.
`promotion_ms`, `rollback_ms`: from the registry's answer to the first prediction by that version, four clients asking.
The clients are one process of Python on raw sockets; on two cores it takes one of them, and the server the other.

The same model, the same row, the same clients, one server after the other: MLServer held to one thread (REST V2, its
LightGBM runtime), `mlflow models serve` (one worker), BentoML (one worker), each as its documentation starts it.
`faster_than_X`: its median time of one client over ours.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import lightgbm
import numpy as np
import onnxmltools
from onnxmltools.convert.common.data_types import FloatTensorType

from bench.figures import ROOT, Figure, figure, options, publish
from bench.peers import FOLDER, Unusable, environment
from boucle.models.file import Column, ModelFile
from boucle.models.registry import Registry
from boucle.serve.oip.messages import message

FEATURES = 24
ROW = [round(float(value), 6) for value in np.random.default_rng(3).normal(size=FEATURES)]
TENSOR = {"name": "features", "shape": [1, FEATURES], "datatype": "FP32", "data": ROW}
STARTS_WITHIN_S = 120

Load = Callable[[str, int, bytes, float, float, str], dict[str, float]]


def train(trees: int, seed: int) -> Any:
    """A booster that is not trivial: 31 leaves, a target that needs its features."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(4000, FEATURES)).astype(np.float32)
    truth = rows[:, 0] * rows[:, 1] + np.sin(3 * rows[:, 2]) + 0.1 * rng.normal(size=len(rows))
    settings = {"objective": "regression", "num_leaves": 31, "verbose": -1, "num_threads": 1, "seed": seed}
    return lightgbm.train(settings, lightgbm.Dataset(rows, truth), trees)


def model_file(booster: Any) -> ModelFile:
    """The booster as ONNX, as it is served here."""
    made = onnxmltools.convert_lightgbm(
        booster, initial_types=[("features", FloatTensorType([None, FEATURES]))], zipmap=False
    )
    return ModelFile.build(
        made.SerializeToString(),
        name="trees",
        inputs=tuple(Column(f"f{number}") for number in range(FEATURES)),
        outputs=(Column("score"),),
        created="2026-11-22T00:00:00Z",
        trained_on={},
        metrics={},
    )


@contextmanager
def process(
    words: list[str], folder: Path, *, heard: bool = False, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """A server, ended with everything it started; `heard`: its standard output is read, else it goes to its log."""
    quiet = {"OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("w") as log:
        running = subprocess.Popen(
            words, cwd=folder, stdout=subprocess.PIPE if heard else log, stderr=log, text=True, start_new_session=True,
            env={**os.environ, **quiet, "PATH": f"{Path(words[0]).parent}:{os.environ['PATH']}", **variables},
        )  # fmt: skip
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def load(
    wire: str, port: int, body: bytes, seconds: float, clients: float, path: str = ""
) -> dict[str, float]:
    """What the clients measured."""
    words = [sys.executable, "-m", "bench._load", wire, str(port), str(seconds), f"{clients:g}", path]
    done = subprocess.run(words, cwd=ROOT, input=body, capture_output=True, check=False)
    if done.returncode:
        raise Unusable(done.stderr.decode().strip().splitlines()[-1])
    told: dict[str, float] = json.loads(done.stdout)
    return told


def ours(folder: Path, seconds: float) -> tuple[dict[str, dict[str, float]], float]:
    """REST by one and by eight clients, gRPC at a pace; and the predicted value, to compare."""
    registry = Registry.at(folder / "registry")
    booster = train(200, 1)
    booster.save_model(folder / "model.txt")
    for one in (booster, train(200, 2)):
        registry.add(model_file(one))
    registry.promote("trees", 1)
    registry.promote("trees", 2, "challenger")
    words = [sys.executable, "-m", "boucle.cli.main", "serve", "--models", str(folder / "registry"), "--json"]
    words += ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--predictions", str(folder / "predictions")]
    body = json.dumps({"id": "bench", "inputs": [TENSOR]}).encode()
    contents = {"name": "features", "datatype": "FP32", "shape": [1, FEATURES]}
    asked = message("ModelInferRequest")(
        model_name="trees", inputs=[contents], raw_input_contents=[np.array(ROW, np.float32).tobytes()]
    )
    with process(words, folder, heard=True) as running:
        assert running.stdout is not None
        told = json.loads(running.stdout.readline())
        http, grpc = (int(told[wire].rpartition(":")[2]) for wire in ("http", "grpc"))
        path = "/v2/models/trees/infer"
        reply = httpx.post(f"{told['http']}{path}", content=body).json()
        measured = {
            "rest": load("rest", http, body, seconds, 1, path),
            "rest_8": load("rest", http, body, seconds, 8, path),
            "grpc": load("grpc", grpc, asked.SerializeToString(), seconds, 1000),
        }
        _check_noted(httpx.get(f"{told['http']}/metrics").text)
        measured["roles"] = _roles(registry, f"{told['http']}{path}", http, body, path)
    return measured, float(reply["outputs"][0]["data"][0])


def _roles(registry: Registry, url: str, port: int, body: bytes, path: str) -> dict[str, float]:
    """Milliseconds from the return of a promotion, then of a rollback, to the first answer by that version.

    Four other clients ask all the while, and fail if one of their requests does.
    """

    def followed(version: str) -> float:
        begun = time.perf_counter()
        while client.post(url, content=body).json()["model_version"] != version:
            pass
        return (time.perf_counter() - begun) * 1e3

    words = [sys.executable, "-m", "bench._load", "rest", str(port), "3", "4", path]
    beside = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert beside.stdin is not None
    beside.stdin.write(body)
    beside.stdin.close()
    time.sleep(1)
    with httpx.Client() as client:
        registry.promote("trees", 2)
        promoted = followed("2")
        registry.rollback("trees")
        rolled_back = followed("1")
    if beside.wait():
        raise RuntimeError("a request failed while roles changed")
    return {"promotion": promoted, "rollback": rolled_back}


def _check_noted(page: str) -> None:
    """Everything that should be on was on, and kept up."""
    counts = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line[0] != "#"
    }
    answered = sum(value for name, value in counts.items() if name.startswith("boucle_infer_rows_total"))
    shadow = sum(value for name, value in counts.items() if name.startswith("boucle_shadow_rows_total"))
    noted = counts['boucle_predictions_total{outcome="stored"}']
    shed = counts['boucle_noted_rows_total{outcome="shed"}']
    print(
        f"answered {answered:.0f}, shadow {shadow:.0f}, noted {noted:.0f}, shed {shed:.0f}", file=sys.stderr
    )
    if not shadow or not noted:
        raise RuntimeError("neither shadow nor log were on")


def mlserver(folder: Path, port: int) -> tuple[list[str], str, bytes]:
    settings = {
        "http_port": port, "grpc_port": free(), "metrics_port": free(), "parallel_workers": 0, "host": "127.0.0.1",
        "debug": False,
    }  # fmt: skip
    model = {
        "name": "trees",
        "implementation": "mlserver_lightgbm.LightGBMModel",
        "parameters": {"uri": str(folder / "model.txt")},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return ["mlserver", "start", "."], "/v2/models/trees/infer", json.dumps({"inputs": [TENSOR]}).encode()


def mlflowserve(folder: Path, port: int) -> tuple[list[str], str, bytes]:
    python = environment("mlflowserve", make=False)
    subprocess.run(
        [str(python), str(FOLDER / "mlflowserve" / "save.py"), str(folder / "model.txt"), str(folder / "saved")],
        check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    words = [
        "mlflow",
        "models",
        "serve",
        "-m",
        str(folder / "saved"),
        "-p",
        str(port),
        "--env-manager",
        "local",
    ]
    return [*words, "--workers", "1"], "/invocations", json.dumps({"inputs": [ROW]}).encode()


def bentoml(folder: Path, port: int) -> tuple[list[str], str, bytes]:
    (folder / "service.py").write_bytes((FOLDER / "bentoml" / "service.py").read_bytes())
    words = ["bentoml", "serve", "service:Trees", "--port", str(port), "--host", "127.0.0.1"]
    return words, "/predict", json.dumps({"features": [ROW]}).encode()


PEERS = {"mlserver": mlserver, "mlflowserve": mlflowserve, "bentoml": bentoml}


def peer(name: str, folder: Path, seconds: float, expected: float) -> dict[str, dict[str, float]]:
    """The same by a peer; Unusable says why not."""
    port = free()
    words, path, body = PEERS[name](folder, port)
    words[0] = str(environment(name, make=False).parent / words[0])
    with process(words, folder, MODEL=str(folder / "model.txt")) as running:
        answer = _first_answer(running, f"http://127.0.0.1:{port}{path}", body)
        if f"{expected:.4f}"[:-1] not in answer:
            raise Unusable(f"it answers {answer[:200]}, and {expected} was expected")
        return {
            "rest": load("rest", port, body, seconds, 1, path),
            "rest_8": load("rest", port, body, seconds, 8, path),
        }


def _first_answer(running: subprocess.Popen[str], url: str, body: bytes) -> str:
    begun = time.monotonic()
    while time.monotonic() - begun < STARTS_WITHIN_S and running.poll() is None:
        with suppress(httpx.HTTPError):
            reply = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=10)
            if reply.status_code == 200:
                return reply.text
        time.sleep(0.3)
    raise Unusable("it did not start")


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def figures(mine: dict[str, dict[str, float]], peers: dict[str, dict[str, dict[str, float]]]) -> list[Figure]:
    """Ours with their goals, MLServer beside them where it was measured."""

    def beside(wire: str, what: str) -> dict[str, Any]:
        if "mlserver" not in peers:
            return {}
        return {"peer": "MLServer 1.7, one thread", "peer_value": peers["mlserver"][wire][what]}

    told = [
        figure("rest_p50_ms", mine["rest"]["p50"], "ms", goal="<= 0.5", **beside("rest", "p50")),
        figure("rest_p99_ms", mine["rest"]["p99"], "ms", goal="<= 1.2", **beside("rest", "p99")),
        figure("rest_p99_ms_8", mine["rest_8"]["p99"], "ms", goal="<= 6", **beside("rest_8", "p99")),
        figure(
            "rest_req_per_s_8", mine["rest_8"]["per_s"], "1/s", goal=">= 3000", **beside("rest_8", "per_s")
        ),
        figure("grpc_p50_ms", mine["grpc"]["p50"], "ms", goal="<= 1.1"),
        figure("grpc_p99_ms", mine["grpc"]["p99"], "ms", goal="<= 5"),
        figure("promotion_ms", mine["roles"]["promotion"], "ms", goal="<= 100"),
        figure("rollback_ms", mine["roles"]["rollback"], "ms", goal="<= 100"),
    ]
    goals = {"mlserver": 1, "mlflowserve": 10, "bentoml": 3}
    for name, measured in peers.items():
        times = measured["rest"]["p50"] / mine["rest"]["p50"]
        told.append(figure(f"faster_than_{name}", times, "×", goal=f">= {goals[name]}"))
        told.append(figure(f"{name}_p50_ms", measured["rest"]["p50"], "ms"))
        told.append(figure(f"{name}_p99_ms", measured["rest"]["p99"], "ms"))
        told.append(figure(f"{name}_req_per_s_8", measured["rest_8"]["per_s"], "1/s"))
    return told


def main() -> None:
    asked = options(__doc__)
    seconds = 3.0 if asked.quick else 15.0
    with tempfile.TemporaryDirectory() as apart:
        folder = Path(apart)
        mine, expected = ours(folder, seconds)
        peers = {}
        for name in PEERS:
            try:
                environment(name, make=not asked.quick)
                print(f"{name} ...", file=sys.stderr, flush=True)
                peers[name] = peer(name, folder, seconds, expected)
            except Unusable as reason:
                print(f"{name}: {reason}", file=sys.stderr)
    publish(figures(mine, peers), asked)


if __name__ == "__main__":
    main()

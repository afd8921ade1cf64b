"""The whole server: both wires on real ports, a registry followed under load, an end in order."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from boucle.cli.answer import readable
from boucle.errors import BoucleError
from boucle.models.registry import Registry
from boucle.serve.oip.answering import Answering, Limits
from boucle.serve.oip.messages import METHODS, SERVICE, message
from boucle.serve.oip.predictions import predictions_of
from boucle.serve.oip.rest import Rest
from boucle.serve.oip.server import ModelServer
from boucle.serve.oip.shelf import EVERY_S, Shelf
from boucle.serve.oip.sidecar import Sidecar
from tests.serve.offered import answering, ask, columns, shifted

ANY = ("127.0.0.1", 0)


@contextmanager
def running(made: Answering, **how: Any) -> Iterator[ModelServer]:
    server = ModelServer(made, http=ANY, grpc=ANY, **how)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def call(server: ModelServer, method: str, raw: bytes | None = None, **fields: Any) -> Any:
    """One gRPC call, the messages being ours."""
    assert server.grpc is not None
    asked, given = METHODS[method]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc[1]}") as channel:
        ask = channel.unary_unary(f"/{SERVICE}/{method}", response_deserializer=message(given).FromString)
        return ask(message(asked)(**fields).SerializeToString() if raw is None else raw, timeout=20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    made = answering(tmp_path_factory.mktemp("models"), limits=Limits(body=1_000_000))
    with running(made) as server:
        yield server


def test_both_wires_give_the_same(server: ModelServer) -> None:
    rest = httpx.post(f"{server.url}/v2/models/tiny/infer", json=columns(3)).json()
    inputs = [
        {"name": "a", "datatype": "FP64", "shape": [3], "contents": {"fp64_contents": [1, 2, 3]}},
        {"name": "b", "datatype": "INT64", "shape": [3], "contents": {"int64_contents": [10, 20, 30]}},
    ]
    rpc = call(server, "ModelInfer", model_name="tiny", id="42", inputs=inputs)
    assert (rpc.id, rpc.model_version) == (rest["id"], rest["model_version"])
    assert [list(one.contents.fp64_contents) for one in rpc.outputs] == [
        one["data"] for one in rest["outputs"]
    ]


def test_what_grpc_tells(server: ModelServer) -> None:
    assert call(server, "ServerLive").live
    assert call(server, "ServerReady").ready
    assert call(server, "ModelReady", name="tiny").ready
    assert call(server, "ServerMetadata").name == "boucle"
    assert [one.name for one in call(server, "ModelMetadata", name="tiny").inputs] == ["a", "b"]
    assert [one.name for one in call(server, "RepositoryIndex", ready=True).models] == ["tiny"]
    for method, code, fields in (
        ("ModelReady", grpc.StatusCode.NOT_FOUND, {"name": "none"}),
        ("ModelInfer", grpc.StatusCode.INVALID_ARGUMENT, {"model_name": "tiny"}),
        ("ModelInfer", grpc.StatusCode.INVALID_ARGUMENT, {"raw": b"\xff\xff"}),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(server, method, **fields)
        assert caught.value.code() == code


def test_a_body_that_is_too_large_is_refused_unread(server: ModelServer) -> None:
    for content in (b" " * 1_000_001, iter([b" " * 600_000] * 3)):
        reply = httpx.post(f"{server.url}/v2/models/tiny/infer", content=content)
        assert reply.status_code == 413
        assert "B675" in reply.json()["error"]


def test_a_port_that_is_taken(server: ModelServer, tmp_path: Path) -> None:
    assert server.http is not None
    made = answering(tmp_path)
    with pytest.raises(BoucleError, match="B678"):
        ModelServer(made, http=server.http)
    made.stop()


def test_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(BoucleError, match="B680"):
        Shelf(tmp_path)


def test_tls_and_users(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    made = answering(tmp_path, allows=lambda told: told == "Bearer known")
    with running(made, certificate=certificate) as server:
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        with httpx.Client(verify=trusting, base_url=server.url) as client:
            assert client.get("/v2/health/live").status_code == 200
            assert client.post("/v2/models/tiny/infer", json=columns()).status_code == 401
            known = {"authorization": "Bearer known"}
            assert client.post("/v2/models/tiny/infer", json=columns(), headers=known).status_code == 200
        assert server.grpc is not None
        told = grpc.ssl_channel_credentials(certificate[0].read_bytes())
        with grpc.secure_channel(f"localhost:{server.grpc[1]}", told) as channel:
            ask = channel.unary_unary(f"/{SERVICE}/ServerMetadata")
            with pytest.raises(grpc.RpcError) as caught:
                ask(b"", timeout=20)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert b"boucle" in ask(b"", timeout=20, metadata=[("authorization", "Bearer known")])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from tests.serve.certificate import certificate as made

    return made(tmp_path_factory.mktemp("tls"))


def until(true: Callable[[], bool], patience: float = 20.0) -> float:
    """Seconds until it holds."""
    begun = time.perf_counter()
    while not true():
        assert time.perf_counter() - begun < patience
        time.sleep(0.002)
    return time.perf_counter() - begun


def test_promotion_and_rollback_are_followed_and_no_request_fails(tmp_path: Path) -> None:
    registry = Registry.at(tmp_path / "registry")
    for by in (0.0, 1.0, 5.0):
        registry.add(shifted(by))
    registry.promote("tiny", 1)
    made = Answering(Shelf(tmp_path / "registry"))
    heard: list[str] = []
    replies: list[httpx.Response] = []
    ends = threading.Event()
    with running(made) as server:
        made.shelf.on_change = lambda offer: heard.append(offer.roles["champion"])

        def load() -> None:
            with httpx.Client() as client:
                while not ends.is_set():
                    replies.append(client.post(f"{server.url}/v2/models/tiny/infer", json=columns()))

        threads = [threading.Thread(target=load) for _ in range(2)]
        for one in threads:
            one.start()
        until(lambda: len(replies) > 5)
        registry.promote("tiny", 2)
        until(lambda: replies[-1].json()["model_version"] == "2")
        registry.rollback("tiny")
        until(lambda: replies[-1].json()["model_version"] == "1")
        ends.set()
        for one in threads:
            one.join()
        by_number = httpx.post(f"{server.url}/v2/models/tiny/versions/3/infer", json=columns()).json()
        by_role = httpx.post(f"{server.url}/v2/models/tiny/versions/previous/infer", json=columns()).json()
    assert {reply.status_code for reply in replies} == {200}
    health = {"1": 0.9, "2": 1.9, "3": 5.9}
    for told in [*(reply.json() for reply in replies), by_number, by_role]:
        assert told["outputs"][0]["data"] == [pytest.approx(health[told["model_version"]])], (
            "scored by whom it says"
        )
    assert heard == ["2", "1"]
    assert by_number["model_version"] == "3"
    assert by_role["model_version"] in {"1", "2"}
    assert EVERY_S <= 0.05, "roles are looked at often enough for the promise of 100 ms"


def test_a_broken_promotion_leaves_the_one_before(tmp_path: Path) -> None:
    registry = Registry.at(tmp_path / "registry")
    registry.add(shifted())
    two = registry.add(shifted(1.0))
    registry.promote("tiny", 1)
    made = Answering(Shelf(tmp_path / "registry"))
    registry.promote("tiny", 2)
    (tmp_path / "registry" / "objects" / two.object / "model.onnx").write_bytes(b"rubbish")
    made.shelf.refresh()
    made.shelf.refresh()
    offer = made.shelf.offer("tiny")
    assert offer.default is not None
    assert offer.default.version == "1"
    assert offer.problem
    page = made.counts.exposition(made.shelf, None).decode()
    assert 'boucle_model_stale{model="tiny"} 1.0' in page
    registry.rollback("tiny")
    made.shelf.refresh()
    assert not made.shelf.offer("tiny").problem
    made.stop()


def test_a_model_folder_that_was_replaced_is_followed(tmp_path: Path) -> None:
    made = answering(tmp_path)
    before = made.shelf.offer("tiny").versions
    shifted(2.0).save(tmp_path / "tiny")
    made.shelf.refresh()
    assert made.shelf.offer("tiny").versions != before
    (tmp_path / "tiny" / "model.onnx").write_bytes(b"")
    made.shelf.refresh()
    assert made.shelf.offer("tiny").default is not None
    made.stop()


def test_predictions_and_shadows_reach_the_lake(tmp_path: Path) -> None:
    registry = Registry.at(tmp_path / "registry")
    for by in (0.0, 0.25):
        registry.add(shifted(by))
    registry.promote("tiny", 1)
    registry.promote("tiny", 2, "challenger")
    beside = Sidecar(tmp_path / "registry", folder=tmp_path / "kept")
    made = Answering(Shelf(tmp_path / "registry"), sidecar=beside)
    with running(made) as server, httpx.Client(base_url=server.url) as client:
        for number in range(4):
            body = columns(2, id=f"r{number}")
            assert client.post("/v2/models/tiny/infer", json=body).status_code == 200
        client.post("/v2/models/tiny/versions/2/infer", json=columns(1, id="asked"))
        until(lambda: sum(one.rows for _, one in beside.status.compared) == 16)
        page = client.get("/metrics").text
    told = 'boucle_shadow_rows_total{model="tiny",output="health",shadow="2",version="1"} 8.0'
    assert told in page
    health, hours = (one for _, one in beside.status.compared)
    assert [health.sums[0] / 8, health.largest] == [pytest.approx(0.25, abs=1e-6)] * 2
    assert (health.agreed, hours.agreed) == (0, 8)
    table = predictions_of(tmp_path / "kept")
    rows = [row for block in table.scan(None, None) for row in readable(block.rows)]
    roles = [row["role"] for row in rows]
    assert [roles.count(role) for role in ("champion", "shadow", "asked")] == [8, 8, 1]
    assert (beside.status.stored, beside.status.settled, beside.taken) == (17, 9, 9)
    found = {(row["request"], row["row"], row["role"]): row for row in rows}
    assert len(found) == 17
    one, other = found["r3", 1, "champion"], found["r3", 1, "shadow"]
    assert one["inputs"] == other["inputs"] == [2.0, 20.0]
    assert (one["version"], other["version"]) == ("1", "2")
    assert one["outputs"] == [pytest.approx(0.8), 24.0]
    assert other["outputs"] == [pytest.approx(1.05), 24.0]
    assert one["latency_us"] > 0


def test_inputs_may_be_kept_as_digests_and_what_waits_is_bounded(tmp_path: Path) -> None:
    beside = Sidecar(tmp_path / "models", folder=tmp_path / "kept", keep="digest", shadow=False, most=3)
    made = answering(tmp_path / "models", sidecar=beside)
    for _ in range(3):
        assert ask(Rest(made), columns(2)).status == 200
    assert (beside.taken, beside.shed, beside.waiting) == (6, 4, 2)
    beside.start()
    made.stop()
    assert (beside.status.settled, beside.shed, beside.lost, beside.waiting) == (2, 4, 0, 0)
    (block,) = predictions_of(tmp_path / "kept").scan(None, None)
    assert [len(digest) for digest in block.rows["digest"].to_pylist()] == [64, 64]
    assert "inputs" not in block.rows.schema.names


def test_answers_on_the_way_arrive_when_the_server_ends(tmp_path: Path) -> None:
    made = answering(tmp_path)
    served = made.shelf.find("tiny")
    assert served is not None
    whole = {"name": "features", "shape": [4_000, 2], "datatype": "FP32", "data": [1.0] * 8_000}
    got: list[int] = []
    with running(made) as server:
        served.row_s = 1.0

        def ask() -> None:
            reply = httpx.post(f"{server.url}/v2/models/tiny/infer", content=json.dumps({"inputs": [whole]}))
            got.append(reply.status_code)

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: made.counts.waiting > 0 or bool(got))
    thread.join()
    assert got == [200]

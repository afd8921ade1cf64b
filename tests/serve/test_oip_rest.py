"""The protocol over REST, request by request: what it answers, what it refuses, and that nonsense never breaks it."""

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from boucle.serve.oip.answering import Answering, Limits
from boucle.serve.oip.refusal import Malformed, Refusal
from boucle.serve.oip.rest import Rest
from boucle.serve.oip.rest_body import decode_request
from boucle.serve.oip.tensor import DATATYPES, Tensor, from_raw, to_raw
from tests.serve.offered import answering, ask, columns, outputs, shifted


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    made = answering(tmp_path_factory.mktemp("models"))
    yield Rest(made)
    made.stop()


def refused(rest: Rest, body: Any, why: str, status: int = 400, **how: Any) -> None:
    reply = ask(rest, body, **how)
    assert reply.status == status, reply.body
    told = json.loads(reply.body)
    assert list(told) == ["error"]
    assert why in told["error"]


def test_columns_and_one_tensor_give_the_same(rest: Rest) -> None:
    by_column = ask(rest, columns(3))
    whole = {"name": "features", "shape": [3, 2], "datatype": "FP32", "data": [1, 10, 2, 20, 3, 30]}
    nested = {**whole, "data": [[1, 10], [2, 20], [3, 30]]}
    for body in ({"inputs": [whole]}, {"inputs": [nested]}):
        assert outputs(ask(rest, body)) == outputs(by_column)
    assert outputs(by_column)["rul_h"] == [12, 24, 36]
    told = json.loads(by_column.body)
    assert (told["id"], told["model_name"]) == ("42", "tiny")
    assert [one["shape"] for one in told["outputs"]] == [[3], [3]]


def test_columns_may_stand_upright(rest: Rest) -> None:
    body = columns(2)
    for one in body["inputs"]:
        one["shape"], one["data"] = [2, 1], [[value] for value in one["data"]]
    assert outputs(ask(rest, body))["rul_h"] == [12, 24]


def test_only_what_was_asked_for_in_that_order(rest: Rest) -> None:
    told = outputs(ask(rest, columns(outputs=[{"name": "rul_h"}, {"name": "health"}])))
    assert list(told) == ["rul_h", "health"]
    refused(rest, columns(outputs=[{"name": "wear"}]), "no output 'wear'")


def test_a_missing_number_gives_no_score_and_is_counted(rest: Rest) -> None:
    body = columns(2)
    body["inputs"][0]["data"] = [None, 2.0]
    told = outputs(ask(rest, body))
    assert told["health"] == [None, pytest.approx(0.8)]
    page = ask(rest, path="/metrics").body.decode()
    assert 'boucle_infer_unscored_rows_total{model="tiny"' in page
    assert 'boucle_infer_cpu_seconds_total{model="tiny"' in page


def binary(body: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """The same request with its tensors as bytes."""
    parts = []
    for one in body["inputs"]:
        raw = np.array(one.pop("data"), DATATYPES[one["datatype"]]).tobytes()
        one["parameters"] = {"binary_data_size": len(raw)}
        parts.append(raw)
    head = json.dumps(body).encode()
    return b"".join([head, *parts]), {"inference-header-content-length": str(len(head))}


def test_tensors_as_bytes_both_ways(rest: Rest) -> None:
    body, headers = binary(columns(2, parameters={"binary_data_output": True}))
    reply = ask(rest, body, headers=headers)
    told = dict(reply.headers)
    assert told["content-type"] == "application/octet-stream"
    size = int(told["inference-header-content-length"])
    head = json.loads(reply.body[:size])
    assert [one["parameters"]["binary_data_size"] for one in head["outputs"]] == [16, 16]
    assert np.frombuffer(reply.body[size:]).tolist() == [pytest.approx(0.9), pytest.approx(0.8), 12, 24]


def test_one_output_as_bytes_and_one_as_json(rest: Rest) -> None:
    reply = ask(
        rest, columns(outputs=[{"name": "health", "parameters": {"binary_data": True}}, {"name": "rul_h"}])
    )
    size = int(dict(reply.headers)["inference-header-content-length"])
    first, second = json.loads(reply.body[:size])["outputs"]
    assert "data" not in first
    assert second["data"] == [12]
    assert len(reply.body) - size == 8


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"shape": [2]}, "does not fit its shape"),
        ({"shape": [-1]}, "impossible shape"),
        ({"shape": [10**30]}, "does not fit its shape"),
        ({"shape": [1] * 9}, "impossible shape"),
        ({"shape": []}, "a column is a tensor"),
        ({"datatype": "FP80"}, "unknown datatype"),
        ({"datatype": "BYTES", "data": ["x"]}, "is FP64, not BYTES"),
        ({"data": ["x"]}, "is not of FP64"),
        ({"data": [[1.0, 2.0]]}, "nested otherwise"),
        ({"data": [[1.0], [2.0, 3.0]]}, "is not of FP64"),
        ({"datatype": "INT8", "data": [300]}, "is not of INT8"),
        ({"name": "c"}, "no input 'c'"),
        ({"name": "b"}, "given twice"),
        ({"parameters": {"binary_data_size": 8}}, "does not fit the body"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(rest: Rest, change: dict[str, Any], why: str) -> None:
    body = columns()
    body["inputs"][0].update(change)
    refused(rest, body, why)


def test_a_column_of_whole_numbers_takes_no_others(rest: Rest) -> None:
    body = columns()
    body["inputs"][1]["datatype"] = "FP64"
    refused(rest, body, "is INT64, not FP64")


def test_bodies_that_are_no_requests(rest: Rest) -> None:
    for body in (b"", b"{", b"[]", b"null", b"\xff", b"{}", b"[" * 100_000, {"inputs": "x"}):
        refused(rest, body, "is no inference request")
    refused(rest, {"inputs": []}, "a column is a tensor")
    refused(rest, columns(), "does not fit", headers={"inference-header-content-length": "99999"})
    refused(rest, columns(), "is a number", headers={"inference-header-content-length": "-1"})
    refused(rest, columns(parameters={"timeout": "soon"}), "microseconds")
    body, headers = binary(columns())
    refused(rest, body + b"x", "belong to none", headers=headers)
    refused(rest, body[:-1], "does not fit the body", headers=headers)


def test_packed_bodies(rest: Rest) -> None:
    raw = json.dumps(columns(200)).encode()
    reply = ask(rest, gzip.compress(raw), headers={"content-encoding": "gzip", "accept-encoding": "gzip"})
    assert dict(reply.headers)["content-encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(reply.body))["outputs"][0]["data"]) == 200
    assert ask(rest, zlib.compress(raw), headers={"content-encoding": "deflate"}).status == 200
    for body, how in ((raw, "gzip"), (gzip.compress(raw)[:-9], "gzip"), (raw, "br")):
        assert ask(rest, body, headers={"content-encoding": how}).status == 400


def test_a_packed_body_may_not_grow_beyond_the_limit(tmp_path: Path) -> None:
    made = answering(tmp_path, limits=Limits(body=100_000))
    bomb = gzip.compress(b"0" * 1_000_000)
    refused(Rest(made), bomb, "100 000 bytes", 413, headers={"content-encoding": "gzip"})
    made.stop()


def test_paths(rest: Rest) -> None:
    version = shifted().manifest.sha256[:12]
    assert json.loads(ask(rest, path="/v2").body)["extensions"] == ["binary_tensor_data", "model_repository"]
    assert json.loads(ask(rest, path="/v2/health/live").body) == {"live": True}
    assert ask(rest, path="/v2/health/ready").status == 200
    assert json.loads(ask(rest, path="/v2/models").body) == {"models": ["tiny"]}
    for path in ("/v2/models/tiny", f"/v2/models/tiny/versions/{version}"):
        told = json.loads(ask(rest, path=path).body)
        assert told["inputs"] == [
            {"name": "a", "datatype": "FP64", "shape": [-1]},
            {"name": "b", "datatype": "INT64", "shape": [-1]},
        ]
        assert [one["name"] for one in told["outputs"]] == ["health", "rul_h"]
        assert json.loads(ask(rest, path=f"{path}/ready").body) == {"name": "tiny", "ready": True}
        assert json.loads(ask(rest, columns(), path=f"{path}/infer").body)["model_version"] == version
    (told,) = json.loads(ask(rest, {}, path="/v2/repository/index").body)
    assert (told["name"], told["state"]) == ("tiny", "READY")
    for path in (
        "/", "/v1", "/v2/models/none", "/v2/models/tiny/versions/9", "/v2/models/tiny/explain", "/v2/health/x",
        "/v2/models/tiny/a/b", "/v2/models/tiny/versions/9/ready", "/v2/models/%2e%2e", "/infer",
    ):  # fmt: skip
        refused(rest, None, "B671", 404, path=path)
    refused(rest, columns(), "B671", 404, path="/v2/models/none/infer")
    refused(rest, columns(), "B671", 404, path="/v2/models/tiny/versions/7/infer")
    refused(rest, columns(), "B671", 404, path="/infer")
    refused(rest, None, "use POST", 405, path="/v2/models/tiny/infer")
    refused(rest, {}, "use GET", 405, path="/v2/models/tiny")


def test_only_known_users_but_probes(tmp_path: Path) -> None:
    made = answering(tmp_path, allows=lambda told: told == "Basic good")
    rest = Rest(made)
    assert ask(rest, path="/v2/health/ready").status == 200
    for path in ("/v2", "/metrics", "/v2/models/tiny"):
        refused(rest, None, "B674", 401, path=path)
    refused(rest, columns(), "B674", 401)
    assert ask(rest, columns(), headers={"authorization": "Basic good"}).status == 200
    made.stop()


class Slow:
    """A model's rows take as long as it says."""

    def __init__(self, made: Answering) -> None:
        self.served = made.shelf.find("tiny")
        assert self.served is not None
        self.served.row_s = 1.0


def test_a_long_score_is_given_up_at_its_deadline(tmp_path: Path) -> None:
    made = answering(tmp_path, limits=Limits(seconds=30))
    Slow(made)
    rest = Rest(made)
    assert ask(rest, columns(300)).status == 200, "scored on the thread beside"
    served = made.shelf.find("tiny")
    assert served is not None
    assert served.row_s < 1.0, "how long a row takes was learnt"
    Slow(made)
    refused(rest, columns(1, parameters={"timeout": 1}), "B673", 504)
    made.stop()


def test_an_error_nobody_foresaw_is_an_answer_and_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def allows(told: str) -> bool:
        raise RuntimeError("gone")

    made = answering(tmp_path, allows=allows)
    reply = ask(Rest(made), columns())
    assert reply.status == 500
    assert "B683" in json.loads(reply.body)["error"]
    assert "RuntimeError: gone" in caplog.text
    made.stop()


TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b", "features", "", "\0"]),
        "shape": st.lists(st.integers(-(2**70), 2**70) | st.integers(0, 3), max_size=10),
        "datatype": st.sampled_from([*DATATYPES, "X", ""]),
    },
    optional={
        "data": st.recursive(
            st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=4),
            max_leaves=12,
        ),
        "parameters": st.none()
        | st.fixed_dictionaries({"binary_data_size": st.none() | st.integers(-3, 40) | st.text(max_size=2)}),
    },
)


@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(TENSORS, max_size=3)},
        optional={
            "id": st.none() | st.text() | st.integers(),
            "parameters": st.none()
            | st.dictionaries(st.sampled_from(["binary_data_output", "timeout"]), st.integers()),
            "outputs": st.none() | st.lists(st.fixed_dictionaries({"name": st.text(max_size=3)}), max_size=3),
        },
    ),
    st.binary(max_size=40),
    st.none() | st.just(0) | st.integers(-5, 500),
)
@example({"inputs": [{"name": "a", "shape": [0, 10**18], "datatype": "FP32", "data": []}]}, b"", None)
@example({"inputs": [{"name": "features", "shape": [0, 2], "datatype": "FP32", "data": []}]}, b"", None)
def test_no_request_whatever_breaks_the_server(rest: Rest, body: Any, tail: bytes, size: int | None) -> None:
    head = json.dumps(body).encode()
    headers = {} if size is None else {"inference-header-content-length": str(size or len(head))}
    reply = ask(rest, head + tail, headers=headers)
    assert reply.status in {200, 400, 504}
    if reply.status != 200:
        assert list(json.loads(reply.body)) == ["error"]


@given(st.binary(max_size=300), st.none() | st.integers(-1, 400))
def test_bytes_that_are_no_request_are_refused(body: bytes, size: int | None) -> None:
    with suppress(Malformed):
        decode_request(body, size)


@given(
    st.sampled_from(list(DATATYPES)),
    st.lists(st.integers(0, 2**40) | st.integers(0, 4), max_size=3),
    st.binary(max_size=64),
)
def test_raw_tensors_are_whole_or_refused(datatype: str, shape: list[int], raw: bytes) -> None:
    try:
        tensor = from_raw("x", datatype, shape, raw)
    except Refusal:
        return
    assert to_raw(tensor) == raw


@given(st.lists(st.binary(max_size=9), max_size=5))
def test_texts_come_back(texts: list[bytes]) -> None:
    values = np.empty(len(texts), object)
    values[:] = texts
    raw = to_raw(Tensor("x", "BYTES", (len(texts),), values))
    assert raw == b"".join(struct.pack("<I", len(one)) + one for one in texts)
    assert from_raw("x", "BYTES", (len(texts),), raw).values.tolist() == texts

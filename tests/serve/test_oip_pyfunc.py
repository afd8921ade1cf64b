"""A model that is no ONNX over the wire: its columns as they are, its process killed, its absence told."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boucle.models.foreign import model_folder
from boucle.models.registry import Registry
from boucle.serve.oip.answering import Answering, Limits
from boucle.serve.oip.rest import Rest
from boucle.serve.oip.shelf import Shelf
from boucle.serve.pyfunc import PyfuncReady
from tests.serve.foreign import logged, python
from tests.serve.offered import ask, outputs, shifted

PATH = "/v2/models/risk/infer"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Answering]:
    registry = Registry.at(tmp_path / "registry")
    registry.add(model_folder(logged(tmp_path / "logged" / "risk")))
    registry.promote("risk", 1)
    made = Answering(Shelf(tmp_path / "registry", str(python(tmp_path))), limits=Limits(seconds=3))
    yield made
    made.stop()


def asked(a: list[float | None], b: list[int] | None = None) -> dict[str, Any]:
    inputs: list[dict[str, Any]] = [{"name": "a", "shape": [len(a)], "datatype": "FP64", "data": a}]
    if b is not None:
        inputs.append({"name": "b", "shape": [len(a)], "datatype": "INT64", "data": b})
    return {"inputs": inputs}


def test_it_is_given_its_columns_as_they_are(made: Answering) -> None:
    rest = Rest(made)
    large = 2**53 - 2
    assert outputs(ask(rest, asked([1.0, 2.0], [0, large]), PATH))["risk"] == [2.0, 4.0 + large], "no float32"
    assert outputs(ask(rest, asked([1.0, 2.0]), PATH))["risk"] == [2.0, 4.0], "b may be absent"
    assert outputs(ask(rest, asked([1.0, None]), PATH))["risk"] == [2.0, None], "a may not"
    told = json.loads(ask(rest, path="/v2/models/risk").body)
    assert (told["platform"], [one["datatype"] for one in told["inputs"]]) == (
        "mlflow_pyfunc",
        ["FP64", "INT64"],
    )
    assert ask(rest, asked([1.0]) | {"inputs": []}, PATH).status == 400


def test_what_it_refuses_and_a_process_that_dies(made: Answering) -> None:
    rest = Rest(made)
    reply = ask(rest, asked([-4.0]), PATH)
    assert (reply.status, "B643" in json.loads(reply.body)["error"]) == (400, True)
    served = made.shelf.find("risk")
    assert served is not None
    assert isinstance(served.ready, PyfuncReady)
    os.kill(served.ready.child.pid, signal.SIGKILL)
    codes = [ask(rest, asked([1.0]), PATH).status]
    until = time.monotonic() + 20
    while codes[-1] != 200 and time.monotonic() < until:
        codes.append(ask(rest, asked([1.0]), PATH).status)
        time.sleep(0.01)
    assert codes[-1] == 200
    assert set(codes[:-1]) == {503}, "B641, and it is started again"


def test_a_folder_as_mlflow_logged_it(tmp_path: Path) -> None:
    logged(tmp_path / "models" / "risk")
    shifted().save(tmp_path / "models" / "tiny")
    made = Answering(Shelf(tmp_path / "models", str(python(tmp_path))))
    assert sorted(made.shelf.offers()) == ["risk", "tiny"]
    assert outputs(ask(Rest(made), asked([1.5], [1]), PATH))["risk"] == [4.0]
    made.stop()


def test_nobody_said_which_python(tmp_path: Path) -> None:
    registry = Registry.at(tmp_path / "registry")
    registry.add(model_folder(logged(tmp_path / "logged" / "risk")))
    registry.promote("risk", 1)
    rest = Rest(Answering(Shelf(tmp_path / "registry")))
    reply = ask(rest, asked([1.0]), PATH)
    assert (reply.status, "B692" in json.loads(reply.body)["error"]) == (503, True)

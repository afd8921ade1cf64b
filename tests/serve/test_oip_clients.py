"""Clients nobody here wrote: Triton's and KServe's, each in its own environment, against the running server.

Triton's environment is made in a few seconds when it is missing; KServe's (304 MB) is only used where it is:
`python -c "from bench.peers import environment; environment('kserve', make=True)"`.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.peers import FOLDER, Unusable, environment

from boucle.serve.oip.server import ModelServer
from tests.serve.offered import answering

HEALTH, HOURS = [pytest.approx(one) for one in (0.9, 0.8, 0.7)], [12.0, 24.0, 36.0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    made = ModelServer(
        answering(tmp_path_factory.mktemp("models")), http=("127.0.0.1", 0), grpc=("127.0.0.1", 0)
    )
    made.start()
    yield made
    made.stop()


def talk(name: str, server: ModelServer, *, make: bool) -> list[dict[str, Any]]:
    try:
        python = environment(name, make=make)
    except Unusable as reason:
        how = f"python -c \"from bench.peers import environment; environment('{name}', make=True)\""
        pytest.skip(f"{reason}; {how}")
    assert server.http is not None
    assert server.grpc is not None
    words = [str(python), str(FOLDER / name / "talk.py")]
    words += [f"127.0.0.1:{one[1]}" for one in (server.http, server.grpc)]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parent
    )
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return told


def test_tritons_client(server: ModelServer) -> None:
    rest, rpc = talk("tritonclient", server, make=True)
    for told in (rest, rpc):
        assert [told[name] for name in ("live", "ready", "model_ready")] == [True] * 3
        assert (told["server"], told["inputs"], told["index"], told["id"]) == (
            "boucle", ["a", "b"], ["tiny"], "t1",
        )  # fmt: skip
        assert told["columns"] == HOURS
        for name in told:
            if name.startswith("whole"):
                assert told[name] == {"health": HEALTH, "rul_h": HOURS}
        assert "B671" in told["refused_none"][2]
        assert "input 'b' is missing" in told["refused_tiny"][2]
    assert rest["packed"] == 500
    assert [rest["refused_none"][1], rest["refused_tiny"][1]] == ["404", "400"]
    assert [rpc["refused_none"][1], rpc["refused_tiny"][1]] == [
        "StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT",
    ]  # fmt: skip


@pytest.mark.slow
def test_kserves_client(server: ModelServer) -> None:
    rest, rpc = talk("kserve", server, make=False)
    for told in (rest, rpc):
        assert [told[name] for name in ("live", "ready", "model_ready")] == [True] * 3
        for one in told.values():
            if isinstance(one, dict):
                assert one == {"id": "k1", "health": HEALTH, "rul_h": HOURS}
    assert len([one for told in (rest, rpc) for one in told.values() if isinstance(one, dict)]) == 4
    assert "B671" in rest["refused"]

"""The process beside the model server: it is killed, absent, refused; what was taken is accounted for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boucle.cli.answer import readable
from boucle.errors import BoucleError
from boucle.models.registry import Registry
from boucle.serve.oip.answering import Answering
from boucle.serve.oip.predictions import predictions_of
from boucle.serve.oip.rest import Rest
from boucle.serve.oip.scored import Scored, Version
from boucle.serve.oip.shelf import Shelf
from boucle.serve.oip.sidecar import Sidecar
from tests.cli.command import environment
from tests.serve.offered import answering, ask, columns, shifted

OF = Version("tiny", "1", ("a", "b"), ("health", "rul_h"))


def scored(number: int, rows: int = 1) -> Scored:
    return Scored(
        OF,
        f"r{number}",
        "rest",
        time.time_ns(),
        np.ones((rows, 2), np.float32),
        np.ones((rows, 2)),
        0.001,
        "champion",
    )


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def adds_up(beside: Sidecar) -> bool:
    return beside.taken == beside.status.settled + beside.shed + beside.lost + beside.waiting


def test_it_is_killed_and_starts_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shifted().save(tmp_path / "models" / "tiny")
    beside = Sidecar(tmp_path / "models", folder=tmp_path / "kept", shadow=False)
    beside.start()
    for number in range(20):
        beside.take(scored(number))
    until(lambda: beside.status.settled == 20)
    assert beside._child is not None
    os.kill(beside._child.process.pid, signal.SIGKILL)
    for number in range(20, 40):
        beside.take(scored(number, 2))
    until(lambda: "ended" in caplog.text)
    assert caplog.text.count("ended") == 1, "one clear alert"
    for number in range(40, 50):
        beside.take(scored(number))
    until(lambda: beside.status.settled + beside.lost == 70)
    beside.stop()
    assert adds_up(beside)
    assert beside.waiting == 0
    rows = [
        row for block in predictions_of(tmp_path / "kept").scan(None, None) for row in readable(block.rows)
    ]
    found = [(row["request"], row["row"]) for row in rows]
    assert len(found) == len(set(found)), "none twice"
    assert 70 - beside.lost <= len(found) <= 70
    assert {f"r{number}" for number in [*range(20), *range(40, 50)]} <= {name for name, _ in found}


SERVER = """
import sys, time
from pathlib import Path
from boucle.serve.oip.sidecar import Sidecar
from tests.serve.test_oip_sidecar import scored, until
folder = Path(sys.argv[1])
beside = Sidecar(folder / "models", folder=folder / "kept", shadow=False)
beside.start()
beside.take(scored(1, 3))
until(lambda: beside.waiting == 0)
print("taken", flush=True)
time.sleep(60)
"""


def test_the_server_is_killed_and_what_it_took_is_written(tmp_path: Path) -> None:
    """The sidecar ends by itself, after it wrote; a server that starts meanwhile waits for it."""
    shifted().save(tmp_path / "models" / "tiny")
    words = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment()) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "taken\n"
        server.kill()
    second = Sidecar(tmp_path / "models", folder=tmp_path / "kept", shadow=False)
    second.start()
    second.take(scored(2))
    second.stop()
    rows = [
        row for block in predictions_of(tmp_path / "kept").scan(None, None) for row in readable(block.rows)
    ]
    assert sorted(row["request"] for row in rows) == ["r1", "r1", "r1", "r2"]


def test_two_servers_do_not_keep_one_log(tmp_path: Path) -> None:
    shifted().save(tmp_path / "models" / "tiny")
    first, second = (Sidecar(tmp_path / "models", folder=tmp_path / "kept", shadow=False) for _ in range(2))
    first.start()
    with pytest.raises(BoucleError) as caught:
        second.start()
    assert "log" in str(caught.value)
    first.stop()


def test_without_a_log_it_starts_with_the_first_challenger(tmp_path: Path) -> None:
    registry = Registry.at(tmp_path / "registry")
    for by in (0.0, 0.25):
        registry.add(shifted(by))
    registry.promote("tiny", 1)
    beside = Sidecar(tmp_path / "registry")
    made = Answering(Shelf(tmp_path / "registry"), sidecar=beside)
    made.start()
    assert ask(Rest(made), columns(2)).status == 200
    assert (beside.taken, beside._child) == (0, None)
    registry.promote("tiny", 2, "challenger")
    until(lambda: made.shelf.offer("tiny").shadow is not None)
    assert ask(Rest(made), columns(2)).status == 200
    until(lambda: beside.status.settled == 2)
    made.stop()
    assert {key[:3]: one.rows for key, one in beside.status.compared} == {("tiny", "1", "2"): 2}


def test_what_cannot_be_sent_is_shed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """There is no model: the sidecar cannot begin."""
    beside = Sidecar(tmp_path / "none")
    beside.start()
    beside.take(scored(1, 5))
    until(lambda: "not taken" in caplog.text)
    beside.stop()
    assert "B680" in caplog.text
    assert (beside.taken, beside.shed, beside.waiting) == (5, 5, 0)


def test_a_request_is_answered_whatever_the_sidecar_does(tmp_path: Path) -> None:
    beside = Sidecar(tmp_path / "models", folder=tmp_path / "kept", shadow=False, most=4)
    made = answering(tmp_path / "models", sidecar=beside)
    made.start()
    assert beside._child is not None
    os.kill(beside._child.process.pid, signal.SIGSTOP)
    try:
        for _ in range(50):
            assert ask(Rest(made), columns(2)).status == 200
    finally:
        os.kill(beside._child.process.pid, signal.SIGCONT)
    made.stop()
    assert beside.taken == 100
    assert adds_up(beside)
    assert beside.lost == 0

"""`boucle serve --models`: starts, answers, keeps what it answered through a kill, ends in order."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from boucle.cli.main import main
from boucle.lake.delta import LakeTable
from tests.cli.command import environment
from tests.serve.offered import columns, shifted


@contextmanager
def serving(folder: Path, end: signal.Signals) -> Iterator[dict[str, Any]]:
    """The command in a process of its own, ended by a signal."""
    words = [sys.executable, "-m", "boucle.cli.main", "serve", "--models", str(folder / "models"), "--json"]
    words += ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--predictions", str(folder / "kept")]
    running = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert running.stdout is not None
    try:
        line = running.stdout.readline()
        assert line, running.communicate()
        yield json.loads(line)
    finally:
        os.kill(running.pid, end)
        _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (0 if end == signal.SIGTERM else -end, "")


def test_what_was_answered_is_kept_once_whatever_is_killed(tmp_path: Path) -> None:
    shifted().save(tmp_path / "models" / "tiny")
    with serving(tmp_path, signal.SIGKILL) as told, httpx.Client(base_url=told["http"]) as client:
        for number in range(3):
            client.post("/v2/models/tiny/infer", json=columns(id=f"a{number}")).raise_for_status()
        stored = 'boucle_predictions_total{outcome="stored"} 3.0'
        begun = time.monotonic()
        while stored not in client.get("/metrics").text:
            assert time.monotonic() - begun < 30
            time.sleep(0.02)
    with serving(tmp_path, signal.SIGTERM) as told:
        httpx.post(f"{told['http']}/v2/models/tiny/infer", json=columns(id="b0")).raise_for_status()
    table = LakeTable(tmp_path / "kept" / "lake" / "raw" / "predictions")
    found = [one for block in table.scan(None, None) for one in block.rows["request"].to_pylist()]
    assert sorted(found) == ["a0", "a1", "a2", "b0"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--http", "nowhere"], "B842"),
        (["--http", "0.0.0.0:0"], "B841"),
        (["--certificate", "x.pem"], "B843"),
        (["--deadline", "0"], "B682"),
    ],
)
def test_what_cannot_be_served_is_told(
    tmp_path: Path, words: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shifted().save(tmp_path / "tiny")
    assert main(["serve", "--models", str(tmp_path), *words]) == 1
    assert code in capsys.readouterr().err

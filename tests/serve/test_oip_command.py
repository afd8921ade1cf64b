"""`boucle serve --models`: starts, answers, keeps what it answered, ends in order."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from boucle.cli.main import main
from boucle.lake.delta import LakeTable
from tests.cli.command import environment
from tests.serve.offered import columns, shifted


def test_it_answers_keeps_what_it_answered_and_ends_in_order(tmp_path: Path) -> None:
    shifted().save(tmp_path / "models" / "tiny")
    words = [sys.executable, "-m", "boucle.cli.main", "serve", "--models", str(tmp_path / "models"), "--json"]
    words += ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--predictions", str(tmp_path / "kept")]
    pipe = subprocess.PIPE
    running = subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=environment())
    assert running.stdout is not None
    try:
        told = json.loads(running.stdout.readline())
        for number in range(3):
            body = columns(id=f"a{number}")
            httpx.post(f"{told['http']}/v2/models/tiny/infer", json=body).raise_for_status()
    finally:
        running.terminate()
        _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (0, "")
    table = LakeTable(tmp_path / "kept" / "lake" / "raw" / "predictions")
    found = [one for block in table.scan(None, None) for one in block.rows["request"].to_pylist()]
    assert sorted(found) == ["a0", "a1", "a2"]


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

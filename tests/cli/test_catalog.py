"""`boucle catalog`: search, show, status, and the site without a loop."""

import json
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from boucle.cli.main import main
from tests.catalog.made import bank, put
from tests.cli.command import BOUCLE, environment


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = bank(tmp_path_factory.mktemp("products"))
    put(folder, "broken", "kind: [unclosed")
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(list(map(str, words))) == 0
    return capsys.readouterr().out


def test_search_for_people_and_machines(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "catalog", "search", "carte", "fraude", "--root", root)
    assert text.startswith("product  cards")
    corrected = said(capsys, "catalog", "search", "amuont", "--root", root)
    assert "“amuont” was read as “amount”" in corrected
    told = json.loads(said(capsys, "catalog", "search", "pii:yes", "kind:column", "--root", root, "--json"))
    assert {one["column"] for one in told["hits"]} == {"card"}
    assert "nothing was found" in said(capsys, "catalog", "search", "zzzzqq", "--root", root)


def test_show_a_product_and_a_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "catalog", "show", "cards", "--root", root)
    for part in ("ada@bank.example", "read by   claims", "burst", "scored"):
        assert part in text
    table = said(capsys, "catalog", "show", "cards/scored", "--root", root)
    assert "[confidential] Card number" in table
    assert "boucle sql" in table
    told = json.loads(said(capsys, "catalog", "show", "cards/scored", "--root", root, "--json"))
    assert told["personal"]["label"].endswith(".card")
    whole = json.loads(said(capsys, "catalog", "show", "cards", "--root", root, "--json"))
    assert whole["consumers"] == ["claims"]


def test_status_lists_what_is_broken(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "broken: broken/product.yaml: line " in said(capsys, "catalog", "status", "--root", root)
    told = json.loads(said(capsys, "catalog", "status", "--root", root, "--json"))
    assert told["products"] == 3
    assert [one["file"] for one in told["broken_files"]] == ["broken/product.yaml"]


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["catalog", "show", "card"], "B570", "did you mean cards"),
        (["catalog", "show", "cards/scord"], "B570", "did you mean scored"),
        (["catalog", "search", "x", "--root", "{empty}"], "B567", "--root"),
        (["lineage", "impact", "scored.amuont"], "B563", "scored.amount"),
        (["lineage", "export", "{empty}", "--to", "http://127.0.0.1:9"], "B568", "folder of a run"),
        (["catalog", "serve", "{root}", "--at", "nowhere"], "B571", "HOST:PORT"),
    ],
)
def test_mistakes_say_how_to_go_on(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str, hint: str
) -> None:
    filled = [word.format(empty=tmp_path, root=root) for word in words]
    named = [] if "--root" in filled or "serve" in filled or "export" in filled else ["--root", str(root)]
    assert main([*filled, *named]) == 1
    error = capsys.readouterr().err
    assert code in error
    assert hint in error


def test_served_without_a_loop(root: Path, tmp_path: Path) -> None:
    command = [*BOUCLE, "catalog", "serve", str(root), "--at", "127.0.0.1:0", "--json"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        page = httpx.get(url, trust_env=False, timeout=60)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert "Card payments" in page.text

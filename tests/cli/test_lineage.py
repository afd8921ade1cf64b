"""`boucle lineage`: the two questions and the export, as people and machines ask them."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from boucle.catalog.lineage import Lineage
from boucle.cli.main import main
from boucle.clock import SystemClock
from tests.catalog.made import bank
from tests.cli.command import PRESS

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bank(tmp_path_factory.mktemp("products"))


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(list(map(str, words))) == 0
    return capsys.readouterr().out


def test_what_breaks(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "lineage", "impact", "payments.amount", "--root", root)
    assert "3 tables" in text
    assert "change, in cards, claims\n" in text
    assert "cards/burst" in text
    assert "claims/per_card.{" in text
    told = json.loads(said(capsys, "lineage", "impact", "payments.amount", "--root", root, "--json"))
    assert told["products"] == ["cards", "claims"]
    assert {"rule", "event", "table"} <= {one["kind"] for one in told["reached"]}
    assert "nothing that the catalogue knows uses it" in said(
        capsys, "lineage", "impact", "per_card.who", "--root", root
    )


def test_where_it_comes_from(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "lineage", "origin", "per_card.total", "--root", root)
    assert "mqtt://broker.bank.example:1883/bank/payments.amount" in text
    assert "claims/per_card.total  aggregation: SUM(big.amount)" in text
    assert "is decided by" in text


def test_the_press_to_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = tmp_path / "index.sqlite"
    text = said(capsys, "lineage", "impact", "vibration.samples", "--root", PRESS, "--index", index)
    assert "plc/{machine}/speed_setpoint" in text
    assert "press_health" in text
    origin = said(capsys, "lineage", "origin", "maintenance_summary.rul_h", "--root", PRESS, "--index", index)
    assert "scored by the model press_health" in origin
    assert "press/+/vibration.samples" in origin
    assert not (PRESS / ".boucle").exists()


@pytest.mark.parametrize("question", ["impact", "origin"])
def test_the_picture_is_drawn_once_per_thing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], question: str
) -> None:
    file = tmp_path / "picture.svg"
    said(capsys, "lineage", question, "cards/scored.spent_24h", "--root", root, "--picture", file)
    tree = ET.fromstring(file.read_text(encoding="utf-8"))
    boxes = tree.findall(f"{SVG}g")
    titles = [one.findtext(f"{SVG}title") for one in boxes]
    assert "cards/scored" in titles
    assert len(boxes) >= 3
    assert tree.findall(f"{SVG}path")


def test_export_into_a_file_and_to_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], free_port: int
) -> None:
    Lineage(tmp_path / "run" / "lineage", SystemClock()).start("one").complete()
    told = said(
        capsys, "lineage", "export", tmp_path / "run", "--to", f"file:{tmp_path}/all.ndjson", "--json"
    )
    assert json.loads(told) == {"sent": 2, "refused": 0, "waiting": 0}
    assert len((tmp_path / "all.ndjson").read_text().splitlines()) == 2
    assert main(["lineage", "export", str(tmp_path / "run"), "--to", f"http://127.0.0.1:{free_port}"]) == 1
    seen = capsys.readouterr()
    assert "0 sent, 0 refused, 2 waiting" in seen.out
    assert "B566" in seen.err

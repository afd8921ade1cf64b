"""`boucle state` opens a checkpoint: keys, windows, times, groups, and one key's own state."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from msgspec import structs

from boucle.cli.main import main
from boucle.loop.checkpoint import Checkpoints, read_checkpoint
from tests.cli.test_against import PRODUCT, live, product, readings

SVG = "{http://www.w3.org/2000/svg}"
SPREAD = PRODUCT.replace(
    "    with: {by: [pump], size", "    by: [pump]\n    groups: 4\n    with: {by: [pump], size"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`alone` and `spread` (in four key groups) over the same readings."""
    folder = tmp_path_factory.mktemp("runs")
    for name, text in (("alone", PRODUCT), ("spread", SPREAD)):
        assert name == "alone" or "groups: 4" in text
        made = product(folder / f"{name}-product", text)
        readings(made / "readings.csv", in_time=True)
        live(made, folder / name)
    return folder


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    """The steps of `boucle state`, by id."""
    assert main(["state", *map(str, words), "--json"]) == 0
    return {one["id"]: one for one in json.loads(capsys.readouterr().out)["steps"]}


@pytest.mark.parametrize("name", ["alone", "spread"])
def test_what_a_step_holds(runs: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    steps = told(capsys, runs / name)
    sums = steps["sums"]["contents"]
    # The watermark is 5 s behind the slowest pump: of the last ten seconds two rows were seen, the others wait.
    assert (sums["keys"], sums["open_windows"]) == (2, 2)
    assert 0 < sums["waiting_rows"] < 20
    assert sums["oldest"] == "2026-03-01T00:09:50.000+00:00"
    assert sums["newest"] == "2026-03-01T00:10:00.000+00:00"
    assert steps["features"]["contents"]["keys"] == 3
    assert steps["features"]["bytes"] > 0
    groups = steps["sums"]["groups"]
    assert len(groups) == (4 if name == "spread" else 0)
    assert sum(groups.values()) <= steps["sums"]["bytes"]


@pytest.mark.parametrize("name", ["alone", "spread"])
def test_one_key(runs: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (step,) = told(capsys, runs / name, "--step", "sums", "--key", "pump=p0").values()
    (window,) = step["contents"]["remembered"]
    assert (window["pump"], window["window_start"]) == ("p0", "2026-03-01T00:09:50.000+00:00")
    assert 0 < window["rows"] < 4
    (step,) = told(capsys, runs / name, "--step", "features", "--key", "pump=p2").values()
    (of_value,) = step["contents"]["remembered"]
    assert (of_value["of"], of_value["newest"][:18]) == ("value", "2026-03-01T00:09:5")
    (step,) = told(capsys, runs / name, "--step", "sums", "--key", "pump=p9").values()
    assert step["contents"]["remembered"] == []


def test_for_people(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["state", str(runs / "spread"), "--key", "pump=p9", "--lang", "fr"]) == 0
    said = capsys.readouterr().out
    assert "2 clés, 2 fenêtres ouvertes" in said
    assert "4 groupes de clés" in said
    assert "rien n'est retenu de cette clé" in said
    assert main(["state", str(runs / "spread"), "--sizes"]) == 0
    assert "keys" not in capsys.readouterr().out.partition("key groups")[0]


def test_a_step_that_is_not_there(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["state", str(runs / "alone"), "--step", "sum"]) == 1
    assert "B816" in capsys.readouterr().err


def test_an_operator_of_the_products_own_is_found_in_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = product(tmp_path / "own", PRODUCT.replace("boucle.stream.window:Tumbling", "mine:Sums"))
    (made / "mine.py").write_text(
        "from boucle.stream.window import Tumbling\n\n\nclass Sums(Tumbling):\n    pass\n"
    )
    readings(made / "readings.csv", in_time=True)
    live(made, tmp_path / "run")
    sums = told(capsys, tmp_path / "run")["sums"]
    assert sums["contents"] == {}
    assert "--product" in sums["unknown"]
    assert told(capsys, tmp_path / "run", "--product", made)["sums"]["contents"]["keys"] == 2
    assert main(["state", str(tmp_path / "run"), "--step", "sums"]) == 1
    assert "B815" in capsys.readouterr().err


def test_a_run_may_go_on_meanwhile(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every checkpoint is written to new files and the old ones are removed, while somebody looks."""
    shutil.copytree(runs / "alone", tmp_path / "run")
    folder = tmp_path / "run" / "checkpoint"
    kept = read_checkpoint(folder)
    assert kept is not None
    state = {step: dict(parts) for step, parts in kept.state.items()}
    running, done = Checkpoints(folder), threading.Event()
    running.load(kept.checkpoint.plan)
    written = 0

    def write() -> None:
        nonlocal written
        while not done.is_set():
            written += 1
            running.hold(structs.replace(kept.checkpoint, taken_at=written), state, everything=True)
            running.write()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        looks = [told(capsys, tmp_path / "run")["sums"]["contents"]]
        while written < 20:
            looks.append(told(capsys, tmp_path / "run")["sums"]["contents"])
    finally:
        done.set()
        writer.join()
    assert all(one == looks[0] for one in looks)
    assert looks[0]["open_windows"] == 2


def test_the_picture_of_a_plan_shows_keys_promises_and_how_large_states_are(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.svg"
    words = ["explain", runs / "spread-product", "--picture", file, "--run", runs / "spread"]
    assert main([str(word) for word in words]) == 0
    assert capsys.readouterr().out.strip() == str(file)
    picture = ET.parse(file).getroot()
    said = {
        title.text.split("\n")[0]: title.text
        for group in picture.iter(f"{SVG}g")
        if (title := group.find(f"{SVG}title")) is not None and title.text
    }
    steps = told(capsys, runs / "spread")
    assert "by pump: 4 key groups" in said["sums"]
    assert f"{steps['sums']['bytes']:,} bytes of state" in said["sums"]
    assert "exactly once" in said["readings"]
    lines = [path for path in picture.findall(f"{SVG}path") if path.get("marker-end")]
    reads = sum(len(inputs) for inputs in _inputs(runs / "spread"))
    assert len(lines) >= reads > 0
    for group in picture.iter(f"{SVG}g"):
        x, y = group.get("transform", "").removeprefix("translate(").rstrip(")").split()
        box = group.find(f"{SVG}rect")
        assert box is not None
        assert float(x) + float(box.get("width", "0")) <= float(picture.get("width", "0"))
        assert float(y) + float(box.get("height", "0")) <= float(picture.get("height", "0"))


def _inputs(run: Path) -> list[list[str]]:
    kept = read_checkpoint(run / "checkpoint")
    assert kept is not None
    return [step["from"] for step in kept.checkpoint.steps.values()]

"""The verbs that look at a product without running it."""

import json
import shutil
from pathlib import Path

import pytest

from boucle.cli.main import VERBS, main
from tests.cli.command import PRESS, boucle, told


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert f"boucle {verb}" in shown.partition("examples:")[2]
    assert "--json" in shown


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"    {verb} " in shown for verb in VERBS)


def test_an_unknown_verb_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["chekc"])
    assert ended.value.code == 2
    assert "check" in capsys.readouterr().err


def test_a_sound_product_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(PRESS), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}
    assert main(["check", str(PRESS)]) == 0
    assert "sound" in capsys.readouterr().out


MISTAKES = {
    "from: opc.tcp://{plc}": ("from: opctcp://{plc}", "B204"),
    "use: boucle.edge.reduce:Reduce": ("use: boucle.edge.reduce:Reducer", "B213"),
    "model: models/press_health": ("modle: models/press_health", "B213"),
    "max_step: 12": ("max_stp: 12", "B701"),
    "on: vibration_events\n": ("on: vibration_event\n", "B214"),
}
"""What stands in the product file → the mistake made of it, and the code it must get."""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The press with five mistakes of five kinds."""
    folder = tmp_path / "broken"
    shutil.copytree(PRESS, folder)
    text = (folder / "product.yaml").read_text()
    for right, (wrong, _) in MISTAKES.items():
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    (folder / "product.yaml").write_text(text)
    return folder


def test_check_tells_all_mistakes_at_once(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(broken), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    lines = (broken / "product.yaml").read_text().splitlines()
    found = {(problem["code"], problem["line"]) for problem in answer["problems"]}
    for wrong, code in MISTAKES.values():
        (line,) = [number for number, text in enumerate(lines, 1) if wrong.strip() in text]
        # A rule is named where it begins, a signal's limits where they do.
        assert any(one == code and line - 12 < at <= line for one, at in found), (wrong, sorted(found))
    for problem in answer["problems"]:
        assert problem["file"] == "product.yaml"
        assert problem["fix"], problem


def test_check_tells_people_line_and_fix(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(broken)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert 'did you mean "max_step"?' in said.err
    assert 'Did you mean "opc.tcp"?' in said.err
    assert "product.yaml:" in said.err


def test_check_where_there_is_no_product(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path) in said
    assert said.count("B2") == 1, "one mistake is one problem"


def test_explain_names_the_origin_of_every_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOUCLE_ADDRESSES_PLC", "elsewhere:4840")
    assert main(["explain", str(PRESS), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    values = {row["value"]: row for row in answer["values"]}
    assert values["addresses.plc"]["is"] == "elsewhere:4840"
    assert "BOUCLE_ADDRESSES_PLC" in values["addresses.plc"]["from"]
    assert values["addresses.mes"]["from"].startswith("boucle.toml")
    assert values["run.fsync_every"]["from"].startswith("default")
    limit = values["actuators.plc.limits.speed_setpoint.max_step"]
    line = int(limit["from"].partition(":")[2])
    assert "max_step: 12" in (PRESS / "product.yaml").read_text().splitlines()[line - 1]
    assert any(row["from"].startswith("default of boucle.edge.reduce:Reduce") for row in answer["values"])
    assert any("opc.tcp://elsewhere:4840" in line for line in answer["path"])


def test_explain_shows_people_the_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(PRESS)]) == 0
    shown = capsys.readouterr().out
    for step in ("vibration_events", "features", "health", "verdicts"):
        assert f"├ {step}  =" in shown
    assert "← boucle.toml" in shown
    assert "late after 500ms" in shown
    assert "waits when the path is slower; its log keeps every row" in shown
    assert "exactly once: sent again until kept, known by producer+seq+sensor for 60s" in shown
    assert "at most once: what is sent while nobody listens is lost" in shown, "OPC UA cannot be asked again"


def test_doctor_finds_what_is_installed(tmp_path: Path) -> None:
    answer = told(boucle("doctor", "--json", cwd=tmp_path))
    found = {finding["what"]: finding for finding in answer["findings"]}
    assert answer["ok"] is True
    assert found["pyarrow"]["ok"]
    assert all(finding["fix"] for finding in answer["findings"] if not finding["ok"])


def test_doctor_says_which_server_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free_port: int
) -> None:
    for name in ("BROKER", "PLC", "MES"):
        monkeypatch.setenv(f"BOUCLE_ADDRESSES_{name}", f"127.0.0.1:{free_port}")
    assert main(["doctor", str(PRESS), "--json"]) == 1
    found = {one["what"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    for what in ("source vibration", "source process", "actuator plc", "actuator mes"):
        assert not found[what]["ok"]
        assert str(free_port) in found[what]["detail"]
        assert found[what]["fix"]

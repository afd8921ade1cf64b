"""What a run remembers can be looked at, and a plan that changed is told place by place."""

import json
from pathlib import Path

import msgspec
import pytest

from boucle.cli.main import main
from boucle.errors import BoucleError
from boucle.loop.checkpoint import changes, load_checkpoint, read_checkpoint, save_checkpoint
from tests.loop.manual import START, ManualPlant


@pytest.fixture(scope="module")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plant = ManualPlant(tmp_path_factory.mktemp("run"), 3)
    plant.loop.open()
    plant.run(4)
    plant.loop.close()
    return plant.folder


def test_state_shows_the_last_checkpoint(remembered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["state", str(remembered), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["taken_at"].startswith("2026-09-21")
    assert 100 < told["sources"]["vibration"] < 400
    assert [step["id"] for step in told["steps"]] == ["vibration_events", "features", "health", "verdicts"]
    assert all(step["bytes"] > 10 and step["use"] for step in told["steps"])
    assert main(["state", str(remembered)]) == 0
    shown = capsys.readouterr().out
    assert "├ verdicts" in shown
    assert "boucle.drift.attribute:Attribute" in shown


def test_where_there_is_none_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["state", str(tmp_path)]) == 1
    assert "B808" in capsys.readouterr().err


def test_a_plan_that_changed_says_what_is_other(remembered: Path) -> None:
    checkpoint = read_checkpoint(remembered / "checkpoint")
    assert checkpoint is not None
    assert checkpoint.taken_at >= START
    steps = msgspec.msgpack.decode(msgspec.msgpack.encode(checkpoint.steps))
    steps["vibration_events"]["with"]["z_limit"] = 8
    del steps["health"]
    with pytest.raises(
        BoucleError, match=r"B602 .*vibration_events.with.z_limit: 6 → 8; health is gone"
    ) as told:
        load_checkpoint(remembered / "checkpoint", "another", steps)
    assert told.value.fix
    assert load_checkpoint(remembered / "checkpoint", checkpoint.plan, steps) == checkpoint


def test_a_checkpoint_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"\xc1not msgpack")
    with pytest.raises(BoucleError, match="B601"):
        read_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "checkpoint").unlink()
    assert read_checkpoint(tmp_path / "checkpoint") is None


def test_what_was_saved_is_read(remembered: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(remembered / "checkpoint")
    assert checkpoint is not None
    save_checkpoint(tmp_path / "new" / "checkpoint", checkpoint)
    assert read_checkpoint(tmp_path / "new" / "checkpoint") == checkpoint


def test_changes_are_told_place_by_place() -> None:
    before = {"a": {"use": "x", "with": {"size": "1s"}}, "b": {"use": "y"}}
    after = {"a": {"use": "x", "with": {"size": "2s", "by": "card"}}, "c": {"use": "z"}}
    assert changes(before, after) == ["a.with.size: 1s → 2s", "a.with.by is new", "b is gone", "c is new"]

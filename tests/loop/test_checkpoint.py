"""What a run remembers can be looked at, and a plan that changed is told place by place."""

import json
from pathlib import Path

import msgspec
import pytest

from boucle.block import Position
from boucle.cli.main import main
from boucle.errors import BoucleError
from boucle.loop.checkpoint import Checkpoint, Checkpoints, changes, load_checkpoint, read_checkpoint
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
    steps = ["vibration_events", "features", "health", "verdicts", "features_right"]
    assert [step["id"] for step in told["steps"]] == steps
    assert all(step["bytes"] > 10 and step["use"] for step in told["steps"])
    assert main(["state", str(remembered)]) == 0
    shown = capsys.readouterr().out
    assert "├ verdicts" in shown
    assert "boucle.drift.attribute:Attribute" in shown


def test_where_there_is_none_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["state", str(tmp_path)]) == 1
    assert "B808" in capsys.readouterr().err


def test_a_plan_that_changed_says_what_is_other(remembered: Path) -> None:
    kept = read_checkpoint(remembered / "checkpoint")
    assert kept is not None
    checkpoint = kept.checkpoint
    assert checkpoint.taken_at >= START
    steps = msgspec.msgpack.decode(msgspec.msgpack.encode(checkpoint.steps))
    steps["vibration_events"]["with"]["z_limit"] = 8
    del steps["health"]
    with pytest.raises(
        BoucleError, match=r"B602 .*vibration_events.with.z_limit: 6 → 8; health is gone"
    ) as told:
        load_checkpoint(remembered / "checkpoint", "another", steps)
    assert told.value.fix
    assert load_checkpoint(remembered / "checkpoint", checkpoint.plan, steps) == kept


def test_a_checkpoint_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    assert read_checkpoint(tmp_path / "checkpoint") is None
    (tmp_path / "checkpoint" / "manifest").write_bytes(b"\xc1not a manifest")
    with pytest.raises(BoucleError, match=r"B601 .*manifest"):
        read_checkpoint(tmp_path / "checkpoint")


def test_a_checkpoint_of_before_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(msgspec.msgpack.encode({"version": 1, "plan": "p", "path": b""}))
    with pytest.raises(BoucleError, match=r"B602 .*older version"):
        read_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(BoucleError, match=r"B602 .*older version"):
        Checkpoints(tmp_path / "checkpoint").load("p")


def taken(number: int) -> Checkpoint:
    at = {"readings": Position("readings", number)}
    return Checkpoint("plan", at, at, b"", {}, START + number)


def test_what_could_not_be_written_is_written_with_what_changed_since(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    one = Checkpoints(folder)
    assert one.load("plan") is None
    assert (one.everything, one.waiting) == (True, False)
    one.hold(taken(1), {"s": {"a": b"1", "b": b"1", "c": b"1"}}, everything=True)
    assert (one.everything, one.waiting) == (False, True)
    one.write()
    (folder / "manifest.new").mkdir()  # a disk that refuses
    one.hold(taken(2), {"s": {"a": b"2", "c": b""}}, everything=False)
    with pytest.raises(OSError, match=r"manifest\.new"):
        one.write()
    assert one.waiting
    before = load_checkpoint(folder, "plan")
    assert before is not None
    assert (before.checkpoint, dict(before.state["s"])) == (taken(1), {"a": b"1", "b": b"1", "c": b"1"})
    one.hold(taken(3), {"s": {"b": b"3"}}, everything=False)
    with pytest.raises(OSError, match=r"manifest\.new"):
        one.write()
    (folder / "manifest.new").rmdir()
    one.write()
    assert (one.everything, one.waiting) == (False, False)
    after = load_checkpoint(folder, "plan")
    assert after is not None
    assert (after.checkpoint, dict(after.state["s"])) == (taken(3), {"a": b"2", "b": b"3"})
    assert one.store.sizes == {"s": 2}


def test_changes_are_told_place_by_place() -> None:
    before = {"a": {"use": "x", "with": {"size": "1s"}}, "b": {"use": "y"}}
    after = {"a": {"use": "x", "with": {"size": "2s", "by": "card"}}, "c": {"use": "z"}}
    assert changes(before, after) == ["a.with.size: 1s → 2s", "a.with.by is new", "b is gone", "c is new"]

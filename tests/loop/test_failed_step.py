"""A step that fails in the middle of a Block: what some steps have seen and some have not is not kept."""

from pathlib import Path

import pytest

from boucle.block import Block
from boucle.loop.checkpoint import read_checkpoint
from tests.loop.manual import ManualPlant


def test_no_checkpoint_is_taken_after_a_step_failed_within_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant = ManualPlant(tmp_path)
    plant.loop.open()
    plant.run(5)
    later = next(step for step in plant.loop.path.steps if step.id == "health")

    def fails(block: Block) -> None:
        raise RuntimeError(f"poison in {block.stream}")

    monkeypatch.setattr(later.operator, "step", fails)
    with pytest.raises(RuntimeError, match="poison"):
        plant.run(5)
    monkeypatch.undo()
    plant.loop.close()
    assert read_checkpoint(plant.folder / "checkpoint") is None
    assert "a step failed within a Block" in caplog.text

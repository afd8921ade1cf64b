"""Orders to train anew: taken once, kept through a crash, and what became of them is told."""

import time
from pathlib import Path

import msgspec
import pytest

from boucle.act.training import Training, TrainingActuator
from boucle.event import Command, Outcome
from boucle.ports import Actuator
from boucle.testing.conformance.actuator import ACTUATOR_CHECKS, ActuatorBench

SOON = 4 * 10**18
PATIENCE = 60.0


def order(number: int, model: str = "fraud", value: object = None) -> Command:
    told = {"Reason": "the relation changed"} if value is None else value
    return Command(f"drift/{model}/{number}", f"models/{model}/training", "order", told, SOON)


class TrainingBench(ActuatorBench):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Actuator:
        # `true` answers at once and says nothing, so that a training ends (as failed) without learning anything.
        return TrainingActuator("training://", folder=self.folder, run=self.folder, command=["true"])

    def command(self, number: int) -> Command:
        return order(number)

    def forbidden(self) -> Command:
        return order(0, model="--product")

    def moves(self) -> int:
        return len(list((self.folder / "trainings").glob("*.json")))


@pytest.mark.parametrize("check", ACTUATOR_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_it_is_an_actuator(check: object, tmp_path: Path) -> None:
    check(TrainingBench(tmp_path))  # type: ignore[operator]


def waited(actuator: TrainingActuator, model: str = "fraud") -> dict[str, str]:
    until = time.monotonic() + PATIENCE
    while (last := actuator.read(f"models/{model}/training")[-1])["state"] == "waiting":
        assert time.monotonic() < until, "the training does not end"
        time.sleep(0.01)
    return dict(last)


def test_a_training_that_fails_says_why(tmp_path: Path) -> None:
    told: list[tuple[str, str, dict[str, str]]] = []
    actuator = TrainingActuator(
        "training://",
        folder=tmp_path / "no-product",
        run=tmp_path,
        tell=lambda kind, severity, says, evidence: told.append((kind, severity, says)),
    )
    actuator.open()
    try:
        assert actuator.send(order(1)).outcome is Outcome.applied
        last = waited(actuator)
    finally:
        actuator.close()
    assert last["state"] == "failed"
    assert "B201" in last["why"]
    ((kind, severity, says),) = told
    assert (kind, severity) == ("training_failed", "warning")
    assert "fraud" in says["en"]
    assert says["fr"] != says["en"]


def test_what_was_ordered_before_a_crash_is_done_after_it(tmp_path: Path) -> None:
    first = TrainingActuator("training://", folder=tmp_path, run=tmp_path, command=["sleep", "600"])
    first.open()
    first.send(order(1))
    first.close()  # kills the child: the order still waits
    (file,) = (tmp_path / "trainings").glob("*.json")
    assert msgspec.json.decode(file.read_bytes(), type=Training).state == "waiting"
    (tmp_path / "trainings" / "torn.json").write_bytes(b'{"id": "dri')
    again = TrainingActuator("training://", folder=tmp_path, run=tmp_path, command=["true"])
    again.open()
    try:
        assert waited(again)["state"] == "failed"
        assert again.send(order(1)).outcome is Outcome.duplicate
    finally:
        again.close()


def test_an_order_is_a_mapping(tmp_path: Path) -> None:
    actuator = TrainingActuator("training://", folder=tmp_path, run=tmp_path, command=["true"])
    actuator.open()
    try:
        assert actuator.send(order(1, value=3.0)).outcome is Outcome.refused
        assert actuator.read("models/fraud/training") == []
    finally:
        actuator.close()

"""The default story on the manual clock, over many seeds: right press, right cause, no slow-down for a sensor."""

from pathlib import Path
from typing import Any

import pytest

from boucle.event import Outcome
from tests.loop.manual import ManualPlant

SEEDS = range(1, 21)
SECONDS = 75


def story(folder: Path, seed: int) -> ManualPlant:
    plant = ManualPlant(folder, seed)
    plant.loop.open()
    plant.run(SECONDS)
    plant.loop.close()
    return plant


def orders(plant: ManualPlant) -> list[tuple[str, str, Outcome]]:
    return [
        (command.value["WorkType"], command.value["HierarchyScope"], receipt.outcome)
        for command, receipt in plant.receipts("mes/")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_default_story(tmp_path: Path, seed: int) -> None:
    plant = story(tmp_path, seed)
    truth = {fault["machine"]: fault for fault in plant.line.truth()}

    (wear,) = plant.events("machine_wear")
    assert wear.subject == "press-2"
    assert wear.evidence["cause"] == truth["press-2"]["cause"] == "outer_race"
    assert wear.at > truth["press-2"]["onset"], "nothing is said before it happens"

    (drift,) = plant.events("sensor_drift")
    assert (drift.evidence["cause"], drift.evidence["subject"]) == ("gain", "press-3/vib_x")
    assert drift.at > truth["press-3"]["onset"]
    assert set(wear.says) == set(drift.says) == {"en", "fr"}

    slowed = plant.receipts("plc/")
    assert slowed, "the worn press is slowed down"
    for command, receipt in slowed:
        assert command.target == "plc/press-2/speed_setpoint", "only the worn press is"
        assert receipt.outcome is Outcome.applied
        assert 24 <= command.value <= 40
        assert receipt.read_back == pytest.approx(command.value)
    assert plant.plc.value("press-2", "speed_setpoint") == pytest.approx(slowed[-1][0].value)
    assert plant.plc.value("press-1", "speed_setpoint") == plant.plc.value("press-3", "speed_setpoint") == 40

    assert set(orders(plant)) == {
        ("Maintenance", "press-2", Outcome.applied),
        ("Calibration", "press-3/vib_x", Outcome.applied),
    }
    assert {order["WorkType"] for order in plant.orders.all()} == {"Maintenance", "Calibration"}

    accounting = plant.loop.picture.accounting()
    assert accounting.balanced()
    assert accounting.pending == accounting.shed == 0
    check_bad_input(plant, accounting)


def check_bad_input(plant: ManualPlant, accounting: Any) -> None:
    """Every injected mistake is found again where it belongs, and nothing else is."""
    expected: dict[str, int] = {}
    for injection in plant.line.injections:
        expected[injection.expected] = expected.get(injection.expected, 0) + injection.readings
    assert accounting.duplicate == expected.get("duplicate", 0)
    assert accounting.late == expected.get("late", 0)
    assert accounting.quarantined == sum(accounting.reasons.values()) == expected.get("quarantined", 0)


def test_a_slower_press_vibrates_less(tmp_path: Path) -> None:
    plant = story(tmp_path, 3)
    acted = plant.receipts("plc/press-2")[0][1].at
    before, after = [], []
    for block in plant.loop.tables.read("features"):
        for row in block.rows.to_pylist():
            if row["machine"] == "press-2" and row["x_rms"] is not None:
                at = int(row["at"].timestamp() * 1e9)
                if acted - 4e9 < at < acted:
                    before.append(row["x_rms"])
                elif acted + 6e9 < at < acted + 10e9:
                    after.append(row["x_rms"])
    assert sum(after) / len(after) < 0.9 * sum(before) / len(before)


def test_the_same_seed_tells_the_same_story(tmp_path: Path) -> None:
    first, second = story(tmp_path / "a", 7), story(tmp_path / "b", 7)
    assert first.told == second.told
    assert list(first.verdicts("press-2")) == list(second.verdicts("press-2"))


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    """Stopped and started again in mid-story: the same verdicts, and no command twice."""
    whole = story(tmp_path / "whole", 5)
    plant = ManualPlant(tmp_path / "cut", 5)
    plant.loop.open()
    plant.run(33)
    plant.loop.close()
    plant.restart()
    plant.run(SECONDS - 33)
    plant.loop.close()
    for machine in plant.line.machines:
        assert plant.verdicts(machine) == whole.verdicts(machine)
    commands = [command.id for command, _ in plant.receipts()]
    assert commands == [command.id for command, _ in whole.receipts()]

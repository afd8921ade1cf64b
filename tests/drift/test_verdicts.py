"""Verdicts against the truth of the simulator: right family, right cause, right subject, in time."""

from typing import Any

import pytest

from boucle.clock import SECOND
from boucle.testing.line import PressLine
from boucle.testing.scenario import Fault, Operation, load_scenario
from tests.drift.harness import PRESS, START, Row, run, seen, single

MACHINE: list[dict[str, Any]] = [
    {"kind": kind, "severity": severity}
    for kind in ("outer_race", "inner_race", "imbalance", "lubrication")
    for severity in (0.05, 0.3)
]
SENSOR: list[dict[str, Any]] = [
    {"kind": kind, "to": to, "over": 8.0, "sensor": sensor}
    for kind, to in (
        ("gain", 0.55),
        ("gain", 1.4),
        ("offset", 0.1),
        ("stuck", None),
        ("noise", 0.05),
        ("dropout", 0.2),
        ("loose", 0.5),
        ("clock", 300),
        ("clock", -300),
    )
    for sensor in ("vib_y", "all")
]


def told(fault: dict[str, Any]) -> str:
    return " ".join(str(value) for value in fault.values())


def verdicts(fault: Fault | None, *operations: Operation, seed: int = 1, seconds: float = 40) -> list[Row]:
    return run(single(fault, *operations, seconds=seconds), seed).rows["verdicts"]


@pytest.mark.parametrize("fault", MACHINE, ids=told)
def test_a_fault_of_the_machine_is_never_called_a_sensors(fault: dict[str, Any]) -> None:
    rows = verdicts(Fault(machine="press-1", onset=14, **fault), seed=3)
    assert seen(rows, "press-1") == [("none", "", "press-1"), ("machine", fault["kind"], "press-1")]
    first = next(row for row in rows if row["family"] == "machine")
    late = first["at"].timestamp() - START / SECOND - 14
    assert late <= 12, "seconds from onset to verdict"
    assert abs(first["onset"].timestamp() - START / SECOND - 14) <= 9


@pytest.mark.parametrize("fault", SENSOR, ids=told)
def test_a_fault_of_a_sensor_is_never_called_the_machines(fault: dict[str, Any]) -> None:
    rows = verdicts(Fault(machine="press-1", onset=14, **fault), seed=4)
    subject = f"press-1/{fault['sensor']}"
    assert seen(rows, "press-1") == [("none", "", "press-1"), ("sensor", fault["kind"], subject)]
    assert rows[-1]["confidence"] >= 0.8


def slow_down(line: PressLine, rows: list[Row]) -> None:
    """What the loop does: once a machine verdict is sure, three quarters of the speed."""
    for row in rows:
        if row["family"] == "machine" and row["confidence"] >= 0.8 and row["setpoint"] == 40:
            line.set_speed(row["machine"], 30)


def story(seed: int, seconds: float = 75) -> None:
    harness = run(load_scenario(PRESS / "scenario.yaml"), seed, seconds=seconds, each=slow_down)
    rows = harness.rows["verdicts"]
    assert seen(rows, "press-1") == [("none", "", "press-1")]
    assert seen(rows, "press-2") == [("none", "", "press-2"), ("machine", "outer_race", "press-2")]
    gain = ("sensor", "gain", "press-3/vib_x")
    assert seen(rows, "press-3") == [("none", "", "press-3"), gain]
    assert rows[-1]["at"].timestamp() == START / SECOND + seconds - 1
    last = {row["machine"]: row for row in rows}
    assert last["press-2"]["setpoint"] == 30
    assert last["press-2"]["health"] < 0.9 < last["press-3"]["health"], "a sensor's gain is not wear"
    assert all(row["health"] is not None for row in rows)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_default_story(seed: int) -> None:
    story(seed)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_default_story_over_seeds_of_its_own() -> None:
    # The whole loop tells it over a dozen more: tests/loop/test_story.py.
    for seed in range(100, 103):
        story(seed, seconds=56)


def test_a_healthy_press_stays_healthy() -> None:
    assert seen(verdicts(None, seed=11, seconds=90), "press-1") == [("none", "", "press-1")]


def test_another_speed_is_no_fault() -> None:
    changes = [Operation(machine="press-1", at=at, speed=speed) for at, speed in ((20, 30), (50, 40))]
    rows = verdicts(None, *changes, seconds=70)
    assert seen(rows, "press-1") == [
        ("none", "", "press-1"),
        ("operation", "new_regime", "press-1"),
        ("none", "", "press-1"),
        ("operation", "known_point", "press-1"),
        ("none", "", "press-1"),
    ]


def test_another_load_is_no_fault() -> None:
    change = Operation(machine="press-1", at=20, load=0.7)
    assert {row["family"] for row in verdicts(None, change, seconds=60)} == {"none", "operation"}


def test_a_verdict_stands_through_a_change_of_speed() -> None:
    change = Operation(machine="press-1", at=35, speed=30)
    rows = verdicts(
        Fault(machine="press-1", kind="gain", sensor="vib_x", to=0.6, onset=14), change, seconds=75
    )
    assert seen(rows, "press-1") == [("none", "", "press-1"), ("sensor", "gain", "press-1/vib_x")]


def test_a_fault_after_a_change_of_speed_is_found_at_the_new_speed() -> None:
    change = Operation(machine="press-1", at=15, speed=30)
    rows = verdicts(
        Fault(machine="press-1", kind="gain", sensor="vib_x", to=0.6, onset=45), change, seconds=60
    )
    assert seen(rows, "press-1")[-2:] == [("none", "", "press-1"), ("sensor", "gain", "press-1/vib_x")]


def test_two_presses_are_judged_by_themselves_and_wear_wins_over_a_sensor_on_one() -> None:
    faults = (
        Fault(machine="press-1", kind="gain", sensor="vib_x", to=0.6, onset=14),
        Fault(machine="press-1", kind="inner_race", severity=0.2, onset=30, growth=0),
        Fault(machine="press-2", kind="imbalance", severity=0.2, onset=20, growth=0),
    )
    scenario = single(None, seconds=50)
    rows = run(type(scenario)(machines=("press-1", "press-2"), faults=faults, duration=50), seed=5).rows[
        "verdicts"
    ]
    assert seen(rows, "press-1")[1:] == [
        ("sensor", "gain", "press-1/vib_x"),
        ("machine", "inner_race", "press-1"),
    ]
    assert seen(rows, "press-2")[1:] == [("machine", "imbalance", "press-2")]


def test_a_temperature_that_its_witnesses_contradict_is_its_sensor() -> None:
    fault = Fault(machine="press-1", kind="offset", sensor="bearing_temperature", to=6, onset=14)
    assert seen(verdicts(fault), "press-1") == [
        ("none", "", "press-1"),
        ("sensor", "offset", "press-1/bearing_temperature"),
    ]

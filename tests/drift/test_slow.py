"""Slow values against their witnesses: which is an instrument that lies, which is load, hall or friction."""

import json
from typing import Any

import pytest

from boucle.drift import Attribute
from boucle.drift.isolability import isolability
from boucle.drift.reading import Reading, learn
from tests.drift.seconds import SLOW, Row, block, seconds, told, verdicts

NOTHING = ("none", "", "machine")


def moved(**by: float) -> Any:
    def change(row: Row, since: int) -> None:
        for name, size in by.items():
            row[name] += size

    return change


def scaled(name: str, factor: float) -> Any:
    def change(row: Row, since: int) -> None:
        row[name] *= factor

    return change


@pytest.mark.parametrize(("sensor", "size"), [
    ("bearing_temperature", 6.0), ("bearing_temperature", -4.0), ("oil_temperature", 5.0),
    ("hydraulic_pressure", -20.0), ("motor_current", 5.0), ("motor_current", -4.0),
])  # fmt: skip
def test_a_value_its_witnesses_contradict_is_a_sensor(sensor: str, size: float) -> None:
    rows = seconds(32, moved(**{sensor: size}))
    assert told(rows) == [NOTHING, ("sensor", "offset", sensor)]
    last = verdicts(rows)[-1]
    evidence = json.loads(last["evidence"])
    assert evidence["candidates"] == [sensor]
    assert evidence["size"] == pytest.approx(size, rel=0.1)
    assert "instrument" in last["says_en"]
    assert "l'instrument" in last["says_fr"]


@pytest.mark.parametrize("sensor", SLOW)
def test_a_value_that_stands_still_is_stuck(sensor: str) -> None:
    def change(row: Row, since: int) -> None:
        row[sensor], row[f"{sensor}_noise"] = SLOW[sensor][0], 0.0

    assert told(seconds(30, change)) == [NOTHING, ("sensor", "stuck", sensor)]


@pytest.mark.parametrize("sensor", SLOW)
def test_a_noisy_value(sensor: str) -> None:
    assert told(seconds(30, scaled(f"{sensor}_noise", 6))) == [NOTHING, ("sensor", "noise", sensor)]


def test_readings_that_do_not_come() -> None:
    def change(row: Row, since: int) -> None:
        if since % 2:
            row["oil_temperature_count"] = 5.0

    rows = seconds(32, change)
    assert told(rows) == [NOTHING, ("sensor", "dropout", "oil_temperature")]
    assert "% of the readings are missing" in verdicts(rows)[-1]["says_en"]


def test_a_silent_plc_is_no_sensor() -> None:
    def change(row: Row, since: int) -> None:
        row |= {f"{name}_count": 0.0 for name in SLOW} | {f"{name}_noise": None for name in SLOW}

    assert told(seconds(30, change)) == [NOTHING]


def test_another_load_moves_pressure_current_and_mesh() -> None:
    def change(row: Row, since: int) -> None:
        row["hydraulic_pressure"] -= 0.2 * 60
        row["motor_current"] -= 0.2 * 40
        for axis in "xyz":
            for band in (4, 5):
                row[f"{axis}_band_{band}"] *= 0.88**2

    assert told(seconds(50, change)) == [NOTHING, ("operation", "new_regime", "machine"), NOTHING]


def test_another_machine_declares_how_it_follows_the_load() -> None:
    """Here the current hardly knows the load, so that it is the pressure's word against it that counts."""

    def change(row: Row, since: int) -> None:
        row["hydraulic_pressure"] -= 12.0
        row["motor_current"] -= 1.0
        for axis in "xyz":
            for band in (4, 5):
                row[f"{axis}_band_{band}"] *= 0.88**2

    rows = seconds(26, change)
    assert verdicts(rows)[-1]["family"] in ("sensor", "operation")
    shares = {"hydraulic_pressure": 0.4, "motor_current": 0.08, "mesh": 0.6}
    assert {row["family"] for row in verdicts(rows, Attribute("v", load_shares=shares))} == {
        "none",
        "operation",
    }


def test_a_warmer_hall_moves_both_temperatures_and_is_no_fault() -> None:
    def change(row: Row, since: int) -> None:
        row["bearing_temperature"] += min(6.0, 0.5 * since)
        row["oil_temperature"] += min(6.0, 0.3 * since)

    rows = seconds(70, change)
    assert {family for family, *_ in told(rows)} == {"none", "operation"}
    hall = next(row for row in verdicts(rows) if row["family"] == "operation")
    assert "hall got warmer" in hall["says_en"]
    assert "atelier" in hall["says_fr"]


def test_friction_is_not_a_sensor() -> None:
    """Current and bearing temperature rise together: somebody should look, but no sensor lies."""

    def change(row: Row, since: int) -> None:
        row["motor_current"] += 2.5
        row["bearing_temperature"] += 5.0
        row["oil_temperature"] += 1.5
        for axis, share in (("x", 0.3), ("y", 0.25), ("z", 0.2)):
            row[f"{axis}_band_6"] *= (1 + share) ** 2

    assert all(family != "sensor" for family, *_ in told(seconds(50, change)))


def test_what_is_too_small_for_its_witnesses_is_not_said() -> None:
    assert told(seconds(60, moved(motor_current=-0.7))) == [NOTHING]


def test_wear_under_a_stuck_sensor_is_found() -> None:
    """A fault of a sensor hides nothing: two axes say that the shaft is out of balance."""

    def change(row: Row, since: int) -> None:
        for axis in "yz":
            row[f"{axis}_band_0"] *= 2.0
        for band in range(8):
            row[f"x_band_{band}"] = 0.0

    assert told(seconds(36, change))[-1] == ("machine", "imbalance", "machine")


def test_after_a_calibration_normal_is_learned_again() -> None:
    made = Attribute("verdicts")
    rows = seconds(60, moved(bearing_temperature=6.0))
    assert verdicts(rows[:30], made)[-1]["family"] == "sensor"
    calibrated = {"machine": "press-1", "sensor": "bearing_temperature", "at": rows[30]["at"]}
    assert made.step(block([calibrated, {**calibrated, "machine": "nobody"}], "calibrations")) == ()
    again = verdicts(rows[30:], made)
    assert again[0]["family"] == "operation"
    assert (again[-1]["family"], again[-1]["confidence"]) == ("none", 0.95)


def test_a_worn_machine_stays_worn_when_a_sensor_is_calibrated() -> None:
    def change(row: Row, since: int) -> None:
        row |= {f"{axis}_bpfo": 20.0 for axis in "xyz"}

    made, rows = Attribute("verdicts"), seconds(40, change)
    verdicts(rows[:30], made)
    made.step(block([{"machine": "press-1", "sensor": "vib_x", "at": rows[30]["at"]}], "calibrations"))
    assert {row["cause"] for row in verdicts(rows[30:], made)} == {"outer_race"}


def test_what_can_be_told_apart_is_known_before_anything_breaks() -> None:
    reference = learn([Reading.of(row["at"], row, ("x", "y", "z")) for row in seconds(12)])
    table = {(one.sensor, one.cause): one for one in isolability(reference)}
    current = table["motor_current", "offset"]
    assert current.seen_from < current.told_from < 4
    assert "load" in current.confused_with
    assert table["vib_x", "gain"].told_from == pytest.approx(0.1, abs=0.05)
    alone = [Reading.of(row["at"], row | {"oil_temperature": None}, ("x", "y", "z")) for row in seconds(12)]
    lonely = {one.sensor: one for one in isolability(learn(alone))}
    assert lonely["bearing_temperature"].told_from == float("inf"), "its witness is missing"
    assert "oil_temperature" not in lonely


def test_one_axis_is_enough_to_be_judged() -> None:
    def change(row: Row, since: int) -> None:
        row["motor_current"] -= 6.0
        row["x_mean"] += 0.4

    rows = [
        {name: value for name, value in row.items() if name[:2] not in ("y_", "z_")}
        for row in seconds(30, change)
    ]
    said = verdicts(rows, Attribute("verdicts", axes=("x",)))
    assert said[-1]["family"] == "sensor"
    assert json.loads(said[-1]["evidence"])["pending"]

"""What is known of a sensor's calibrations: overdue, or found off before; and how sure a verdict is."""

import json
from typing import Any

import pytest

from boucle.clock import SECOND
from boucle.drift import Attribute
from boucle.drift.confidence import confidence
from boucle.drift.hypothesis import Hypothesis
from boucle.errors import BoucleError
from tests.drift.harness import START
from tests.drift.seconds import Row, block, seconds, verdicts
from tests.drift.test_slow import moved

DAY = 24 * 3600 * SECOND


def calibrated(made: Attribute, sensor: str, at: int) -> None:
    made.step(block([{"machine": "press-1", "sensor": sensor, "at": at}], "calibrations"))


def opposed() -> list[Row]:
    """Pressure and current contradict each other and the mesh, one after the other: both or either."""

    def change(row: Row, since: int) -> None:
        row["hydraulic_pressure"] += 30.0
        if since >= 8:
            row["motor_current"] -= 8.0

    return seconds(40, change)


def test_an_overdue_sensor_says_so() -> None:
    made = Attribute("verdicts", calibrate_every={"motor_current": "180d"})
    rows = seconds(32, moved(motor_current=6.0))
    verdicts(rows[:1], made)
    calibrated(made, "motor_current", START - 200 * DAY)
    evidence = json.loads(verdicts(rows[1:], made)[-1]["evidence"])
    assert evidence["calibration_overdue_days"] == pytest.approx(20, abs=0.01)
    assert evidence["calibrated_days_ago"] == pytest.approx(200, abs=0.01)


def test_a_sensor_that_drifted_before_is_known_to() -> None:
    made = Attribute("verdicts")
    rows = seconds(80, moved(bearing_temperature=6.0))
    verdicts(rows[:30], made)
    calibrated(made, "bearing_temperature", rows[30]["at"])

    def again(row: Row) -> Row:
        return row | {"bearing_temperature": row["bearing_temperature"] - 12.0}

    last = verdicts([*rows[30:50], *map(again, rows[50:])], made)[-1]
    assert (last["cause"], last["sensor"]) == ("offset", "bearing_temperature")
    assert json.loads(last["evidence"])["drifted_before"] == 1


@pytest.mark.parametrize("wrong", [{"motor_current": "often"}, {"motor_current": "180 years"}])
def test_an_interval_nobody_understands_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BoucleError, match="B203"):
        Attribute("verdicts", calibrate_every=wrong)


@pytest.mark.parametrize("family", ["machine", "sensor"])
def test_confidence_grows_with_time_and_strength_and_never_reaches_one(family: str) -> None:
    def of(strength: float, held: int) -> float:
        return confidence(Hypothesis(family, "gain", None, strength, 0.5), held)

    told = [of(1.0, held) for held in range(1, 60)]
    assert told == sorted(told)
    assert of(1.0, 4) <= of(5.0, 4)
    assert 0.5 < of(1.0, 4) <= of(1e9, 10**9) <= 0.99

"""Gain or zero of a slow value: named once the machine ran at two levels, and not before."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.drift.scale import Level, gain_or_zero, note
from tests.drift.seconds import Row, seconds, verdicts

CURRENT = {40.0: 62.0, 30.0: 52.0}


def two_speeds(gain: float = 1.0, zero: float = 0.0) -> list[Row]:
    """40 strokes/min, 30, then 40 with a wrong current, and 30 again."""

    def change(row: Row, since: int) -> None:
        speed = 30.0 if since < 30 or since >= 70 else 40.0
        row |= {"speed": row["speed"] - 40 + speed, "setpoint": speed}
        row["motor_current"] += CURRENT[speed] - CURRENT[40.0]
        if since >= 45:
            row["motor_current"] = gain * row["motor_current"] + zero

    return seconds(120, change)


@pytest.mark.parametrize(("gain", "zero", "cause", "size"), [
    (0.85, 0.0, "gain", 0.85), (1.2, 0.0, "gain", 1.2), (1.0, 8.0, "offset", 8.0),
])  # fmt: skip
def test_the_second_level_tells_gain_from_zero(gain: float, zero: float, cause: str, size: float) -> None:
    said = [row for row in verdicts(two_speeds(gain, zero)) if row["family"] == "sensor"]
    first, last = said[0], said[-1]
    assert first["cause"] == "offset"
    assert json.loads(first["evidence"])["causes"] == ["offset", "gain"]
    assert "its zero or its gain" in first["says_en"]
    assert (last["cause"], last["sensor"]) == (cause, "motor_current")
    evidence = json.loads(last["evidence"])
    assert evidence["size"] == pytest.approx(size, rel=0.03)
    assert "causes" not in evidence
    assert "at every level" in last["says_en"]
    assert "à tous les niveaux" in last["says_fr"]
    assert "unknown" not in {row["family"] for row in verdicts(two_speeds(gain, zero))}


def test_both_at_once_are_neither() -> None:
    said = verdicts(two_speeds(1.3, -12.0))
    assert {row["cause"] for row in said if row["family"] == "sensor"} <= {"offset"}


def test_a_drift_that_still_grows_does_not_count() -> None:
    levels: list[Level] = []
    for second in range(40):
        levels = note(levels, 62.0, 0.5 * second, 0.1)
    assert gain_or_zero(note(levels, 50.0, 20.0, 0.1)) is None
    assert len(levels) == 1


@given(st.lists(st.tuples(st.floats(1, 1e3), st.floats(-50, 50), st.floats(0.01, 5)), max_size=60))
def test_levels_never_grow_without_end(seen: list[tuple[float, float, float]]) -> None:
    levels: list[Level] = []
    for level, off, chance in seen:
        levels = note(levels, level, off, chance)
        gain_or_zero(levels)
    assert len(levels) <= 12

"""The hall gets warmer: both temperatures follow it, each with its own lag, and nothing else does."""

import numpy as np

from boucle.testing.line import PressLine
from boucle.testing.process import Process
from boucle.testing.scenario import Operation, Scenario, check_scenario


def after(seconds: int, warmer: float) -> dict[str, float]:
    process, values = Process(np.random.default_rng(1), 1.0), {}
    for _ in range(seconds * 10):
        values = process.step(0.1, relative_speed=1.0, load=1.0, crank=0.1, severities={}, warmer=warmer)
    return values


def test_temperatures_follow_the_hall_and_nothing_else_does() -> None:
    calm, soon, late = after(12, 0.0), after(12, 6.0), after(120, 6.0)
    settled = after(120, 0.0)
    assert soon["bearing_temperature"] - calm["bearing_temperature"] > 3.5
    assert soon["oil_temperature"] - calm["oil_temperature"] < 2.5, "the oil is slower"
    for name in ("bearing_temperature", "oil_temperature"):
        assert abs(late[name] - settled[name] - 6) < 0.1
    assert late["motor_current"] == settled["motor_current"]
    assert late["hydraulic_pressure"] == settled["hydraulic_pressure"]


def test_a_change_of_the_hall_is_an_operation() -> None:
    warmer = Operation(machine="press-1", at=0.1, ambient=4.0)
    line = PressLine(Scenario(machines=("press-1",), operation=(warmer,), duration=1))
    line.step()
    assert line.press("press-1").warmer == 0
    line.step()
    assert line.press("press-1").warmer == 4
    nothing = Scenario(machines=("press-1",), operation=(Operation(machine="press-1", at=0),))
    (problem,) = check_scenario(nothing)
    assert "ambient" in problem.fix

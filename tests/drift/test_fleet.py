"""Machines of one kind beside each other: what moves on all of them is the hall or the supply, and nobody's fault."""

from typing import Any

from boucle.drift import Attribute
from tests.drift.seconds import Row, block, seconds
from tests.drift.test_slow import moved

Change = Any


def fleet(*changes: Change, count: int = 45, **settings: Any) -> dict[str, list[tuple[str, str, str]]]:
    """Machine → the different verdicts in order, of machines that change as told, second by second."""
    runs = [
        [row | {"machine": f"press-{number}"} for row in seconds(count, change, seed=number)]
        for number, change in enumerate(changes, 1)
    ]
    rows: list[Row] = [row for second in zip(*runs, strict=True) for row in second]
    (out,) = Attribute("verdicts", **settings).step(block(rows))
    found: dict[str, list[tuple[str, str, str]]] = {}
    for row in out.rows.to_pylist():
        said = (row["family"], row["cause"], row["sensor"])
        known = found.setdefault(row["machine"], [])
        if not known or known[-1] != said:
            known.append(said)
    return found


NOTHING = ("none", "", "machine")
SAG = moved(motor_current=-6.0)
HALL = moved(bearing_temperature=5.0, oil_temperature=5.0)


def test_a_current_that_sags_on_every_machine_is_the_supply() -> None:
    alone = fleet(SAG, SAG, SAG)
    assert {one[-1] for one in alone.values()} == {("sensor", "offset", "motor_current")}, "nobody was asked"
    for said in fleet(SAG, SAG, SAG, fleet=True).values():
        assert said == [NOTHING, ("operation", "common", "machine"), NOTHING]


def test_a_current_that_sags_on_one_machine_is_its_transmitter() -> None:
    told = fleet(SAG, None, None, fleet=True)
    assert told["press-1"] == [NOTHING, ("sensor", "offset", "motor_current")]
    assert told["press-2"] == told["press-3"] == [NOTHING]


def test_two_temperatures_that_drift_on_one_machine_alone_are_not_the_hall() -> None:
    assert {family for family, *_ in fleet(HALL)["press-1"]} == {"none", "operation"}
    told = fleet(HALL, None, fleet=True)
    assert told["press-1"][-1] == ("unknown", "", "machine")
    assert told["press-2"] == [NOTHING]
    assert {one[1] for one in fleet(HALL, HALL, fleet=True).values()} == {("operation", "hall", "machine")}


def test_a_lonely_thermometer_has_the_other_machines_for_witnesses() -> None:
    def drifts(row: Row, since: int) -> None:
        row["bearing_temperature"] += 5.0

    def run(*changes: Change, **settings: Any) -> dict[str, list[tuple[str, str, str]]]:
        rows: list[Row] = []
        runs = [seconds(50, change, seed=number) for number, change in enumerate(changes, 1)]
        for second in zip(*runs, strict=True):
            for number, row in enumerate(second, 1):
                bare = {name: value for name, value in row.items() if not name.startswith("oil_")}
                rows.append(bare | {"machine": f"press-{number}"})
        (out,) = Attribute("verdicts", **settings).step(block(rows))
        last = {row["machine"]: row for row in out.rows.to_pylist()}
        return {name: [(row["family"], row["cause"], row["sensor"])] for name, row in last.items()}

    assert run(drifts, None, fleet=True)["press-1"] == [("sensor", "offset", "bearing_temperature")]
    assert run(drifts, drifts, fleet=True)["press-1"] == [NOTHING], "it was the hall"

"""The benchmark of the verdicts: its episodes make sense, its score counts what it says it counts."""

import pyarrow as pa
from bench.attribution.episodes import FINAL, GROUPS, TUNING, Episode, draw, healthy
from bench.attribution.page import confidences, confusion, delays, groups, rivals
from bench.attribution.score import Outcome, Said, judge, score

from boucle.testing.scenario import Fault, Scenario, check_scenario
from tests.drift.seconds import Row, block, seconds

WORN = Fault(machine="press", kind="imbalance", onset=15, severity=0.3)
DRIFTED = Fault(machine="press", kind="gain", sensor="vib_x", to=0.6, onset=15)


def said(family: str, cause: str, subject: str, *candidates: str, begun: float = 20) -> Said:
    return Said(family, cause, subject, candidates or (subject,), begun, 30.0, 16.0, 0.9)


def outcome(faults: tuple[Fault, ...], *told: Said, group: str = "none") -> Outcome:
    scenario = Scenario(machines=("press",), faults=faults, duration=40)
    return Outcome(Episode("one", group, 1, scenario), told, 40)


def test_episodes_are_drawn_the_same_and_never_shared() -> None:
    final = list(draw(FINAL))
    assert final == list(draw(FINAL))
    assert len(final) == sum(count for count, _ in GROUPS.values()) >= 500
    assert not {one.seed for one in final} & {one.seed for one in draw(TUNING)}
    assert not any(check_scenario(one.scenario) for one in (*final, *healthy(FINAL, 3, 60)))
    assert {one.group for one in draw(FINAL, 0.01)} == set(GROUPS), "a quick run has one of each"


def test_what_is_right_and_what_is_not() -> None:
    right = outcome((DRIFTED,), said("sensor", "gain", "vib_x"))
    wrong_cause = outcome((DRIFTED,), said("sensor", "offset", "vib_y", "vib_y", "vib_x"))
    accused = outcome((WORN,), said("sensor", "noise", "vib_z"))
    silent = outcome((WORN,))
    early = outcome(
        (WORN,), said("machine", "imbalance", "press", begun=5), said("machine", "imbalance", "press")
    )
    of = score([right, wrong_cause, accused, silent, early])
    assert of.family_right == 80
    assert of.wear_called_sensor == 100 / 3
    assert of.decided == 80
    assert of.sensor_in_set == 100
    assert of.exact_cause == 200 / 3
    assert of.alarms == 1, "what is said before anything happens is a false alarm"
    assert of.quiet_seconds == 75
    both = outcome((WORN, DRIFTED), said("sensor", "gain", "vib_x"))
    assert score([both]).wear_called_sensor == 0, "the sensor is at fault too"


def test_tables_have_a_row_for_everything() -> None:
    told = [
        outcome((DRIFTED,), said("sensor", "gain", "vib_x"), group="sensor/gain"),
        outcome((WORN, DRIFTED), said("machine", "imbalance", "press"), group="pair/sensor+machine"),
        outcome((), group="none"),
    ]
    assert "| sensor/gain | 1 |" in confusion(told)
    assert "| pair/sensor+machine | 1 | 100 %" in groups(told)
    assert "| sensor/gain | 5 | 5 | 5 | 1 |" in delays(told)
    table, apart = confidences(told)
    assert "| 0.9-0.97 | 2 | 0.90 | 1.00 |" in table
    assert round(apart, 6) == 0.1
    assert "| boucle |" in rivals({"boucle": score(told)})


def test_an_episode_is_judged() -> None:
    def half(row: Row, since: int) -> None:
        for band in range(8):
            row[f"x_band_{band}"] *= 0.36

    rows = pa.Table.from_batches([block(seconds(30, half)).rows])
    episode = Episode("one", "sensor/gain", 1, Scenario(machines=("press-1",), faults=(), duration=30))
    (one,) = judge(episode, rows).said
    assert (one.family, one.cause, one.subject, one.candidates) == ("sensor", "gain", "vib_x", ("vib_x",))
    assert 15 < one.begun < 25 < one.ended

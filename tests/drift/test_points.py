"""Operating points: known again or new, and what their changes teach; temperatures on their way between them."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from boucle.drift.charts import Sum, onset
from boucle.drift.course import Course
from boucle.drift.evidence import weigh
from boucle.drift.heat import Heat, foretold
from boucle.drift.judge import Judge
from boucle.drift.points import MOST_POINTS
from boucle.drift.reading import Reading, learn
from boucle.drift.shares import UNKNOWN, follow, margin
from tests.drift.seconds import Row, seconds, told

TRUE = {"hydraulic_pressure": 0.4, "motor_current": 0.65, "mesh": 0.6}


def loaded(row: Row, load: float) -> None:
    row["hydraulic_pressure"] += 60 * load
    row["motor_current"] += 40 * load
    for axis in "xyz":
        row[f"{axis}_band_4"] *= (1 + 0.6 * load) ** 2


def test_a_load_that_was_seen_before_is_known_again() -> None:
    def change(row: Row, since: int) -> None:
        if not since >= 40:
            loaded(row, 0.2)

    said = [cause for family, cause, _ in told(seconds(90, change)) if family == "operation"]
    assert said == ["new_regime", "known_point"]


def test_changes_of_load_teach_the_shares() -> None:
    shares = dict(UNKNOWN)
    before = margin(shares, "motor_current", "hydraulic_pressure")
    for load in (0.2, -0.15, 0.1):
        shares = follow(shares, {name: (share * load, 0.005) for name, share in TRUE.items()})
    ratio = math.exp(shares["motor_current"][0] - shares["hydraulic_pressure"][0])
    assert abs(ratio / (0.65 / 0.4) - 1) < 0.1
    assert 1 < margin(shares, "motor_current", "hydraulic_pressure") < before / 1.5
    opposed = {"hydraulic_pressure": (0.2, 0.01), "motor_current": (-0.1, 0.01)}
    assert follow(shares, opposed) == shares, "no load does that"


CHANGES = st.dictionaries(st.sampled_from([*TRUE]), st.tuples(st.floats(-1, 1), st.floats(1e-4, 0.1)))


@given(st.lists(CHANGES, max_size=20))
def test_whatever_moves_the_shares_stay_sane(changes: list[dict[str, tuple[float, float]]]) -> None:
    shares = dict(UNKNOWN)
    for moved in changes:
        shares = follow(shares, moved)
    assert all(math.isfinite(share) and 0 < doubt <= 0.1 for share, doubt in shares.values())


def test_points_are_forgotten_when_there_are_too_many() -> None:
    judge, course = Judge(6, 4, 10, 60), Course([], [], [])
    for step in range(30):
        for row in seconds(8, seed=step):
            at = row["at"] + step * 8 * 10**9
            speed = 20.0 + step
            judge.hear(course, Reading.of(at, row | {"speed": speed, "setpoint": speed}, "xyz"))
    assert len(course.points) == MOST_POINTS


def warming(row: Row, since: int) -> None:
    """Another speed, and both temperatures on their way to it."""
    row |= {"speed": row["speed"] - 10, "setpoint": 30.0}
    row["motor_current"] -= 10
    row["bearing_temperature"] -= 6 * (1 - math.exp(-since / 12))
    row["oil_temperature"] -= 5 * (1 - math.exp(-since / 25))


def test_temperatures_on_their_way_are_no_fault() -> None:
    assert {family for family, *_ in told(seconds(140, warming))} == {"none", "operation"}


def test_what_leaves_its_curve_is_seen_and_never_fitted() -> None:
    evidence = weigh(
        [Reading.of(row["at"], row, "xyz") for row in seconds(12)],
        learn([Reading.of(row["at"], row, "xyz") for row in seconds(12)]),
    )
    rng, heat, off = np.random.default_rng(3), Heat(), {}
    for second in range(55):
        bearing = 40 + 6 * math.exp(-second / 12) + 0.03 * rng.standard_normal()
        oil = 34 + 5 * math.exp(-second / 25) + 0.03 * rng.standard_normal() + (5.0 if second >= 40 else 0.0)
        heat.note(Reading.of(0, {"bearing_temperature": bearing, "oil_temperature": oil}, "xyz"))
        off = foretold(heat, evidence, 60)
    assert abs(off["oil_temperature"][0] - 5) < 3 * off["oil_temperature"][1] + 0.3
    assert abs(off["bearing_temperature"][0]) < 0.8
    assert heat.sound <= 40
    assert not foretold(Heat(seen=heat.seen, lawful=False), evidence, 60)


def test_a_sum_remembers_its_last_zero() -> None:
    rng, one = np.random.default_rng(1), Sum()
    for second in range(60):
        one.add(0.5 * rng.standard_normal() + (3.0 if second >= 40 else 0.0), 1.0, second * 10**9)
    assert onset({"a": one}, ["a", "b"], 60) == 40 * 10**9
    assert onset({}, ["a"], 60) == 60

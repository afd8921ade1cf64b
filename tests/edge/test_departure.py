"""Leaving the normal state, coming back to another one, and signals that never did that before."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.edge.agreement import Agreement
from boucle.edge.departure import Departure
from boucle.edge.novelty import Novelty
from boucle.errors import BoucleError
from boucle.ports import Operator

STEPS: list[tuple[Any, dict[str, Any]]] = [
    (Departure, {"columns": ["flow", "vibration"], "by": ["rig"], "train": 150}),
    (Novelty, {"column": "flow", "by": ["rig"], "train": 150}),
    (Agreement, {"columns": ["flow", "vibration"], "by": ["rig"], "train": 100}),
]


def block(columns: dict[str, Any]) -> Block:
    count = len(next(iter(columns.values())))
    times = pa.array([place * SECOND for place in range(count)], pa.timestamp("ns", "UTC"))
    return Block("rows", pa.record_batch({"at": times, **columns}), 0, Position("rows", count))


def rows(operator: Any, one: Block) -> list[dict[str, Any]]:
    return [row for out in operator.step(one) for row in out.rows.to_pylist()]


def plant(seed: int, count: int = 700) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    return {
        "flow": draw.normal(30, 1, count),
        "vibration": draw.normal(0.2, 0.01, count),
        "rig": ["a"] * count,
    }


def test_an_episode_begins_and_ends_and_the_new_normal_is_learned() -> None:
    data = plant(1)
    data["flow"][300:400] -= 12
    data["flow"][400:] += 0.9  # repaired, not quite as before
    told = rows(Departure("scores", columns=["flow", "vibration"], by=["rig"], train=200), block(data))
    alert = [place for place, row in enumerate(told) if row["alert"]]
    assert all(row["score"] is None for row in told[:200])
    assert 300 <= alert[0] <= 302
    assert 400 <= alert[-1] <= 430
    assert alert == list(range(alert[0], alert[-1] + 1))
    changed = [place for place, row in enumerate(told) if row["changed"]]
    assert alert[0] in changed
    assert any(400 <= place <= 430 for place in changed)


def test_a_plant_that_stays_as_it_was_is_left_alone() -> None:
    alerts = sum(
        row["alert"] for seed in range(4) for row in rows(Departure("s", **STEPS[0][1]), block(plant(seed)))
    )
    assert alerts <= 20  # of 2200 rows


def test_what_was_never_there_is_new_once() -> None:
    data = plant(2)
    data["flow"][400] += 12
    data["flow"][650] += 8
    told = rows(Novelty("scores", column="flow", train=200), block(data))
    assert told[400]["alert"]
    assert told[401]["score"] is None  # quiet
    assert not told[650]["alert"]  # less than once before is no record


def test_a_lower_level_of_a_busy_signal_is_new() -> None:
    draw = np.random.default_rng(3)
    flow = draw.lognormal(3, 0.5, 700)
    flow[500:] /= 8
    told = rows(Novelty("scores", column="flow", train=300), block({"flow": flow}))
    first = next(place for place, row in enumerate(told) if row["alert"] and place >= 500)
    assert first < 530


@pytest.mark.parametrize(("made", "declared"), STEPS)
def test_cuts_and_restarts_change_nothing(made: Any, declared: dict[str, Any]) -> None:
    data = plant(4, 330)
    data["flow"][270:300] += 9
    data["flow"] = [None if place == 170 else value for place, value in enumerate(data["flow"])]
    data["rig"] = ["a", "a", "b"] * 110
    whole = block(data)
    expected = rows(made("scores", **declared), whole)
    assert any(row["alert"] for row in expected)

    @settings(max_examples=4, deadline=None)
    @given(st.sets(st.integers(1, 329), max_size=4))
    def law(places: set[int]) -> None:
        step, found = made("scores", **declared), []
        assert isinstance(step, Operator)
        edges = [0, *sorted(places), 330]
        for first, last in zip(edges[:-1], edges[1:], strict=True):  # noqa: RUF007
            found += rows(step, Block("rows", whole.rows.slice(first, last - first), 0, whole.position))
            again = made("scores", **declared)
            again.restore(step.snapshot())
            step = again
        assert found == expected

    law()


@pytest.mark.parametrize("made", [Agreement, Departure, Novelty])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_numbers_are_judged(made: Any, data: st.DataObject) -> None:
    values = data.draw(
        st.lists(st.floats(-1e100, 1e100) | st.none() | st.just(math.nan), min_size=1, max_size=8)
    )
    declared = {"column": "flow"} if made is Novelty else {"columns": ["flow", "back"]}
    step = made("scores", train=130, **declared)
    flow = [0.0] * 130 if data.draw(st.booleans()) else list(range(130))
    both = pa.array([*flow, *values], pa.float64())
    told = rows(step, block({"flow": both, "back": both}))
    assert len(told) == 130 + len(values)


@pytest.mark.parametrize(
    ("made", "declared", "code"),
    [
        (Departure, {"columns": []}, "B765"),
        (Departure, {"columns": ["flow"], "train": 50}, "B765"),
        (Departure, {"columns": ["flow"], "start": 1.0, "stop": 2.0}, "B765"),
        (Novelty, {"column": "flow", "train": 5}, "B767"),
        (Agreement, {"columns": ["flow"]}, "B765"),
        (Agreement, {"columns": ["flow", "vibration"], "train": 99}, "B765"),
        (Agreement, {"columns": ["flow", "vibration"], "hold": 0}, "B765"),
    ],
)
def test_settings_that_cannot_work_are_refused(made: Any, declared: dict[str, Any], code: str) -> None:
    with pytest.raises(BoucleError, match=code):
        made("scores", **declared)


@pytest.mark.parametrize(("made", "declared"), STEPS)
def test_a_state_of_another_kind_is_refused(made: Any, declared: dict[str, Any]) -> None:
    with pytest.raises(BoucleError, match="B602"):
        made("scores", **declared).restore(b"\x92\x07\x90")
    with pytest.raises(BoucleError, match="B602"):
        made("scores", **declared).restore(b"junk")


def test_a_novelty_that_learned_from_fewer_rows_is_refused() -> None:
    step = Novelty("scores", column="flow", train=120)
    step.step(block(plant(5, 130)))
    with pytest.raises(BoucleError, match="another length"):
        Novelty("scores", column="flow", train=150).restore(step.snapshot())


def test_keys_that_are_numbers_are_restored() -> None:
    data = plant(6, 200) | {"rig": [7] * 200}
    for made, declared in STEPS:
        step, again = made("scores", **declared), made("scores", **declared)
        step.step(block(data))
        again.restore(step.snapshot())
        assert again.snapshot() == step.snapshot()

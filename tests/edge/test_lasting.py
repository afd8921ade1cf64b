"""Seconds left, row by row: a machine that wears, one that does not, gaps, long lives and restarts."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.edge.lasting import Lasting
from boucle.errors import BoucleError
from boucle.ports import Operator


def block(level: Any, every: float = 10.0, key: str = "a") -> Block:
    times = [int((1000 + place * every) * SECOND) for place in range(len(level))]
    named = {"at": pa.array(times, pa.timestamp("ns", "UTC")), "level": pa.array(level, pa.float64())}
    named["machine"] = pa.array([key] * len(level))
    return Block("rows", pa.record_batch(named), 0, Position("rows", len(level)))


def told(step: Lasting, one: Block) -> list[dict[str, Any]]:
    return [row for out in step.step(one) for row in out.rows.to_pylist()]


def test_a_machine_that_wears_is_followed_to_its_end() -> None:
    at = np.arange(0, 6000, 10)
    step = Lasting("left", column="level", worn=math.exp(4), life=1e6, every=60)
    found = told(step, block(np.exp(at / 3000)))
    assert found[0]["remaining_s"] is None
    assert found[200]["told_by"] == "age"
    assert found[-1]["told_by"] == "trend"
    assert found[-1]["remaining_s"] == pytest.approx(0.8 * 6000, rel=0.05)


def test_the_clock_runs_down_between_two_medians() -> None:
    found = told(Lasting("left", column="level", worn=3, life=10_000), block(np.full(100, 0.3)))
    left = [row["remaining_s"] for row in found]
    assert left[29] is None
    assert left[30] == pytest.approx(0.8 * (10_000 - 300))
    assert left[35] == pytest.approx(left[30] - 50)


def test_a_long_life_stays_in_sight_in_few_medians() -> None:
    at = np.arange(0, 3_000_000, 1000.0)
    step = Lasting("left", column="level", worn=math.exp(4), life=1e5, by=["machine"], every=1000)
    found = told(step, block(np.exp(at / 1e6), every=1000))
    assert found[-1]["told_by"] == "trend"
    assert found[-1]["remaining_s"] == pytest.approx(0.8 * 1e6, rel=0.1)
    assert len(step.snapshot()) < 20_000


@settings(max_examples=15, deadline=None)
@given(
    levels=st.lists(st.floats() | st.none(), max_size=60),
    cut=st.integers(0, 60),
    every=st.sampled_from([10.0, 200.0, 1e6]),
)
def test_any_level_is_judged_and_a_restart_changes_nothing(
    levels: list[float | None], cut: int, every: float
) -> None:
    declared: dict[str, Any] = {"column": "level", "worn": 2.0, "life": 1e4, "by": ["machine"]}
    whole = block([1.0, *levels], every)
    step = Lasting("left", **declared)
    assert isinstance(step, Operator)
    expected = told(step, whole)
    assert all(row["remaining_s"] is None or row["remaining_s"] >= 0 for row in expected)
    first, again = Lasting("left", **declared), Lasting("left", **declared)
    found = told(first, Block("rows", whole.rows.slice(0, cut), 0, whole.position))
    again.restore(first.snapshot())
    found += told(again, Block("rows", whole.rows.slice(cut), 0, whole.position))
    assert found == expected


def test_settings_that_cannot_work_and_strange_states_are_refused() -> None:
    with pytest.raises(BoucleError, match="B765"):
        Lasting("left", column="level", worn=0, life=1)
    step = Lasting("left", column="level", worn=1, life=1)
    for state in (b"junk", b"\x92\x07\x90"):
        with pytest.raises(BoucleError, match="B602"):
            step.restore(state)

"""What is left of a life: told by a trend where there is one, by the age where there is none."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.edge.life import CAUTION, by_age, remaining, smoothed

AGE = np.arange(0.0, 6000, 10)


def test_an_exponential_is_followed_to_where_the_kind_fails() -> None:
    level = np.exp(AGE / 3000)
    told = remaining(AGE, level, worn=math.exp(4), life=1.0)
    assert told.by == "trend"
    assert told.seconds == pytest.approx(CAUTION * (4 * 3000 - AGE[-1]))


def test_what_does_not_rise_or_does_not_follow_is_told_by_its_age() -> None:
    draw = np.random.default_rng(1)
    for level in (
        np.full(600, 0.3),
        np.exp(-AGE / 3000),
        np.exp(draw.normal(0, 0.5, 600)),
        np.exp(AGE / 9000),
    ):
        told = remaining(AGE, level, worn=3.0, life=10_000.0)
        assert (told.by, told.seconds) == ("age", CAUTION * (10_000 - AGE[-1]))
    assert remaining(AGE[:5], AGE[:5] + 1, worn=3.0, life=100.0).by == "age"


def test_one_that_outlived_its_kind_or_its_level_still_has_something_left() -> None:
    assert by_age(9000, 8000) == pytest.approx(CAUTION * 0.2 * 9000)
    told = remaining(AGE, np.exp(AGE / 1000), worn=2.0, life=100.0)
    assert (told.by, told.seconds) == ("trend", 0.02 * AGE[-1])


def test_a_knock_is_no_wear() -> None:
    level = np.full(100, 0.3)
    level[50] = 40
    assert smoothed(level, 5).max() == 0.3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40), st.floats(1e-3, 1e3))
def test_any_level_has_an_answer(level: list[float], worn: float) -> None:
    told = remaining(
        np.linspace(0, 60, len(level), dtype=np.float64), np.array(level), worn=worn, life=3600.0
    )
    assert math.isfinite(told.seconds)
    assert told.seconds >= 0

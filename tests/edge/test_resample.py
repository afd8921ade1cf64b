"""Resampling: SciPy over the whole recording is the oracle, and the laws hold."""

import operator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block
from boucle.clock import SECOND
from boucle.edge import Resample, Waveform
from boucle.errors import BoucleError
from boucle.ports import Operator
from tests.edge.signals import START, cut, rows_of, vibration
from tests.stream.laws import any_way, feed, table

RATE = 1000
RNG = np.random.default_rng(8)
SIGNALS = {("m", sensor): RNG.normal(0.2, 1, 2000).astype(np.float32) for sensor in ("x", "y")}
ROWS = vibration(
    sorted(
        (chunk for key, signal in SIGNALS.items() for chunk in cut(*key, signal, 40, RATE)),
        key=operator.itemgetter(2),
    )
).rows


def resample(**changed: Any) -> Resample:
    told: dict[str, Any] = {"by": ["machine", "sensor"], "rate_hz": RATE, "to_hz": 400, "frame": "200ms"}
    return Resample("slow", **(told | changed))


def ordered(blocks: list[Block]) -> list[dict[str, Any]]:
    rows = sorted(table(blocks, "slow"), key=operator.itemgetter("at", "sensor"))
    return [row | {"samples": ["nan" if one != one else one for one in row["samples"]]} for row in rows]


WHOLE = ordered(feed(resample(), "vibration", ROWS, [0, ROWS.num_rows], 0))


def test_it_is_an_operator() -> None:
    assert isinstance(resample(), Operator)


@pytest.mark.parametrize(("to_hz", "up", "down"), [(400, 2, 5), (1500, 3, 2), (250, 1, 4), (1000, 1, 1)])
def test_it_is_scipys_resampling_of_the_whole_recording(to_hz: float, up: int, down: int) -> None:
    rows = ordered(feed(resample(to_hz=to_hz), "vibration", ROWS, [0, ROWS.num_rows], 0))
    complete = [row for row in rows if row["complete"]]
    assert len(complete) >= 2 * 8
    for row in complete:
        expected = scipy.signal.resample_poly(SIGNALS["m", row["sensor"]].astype(np.float64), up, down)
        first = (row["at"] - START) * to_hz / SECOND
        assert first == round(first), "on the grid of the new rate"
        samples = np.array(row["samples"])
        assert len(samples) == to_hz / 5
        assert row["rate_hz"] == to_hz
        assert samples == pytest.approx(expected[int(first) : int(first) + len(samples)], abs=1e-5)


def test_what_is_not_complete_lies_at_the_ends_and_nothing_is_missing_between() -> None:
    for sensor in ("x", "y"):
        rows = [row for row in WHOLE if row["sensor"] == sensor]
        assert [row["complete"] for row in rows] == [False] + [True] * (len(rows) - 2) + [False]
        steps = {late["at"] - early["at"] for early, late in pairwise(rows)}
        assert steps == {SECOND // 5}


def test_a_gap_takes_what_reaches_into_it_and_the_rest_is_exact() -> None:
    expected = scipy.signal.resample_poly(SIGNALS["m", "x"].astype(np.float64), 2, 5)
    kept = [chunk for chunk in cut("m", "x", SIGNALS["m", "x"], 40, RATE) if chunk[2] != START + SECOND]
    rows = ordered(feed(resample(), "vibration", vibration(kept).rows, [0, len(kept)], 0))
    got = [value for row in rows for value in row["samples"]]
    first = (rows[0]["at"] - START) * 400 // SECOND
    told = {first + place: value for place, value in enumerate(got) if value != "nan"}
    there = sorted(told)
    # ten periods of 400 Hz are 25 samples of 1000 Hz, to both sides of samples 1000 to 1039, and at the ends
    assert there == [*range(10, 390), *range(426, 790)]
    assert [told[place] for place in there] == pytest.approx(expected[there], abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_cut_any_arrival_any_crash_the_same_bits(data: st.DataObject) -> None:
    given_ = any_way(data, resample, "vibration", ROWS, 300)
    assert ordered(given_) == WHOLE
    assert not table(given_, "slow/late")


def test_a_tone_survives_and_what_the_new_rate_cannot_carry_does_not() -> None:
    t = np.arange(4000) / RATE
    signal = np.sin(2 * np.pi * 50 * t) + np.sin(2 * np.pi * 390 * t)
    slow = resample()
    then = Waveform("told", by=["sensor"], size="1s", rate_hz=400, values={"b": "band(45, 55)", "rms": "rms"})
    given_ = [
        told
        for chunk in cut("m", "x", signal, 100, RATE)
        for block in slow.step(vibration([chunk]))
        for told in then.step(block)
    ]
    complete = [row for row in rows_of(given_) if row["complete"]]
    assert len(complete) >= 2
    for row in complete[1:]:
        assert row["b"] == pytest.approx(0.5, rel=0.01)
        assert row["rms"] == pytest.approx(np.sqrt(0.5), rel=0.01)


@pytest.mark.parametrize("wrong", [{"to_hz": 333.123}, {"to_hz": -5}, {"frame": "203ms"}])
def test_rates_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BoucleError, match="B220"):
        resample(**wrong)

"""Order tracking: a shaft that speeds up, whose angle is known in closed form, and the laws."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.edge import Orders, Waveform
from boucle.errors import BoucleError
from boucle.ports import Operator
from tests.edge.signals import START, TIME, cut, rows_of, vibration
from tests.stream.laws import FOREVER, table

RATE, SECONDS = 4000, 3
T = np.arange(SECONDS * RATE) / RATE
SLOW, RISE = 20.0, 4.0
"""Turns a second at first, and how many more each second."""
ANGLE = SLOW * T + RISE * T**2 / 2
SIGNAL = 1.5 * np.sin(2 * np.pi * ANGLE) + 0.4 * np.cos(2 * np.pi * 7 * ANGLE + 1) + 0.25


def readings(step: float = 0.1) -> Block:
    """The speed in turns a minute."""
    moments = np.arange(-0.05, SECONDS, step)
    rows = pa.record_batch(
        {
            "machine": pa.array(["m"] * len(moments)),
            "at": pa.array([START + round(one * SECOND) for one in moments], TIME),
            "rpm": pa.array([60 * (SLOW + RISE * one) for one in moments]),
        }
    )
    return Block("process", rows, FOREVER, Position("process", 0))


def pulses(per_turn: int = 4) -> Block:
    """A tacho: one row at each quarter of a turn."""
    counted = np.arange(-1, int(ANGLE[-1] * per_turn)) / per_turn
    moments = (-SLOW + np.sqrt(SLOW**2 + 2 * RISE * counted)) / RISE
    times = pa.array([START + round(one * SECOND) for one in moments.tolist()], TIME)
    rows = pa.record_batch({"machine": pa.array(["m"] * len(moments)), "at": times})
    return Block("tacho", rows, FOREVER, Position("tacho", 0))


def orders(**changed: Any) -> Orders:
    told: dict[str, Any] = {
        "by": ["machine", "sensor"], "rate_hz": RATE, "size": "1s", "turns": 16, "speed": "rpm",
        "turns_per_second": 1 / 60, "values": {"one": "order(1)", "mesh": "order(7)", "lines": "spectrum"},
    }  # fmt: skip
    return Orders("orders", **(told | changed))


VIBRATION = vibration(cut("m", "x", SIGNAL, 400, RATE), FOREVER)


@pytest.mark.parametrize("tacho", [False, True])
def test_a_shaft_that_speeds_up_has_sharp_orders(tacho: bool) -> None:
    edge = orders(speed="", pulses=4) if tacho else orders()
    assert isinstance(edge, Operator)
    assert edge.step(pulses() if tacho else readings()) == []
    rows = rows_of(edge.step(VIBRATION))
    assert len(rows) == SECONDS
    for second, row in enumerate(rows):
        assert row["turns"] == pytest.approx(SLOW + RISE * (second + 0.5), rel=1e-3)
        assert row["one"] == pytest.approx(1.5, rel=0.01)
        assert row["mesh"] == pytest.approx(0.4, rel=0.02)
        lines = np.array(row["lines"])
        assert len(lines) == 16 * 128 // 2
        assert lines[[16, 7 * 16]] == pytest.approx([row["one"], row["mesh"]], rel=1e-6)
        others = np.delete(lines, [16, 7 * 16])
        assert others.max() < 0.02


def test_without_tracking_the_same_line_is_smeared() -> None:
    plain = Waveform("w", by=["machine"], size="1s", rate_hz=RATE, values={"lines": "spectrum"})
    row = rows_of(plain.step(VIBRATION))[1]
    assert max(row["lines"][100:250]) < 0.6 * 0.4


def test_what_the_angles_cannot_carry_is_taken_out_and_not_folded() -> None:
    edge = orders(per_turn=32)
    edge.step(readings())
    whistle = SIGNAL + np.sin(2 * np.pi * 27 * ANGLE)  # 27 orders would appear as 5
    rows = rows_of(edge.step(vibration(cut("m", "x", whistle, 400, RATE), FOREVER)))
    for row in rows:
        assert row["lines"][5 * 16] < 0.03
        assert row["mesh"] == pytest.approx(0.4, rel=0.05)


def test_unknown_speed_and_too_few_turns_say_so() -> None:
    edge = orders(turns=23)
    early = edge.step(VIBRATION)
    assert early == [], "the speed has not come yet"
    rows = rows_of(edge.step(readings()))
    assert [row["one"] is None for row in rows] == [True, False, False]
    assert rows[0]["turns"] == pytest.approx(22, rel=1e-3)
    assert rows[0]["lines"] is None
    nobody = orders()
    none = readings().rows.slice(0, 0)
    nobody.step(Block("process", none, FOREVER, Position("process", 0)))
    assert [row["turns"] for row in rows_of(nobody.step(VIBRATION))] == [None] * SECONDS
    one_pulse = orders(speed="", pulses=1)
    one_pulse.step(Block("tacho", pulses().rows.slice(0, 1), FOREVER, Position("tacho", 0)))
    assert [row["one"] for row in rows_of(one_pulse.step(VIBRATION))] == [None] * SECONDS


def run(make: Callable[[], Orders], blocks: Sequence[Block], crash: int) -> list[dict[str, Any]]:
    given_: list[Block] = []
    edge = make()
    for number, block in enumerate(blocks):
        given_ += edge.step(block)
        if number == crash:
            state = edge.snapshot()
            edge = make()
            edge.restore(state)
            assert edge.snapshot() == state
    assert not table(given_, "orders/late")
    return sorted(table(given_, "orders"), key=operator.itemgetter("at", "sensor"))


def ends(speeds: pa.RecordBatch) -> list[Block]:
    return [
        Block("vibration", VIBRATION.rows.slice(0, 0), FOREVER, Position("v", 0)),
        Block("process", speeds.slice(0, 0), FOREVER, Position("p", 0)),
        Block("vibration", VIBRATION.rows.slice(0, 0), FOREVER, Position("v", 0)),
    ]


def by_tacho() -> Orders:
    return orders(speed="", pulses=1)


@pytest.mark.parametrize("tacho", [False, True])
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_arrival_any_crash_the_same_bits(tacho: bool, data: st.DataObject) -> None:
    make, turning = (by_tacho, pulses(1)) if tacho else (orders, readings())
    rows, speeds = VIBRATION.rows, turning.rows
    whole = run(make, [Block("v", rows, 0, Position("v", 0)), turning, *ends(speeds)], -1)
    assert len(whole) == SECONDS
    held = [(at.value, "v", rows.slice(i, 1)) for i, at in enumerate(rows.column("at"))]
    held += [(at.value, "p", speeds.slice(i, 1)) for i, at in enumerate(speeds.column("at"))]
    jitter = data.draw(st.lists(st.integers(0, 700), min_size=1, max_size=15))
    lateness = 700 * SECOND // 1000
    order = sorted(range(len(held)), key=lambda i: (held[i][0] + jitter[i % len(jitter)] * SECOND // 1000, i))
    blocks, newest = [], {"v": 0, "p": 0}
    for i in order:
        at, stream, one = held[i]
        newest[stream] = max(newest[stream], at)
        blocks.append(Block(stream, one, newest[stream] - lateness, Position(stream, 0)))
    crash = data.draw(st.integers(0, len(blocks)))
    assert run(make, [*blocks, *ends(speeds)], crash) == whole


def test_late_readings_go_apart() -> None:
    edge = orders()
    edge.step(readings())
    edge.step(VIBRATION)
    (late,) = edge.step(readings())
    assert late.stream == "orders/late"
    assert late.rows.column("late_by_ns").null_count == 0
    assert edge.late_rows == len(late)


@pytest.mark.parametrize(
    "wrong",
    [
        {"speed": ""},
        {"pulses": 2},
        {"turns": 0},
        {"per_turn": 4},
        {"shaft": "axis"},
        {"values": {"a": "order(64)"}},
        {"values": {"a": "order(0.01)"}},
        {"values": {"a": "rms"}},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BoucleError, match="B220"):
        orders(**wrong)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(BoucleError, match="B221 orders: tacho has no column rpm"):
        orders().step(pulses())

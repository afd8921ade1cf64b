"""The edge gives the same rows whatever the cut, and goes on after a restart as if nothing happened."""

import math
import operator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.edge.grid import Grid
from boucle.edge.reduce import EVENTS, Reduce
from boucle.errors import BoucleError, ContractBroken
from boucle.ports import Operator
from tests.edge.signals import START, Chunk, cut, rows_of, speed, vibration

RATE = 10_000
RNG = np.random.default_rng(3)
SECONDS = 3
SIGNALS: dict[tuple[str, str], NDArray[np.float32]] = {
    (machine, sensor): RNG.normal(0.1, 0.3, SECONDS * RATE).astype(np.float32)
    for machine in ("press-1", "press-2")
    for sensor in ("vib_x", "vib_y")
}


def reduce(**changed: Any) -> Reduce:
    return Reduce("vibration_events", **{"baseline": 2, **changed})


def chunks(size: int = 1000) -> list[Chunk]:
    """All signals, one chunk of each sensor after the other, as messages bring them."""
    lists = [cut(*key, signal, size) for key, signal in SIGNALS.items()]
    return sorted((chunk for held in lists for chunk in held), key=operator.itemgetter(2))


def run(operator_: Reduce, cuts: list[list[Chunk]]) -> list[dict[str, Any]]:
    operator_.step(speed("press-1", 40.0))
    given_ = [block for held in cuts for block in operator_.step(vibration(held))]
    return sorted(rows_of(given_), key=operator.itemgetter("at", "machine", "sensor"))


WHOLE = run(reduce(), [[chunk] for chunk in chunks()])


def test_it_is_an_operator() -> None:
    assert isinstance(reduce(), Operator)


def test_a_row_holds_what_its_second_held() -> None:
    assert len(WHOLE) == SECONDS * len(SIGNALS)
    first = WHOLE[0]
    signal = SIGNALS["press-1", "vib_x"][:RATE]
    assert first["at"].timestamp() == START // SECOND
    assert first["count"] == RATE
    assert first["complete"] is True
    assert first["mean"] == pytest.approx(float(signal.mean()), rel=1e-6)
    assert (first["min"], first["max"]) == (float(signal.min()), float(signal.max()))
    assert first["shaft_hz"] == pytest.approx(24.0)
    assert first["env_bpfo"] < 3
    other = next(row for row in WHOLE if row["machine"] == "press-2")
    assert other["shaft_hz"] is None, "no speed known"
    assert other["env_bpfo"] is None


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_cutting_and_interleaving_differently_gives_the_same_bits(data: st.DataObject) -> None:
    # 10 000 000 ns steps keep every chunk's time exact at 10 kHz
    pieces: list[Chunk] = []
    for (machine, sensor), signal in SIGNALS.items():
        edges = sorted(data.draw(st.sets(st.integers(1, SECONDS * 100 - 1), max_size=12)))
        for first, last in zip([0, *edges], [*edges, SECONDS * 100], strict=True):
            pieces.append((machine, sensor, START + first * SECOND // 100, signal[first * 100 : last * 100]))
    shuffled = data.draw(st.permutations(pieces))
    blocks = sorted(data.draw(st.sets(st.integers(1, len(pieces) - 1), max_size=6)))
    cuts = [shuffled[a:b] for a, b in zip([0, *blocks], [*blocks, len(pieces)], strict=True)]
    # the z-score depends on which windows came first, by design; all else on the rows alone
    drop = {"z": None, "alert": False}
    expected = [row | drop for row in WHOLE]
    assert [row | drop for row in run(reduce(), cuts)] == expected


@settings(max_examples=25, deadline=None)
@given(st.integers(1, len(chunks()) - 1), st.integers(1, 9))
def test_a_restart_changes_nothing(stop: int, several: int) -> None:
    held = chunks()
    cuts = [held[:stop], *[held[first : first + several] for first in range(stop, len(held), several)]]
    first, second = reduce(), reduce()
    first.step(speed("press-1", 40.0))
    rows = rows_of(first.step(vibration(cuts[0])))
    second.restore(first.snapshot())
    assert second.snapshot() == first.snapshot()
    for block in cuts[1:]:
        rows += rows_of(second.step(vibration(block)))
    assert sorted(rows, key=operator.itemgetter("at", "machine", "sensor")) == WHOLE


def test_a_window_is_given_with_its_last_sample_and_not_later() -> None:
    edge, held = reduce(), cut("m", "vib_x", SIGNALS["press-1", "vib_x"][:RATE])
    for chunk in held[:-1]:
        assert edge.step(vibration([chunk])) == ()
    (block,) = edge.step(vibration(held[-1:], START + SECOND // 2))
    assert block.rows.schema == EVENTS
    assert block.watermark == START
    assert block.stream == "vibration_events"


def test_a_gap_waits_for_the_watermark_and_says_so() -> None:
    edge = reduce()
    held = cut("m", "vib_x", SIGNALS["press-1", "vib_x"][:RATE])
    del held[4]
    assert edge.step(vibration(held, START + SECOND - 1)) == ()
    after = cut("m", "vib_y", np.ones(100, dtype=np.float32))
    (row,) = rows_of(edge.step(vibration([("m", "vib_y", START + SECOND, after[0][3])], START + SECOND)))
    assert (row["complete"], row["count"]) == (False, 9000)
    assert row["rms"] == pytest.approx(0.3, rel=0.1), "a gap does not read as quiet"
    assert row["z"] is None
    assert edge.late_rows == 0
    late = cut("m", "vib_x", SIGNALS["press-1", "vib_x"][:RATE])[4]
    assert edge.step(vibration([late])) == ()
    assert edge.late_rows == 1


def test_after_a_window_was_given_more_of_it_is_late() -> None:
    edge = reduce()
    held = cut("m", "vib_x", SIGNALS["press-1", "vib_x"][:RATE])
    assert len(rows_of(edge.step(vibration(held)))) == 1
    assert edge.step(vibration(held[2:4], START + 5 * SECOND)) == ()
    assert edge.late_rows == 2


def test_nan_counts_as_missing() -> None:
    signal = SIGNALS["press-1", "vib_x"][:RATE].copy()
    signal[100:150] = np.nan
    signal[9_990] = np.inf
    edge = reduce()
    edge.step(vibration(cut("m", "vib_x", signal)))
    (row,) = rows_of(edge.step(vibration([], START + 2 * SECOND)))
    assert row["count"] == RATE - 51
    assert math.isfinite(row["rms"])


def test_overlapping_chunks_do_not_depend_on_order() -> None:
    # a clock that runs slow: each chunk claims to start a sample before the last one ended
    base = SIGNALS["press-1", "vib_x"]
    held = [("m", "vib_x", START + index * (SECOND // 10 - 100_000), base[index * 1000 : index * 1000 + 1000])
            for index in range(10)]  # fmt: skip
    one, other = reduce(), reduce()
    one.step(vibration(held))
    other.step(vibration(held[::-1]))
    end = vibration([], START + 2 * SECOND)
    assert rows_of(one.step(end)) == rows_of(other.step(end))


def test_a_stuck_or_silent_sensor_is_a_row_not_an_error() -> None:
    edge = reduce()
    rows = rows_of(edge.step(vibration(cut("m", "vib_x", np.full(3 * RATE, 0.4)))))
    assert [row["rms"] for row in rows] == [0, 0, 0]
    assert rows[0]["mean"] == pytest.approx(0.4)
    assert rows[2]["z"] == 0


def test_the_alert_compares_with_the_sensors_own_healthy_level() -> None:
    edge = reduce(baseline=4)
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 0.1, 6 * RATE)
    signal[5 * RATE :] *= 2
    rows = rows_of(edge.step(vibration(cut("m", "vib_x", signal))))
    assert [row["z"] is None for row in rows] == [True] * 4 + [False] * 2
    assert [row["alert"] for row in rows] == [False] * 5 + [True]


def test_a_slower_press_is_not_an_alert() -> None:
    edge = reduce(baseline=3, speed_exponent=1.0)
    signal = np.random.default_rng(0).normal(0, 0.1, 5 * RATE)
    signal[4 * RATE :] *= 0.5
    edge.step(speed("m", 40.0))
    edge.step(speed("m", 20.0, START + 4 * SECOND))
    rows = rows_of(edge.step(vibration(cut("m", "vib_x", signal))))
    assert not any(row["alert"] for row in rows)
    edge.step(speed("m", 0.0, START + 5 * SECOND))
    still = [("m", "vib_x", START + 5 * SECOND, signal[:RATE].astype(np.float32))]
    assert rows_of(edge.step(vibration(still)))[0]["z"] is None, "a press that stands still is not judged"


def test_speed_is_read_from_good_values_in_the_middle_of_the_window() -> None:
    edge = reduce()
    edge.step(speed("m", 40.0))
    edge.step(speed("m", 20.0, START + SECOND // 2 + 1))
    edge.step(speed("m", 10.0, START + 1, status="BadSensorFailure"))
    (row,) = rows_of(edge.step(vibration(cut("m", "vib_x", np.ones(RATE)))))
    assert row["shaft_hz"] == pytest.approx(24.0)


def test_the_live_picture() -> None:
    edge = reduce()
    signal = 0.5 * np.sin(2 * np.pi * 50 * np.arange(RATE) / RATE)
    held = cut("m", "vib_x", signal)
    edge.step(vibration(held[:1]))
    waveform, spectrum, _ = edge.latest("m")["vib_x"]
    assert len(waveform) == 1000
    assert len(spectrum) == 0
    edge.step(vibration(held[1:]))
    waveform, spectrum, bin_hz = edge.latest("m")["vib_x"]
    assert waveform.tolist() == held[-1][3].tolist()
    assert int(np.argmax(spectrum)) * bin_hz == 50
    assert edge.latest("nobody") == {}


def test_a_slice_of_a_batch_is_read_as_a_slice() -> None:
    held = vibration(cut("m", "vib_x", SIGNALS["press-1", "vib_x"][:RATE]))
    edge = reduce()
    blocks: list[Block] = []
    for first in range(0, 10, 5):
        piece = Block("vibration", held.rows.slice(first, 5), 0, Position("vibration", first))
        blocks += edge.step(piece)
    assert rows_of(blocks) == rows_of(reduce().step(held))


def test_doubles_are_taken_and_text_is_refused() -> None:
    rows = vibration(cut("m", "vib_x", np.ones(RATE))).rows
    index = rows.schema.get_field_index("samples")

    def with_samples(column: pa.Array) -> Block:
        return Block("vibration", rows.set_column(index, "samples", column), 0, Position("v", 0))

    doubles = with_samples(rows.column(index).cast(pa.list_(pa.float64())))
    assert len(reduce().step(doubles)) == 1
    with pytest.raises(ContractBroken, match="B401"):
        reduce().step(with_samples(pa.array(["loud"] * rows.num_rows)))


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(BoucleError, match="B220"):
        reduce(bands=[10, 100])
    with pytest.raises(BoucleError, match="B220"):
        Grid.of(44_100, 1.00001)
    assert Grid.of(48_828, 1.0).sample(START) == START // SECOND * 48_828


def test_a_snapshot_of_another_version_is_refused() -> None:
    edge = reduce()
    with pytest.raises(BoucleError, match="B602"):
        edge.restore(b"\xff")
    state = msgspec.msgpack.decode(edge.snapshot())
    with pytest.raises(BoucleError, match="version 99"):
        edge.restore(msgspec.msgpack.encode(state | {"version": 99}))


def test_microseconds_as_a_lake_gives_them_are_the_same_times() -> None:
    held = vibration(cut("m", "vib_x", SIGNALS["press-1", "vib_x"][:RATE]))
    index = held.rows.schema.get_field_index("at")
    micro = held.rows.column(index).cast(pa.timestamp("us", tz="UTC"))
    given_ = Block("vibration", held.rows.set_column(index, "at", micro), 0, Position("v", 0))
    assert rows_of(reduce().step(given_)) == rows_of(reduce().step(held))

"""Watermarks and duplicates are decided by the rows alone, whatever the cut."""

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.stream.dedupe import Dedupe
from boucle.stream.watermark import Watermarks, late_rows

Row = tuple[str, float]


def batch(rows: list[Row]) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "machine": pa.array([machine for machine, _ in rows], pa.string()),
            "at": pa.array([int(at * SECOND) for _, at in rows], pa.timestamp("ns", tz="UTC")),
        }
    )


def watermarks() -> Watermarks:
    return Watermarks("at", ["machine"], lateness=0.5, idle=3)


def test_a_row_is_late_only_behind_its_own_partition() -> None:
    marks = watermarks()
    observed = marks.observe(batch([("a", 10), ("b", 2), ("a", 9.6), ("a", 9.4), ("b", 1.4)]))
    assert observed.late.tolist() == [False, False, False, True, True]
    assert observed.late_by.tolist() == [0, 0, 0, int(0.1 * SECOND), int(0.1 * SECOND)]


def test_the_stream_waits_for_its_slowest_partition_unless_idle() -> None:
    marks = watermarks()
    assert marks.observe(batch([("a", 10), ("b", 8)])).watermark == int(7.5 * SECOND)
    assert marks.observe(batch([("a", 12)])).watermark == int(11.5 * SECOND)
    assert marks.idle() == [("b",)]
    back = marks.observe(batch([("b", 8.1)]))
    assert not back.late.any(), "a partition that was idle is judged by itself"
    assert back.watermark == int(11.5 * SECOND), "a watermark never goes back"


def test_late_rows_say_how_late() -> None:
    marks = watermarks()
    rows = batch([("a", 10), ("a", 9)])
    late = late_rows(Block("s", rows, 0, Position("s", 2)), marks.observe(rows))
    assert late.column("late_by_ns").to_pylist() == [int(0.5 * SECOND)]


streams = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30)), max_size=40)


@given(streams, st.data())
def test_cutting_differently_judges_the_same_rows(rows: list[Row], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=5)))
    whole, cut = watermarks(), watermarks()
    known, seen = Dedupe("at", ["machine", "at"], 60), Dedupe("at", ["machine", "at"], 60)
    expected = whole.observe(batch(rows)).late.tolist()
    repeats = known.duplicates(batch(rows)).tolist()
    late: list[bool] = []
    again: list[bool] = []
    for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        piece = batch(rows[start:end])
        late += cut.observe(piece).late.tolist()
        again += seen.duplicates(piece).tolist()
        restored = watermarks()
        restored.restore(cut.snapshot())
        cut = restored
        fresh = Dedupe("at", ["machine", "at"], 60)
        fresh.restore(seen.snapshot())
        seen = fresh
    assert late == expected
    assert again == repeats
    first: set[Any] = set()
    for row, repeat in zip(rows, repeats, strict=True):
        key = (row[0], int(row[1] * SECOND))
        assert repeat == (key in first)
        first.add(key)


def test_times_in_another_unit_are_the_same_times() -> None:
    rows = batch([("a", 10), ("b", 2), ("a", 9.6), ("a", 9.4), ("a", 9.4)])
    coarse = rows.set_column(1, "at", rows.column("at").cast(pa.timestamp("ms", "UTC")))
    assert watermarks().observe(coarse).late_by.tolist() == watermarks().observe(rows).late_by.tolist()
    assert watermarks().observe(coarse).watermark == watermarks().observe(rows).watermark
    fine, other = (Dedupe("at", ["machine", "at"], horizon=5) for _ in range(2))
    assert fine.duplicates(rows).tolist() == other.duplicates(coarse).tolist()
    assert fine.snapshot() == other.snapshot()


def test_the_horizon_forgets() -> None:
    seen = Dedupe("at", ["machine", "at"], horizon=10)
    assert not seen.duplicates(batch([("a", 0), ("a", 20)])).any()
    assert len(seen) == 1
    assert seen.duplicates(batch([("a", 0), ("a", 20)])).tolist() == [False, True]


def test_no_rows_no_judgement() -> None:
    marks, seen = watermarks(), Dedupe("at", [], 1)
    assert marks.observe(batch([])).watermark == 0
    assert seen.duplicates(batch([("a", 1), ("a", 1)])).tolist() == [False, False]
    assert isinstance(seen.duplicates(batch([])), np.ndarray)

"""The contract's promises, each broken once, and all at once by chance."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.clock import SECOND
from boucle.errors import BoucleError
from boucle.product.contract import FieldContract, StreamContract
from boucle.quality.check import Checker
from tests.quality.signals import NOW, PROCESS, VIBRATION, StillClock, chunk, typed


def check(batch: pa.RecordBatch, contract: StreamContract = VIBRATION) -> tuple[Any, list[tuple[str, str]]]:
    good, rejects = Checker(contract, clock=StillClock()).check(typed(batch))
    assert len(good) + len(rejects) == batch.num_rows
    return good, [(one.reason, one.detail) for one in rejects]


def test_good_rows_pass_untouched() -> None:
    block = typed(chunk())
    good, rejects = Checker(VIBRATION, clock=StillClock()).check(block)
    assert good is block
    assert rejects == []


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"machine": ["press-1", "press-9", "press-1"]}, "unknown_sensor"),
        ({"sensor": ["vib_x", "vib_q", "vib_z"]}, "unknown_sensor"),
        ({"producer": ["press-1-daq", "No!", "press-1-daq"]}, "pattern"),
        ({"seq": [5, -1, 5]}, "out_of_range"),
        ({"seq": [5, None, 5]}, "missing"),
        ({"machine": ["press-1", None, "press-1"]}, "missing"),
        ({"samples": [[0.0], None, [0.0]]}, "missing"),
        ({"samples": [[0.0], [0.0, None], [0.0]]}, "missing"),
        ({"rate_hz": [1e4, 1.0, 1e4]}, "out_of_range"),
        ({"rate_hz": [1e4, math.nan, 1e4]}, "not_finite"),
        ({"rate_hz": [1e4, math.inf, 1e4]}, "not_finite"),
        ({"samples": [[0.0], [0.0, 101.0], [0.0]]}, "out_of_range"),
        ({"samples": [[0.0, 1.0], [0.0, math.nan], [0.0]]}, "not_finite"),
        ({"samples": [[0.0], [-math.inf], [0.0]]}, "not_finite"),
        ({"samples": [[0.0], [], [0.0]]}, "length"),
        ({"at": [NOW, NOW + 6 * SECOND, NOW + 4 * SECOND]}, "future"),
    ],
)
def test_each_broken_promise_costs_its_row(columns: dict[str, Any], reason: str) -> None:
    good, rejects = check(chunk(4, **columns))
    assert [code for code, _ in rejects] == [reason]
    assert len(good) == 2
    assert next(iter(columns)) in rejects[0][1]


def test_the_first_broken_promise_names_the_reason() -> None:
    batch = chunk(4, seq=[-1, 5, 5], machine=["nobody", "press-1", "nobody"], at=[NOW * 2 - 1, NOW, NOW])
    _, rejects = check(batch)
    assert [code for code, _ in rejects] == ["out_of_range", "unknown_sensor"]
    assert rejects[0][1] == "seq is -1: at least 0 was promised"


def test_a_bad_status_is_an_honest_reading() -> None:
    rows = {
        "machine": ["press-1"] * 3,
        "sensor": ["p"] * 3,
        "at": [NOW] * 3,
        "value": [None, 2.0, 1.0],
        "status": ["BadSensorFailure", "Good", "Whatever"],
        "tries": [1] * 3,
        "held": [True] * 3,
    }
    batch = pa.RecordBatch.from_pydict(rows, schema=PROCESS.schema())
    good, rejects = check(batch, PROCESS)
    assert [code for code, _ in rejects] == ["not_allowed"]
    assert len(good) == 2


def test_nulls_of_optional_columns_break_nothing() -> None:
    fields = (
        FieldContract("at", pa.timestamp("ns", tz="UTC")),
        FieldContract("value", pa.float64(), minimum=10),
        FieldContract("name", pa.string(), one_of=("a",), pattern="a"),
        FieldContract("list", pa.list_(pa.int16()), minimum=5, min_items=2),
        FieldContract("flag", pa.bool_()),
    )
    contract = StreamContract("s", fields)
    rows: dict[str, list[Any]] = {
        "at": [None, NOW],
        "value": [None, 10.0],
        "name": [None, "a"],
        "list": [None, [5, 6]],
        "flag": [None, True],
    }
    good, rejects = check(pa.RecordBatch.from_pydict(rows, schema=contract.schema()), contract)
    assert rejects == []
    assert len(good) == 2


def test_a_slice_is_judged_by_its_own_rows() -> None:
    batch = pa.concat_batches(
        [chunk(4, samples=[[1e6]] * 3), chunk(4), chunk(4, samples=[[1.0], [1e6], [1.0]])]
    )
    assert check(batch.slice(3, 3))[1] == []
    good, rejects = check(batch.slice(4, 4))
    assert [code for code, _ in rejects] == ["out_of_range"]
    assert good.rows.column("sensor").to_pylist() == ["vib_y", "vib_z", "vib_x"]


@pytest.mark.parametrize(
    "field",
    [FieldContract("x", pa.string(), pattern="("), FieldContract("x", pa.string(), pattern=r"(?=a)b"),
     FieldContract("x", pa.list_(pa.string()))],
)  # fmt: skip
def test_a_promise_that_cannot_be_checked_is_said_at_once(field: FieldContract) -> None:
    with pytest.raises(BoucleError, match="B421"):
        Checker(StreamContract("s", (field,), ""), clock=StillClock())


numbers = st.none() | st.floats(width=32) | st.floats(-100, 100, width=32)
chunks = st.fixed_dictionaries(
    {
        "producer": st.none() | st.sampled_from(["daq", "NO"]),
        "seq": st.none() | st.integers(-3, 3),
        "machine": st.none() | st.sampled_from(["press-1", "press-2", "x"]),
        "sensor": st.sampled_from(["vib_x", "vib_y", ""]),
        "at": st.none() | st.integers(NOW - SECOND, NOW + 10 * SECOND),
        "rate_hz": st.none() | st.floats() | st.floats(9000, 11000),
        "samples": st.none() | st.lists(numbers, max_size=4),
    }
)


def _keeps(row: dict[str, Any]) -> bool:
    if any(value is None for value in row.values()) or any(x is None for x in row["samples"]):
        return False
    return (
        row["producer"] == "daq"
        and row["seq"] >= 0
        and row["machine"] != "x"
        and row["sensor"] != ""
        and row["at"] <= NOW + 5 * SECOND
        and 9000 <= row["rate_hz"] <= 11000
        and len(row["samples"]) >= 1
        and all(-100 <= x <= 100 for x in row["samples"])
    )


@given(st.lists(chunks, max_size=6))
def test_the_columnar_pass_agrees_with_the_promise_read_aloud(rows: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in VIBRATION.schema().names}
    batch = pa.RecordBatch.from_pydict(columns, schema=VIBRATION.schema())
    good, _ = check(batch)
    kept = np.array([_keeps(row) for row in rows], dtype=bool)
    # NaN is not equal to itself, so rows are compared by number.
    assert good.rows.column("at").equals(batch.filter(pa.array(kept)).column("at"))
    assert len(good) == kept.sum()

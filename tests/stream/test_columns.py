"""Rows with features behind them: the given columns come through as they were, whatever their types."""

import decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.stream.sliding import Sliding

SECOND = 1_000_000_000
TYPES: dict[str, tuple[pa.DataType, Any]] = {
    "int8": (pa.int8(), st.integers(-128, 127)),
    "uint16": (pa.uint16(), st.integers(0, 65535)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float32": (pa.float32(), st.floats(width=32, allow_nan=False)),
    "float64": (pa.float64(), st.floats(allow_nan=False)),
    "bool": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text(max_size=9)),
    "long": (pa.large_string(), st.text(max_size=9)),
    "bytes": (pa.binary(), st.binary(max_size=9)),
    "day": (pa.date32(), st.integers(0, 30000)),
    "money": (
        pa.decimal128(12, 2),
        st.integers(-(10**9), 10**9).map(lambda cents: decimal.Decimal(cents) / 100),
    ),
    "list": (pa.list_(pa.int32()), st.lists(st.integers(0, 9), max_size=3)),
}
FEATURES = {
    "n": {"of": "count", "by": "key", "over": "10s"},
    "total": {"of": "sum(amount)", "by": "key", "over": "10s"},
}


def base(rows: int) -> dict[str, pa.Array]:
    return {
        "at": pa.array([(10 + row) * SECOND for row in range(rows)], pa.timestamp("ns", "UTC")),
        "key": pa.array([row % 3 if row % 7 else None for row in range(rows)], pa.int32()),
        "amount": pa.array([row / 2 if row % 5 else None for row in range(rows)]),
    }


def expected(columns: dict[str, pa.Array]) -> tuple[list[int | None], list[float | None]]:
    keys, amounts = columns["key"].to_pylist(), columns["amount"].to_pylist()
    counts: list[int | None] = []
    totals: list[float | None] = []
    for row, key in enumerate(keys):
        inside = [place for place in range(max(0, row - 9), row + 1) if keys[place] == key]
        counts.append(None if key is None else len(inside))
        sums = sum(amounts[place] for place in inside if amounts[place] is not None)
        totals.append(None if key is None else float(sums))
    return counts, totals


def told(rows: pa.RecordBatch) -> pa.RecordBatch:
    sliding = Sliding("f", features=FEATURES, order="arrival")
    out = sliding.step(Block("p", rows, 0, Position("p", rows.num_rows)))
    assert [block.stream for block in out] == ["f"]
    return out[0].rows


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=st.integers(1, 40), before=st.integers(0, 9), after=st.integers(0, 3))
def test_given_columns_come_through_unchanged(
    data: st.DataObject, rows: int, before: int, after: int
) -> None:
    names = data.draw(st.lists(st.sampled_from([name for name in TYPES if name != "list"]), unique=True))
    whole = before + rows + after
    columns = base(whole)
    for name in names:
        kind, values = TYPES[name]
        nulls = data.draw(st.booleans())
        one = st.one_of(st.none(), values) if nulls else values
        columns[name] = pa.array(data.draw(st.lists(one, min_size=whole, max_size=whole)), kind)
    batch = pa.record_batch(columns).slice(before, rows)
    out = told(batch)
    out.validate(full=True)
    assert out.select(batch.schema.names).equals(batch)
    alone = {name: batch.column(name) for name in ("at", "key", "amount")}
    assert (out["n"].to_pylist(), out["total"].to_pylist()) == expected(alone)


@pytest.mark.parametrize("name", ["list", "money"])
def test_types_without_a_short_way_get_the_same_features(name: str) -> None:
    columns = base(30)
    kind = TYPES[name][0]
    values = [[row] for row in range(30)] if name == "list" else [decimal.Decimal(row) for row in range(30)]
    columns[name] = pa.array(values, kind)
    if name == "money":
        columns["amount"] = columns["amount"].cast(pa.decimal128(12, 2))
    batch = pa.record_batch(columns)
    out = told(batch)
    assert out.select(batch.schema.names).equals(batch)
    assert (out["n"].to_pylist(), out["total"].to_pylist()) == expected(base(30))


def test_metadata_and_what_may_be_null_stay_as_declared() -> None:
    columns = base(3)
    fields = [pa.field(name, column.type, nullable=name != "at") for name, column in columns.items()]
    schema = pa.schema(fields, {"owner": "cards"})
    out = told(pa.record_batch(list(columns.values()), schema=schema))
    assert out.schema.metadata == {b"owner": b"cards"}
    assert not out.schema.field("at").nullable


def test_what_was_told_outlives_the_operator() -> None:
    def play() -> list[pa.RecordBatch]:
        sliding = Sliding("f", features=FEATURES, order="arrival")
        blocks = [pa.record_batch(base(600)).slice(first, 60) for first in range(0, 600, 60)]
        told = [sliding.step(Block("p", rows, 0, Position("p", 0))) for rows in blocks]
        return [block.rows for blocks_ in told for block in blocks_]

    kept = play()
    play()
    counts, totals = expected(base(600))
    assert pa.Table.from_batches(kept)["n"].to_pylist() == counts
    assert pa.Table.from_batches(kept)["total"].to_pylist() == totals


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_texts_are_keys_like_numbers_and_are_forgotten_with_them(kind: pa.DataType) -> None:
    size, rows = 64, 20_000
    numbers = [(row * 7919) % 50 + row // 400 * 50 for row in range(rows)]
    columns = {
        "at": pa.array([(10 + row) * SECOND // 10 for row in range(rows)], pa.timestamp("ns", "UTC")),
        "key": pa.array([None if one % 17 == 0 else one for one in numbers], pa.int64()),
        "amount": pa.array([float(row % 13) for row in range(rows)]),
    }
    names = [None if key is None else f"card {key}".encode() for key in columns["key"].to_pylist()]
    texts = columns | {"key": pa.array(names).cast(kind)}
    by_number, by_text = (Sliding("f", features=FEATURES, order="arrival") for _ in range(2))
    for first in range(0, rows, size):
        told = []
        for operator, given_ in ((by_number, columns), (by_text, texts)):
            batch = pa.record_batch(given_).slice(first, size)
            mark = int(batch["at"][-1].value)
            told.append(operator.step(Block("p", batch, mark, Position("p", 0)))[0].rows)
        assert told[0].drop_columns(["key"]).equals(told[1].drop_columns(["key"]))
        if first == size * 150:
            state, by_text = by_text.snapshot(), Sliding("f", features=FEATURES, order="arrival")
            by_text.restore(state)
    assert by_text.keys == by_number.keys < 300
    assert len(by_text._groups[0].texts) < 3000

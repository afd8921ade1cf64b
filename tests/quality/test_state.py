"""The laws of counting: any cut, any order and any merging of the rows says what one pass over them all says."""

import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.clock import SECOND
from boucle.product.rules import Limit, Rule
from boucle.quality.figures import ColumnFigures, buckets_of, stability_index
from boucle.quality.history import History
from boucle.quality.key_counts import KeyCounts
from boucle.quality.key_hash import keys_of
from boucle.quality.relation import arrow_relation
from boucle.quality.sql_pass import WholeTable
from boucle.quality.state import TableState
from boucle.quality.verdict import Measured, judge
from tests.quality.odcs import NOW

AT = pa.timestamp("ns", "UTC")
SCHEMA = pa.schema(
    [("id", pa.int64()), ("text", pa.string()), ("x", pa.float64()), ("small", pa.int8()), ("at", AT),
     ("day", pa.date32()), ("list", pa.list_(pa.int32())), ("flag", pa.bool_())]
)  # fmt: skip


def rule(kind: Any, *columns: str, **given_: Any) -> Rule:
    name = f"{kind} {'+'.join(columns)} {given_}"
    return Rule(id=name, table="t", kind=kind, columns=columns, given=given_)


RULES = (
    rule("null", "text"),
    rule("null", "list"),
    rule("missing", "text", values=["", "a", "é"]),
    rule("missing", "small", values=[0, 1, "many"]),
    rule("invalid", "text", allowed=["a", "b", "O'x"]),
    rule("invalid", "small", allowed=[1, 2, 2.5, "3"]),
    rule("invalid", "flag", allowed=[True]),
    rule("invalid", "text", pattern="^[a-c]*$"),
    rule("invalid", "text", min_length=1, max_length=2),
    rule("invalid", "text", format="date"),
    rule("invalid", "x", minimum=-1, maximum=1.5),
    rule("invalid", "x", exclusive_minimum=0),
    rule("invalid", "x", exclusive_maximum=0.5),
    rule("invalid", "x", multiple_of=0.25),
    rule("invalid", "small", multiple_of=3),
    rule("invalid", "small", minimum=-5, exclusive_maximum=5),
    rule("invalid", "at", minimum="2026-01-01T00:00:00+00:00"),
    rule("invalid", "at", exclusive_maximum="2026-01-01T00:00:03+00:00"),
    rule("invalid", "day", maximum="2026-01-02"),
    rule("invalid", "list", min_items=1, max_items=2),
    rule("invalid", "list", unique_items=True),
    rule("invalid", "list", elements={"minimum": 0, "maximum": 2}),
    rule("duplicate", "id"),
    rule("duplicate", "small"),
    rule("duplicate", "text"),
    rule("duplicate", "x"),
    rule("duplicate", "at"),
    rule("duplicate", "id", "small"),
    rule("duplicate", "text", "flag"),
    rule("foreign_key", "id", table="other", keys=["key"]),
    rule("freshness", "at"),
    rule("freshness", "day"),
    rule("anomaly", "x", of="mean", runs=5, at_least=2),
    rule("anomaly", "text", of="nulls", runs=5, at_least=2),
    rule("distribution", "x", against="first"),
    rule("distribution", "text", against="first"),
    rule("distribution", "flag", against="first"),
)
OTHERS = pa.table({"key": [1, 2, 3, 3]})

texts = st.sampled_from(["", "a", "b", "abc", "é", "O'x", "2026-01-01", "a\x00b", "\U0001f600x"])
floats = st.sampled_from(
    [0.0, -0.0, 0.25, 0.3, 1.5, -1.0, 1e300, -1e-300, math.nan, math.inf, -math.inf, 7.0]
)
rows_ = st.tuples(
    st.none() | st.integers(0, 6) | st.sampled_from([2**62, -(2**62)]),
    st.none() | texts,
    st.none() | floats,
    st.none() | st.integers(-6, 6),
    st.none() | st.integers(-2, 5).map(lambda n: NOW + n * SECOND + n),
    st.none() | st.integers(20453, 20456),
    st.none() | st.lists(st.none() | st.integers(-1, 3), max_size=3),
    st.none() | st.booleans(),
)


def batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(SCHEMA)
    arrays = [pa.array(list(column), field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def same(one: Measured, other: Measured) -> None:
    assert (one.rows, one.bad, one.surplus, one.unable) == (
        other.rows,
        other.bad,
        other.surplus,
        other.unable,
    )
    assert one.buckets == other.buckets
    for column in {*one.newest, *other.newest}:
        assert one.newest.get(column) == other.newest.get(column), column
    for column, figures in one.figures.items():
        for name in ("rows", "nulls", "mean", "stddev", "minimum", "maximum"):
            mine, its = figures.figure(name), other.figures[column].figure(name)
            assert mine == pytest.approx(its, rel=1e-6, nan_ok=True), (column, name)


@settings(max_examples=12)
@given(st.lists(rows_, max_size=12), st.data())
def test_any_cut_and_any_merging_says_what_the_whole_table_says(
    rows: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    with WholeTable(
        arrow_relation(pa.table(batch(rows))), {"other": arrow_relation(OTHERS, "other")}
    ) as table:
        expected = table.measure(RULES)
    order = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=2)))
    other = TableState((), references=[("key",)])
    other.update(OTHERS.to_batches()[0])
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
            state = TableState(RULES, Path(folder) / str(number), memory_keys=5)
            state.update(batch(order[begin:end]))
            if data.draw(st.booleans()):  # stopped and started
                told = state.save()
                state = TableState(RULES, Path(folder) / str(number), memory_keys=5)
                state.load(told)
            parts.append(state)
        while len(parts) > 1:
            one = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
            parts[0].merge(one)
        measured = parts[0].measured({"other": other})
        parts[0].settle()
    assert measured.unable == {}
    same(measured, expected)


@given(
    st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=8),
    st.sampled_from([4, 16, 1000]),
    st.booleans(),
)
def test_keys_are_counted_exactly_however_often_they_spill(
    blocks: list[list[int]], memory: int, as_text: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        keys = KeyCounts(Path(folder) / "keys", memory)
        known: Counter[int] = Counter()
        for block in blocks:
            column = pa.array(
                [str(n) for n in block] if as_text else block, pa.string() if as_text else pa.int64()
            )
            expected = []
            for number in block:
                expected.append(known[number] > 0)
                known[number] += 1
            assert keys.add(keys_of([column])).tolist() == expected
        assert keys.distinct == len(known)
        assert keys.repeated == sum(count > 1 for count in known.values())
        assert keys.total == sum(known.values())
        told = keys.save(Path(folder) / "keys")
        keys.sweep(Path(folder) / "keys", told)
        back = KeyCounts(Path(folder) / "keys", memory)
        back.load(Path(folder) / "keys", told)
        asked = pa.array(list(range(41)))
        wanted = keys_of([asked.cast(pa.string()) if as_text else asked])
        assert back.count(wanted).tolist() == [known[n] for n in range(41)]
        assert back.distinct == keys.distinct
        back.settle()


def test_halves_shared_by_chance_are_told_apart() -> None:
    first = np.array([7, 7, 7, 9, 7], np.uint64)
    second = np.array([1, 2, 1, 1, 3], np.uint64)
    with tempfile.TemporaryDirectory() as folder:
        keys = KeyCounts(Path(folder) / "keys", 1)
        assert keys.add((first, second)).tolist() == [False, False, True, False, False]
        assert keys.add((first, second)).tolist() == [True] * 5
        assert (keys.distinct, keys.repeated, keys.total) == (4, 4, 10)
        assert keys.count((first, second)).tolist() == [4, 2, 4, 2, 2]
        keys.settle()


def test_a_folder_that_takes_nothing_loses_no_count(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    keys = KeyCounts(tmp_path / "taken", 2)
    numbers = np.arange(3, dtype=np.uint64)
    keys.add((numbers, numbers))
    with pytest.raises(OSError, match="taken"):
        keys.settle()
    (tmp_path / "taken").unlink()
    assert keys.add((numbers, numbers)).tolist() == [True] * 3
    keys.settle()
    assert (keys.distinct, keys.repeated, keys.total) == (3, 3, 6)
    assert keys.count((numbers, numbers)).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (pa.array([0.0]), pa.array([-0.0]), True),
        (pa.array([1.0]), pa.array([2.0]), False),
        (pa.array(["a"]), pa.array(["a"]).dictionary_encode(), True),
        (pa.array(["a"]), pa.array(["b"]), False),
        (pa.array([b"\x00"]), pa.array([b"\x00\x00"]), False),
        (pa.array([1], pa.int8()), pa.array([1], pa.int64()), True),
        (pa.array([True]), pa.array([False]), False),
        (pa.array([1], pa.date32()), pa.array([2], pa.date32()), False),
    ],
)
def test_what_is_one_key(one: pa.Array, other: pa.Array, alike: bool) -> None:
    mine, its = keys_of([one]), keys_of([other])
    assert ((mine[0] == its[0]) & (mine[1] == its[1])).tolist() == [alike]


def test_columns_do_not_run_together() -> None:
    keys = keys_of([pa.array(["ab", "a", "a"]), pa.array(["c", "bc", "bc"])])
    assert len({(a, b) for a, b in zip(keys[0].tolist(), keys[1].tolist(), strict=True)}) == 2
    swapped = keys_of([pa.array([1, 2]), pa.array([2, 1])])
    assert swapped[0][0] != swapped[0][1]


def test_figures_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(1).normal(1e6, 1, 1000)
    whole = ColumnFigures.of(pa.array(values))
    parts = [ColumnFigures.of(pa.array(part)) for part in np.split(values, [10, 11, 500])]
    merged = ColumnFigures()
    for part in parts:
        merged = merged.merged(part)
    assert merged.figure("stddev") == pytest.approx(whole.figure("stddev"), rel=1e-9)
    assert math.isnan(ColumnFigures().figure("mean"))
    assert ColumnFigures.of(pa.array([None, "a"])).figure("nulls") == 0.5


def test_the_stability_index_knows_a_shift() -> None:
    chance = np.random.default_rng(2)
    before, alike, moved = (buckets_of(pa.array(chance.lognormal(mean, 1, 5000))) for mean in (0, 0, 1))
    assert stability_index(before, before) == 0
    assert stability_index(before, alike) < 0.02
    assert stability_index(before, moved) > 0.5
    assert math.isnan(stability_index({}, before))


def test_history_is_compared_and_survives_damage(tmp_path: Path) -> None:
    history = History(tmp_path / "quality" / "history.ndjson")
    assert history.of("t") == []
    (volume,) = (Rule(id="v", table="t", kind="anomaly", limit=Limit("mustBeLessOrEqualTo", (4.0,)),
                      given={"of": "rows", "runs": 30, "at_least": 3}),)  # fmt: skip
    (drift,) = (Rule(id="d", table="t", kind="distribution", columns=("x",), limit=Limit("mustBeLessOrEqualTo", (0.2,)),
                     given={"against": "last"}),)  # fmt: skip
    states = []
    for rows in (100, 102, 99, 101, 300, 100):
        measured = Measured(rows=rows, buckets={"x": {rows // 200: 10}})
        outcomes = judge((volume, drift), measured, history.of("t"), NOW)
        states.append([one.state for one in outcomes])
        history.add(NOW, "t", measured, outcomes)
        history.add(NOW, "other", measured, ())
    assert [one[0] for one in states] == ["kept", "kept", "kept", "kept", "broken", "kept"]
    assert [one[1] for one in states] == ["kept", "kept", "kept", "kept", "broken", "broken"]
    lines = history.file.read_bytes().splitlines(keepends=True)
    history.file.write_bytes(lines[0].replace(b"1", b"7") + b"".join(lines[1:]))
    assert len(history.of("t")) == 5
    assert history.of("t")[3].failed == {"v": pytest.approx(134.9, abs=10), "d": pytest.approx(18.4, abs=1)}

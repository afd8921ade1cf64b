"""Joins give what DuckDB gives on the same rows, whatever way the two inputs are cut and interleaved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position, as_dicts, as_rows
from boucle.errors import BoucleError
from boucle.ports import Operator
from boucle.stream.join import AsOfJoin, Enrich, IntervalJoin

TIME = pa.timestamp("ns", tz="UTC")
LEFT = pa.schema([("at", TIME), ("key", pa.string()), ("n", pa.int64())])
RIGHT = pa.schema(
    [("at", TIME), ("key", pa.string()), ("n", pa.int64()), ("samples", pa.list_(pa.float64()))]
)
LATENESS = 6
NS = 1e-9
Row = dict[str, Any]
Piece = tuple[str, list[Row]]


def block(stream: str, rows: list[Row], watermark: int) -> Block:
    return Block(stream, as_rows(rows, LEFT if stream == "left" else RIGHT), watermark, Position(stream, 1))


def play(make: Callable[[], Operator], pieces: list[Piece], *, restart: bool = False) -> list[Row]:
    """Pieces of both inputs as they come, each under its own newest time less the lateness; then the end."""
    operator = make()
    newest = {"left": 0, "right": 0}
    out: list[Row] = []
    promised = 0
    for stream, rows in [*pieces, ("left", None), ("right", None)]:
        newest[stream] = max([newest[stream], *(row["at"] for row in rows)]) if rows is not None else 10_000
        if restart:
            state = operator.snapshot()
            operator = make()
            operator.restore(state)
            assert operator.snapshot() == state
        for told in operator.step(block(stream, rows or [], max(0, newest[stream] - LATENESS))):
            assert told.stream == "out"
            assert all(row["at"] >= promised for row in as_dicts(told.rows)), "the watermark was kept"
            promised = told.watermark
            out += as_dicts(told.rows)
    return out


def key_of(row: Row) -> Any:
    return tuple(
        (value is None, value if value is not None else 0)
        for value in row.values()
        if not isinstance(value, list)
    )


def query(sql: str, left: list[Row], right: list[Row]) -> list[Row]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        flat = [
            pa.schema([field.with_type(pa.int64()) if field.name == "at" else field for field in one])
            for one in (LEFT, RIGHT)
        ]
        connection.register("l", pa.Table.from_batches([as_rows(left, flat[0])]))
        connection.register("r", pa.Table.from_batches([as_rows(right, flat[1])]))
        told: list[Row] = connection.sql(sql).to_arrow_table().to_pylist()
        return told


def rows_of(name: str) -> st.SearchStrategy[list[Row]]:
    """Rows of one input; a right (at, key) is there once, for DuckDB takes any of several."""
    one = st.tuples(st.integers(0, 40), st.sampled_from(["a", "b", None]))
    unique: Any = {"unique": True} if name == "right" else {}
    return st.lists(one, max_size=14, **unique).map(
        lambda told: [
            {"at": at, "key": key, "n": index, **({"samples": [0.5 * at]} if name == "right" else {})}
            for index, (at, key) in enumerate(told)
        ]
    )


@st.composite
def interleaved(draw: st.DrawFn, left: list[Row], right: list[Row]) -> list[Piece]:
    """Both inputs late by less than the lateness, cut and interleaved anyhow."""
    pieces: dict[str, list[list[Row]]] = {}
    for name, rows in (("left", left), ("right", right)):
        late = {id(row): row["at"] + draw(st.integers(0, LATENESS)) for row in rows}
        told = sorted(rows, key=lambda row: late[id(row)])
        cuts = sorted(draw(st.lists(st.integers(0, len(told)), max_size=4)))
        pieces[name] = [told[start:end] for start, end in zip([0, *cuts], [*cuts, len(told)], strict=True)]
    names = draw(st.permutations(["left"] * len(pieces["left"]) + ["right"] * len(pieces["right"])))
    return [(name, pieces[name].pop(0)) for name in names]


@settings(max_examples=60, deadline=None)
@given(
    rows_of("left"),
    rows_of("right"),
    st.tuples(st.integers(-8, 8), st.integers(-8, 8)).map(sorted),
    st.sampled_from(["inner", "left"]),
    st.booleans(),
    st.data(),
)
def test_an_interval_join_is_sql(
    left: list[Row], right: list[Row], bounds: list[int], kind: Any, restart: bool, data: st.DataObject
) -> None:
    lower, upper = bounds

    def make() -> IntervalJoin:
        return IntervalJoin(
            "out", left="left", right="right", by=["key"], lower=lower * NS, upper=upper * NS, kind=kind
        )

    expected = query(
        f"""select coalesce(greatest(l.at, r.at), l.at + greatest({upper}, 0)) as at, l.at as left_at,
            r.at as right_at, l.key, l.n, r.n as n_right, r.samples
            from l {kind} join r on l.key = r.key and r.at - l.at between {lower} and {upper}""",
        left,
        right,
    )
    if kind == "left":
        # greatest() leaves nulls out: what stayed alone is told when its time is over.
        for row in expected:
            if row["right_at"] is None:
                row["at"] = row["left_at"] + max(upper, 0)
    pieces = data.draw(interleaved(left, right))
    found = play(make, pieces, restart=restart)
    assert sorted(found, key=key_of) == sorted(expected, key=key_of)
    assert found == play(make, [("left", left), ("right", right)]), "in the same order too"
    assert [row["at"] for row in found] == sorted(row["at"] for row in found)


ASOF = {
    "backward": "r.at <= l.at and l.at - r.at <= {t} order by r.at desc",
    "forward": "r.at >= l.at and r.at - l.at <= {t} order by r.at",
    "nearest": "abs(r.at - l.at) <= {t} order by abs(r.at - l.at), r.at",
}


@settings(max_examples=60, deadline=None)
@given(
    rows_of("left"),
    rows_of("right"),
    st.sampled_from(["backward", "forward", "nearest"]),
    st.integers(0, 12),
    st.booleans(),
    st.data(),
)
def test_an_as_of_join_is_sql(
    left: list[Row], right: list[Row], direction: Any, tolerance: int, restart: bool, data: st.DataObject
) -> None:
    def make() -> AsOfJoin:
        return AsOfJoin(
            "out", left="left", right="right", by=["key"], tolerance=tolerance * NS, direction=direction
        )

    best = f"select r from r where r.key = l.key and {ASOF[direction].format(t=tolerance)} limit 1"
    expected = query(
        f"""with found as (select l.at, l.key, l.n, ({best}) as r from l)
            select found.at, found.r.at as right_at, found.key, found.n, found.r.n as n_right,
            found.r.samples from found""",
        left,
        right,
    )
    found = play(make, data.draw(interleaved(left, right)), restart=restart)
    assert sorted(found, key=key_of) == sorted(expected, key=key_of)
    assert found == play(make, [("left", left), ("right", right)])


@settings(max_examples=25, deadline=None)
@given(rows_of("left"), rows_of("right"), st.sampled_from(["inner", "left"]), st.data())
def test_without_tolerance_it_is_duckdbs_own_asof_join(
    left: list[Row], right: list[Row], kind: Any, data: st.DataObject
) -> None:
    def make() -> AsOfJoin:
        return AsOfJoin("out", left="left", right="right", by=["key"], kind=kind)

    expected = query(
        f"""select l.at, r.at as right_at, l.key, l.n, r.n as n_right, r.samples
            from l asof {kind} join r on l.key = r.key and l.at >= r.at""",
        left,
        right,
    )
    found = play(make, data.draw(interleaved(left, right)))
    assert sorted(found, key=key_of) == sorted(expected, key=key_of)


def test_a_left_row_that_waits_holds_the_watermark() -> None:
    join = AsOfJoin("out", left="left", right="right", by=["key"], tolerance=10 * NS, direction="forward")
    join.step(block("left", [{"at": 5, "key": "a", "n": 1}], 30))
    assert [told.watermark for told in join.step(block("right", [], 12))] == [5]
    (told,) = join.step(block("right", [{"at": 14, "key": "a", "n": 2, "samples": []}], 15))
    assert told.watermark == 15
    assert as_dicts(told.rows)[0]["right_at"] == 14


def test_what_no_longer_matches_is_forgotten() -> None:
    joins: list[Operator] = [
        IntervalJoin("out", left="left", right="right", by=["key"], lower=-5 * NS, upper=5 * NS),
        AsOfJoin("out", left="left", right="right", by=["key"], tolerance=5 * NS, direction="nearest"),
    ]
    for join in joins:
        sizes = []
        for turn in range(40):
            base = turn * 1000
            rows = [{"at": base + index, "key": str(base + index), "n": index} for index in range(200)]
            join.step(block("left", rows, base + 500))
            join.step(block("right", [{**row, "samples": None} for row in rows], base + 500))
            sizes.append(len(join.snapshot()))
        assert max(sizes) < 400_000, "bounded by event time, not by how many rows came"
        assert max(sizes[20:]) <= 1.2 * max(sizes[:20])


def test_late_rows_of_both_sides_have_the_same_columns() -> None:
    makes: list[Callable[[], Any]] = [
        lambda: AsOfJoin("out", left="left", right="right", by="key"),
        lambda: IntervalJoin("out", left="left", right="right", by={"key": "key"}, lower=0, upper=1),
        lambda: Enrich("out", left="left", right="right", by=["key"]),
    ]
    for make in makes:
        join = make()
        join.step(block("left", [], 50))
        join.step(block("right", [], 50))
        again = make()
        again.restore(join.snapshot())
        (left,) = again.step(block("left", [{"at": 45, "key": "a", "n": 1}], 50))
        (right,) = again.step(block("right", [{"at": 44, "key": "b", "n": 2, "samples": [0.5]}], 50))
        assert left.stream == right.stream == "out/late"
        assert as_dicts(pa.concat_batches([left.rows, right.rows])) == [
            {"at": 45, "key": "a", "n": 1, "n_right": None, "samples": None}
            | {"late_side": "left", "late_by_ns": 5},
            {"at": 44, "key": "b", "n": None, "n_right": 2, "samples": [0.5]}
            | {"late_side": "right", "late_by_ns": 6},
        ]
        assert again.late_rows == 2


def test_late_rows_of_sides_with_other_types_have_one_schema_too() -> None:
    left = pa.record_batch(
        {"ts": pa.array([5], pa.timestamp("ms")), "id": pa.array([1], pa.int8()), "x": pa.array([1.5])}
    )
    right = pa.record_batch(
        {"ts": pa.array([5000], pa.timestamp("us")), "key": pa.array([2**40]), "x": pa.array(["text"])}
    )
    join = AsOfJoin("out", left="left", right="right", by={"id": "key"}, time="ts")
    told: list[Block] = []
    for watermark in (10**9, 10**9):
        for name, rows in (("left", left), ("right", right)):
            told += join.step(Block(name, rows, watermark, Position(name, 1)))
    late = [one.rows for one in told if one.stream == "out/late"]
    assert pa.concat_batches(late).drop_columns("at").to_pylist() == [
        {"id": 1, "x": 1.5, "x_right": None, "late_side": "left", "late_by_ns": 995_000_000},
        {"id": 2**40, "x": None, "x_right": "text", "late_side": "right", "late_by_ns": 995_000_000},
    ]


MACHINES = [{"key": "a", "hall": "north", "n": 7}, {"key": "b", "hall": "south", "n": 8}]


def test_enrich_with_a_table(tmp_path: Path) -> None:
    rows = [{"at": index, "key": key, "n": index} for index, key in enumerate(["b", "a", "z", None])]
    table = pa.Table.from_pylist(MACHINES)
    pa.parquet.write_table(table, tmp_path / "machines.parquet")
    (tmp_path / "machines.csv").write_text("key,hall,n\na,north,7\nb,south,8\n")
    for told in (MACHINES, table, "machines.parquet", "machines.csv"):
        step = Enrich("out", by=["key"], table=told, folder=tmp_path)
        (out,) = step.step(block("left", rows, 9))
        assert out.rows.schema.names == ["at", "key", "n", "hall", "n_right"]
        assert out.rows.column("hall").to_pylist() == ["south", "north", None, None]
        assert out.rows.column("n_right").to_pylist() == [8, 7, None, None]
        assert (out.watermark, step.unknown) == (9, 2)
        again = Enrich("out", by=["key"], table=told, folder=tmp_path)
        again.restore(step.snapshot())
        assert again.unknown == 2


def test_a_key_that_looks_like_a_number_stays_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("key,hall\n007,north\n7,south\n")
    (out,) = Enrich("out", by=["key"], table="t.csv", folder=tmp_path).step(
        block("left", [{"at": 1, "key": "007", "n": 1}], 0)
    )
    assert out.rows.column("hall").to_pylist() == ["north"]
    numbers = Enrich("out", by={"n": "key"}, table="t.csv", folder=tmp_path)
    with pytest.raises(BoucleError, match="twice"):
        numbers.step(block("left", [{"at": 1, "key": "007", "n": 7}], 0))


@settings(max_examples=30, deadline=None)
@given(rows_of("left"), rows_of("right"), st.booleans(), st.data())
def test_enrich_with_a_changing_stream(
    left: list[Row], right: list[Row], restart: bool, data: st.DataObject
) -> None:
    def make() -> Enrich:
        return Enrich("out", by=["key"], left="left", right="right", ttl=9 * NS)

    step = make()
    found = play(
        lambda: step if not restart else make(), data.draw(interleaved(left, right)), restart=restart
    )
    if not restart:
        assert step.unknown == sum(row["right_at"] is None for row in found)
    for row in found:
        known = [
            one for one in right if one["key"] == row["key"] is not None and 0 <= row["at"] - one["at"] <= 9
        ]
        newest = max(known, key=lambda one: one["at"], default=None)
        assert row["n_right"] == (newest["n"] if newest else None)
    assert len(found) == len(left)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: IntervalJoin("o", left="l", right="l", by=["k"], lower=0, upper=1), "two streams"),
        (
            lambda: IntervalJoin("o", left="l", right="r", by=["k"], lower="2s", upper="-1s"),
            "turn them round",
        ),
        (lambda: IntervalJoin("o", left="l", right="r", by=[], lower=0, upper=1), "by []"),
        (lambda: AsOfJoin("o", left="l", right="r", by=["k"], direction="forward"), "tolerance"),
        (lambda: AsOfJoin("o", left="l", right="r", by=["k"], direction="up"), "direction"),  # type: ignore[arg-type]
        (lambda: Enrich("o", by=["k"]), "one thing"),
        (lambda: Enrich("o", by=["k"], table="nothing.csv"), "cannot be read"),
        (lambda: Enrich("o", by=["k"], table="nothing.xls"), "no table"),
        (lambda: Enrich("o", by=["k"], table=[{"a": 1}]), "no column 'k'"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Operator], said: str) -> None:
    with pytest.raises(BoucleError, match=r"B22\d") as refused:
        make()
    assert said in str(refused.value)


def test_keys_of_different_kinds_would_never_match() -> None:
    join = AsOfJoin("out", left="left", right="right", by={"n": "key"})
    join.step(block("left", [], 0))
    with pytest.raises(BoucleError, match="never match"):
        join.step(block("right", [], 0))
    with pytest.raises(BoucleError, match="no input"):
        join.step(Block("other", as_rows([], LEFT), 0, Position("other", 0)))

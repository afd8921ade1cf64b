"""Windows: equal to SQL's GROUP BY, whatever the cut, the arrival and the crash; late rows change nothing."""

import itertools
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.errors import BoucleError
from boucle.ports import Operator
from boucle.stream.window import Counted, Hopping, Session, Tumbling
from tests.stream.laws import FOREVER, block, cuts, feed, shuffled, table

SECOND = 1_000_000_000
VALUES = {
    "rows": "count",
    "known": "count(value)",
    "total": "sum(value)",
    "whole": "sum(number)",
    "mean": "mean(value)",
    "low": "min(value)",
    "high": "max(number)",
    "spread": "std(value)",
    "kinds": "distinct(value)",
    "median": "quantile(value, 0.5)",
    "first": "first(number)",
    "last": "last(number)",
}
MAKERS: dict[str, Callable[[], Operator]] = {
    "tumbling": lambda: Tumbling("w", size="5s", by=["machine"], values=VALUES),
    "tumbling, no key": lambda: Tumbling("w", size="7s", offset="2s", values=VALUES),
    "hopping": lambda: Hopping("w", size="10s", every="3s", by="machine", values=VALUES),
    "hopping with gaps": lambda: Hopping("w", size="2s", every="3s", by="machine", values=VALUES),
    "session": lambda: Session("w", gap="4s", by=["machine", "mode"], values=VALUES),
    "counted": lambda: Counted("w", size=3, idle="9s", by="machine", values=VALUES),
}

KEYS = {"machine": st.sampled_from(["a", "b", None]), "number": st.one_of(st.none(), st.integers(-3, 300))}
KEYED = {
    "a number": ["number"],
    "a text": ["machine"],
    "a text and a number": ["machine", "number"],
    "a time": ["since"],
    "a float": ["load"],
    "a category": ["kind", "number"],
}


rows_of = st.lists(
    st.tuples(
        st.integers(0, 600),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 1),
        st.one_of(st.none(), st.integers(-50, 50)),
    ),
    min_size=1,
    max_size=60,
)


def readings(rows: list[tuple[int, str, int, int | None]]) -> pa.RecordBatch:
    """(tenths of a second, machine, mode, value in tenths)"""
    return pa.record_batch(
        {
            "at": pa.array([100 * SECOND + row[0] * SECOND // 10 for row in rows], pa.timestamp("ns", "UTC")),
            "machine": pa.array([row[1] for row in rows]),
            "mode": pa.array([row[2] for row in rows], pa.int64()),
            "value": pa.array([None if row[3] is None else row[3] / 10 for row in rows], pa.float64()),
            "number": pa.array(range(len(rows)), pa.int32()),
        }
    )


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=30, deadline=None)
@given(data=st.data(), rows=rows_of, jitter=st.lists(st.integers(0, 4 * SECOND), min_size=1, max_size=20))
def test_cut_arrival_and_crash_change_nothing(
    kind: str, data: st.DataObject, rows: Any, jitter: list[int]
) -> None:
    make, batch = MAKERS[kind], readings(rows)
    whole = table(feed(make(), "in", batch, [0, len(batch)], 10**15), "w")
    cut, crash = data.draw(cuts(len(batch))), data.draw(st.integers(0, 8))
    again = feed(make(), "in", shuffled(batch, jitter), cut, 4 * SECOND, make, crash)
    assert table(again, "w/late") == []
    told = table(again, "w")
    assert told == sorted(told, key=lambda row: row["window_end"]) or kind == "counted"
    assert sorted(told, key=str) == sorted(whole, key=str)


@settings(max_examples=25, deadline=None)
@given(rows=rows_of)
def test_it_says_what_sql_says(rows: Any) -> None:
    batch = readings(rows)
    told = {
        (r["machine"], r["window_start"]): r
        for r in table(feed(MAKERS["tumbling"](), "in", batch, [0, len(batch)], 0), "w")
    }
    tx = pa.table([batch.column("at").cast(pa.int64()), *batch.columns[1:]], names=batch.schema.names)
    sql = f"""
        SELECT machine, "at" // {5 * SECOND} * {5 * SECOND} start, count(*), count(value), sum(value),
          sum(number)::BIGINT,
          avg(value), min(value), max(number), stddev_samp(value), count(DISTINCT value), quantile_cont(value, 0.5),
          arg_min(number, ("at", machine, mode, value IS NULL, value, number)),
          arg_max(number, ("at", machine, mode, value IS NULL, value, number))
        FROM tx GROUP BY ALL"""
    expected = duckdb.connect().register("tx", tx).execute(sql).fetchall()
    assert len(told) == len(expected)
    for machine, start, *values in expected:
        row = told[machine, start]
        for name, value in zip(VALUES, values, strict=True):
            assert row[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name


@settings(max_examples=25, deadline=None)
@given(rows=rows_of)
def test_sessions_and_hops_hold_the_rows_they_should(rows: Any) -> None:
    batch = readings(rows)
    times = sorted((100 * SECOND + t * SECOND // 10, m, mode) for t, m, mode, _ in rows)
    sessions: dict[Any, list[list[int]]] = {}
    for at, machine, mode in times:
        mine = sessions.setdefault((machine, mode), [])
        if mine and at - mine[-1][-1] < 4 * SECOND:
            mine[-1].append(at)
        else:
            mine.append([at])
    told = table(feed(MAKERS["session"](), "in", batch, [0, len(batch)], 0), "w")
    assert sorted(
        (r["machine"], r["mode"], r["window_start"], r["window_end"], r["rows"]) for r in told
    ) == sorted(
        (*key, held[0], held[-1] + 4 * SECOND, len(held)) for key, many in sessions.items() for held in many
    )
    for row in table(feed(MAKERS["hopping"](), "in", batch, [0, len(batch)], 0), "w"):
        inside = [
            1
            for at, machine, _ in times
            if machine == row["machine"] and row["window_start"] <= at < row["window_end"]
        ]
        assert row["rows"] == len(inside)


def keyed(rows: list[tuple[int, str | None, int | None]]) -> pa.RecordBatch:
    """(tenths of a second, machine, number): the number also as other types."""
    numbers = [row[2] for row in rows]
    loads = [None if one is None else float("nan") if one < 0 else one / 2 for one in numbers]
    return pa.record_batch(
        {
            "at": pa.array([100 * SECOND + row[0] * SECOND // 10 for row in rows], pa.timestamp("ns", "UTC")),
            "machine": pa.array([row[1] for row in rows], pa.string()),
            "number": pa.array(numbers, pa.int16()),
            "since": pa.array(numbers, pa.timestamp("ms")),
            "load": pa.array(loads, pa.float64()),
            "kind": pa.array([row[1] for row in rows], pa.string()).dictionary_encode(),
            "value": pa.array([row[0] / 7 for row in rows], pa.float64()),
        }
    )


@pytest.mark.parametrize("by", KEYED.values(), ids=KEYED)
@settings(max_examples=15, deadline=None)
@given(
    data=st.data(), rows=st.lists(st.tuples(st.integers(0, 300), *KEYS.values()), min_size=1, max_size=200)
)
def test_any_key_is_a_group_as_in_sql(by: list[str], data: st.DataObject, rows: Any) -> None:
    batch = keyed(rows)

    def make() -> Tumbling:
        return Tumbling("w", size="5s", by=by, values={"rows": "count", "total": "sum(value)"})

    cut, crash = data.draw(cuts(len(batch))), data.draw(st.integers(0, 8))
    told = table(feed(make(), "in", batch, cut, 10**15, make, crash), "w")
    names = ", ".join(by)
    flat = pa.table([batch.column("at").cast(pa.int64()), *batch.columns[1:]], names=batch.schema.names)
    said = f"""SELECT {names}, "at" // {5 * SECOND} * {5 * SECOND} AS window_start, count(*) AS rows
        FROM tx GROUP BY ALL ORDER BY window_start, {", ".join(f"{name} NULLS LAST" for name in by)}"""
    expected = duckdb.connect().register("tx", flat).sql(said).to_arrow_table()
    plain = [expected.column(name).cast(batch.schema.field(name).type) for name in by]
    for place, name in enumerate(by):
        expected = expected.set_column(place, name, plain[place])
    (sql,) = [pa.concat_batches(expected.to_batches())] if len(expected) else [None]
    assert sql is not None
    rowed = [{name: row[name] for name in (*by, "window_start", "rows")} for row in told]
    assert rowed == table([block("x", sql, 0)], "x")


def test_windows_go_on_from_a_snapshot() -> None:
    rng = np.random.default_rng(5)
    batch = keyed(
        [(int(t), "abc"[t % 3], int(n)) for t, n in zip(range(900), rng.integers(0, 300, 900), strict=True)]
    )
    makes: list[Callable[[], Any]] = [
        lambda: Hopping("w", size="20s", every="7s", by=["machine", "number"], values={"n": "count"}),
        lambda: Session("w", gap="20s", by="number", values={"n": "count"}),
        lambda: Counted("w", size=2, idle="30s", by="number", values={"n": "count"}),
    ]
    for make in makes:
        first = make()
        first.step(block("in", batch.slice(0, 600), 150 * SECOND))
        second = make()
        second.restore(first.snapshot())
        assert second.keys == first.keys > 0
        rest = block("in", batch.slice(600), FOREVER)
        assert table(second.step(rest), "w") == table(first.step(rest), "w")
        assert first.keys == second.keys == 0


PARTED: dict[str, Callable[[], Any]] = {
    **MAKERS,
    "by a text": lambda: Tumbling("w", size="20s", by="machine", values=VALUES, allowed="5s"),
    "by a number": lambda: Hopping("w", size="20s", every="6s", by="mode", values=VALUES),
}


@pytest.mark.parametrize("kind", PARTED)
@settings(max_examples=20, deadline=None)
@given(data=st.data(), rows=rows_of)
def test_the_state_kept_part_by_part_goes_on_as_if_nothing_happened(
    kind: str, data: st.DataObject, rows: Any
) -> None:
    make, batch = PARTED[kind], readings(sorted(rows, key=lambda row: row[0]))
    at = batch.column("at").cast(pa.int64()).to_pylist()
    pieces = [
        block("in", batch.slice(first, last - first), at[max(0, last - 1)] - 2 * SECOND)
        for first, last in itertools.pairwise(data.draw(cuts(batch.num_rows)))
    ]
    pieces.append(block("in", batch.slice(0, 0), FOREVER))
    uninterrupted, current = make(), make()
    want = [table(uninterrupted.step(piece), "w") for piece in pieces]
    kept: dict[str, bytes] = {}
    asked: dict[str, Any] = {}
    asked_at = 0
    for place, piece in enumerate(pieces):
        assert table(current.step(piece), "w") == want[place]
        if not data.draw(st.booleans()):
            continue
        # What was asked for is read only now, after more rows came: it is as it was then.
        kept |= {name: bytes(part) for name, part in asked.items()}
        kept = {name: part for name, part in kept.items() if part}
        if kept:
            restored = make()
            restored.restore_parts(kept)
            assert [table(restored.step(piece), "w") for piece in pieces[asked_at:]] == want[asked_at:]
            # Nobody hears again of what it was restored from.
            again = make()
            again.restore_parts(kept)
            assert not [name for name in again.parts(everything=False) if "/" in name and "meta" not in name]
        asked, asked_at = current.parts(everything=not kept), place + 1


@pytest.mark.parametrize("by", ["number", "machine", ["machine", "number"]])
def test_a_checkpoint_costs_what_changed(by: Any) -> None:
    values = {"rows": "count", "total": "sum(value)", "last": "last(value)"}
    op = Tumbling("w", size="1h", by=by, values=values)
    keys = 30_000
    whole = pa.record_batch(
        {
            "at": pa.array(100 * SECOND + np.arange(keys), pa.timestamp("ns", "UTC")),
            "machine": pa.array([f"machine {key:030}" for key in range(keys)]),
            "number": pa.array(range(keys), pa.int64()),
            "value": pa.array(np.ones(keys)),
        }
    )
    op.step(block("in", whole, 200 * SECOND))

    def size(*, everything: bool) -> int:
        return sum(len(part) for part in op.parts(everything=everything).values())

    everything = size(everything=True)
    nothing = size(everything=False)
    later = pa.array(np.full(50, 250 * SECOND), pa.timestamp("ns", "UTC"))
    op.step(block("in", whole.slice(100, 50).set_column(0, "at", later), 300 * SECOND))
    little = size(everything=False)
    assert nothing < 2_000
    assert little < everything / 10


def test_a_state_of_other_columns_is_told() -> None:
    batch = readings([(1, "a", 0, 1), (2, "b", 0, 2)])
    first = Tumbling("w", size="5s", by="machine", values={"total": "sum(value)"})
    first.step(block("in", batch, 0))
    other = Tumbling("w", size="5s", by="machine", values={"total": "sum(number)"})
    with pytest.raises(BoucleError, match=r"B602 the state of w is of sum\(value\)"):
        other.restore(first.snapshot())
    again = Tumbling("w", size="5s", by="machine", values={"total": "sum(value)"})
    again.restore(first.snapshot())
    changed = batch.set_column(3, "value", pa.array([1, 2]))
    with pytest.raises(BoucleError, match="B602 the state of w is of value: double"):
        again.step(block("in", changed, 0))


def test_texts_of_any_kind_are_groups() -> None:
    names = ["", None, "é", "a" * 300, "é", ""]
    for kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        said = pa.array([None if name is None else name.encode() for name in names], pa.binary()).cast(kind)
        at = pa.array(range(100 * SECOND, 100 * SECOND + 6), pa.timestamp("ns", "UTC"))
        batch = pa.record_batch({"at": at, "name": said})
        op = Tumbling("w", size="1s", by="name", values={"rows": "count"})
        op.step(block("in", batch.slice(1), 0))  # of a slice, too
        (given_,) = op.step(block("in", batch.slice(0, 0), FOREVER))
        assert given_.rows.schema.field("name").type == kind
        plain = given_.rows.column("name").cast(pa.binary()).to_pylist()
        counted = dict(zip(plain, given_.rows.column("rows").to_pylist(), strict=True))
        assert counted == {b"": 1, None: 1, "é".encode(): 2, b"a" * 300: 1}


def test_windows_say_what_they_remember() -> None:
    for by, key in (("number", {"number": "7"}), (["machine", "number"], {"machine": "a", "number": "7"})):
        op = Tumbling("w", size="5s", by=by, values={"rows": "count", "top": "max(value)"})
        assert op.describe(key) == {"keys": 0, "open_windows": 0, "waiting_rows": 0, "remembered": []}
        op.step(block("in", keyed([]), 0))
        assert op.describe(key) == {"keys": 0, "open_windows": 0, "waiting_rows": 0, "remembered": []}
        rows: list[tuple[int, str | None, int | None]] = [
            (0, "a", 7),
            (7, "a", 7),
            (14, "b", 8),
            (63, "a", 7),
        ]
        op.step(block("in", keyed(rows), 103 * SECOND))
        told = op.describe(key)
        (mine,) = told.pop("remembered")
        assert told.pop("oldest") == mine["window_start"] == 100 * SECOND
        assert told == {"keys": 2, "open_windows": 2, "waiting_rows": 1, "newest": 105 * SECOND}
        assert (mine["number"], mine["rows"], mine["top"]) == (7, 2, 1.0)


def test_windows_that_ended_leave_nothing_behind() -> None:
    for op in (
        Tumbling("w", size="1s", by=["machine", "number"], values={"n": "count"}),
        Session("w", gap="1s", by=["machine", "number"], values={"n": "count"}),
        Counted("w", size=2, idle="3s", by=["machine", "number"], values={"n": "count"}),
    ):
        sizes = []
        for turn in range(40):
            rows: list[tuple[int, str | None, int | None]]
            rows = [(turn * 200 + n // 10, "a", (turn * 997 + n) % 30_000) for n in range(2000)]
            op.step(block("in", keyed(rows), (100 + 20 * turn) * SECOND))
            sizes.append(len(op.snapshot()))
        assert max(sizes[20:]) <= max(sizes[:20]), "bounded by what is open, not by the keys that ever were"


@settings(max_examples=25, deadline=None)
@given(rows=rows_of)
def test_a_counted_window_is_given_up_after_idle(rows: Any) -> None:
    batch = readings(rows)
    mine: dict[str, list[list[int]]] = {}
    for at, machine in sorted((100 * SECOND + t * SECOND // 10, m) for t, m, _, _ in rows):
        held = mine.setdefault(machine, [])
        if held and len(held[-1]) < 3 and at - held[-1][-1] < 9 * SECOND:
            held[-1].append(at)
        else:
            held.append([at])
    expected = [
        (machine, held[-1] + (1 if len(held) == 3 else 9 * SECOND), len(held), len(held) == 3)
        for machine, many in mine.items()
        for held in many
    ]
    told = table(feed(MAKERS["counted"](), "in", batch, [0, len(batch) // 2, len(batch)], 10**15), "w")
    assert sorted((r["machine"], r["window_end"], r["rows"], r["complete"]) for r in told) == sorted(expected)
    assert [r["at"] for r in told] == [r["window_end"] - 1 for r in told]


def test_a_late_row_for_a_window_that_is_still_open_is_no_correction() -> None:
    op = Tumbling("w", size="5s", by="machine", values={"rows": "count"}, allowed="10s")
    batch = readings([(10, "a", 0, 1), (5, "a", 0, 1), (70, "a", 0, 1)])
    op.step(block("in", batch.slice(0, 1), 102 * SECOND))
    given = op.step(block("in", batch.slice(1), 106 * SECOND))
    assert [(r["rows"], r["revision"]) for r in table(given, "w")] == [(2, 0)]
    assert op.late_rows == 1


def test_a_late_row_changes_no_closed_window() -> None:
    op = Tumbling("w", size="5s", by="machine", values={"rows": "count"})
    batch = readings([(10, "a", 0, 1), (80, "a", 0, 1), (20, "a", 0, 1)])
    given = [
        *op.step(block("in", batch.slice(0, 2), 106 * SECOND)),
        *op.step(block("in", batch.slice(2), 120 * SECOND)),
    ]
    assert [(r["window_start"] // SECOND, r["rows"], r["revision"]) for r in table(given, "w")] == [
        (100, 1, 0),
        (105, 1, 0),
    ]
    (late,) = table(given, "w/late")
    assert (late["number"], late["late_by_ns"]) == (2, 4 * SECOND)
    assert op.late_rows == 1


def test_allowed_lateness_gives_a_marked_correction() -> None:
    op = Tumbling("w", size="5s", by="machine", values={"rows": "count"}, allowed="10s")
    batch = readings([(10, "a", 0, 1), (20, "a", 0, 1), (30, "b", 0, 1), (40, "a", 0, 1)])
    given = list(op.step(block("in", batch.slice(0, 1), 106 * SECOND)))
    given += op.step(block("in", batch.slice(1, 2), 114 * SECOND))
    given += op.step(block("in", batch.slice(3), 116 * SECOND))
    told = [(r["machine"], r["rows"], r["revision"]) for r in table(given, "w")]
    assert told == [("a", 1, 0), ("a", 2, 1), ("b", 1, 1), ("a", 3, 2)]
    given = list(op.step(block("in", batch.slice(1, 1), 130 * SECOND)))
    assert [row["number"] for row in table(given, "w/late")] == [1]
    assert op.keys == 0


def test_many_values_are_sketched_within_one_percent() -> None:
    values = np.random.default_rng(1).lognormal(2, 1.5, 20_000) * np.where(np.arange(20_000) % 5 == 0, -1, 1)
    batch = pa.record_batch(
        {"at": pa.array(np.arange(20_000) * 1000, pa.timestamp("ns", "UTC")), "value": pa.array(values)}
    )
    quantiles = {f"q{q}": f"quantile(value, {q})" for q in (0.01, 0.5, 0.95, 0.999)}
    (row,) = table(
        feed(Tumbling("w", size="1s", values=quantiles), "in", batch, [0, 7000, 20_000], 10**9), "w"
    )
    for q in (0.01, 0.5, 0.95, 0.999):
        assert row[f"q{q}"] == pytest.approx(np.quantile(values, q, method="lower"), rel=0.011)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Tumbling("w", size="0s", values={"n": "count"}), "size"),
        (lambda: Tumbling("w", size="1s", values={}), "no values"),
        (lambda: Tumbling("w", size="1s", values={"n": "average(value)"}), "no aggregate"),
        (lambda: Tumbling("w", size="1s", values={"n": "quantile(value)"}), "no aggregate"),
        (lambda: Counted("w", size=0, idle="1s", values={"n": "count"}), "0 rows"),
    ],
)
def test_what_cannot_be_is_told(make: Callable[[], Operator], said: str) -> None:
    with pytest.raises(BoucleError, match=rf"B221 .*{said}.*Fix: "):
        make()


def test_columns_that_do_not_fit_are_told() -> None:
    batch = readings([(1, "a", 0, 1)])
    with pytest.raises(BoucleError, match="B221 w: in has no column pressure"):
        feed(Tumbling("w", size="1s", values={"n": "mean(pressure)"}), "in", batch, [0, 1], 0)
    with pytest.raises(BoucleError, match=r"B221 mean\(machine\): the column is string"):
        feed(Tumbling("w", size="1s", values={"n": "mean(machine)"}), "in", batch, [0, 1], 0)

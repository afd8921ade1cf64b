"""Sliding features: equal to SQL's window functions, whatever the cut, the arrival and the crash."""

import itertools
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block
from boucle.errors import BoucleError
from boucle.stream.sliding import Sliding
from tests.stream.laws import block, cuts, feed, shuffled, table

SECOND = 1_000_000_000
HANDBOOK = Path("../shared/data/fraud_handbook")
FEATURES: dict[str, dict[str, Any]] = {
    "n_10s": {"of": "count", "by": "card", "over": "10s"},
    "c_10s": {"of": "count(amount)", "by": "card", "over": "10s"},
    "s_10s": {"of": "sum(amount)", "by": "card", "over": "10s"},
    "m_60s": {"of": "mean(amount)", "by": "card", "over": "60s"},
    "sd_60s": {"of": "std(amount)", "by": "card", "over": "60s"},
    "low": {"of": "min(amount)", "by": "card", "over": "10s"},
    "high": {"of": "max(amount)", "by": "card", "over": "10s"},
    "kinds": {"of": "distinct(amount)", "by": "card", "over": "10s"},
    "median": {"of": "quantile(amount, 0.5)", "by": "card", "over": "60s"},
    "before": {"of": "mean(amount)", "by": ["card", "shop"], "over": "20s", "delay": "5s"},
    "per_shop": {"of": "sum(amount)", "by": "shop", "over": "30s"},
}


def payments(draw_rows: list[tuple[int, int, int, int | None]]) -> pa.RecordBatch:
    """(tenths of a second, card, shop, amount in halves)"""
    at = [10 * SECOND + row[0] * SECOND // 10 for row in draw_rows]
    return pa.record_batch(
        {
            "at": pa.array(at, pa.timestamp("ns", "UTC")),
            "id": pa.array(range(len(at)), pa.int64()),
            "card": pa.array([row[1] for row in draw_rows], pa.int64()),
            "shop": pa.array([f"shop {row[2]}" for row in draw_rows]),
            "amount": pa.array([None if row[3] is None else row[3] / 2 for row in draw_rows], pa.float64()),
        }
    )


rows_of = st.lists(
    st.tuples(
        st.integers(0, 900), st.integers(0, 3), st.integers(0, 2), st.one_of(st.none(), st.integers(-9, 9))
    ),
    min_size=1,
    max_size=60,
)


def operator(order: Any = "time") -> Sliding:
    return Sliding("f", features=FEATURES, order=order)


@settings(max_examples=25, deadline=None)
@given(rows=rows_of)
def test_it_says_what_sql_says(rows: list[Any]) -> None:
    batch = payments(rows)
    told = table(feed(operator(), "tx", batch, [0, len(batch)], 0), "f")
    tx = pa.table([batch.column("at").cast(pa.int64()), *batch.columns[1:]], names=batch.schema.names)

    def window(by: str, over: int, delay: int = 0) -> str:
        start, end = over * SECOND + delay * SECOND - 1, delay * SECOND
        upto = "CURRENT ROW" if delay == 0 else f"{end} PRECEDING"
        return f'OVER (PARTITION BY {by} ORDER BY "at" RANGE BETWEEN {start} PRECEDING AND {upto})'

    # Rows of one instant see each other in SQL's RANGE; here a row sees those before it: ask about the last.
    sql = f"""
        SELECT id, "at", card, count(*) {window("card", 10)} n, count(amount) {window("card", 10)} c,
          coalesce(sum(amount) {window("card", 10)}, 0) s, avg(amount) {window("card", 60)} m,
          stddev_samp(amount) {window("card", 60)} sd,
          min(amount) {window("card", 10)} low, max(amount) {window("card", 10)} high,
          count(DISTINCT amount) {window("card", 10)} kinds, quantile_cont(amount, 0.5) {window("card", 60)} median,
          avg(amount) {window("card, shop", 20, 5)} before_, coalesce(sum(amount) {window("shop", 30)}, 0) per_shop
        FROM tx"""
    expected = {row[0]: row[3:] for row in duckdb.connect().register("tx", tx).execute(sql).fetchall()}
    names = [
        "n_10s",
        "c_10s",
        "s_10s",
        "m_60s",
        "sd_60s",
        "low",
        "high",
        "kinds",
        "median",
        "before",
        "per_shop",
    ]
    last: dict[tuple[int, Any], int] = {}
    for place, row in enumerate(told):
        last[row["at"], row["card"]] = place
        last[row["at"], row["shop"]] = place
    for place, row in enumerate(told):
        for name, value in zip(names, expected[row["id"]], strict=True):
            whose = row["shop"] if name == "per_shop" else row["card"]
            if last[row["at"], whose] == place:
                assert row[name] == pytest.approx(value, abs=1e-9), name
    assert len(told) == len(rows)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), rows=rows_of, jitter=st.lists(st.integers(0, 4 * SECOND), min_size=1, max_size=20))
def test_cut_arrival_and_crash_change_nothing(
    data: st.DataObject, rows: list[Any], jitter: list[int]
) -> None:
    batch = payments(rows)
    whole = table(feed(operator(), "tx", batch, [0, len(batch)], 10**15), "f")
    arrived = shuffled(batch, jitter)
    cut = data.draw(cuts(len(batch)))
    again = feed(operator(), "tx", arrived, cut, 4 * SECOND, operator, data.draw(st.integers(0, 8)))
    assert table(again, "f/late") == []
    assert table(again, "f") == whole


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rows=rows_of)
def test_at_once_says_the_same_when_each_key_is_in_order(data: st.DataObject, rows: list[Any]) -> None:
    batch = payments(sorted(rows, key=lambda row: row[0]))
    steady = {name: told for name, told in FEATURES.items() if told["by"] == "card"}
    slow = Sliding("f", features=steady)
    whole = {row["id"]: row for row in table(feed(slow, "tx", batch, [0, len(batch)], 10**15), "f")}
    # Each card's rows keep their order, the cards' interleaving changes.
    cards = data.draw(st.permutations(range(4)))
    mixed = pa.array(
        sorted(range(len(batch)), key=lambda i: cards[batch.column("card")[i].as_py()]), pa.int64()
    )
    fast = Sliding("f", features=steady, order="arrival")
    told = table(feed(fast, "tx", batch.take(mixed), data.draw(cuts(len(batch))), 10**15), "f")
    ties = len({(row[0], row[1]) for row in rows}) < len(rows)
    if not ties:  # rows of one card and instant come in the order of arrival, not of content
        assert {row["id"]: row for row in told} == whole


def test_a_row_that_breaks_its_keys_order_is_set_apart() -> None:
    batch = payments([(50, 1, 0, 4), (40, 1, 0, 4), (45, 2, 1, 4)])
    given = feed(Sliding("f", features={"n": FEATURES["n_10s"]}, order="arrival"), "tx", batch, [0, 1, 3], 0)
    assert [row["id"] for row in table(given, "f")] == [0, 2]
    (late,) = table(given, "f/late")
    assert (late["id"], late["late_by_ns"]) == (1, SECOND)


def test_what_is_late_is_set_apart_with_how_late_it_was() -> None:
    op = operator()
    batch = payments([(50, 1, 0, 4), (90, 1, 0, 4), (20, 1, 0, 4)])
    given = [
        *op.step(block("tx", batch.slice(0, 2), 15 * SECOND)),
        *op.step(block("tx", batch.slice(2), 16 * SECOND)),
    ]
    (late,) = table(given, "f/late")
    assert (late["id"], late["late_by_ns"]) == (2, 3 * SECOND)
    assert op.late_rows == 1


def test_keys_are_forgotten_and_sums_leave_nothing_behind() -> None:
    op = Sliding("f", features={"s": {"of": "sum(amount)", "by": "card", "over": "1s"}}, order="arrival")
    rng = np.random.default_rng(3)
    size = 60_000
    at = 10 * SECOND + np.arange(size) * 10_000_000
    batch = pa.record_batch(
        {
            "at": pa.array(at, pa.timestamp("ns", "UTC")),
            "card": pa.array(np.arange(size) // 4),
            "amount": pa.array(rng.lognormal(10, 4, size)),
        }
    )
    told = feed(op, "tx", batch, list(range(0, size + 1, 600)), 0)
    assert op.keys < 1000, "a key without events in its windows takes no memory"
    last = told[-1].rows.slice(len(told[-1].rows) - 4)
    assert last.column("s")[0].as_py() == last.column("amount")[0].as_py(), (
        "exactly: nothing of others is left"
    )


@settings(max_examples=15, deadline=None)
@given(data=st.data(), rows=rows_of)
def test_the_state_kept_part_by_part_goes_on_as_if_nothing_happened(
    data: st.DataObject, rows: list[Any]
) -> None:
    batch = payments(sorted(rows, key=lambda row: row[0]))
    parts = [
        block("p", batch.slice(first, last - first), 0)
        for first, last in itertools.pairwise(data.draw(cuts(batch.num_rows)))
    ]
    uninterrupted = operator("arrival")
    want = [[one.rows for one in uninterrupted.step(part)] for part in parts]
    kept: dict[str, bytes] = {}
    asked: dict[str, Any] = {}
    asked_at, current = 0, operator("arrival")
    for place, part in enumerate(parts):
        assert [one.rows for one in current.step(part)] == want[place]
        if not data.draw(st.booleans()):
            continue
        # What was asked for is read only now, after more rows came: it is as it was then.
        kept |= {name: bytes(piece) for name, piece in asked.items()}
        if kept:
            restored = operator("arrival")
            restored.restore_parts(kept)
            again = [[one.rows for one in restored.step(part)] for part in parts[asked_at:]]
            assert again == want[asked_at:]
        asked, asked_at = current.parts(everything=not kept), place + 1


def test_recent_values() -> None:
    features = {
        "previous": {"of": "previous(amount)", "by": "card", "over": "60s"},
        "age": {"of": "age(amount)", "by": "card", "over": "60s"},
        "ewma": {"of": "ewma(amount, 1s)", "by": "card", "over": "60s"},
        "z": {"of": "zscore(amount)", "by": "card", "over": "60s"},
    }
    batch = payments([(0, 1, 0, 2), (10, 1, 0, 4), (20, 1, 0, None), (30, 1, 0, 6)])
    told = table(feed(Sliding("f", features=features), "tx", batch, [0, 4], 0), "f")
    assert [row["previous"] for row in told] == [None, 1.0, 2.0, 2.0]
    assert [row["age"] for row in told] == [None, 1.0, 1.0, 2.0]
    # weights halve each second: (2 + 1/2) / (1 + 1/2), then (3 + 2/4 + 1/8) / (1 + 1/4 + 1/8)
    assert [row["ewma"] for row in told] == pytest.approx([1.0, 5 / 3, 5 / 3, 3.625 / 1.375])
    assert told[3]["z"] == pytest.approx((3 - 2) / 1.0)
    assert [told[0]["z"], told[2]["z"]] == [None, None]


def told(features: dict[str, Any], rows: dict[str, Any], size: int = 1) -> dict[str, list[Any]]:
    batch = pa.record_batch(rows)
    op, out = Sliding("f", features=features, order="arrival"), []
    for first in range(0, batch.num_rows, size):
        out += [one.rows for one in op.step(block("tx", batch.slice(first, size), 0))]
    answer: dict[str, list[Any]] = pa.Table.from_batches(out).select(list(features)).to_pydict()
    return answer


def at_seconds(*seconds: float) -> pa.Array:
    return pa.array([round(one * SECOND) for one in seconds], pa.timestamp("ns", "UTC"))


def test_previous_and_age_look_back_as_far_as_they_say() -> None:
    features = {
        "previous": {"of": "previous(x)", "by": "card", "over": "10s"},
        "age": {"of": "age(x)", "by": "card", "over": "10s"},
        "mean": {"of": "mean(x)", "by": "card", "over": "1h"},
    }
    rows = {"at": at_seconds(1, 100, 105), "card": pa.array([1, 1, 1]), "x": pa.array([5.0, 6.0, 7.0])}
    assert told(features, rows)["previous"] == [None, None, 6.0]
    assert told(features, rows)["age"] == [None, None, 5.0]


@pytest.mark.parametrize("kind", ["previous(x)", "age(x)", "ewma(x, 1s)"])
def test_what_looks_at_the_newest_event_takes_no_delay(kind: str) -> None:
    with pytest.raises(BoucleError, match="B221"):
        Sliding("f", features={"v": {"of": kind, "by": "card", "over": "1h", "delay": "5min"}})


@pytest.mark.parametrize("size", [1, 10])
def test_what_faded_out_of_the_window_is_gone_however_the_stream_is_cut(size: int) -> None:
    features = {"ewma": {"of": "ewma(x, 1h)", "by": "card", "over": "10s"}}
    rows = {
        "at": at_seconds(*range(1, 10), 500),
        "card": pa.array([1] + [2] * 8 + [1]),
        "x": pa.array([100.0] + [1.0] * 8 + [3.0]),
    }
    assert told(features, rows, size)["ewma"][-1] == 3.0


def test_a_spread_is_exact_where_the_mean_is_a_billion_times_as_large() -> None:
    features = {"sd": {"of": "std(x)", "by": "card", "over": "1h"}}
    values = [1e6 + sign * 1e-3 for sign in (-1, 1, -1, 1)]
    rows = {"at": at_seconds(1, 2, 3, 4), "card": pa.array([1] * 4), "x": pa.array(values)}
    assert told(features, rows)["sd"][-1] == pytest.approx(np.std(np.array(values) - 1e6, ddof=1), rel=1e-6)


def test_sums_come_back_when_what_overflowed_has_left() -> None:
    features = {
        "sd": {"of": "std(x)", "by": "card", "over": "10s"},
        "s": {"of": "sum(x)", "by": "card", "over": "10s"},
    }
    rows = {
        "at": at_seconds(1, 2, 8, 9, 13),
        "card": pa.array([1] * 5),
        "x": pa.array([1.7e308, 1.7e308, 1.0, 2.0, 3.0]),
    }
    answer = told(features, rows)
    assert answer["sd"][1:4] == [None] * 3
    assert answer["s"][-1] == 6.0
    assert answer["sd"][-1] == 1.0


def test_rows_of_two_schemas_wait_for_each_other() -> None:
    op = Sliding("f", features={"n": {"of": "count", "by": "card", "over": "1h"}})
    first = pa.record_batch({"at": at_seconds(1, 2), "card": pa.array([1, None]), "x": pa.array([5.0, 6.0])})
    wider = pa.record_batch(
        {"at": at_seconds(50), "name": pa.array(["a"]), "card": pa.array([1]), "x": pa.array([7.0])}
    )
    assert op.step(block("tx", first, 0)) == []
    (given_,) = op.step(block("tx", wider.slice(0, 0), 20 * SECOND))
    assert given_.rows.to_pydict() == {**first.to_pydict(), "n": [1, None]}
    op.step(block("tx", wider, 20 * SECOND))
    (later,) = op.step(block("tx", wider.slice(0, 0), 60 * SECOND))
    assert later.rows["n"].to_pylist() == [2]


def test_a_row_without_a_key_gets_nulls() -> None:
    batch = payments([(0, 1, 0, 2), (1, 1, 0, 4)])
    batch = batch.set_column(2, "card", pa.array([None, 1], pa.int64()))
    first, second = table(feed(operator(), "tx", batch, [0, 2], 0), "f")
    assert (first["n_10s"], first["s_10s"], first["per_shop"]) == (None, None, 1.0)
    assert (second["n_10s"], second["s_10s"]) == (1, 2.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"of": "avg(amount)", "by": "card", "over": "10s"},
        {"of": "sum", "by": "card", "over": "10s"},
        {"of": "quantile(amount)", "by": "card", "over": "10s"},
        {"of": "quantile(amount, 2)", "by": "card", "over": "10s"},
        {"of": "count", "by": "card"},
        {"of": "count", "by": "card", "over": "0s"},
        {"of": "count", "by": "card", "over": "1s", "every": "1s"},
    ],
)
def test_a_wrong_feature_is_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(BoucleError, match=r"B2\d\d .*Fix: "):
        Sliding("f", features={"x": wrong})


def test_a_missing_column_is_told() -> None:
    with pytest.raises(BoucleError, match="B221 f: tx has no column merchant"):
        feed(
            Sliding("f", features={"x": {"of": "count", "by": "merchant", "over": "1s"}}),
            "tx",
            payments([(0, 1, 0, 2)]),
            [0, 1],
            0,
        )


@pytest.mark.skipif(not HANDBOOK.exists(), reason="the fraud handbook's data set is not beside the project")
def test_the_fraud_handbooks_own_features() -> None:
    """Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud Detection (2022), ch. 3: every row."""
    tx = pq.read_table(HANDBOOK / "transactions.parquet")
    at = tx.column("TX_DATETIME").cast(pa.timestamp("ns")).cast(pa.timestamp("ns", "UTC"))
    (batch,) = (
        tx.set_column(1, "TX_DATETIME", at).sort_by([("TX_DATETIME", "ascending"), ("TRANSACTION_ID", "ascending")])
        .combine_chunks().to_batches()
    )  # fmt: skip
    features = {}
    for days in (1, 7, 30):
        customer = {"by": "CUSTOMER_ID", "over": f"{days}d"}
        terminal = {"by": "TERMINAL_ID", "over": f"{days}d", "delay": "7d"}
        features[f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW"] = {"of": "count(TX_AMOUNT)", **customer}
        features[f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW"] = {"of": "mean(TX_AMOUNT)", **customer}
        features[f"TERMINAL_ID_NB_TX_{days}DAY_WINDOW"] = {"of": "count(TX_FRAUD)", **terminal}
        features[f"TERMINAL_ID_RISK_{days}DAY_WINDOW"] = {"of": "mean(TX_FRAUD)", **terminal}
    wanted = pq.read_table(HANDBOOK / "reference_features.parquet").sort_by("TRANSACTION_ID")
    assert len(wanted) > 130_000
    other = differing(batch, features, wanted)
    # Of two payments of one card (or at one terminal) in the same second the handbook's unstable sort may
    # have put either first: those rows, and only those, must agree with the other order.
    assert len(other) <= 40
    whose = wanted.take(other)
    related = pc.or_(
        pc.is_in(batch.column("CUSTOMER_ID"), whose.column("CUSTOMER_ID").cast(pa.int16()).combine_chunks()),
        pc.is_in(batch.column("TERMINAL_ID"), whose.column("TERMINAL_ID").cast(pa.int16()).combine_chunks()),
    )
    swapped = [("TX_DATETIME", "ascending"), ("TRANSACTION_ID", "descending")]
    assert len(differing(batch.filter(related).sort_by(swapped), features, whose)) == 0


def differing(batch: pa.RecordBatch, features: dict[str, Any], wanted: pa.Table) -> Any:
    """Places in `wanted` of the payments for which any feature is another."""
    op = Sliding("f", features=features, time="TX_DATETIME", order="arrival")
    told: list[Block] = []
    for begin in range(0, len(batch), 20_000):
        told += op.step(block("tx", batch.slice(begin, 20_000), 0))
    ours = pa.Table.from_batches([one.rows for one in told if one.stream == "f"])
    assert len(ours) == len(batch)
    ours = ours.sort_by("TRANSACTION_ID")
    places = np.searchsorted(
        ours.column("TRANSACTION_ID").to_numpy(), wanted.column("TRANSACTION_ID").to_numpy()
    )
    ours = ours.take(places)
    other = np.zeros(len(wanted), np.bool_)
    for name in features:
        mine = ours.column(name).to_numpy(zero_copy_only=False).astype(float)
        mine = np.nan_to_num(mine, nan=0.0)  # the handbook fills the mean of nothing with 0
        other |= np.abs(mine - wanted.column(name).to_numpy()) > 1e-9
    return np.flatnonzero(other)

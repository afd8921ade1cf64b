"""No leakage: what a training row holds was known at its moment, whatever else the tables hold."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.errors import BoucleError
from boucle.features import FeatureView, Label, as_of
from boucle.features.asof import decisions, nanos

VIEW = FeatureView(name="v", table="spent", entity=("card",), columns=("sum", "count"), ttl=50)
LABEL = Label(table="frauds", column="fraud", known="told")

moments = st.integers(0, 100)
cards = st.sampled_from(["a", "b"])
values = st.none() | st.integers(-3, 3).map(float)
feature_rows = st.lists(st.tuples(cards, moments, values, values), max_size=12)
label_rows = st.lists(
    st.tuples(cards, moments, st.integers(0, 40), st.sampled_from([0, 1, None])), max_size=8
)


def features(rows: list[Any]) -> pa.Table:
    card, at, total, count = zip(*rows, strict=True) if rows else ((), (), (), ())
    told = {"card": pa.array(card, pa.string()), "at": pa.array(at, pa.int64())}
    return pa.table({**told, "sum": pa.array(total, pa.float64()), "count": pa.array(count, pa.float64())})


def labels(rows: list[Any]) -> pa.Table:
    card, at, delay, fraud = zip(*rows, strict=True) if rows else ((), (), (), ())
    told = [moment + wait for moment, wait in zip(at, delay, strict=True)]
    return pa.table(
        {
            "card": pa.array(card, pa.string()),
            "at": pa.array(at, pa.int64()),
            "told": pa.array(told, pa.int64()),
            "fraud": pa.array(fraud, pa.int64()),
        }
    )


def training(given_labels: list[Any], given_features: list[Any], cut: int) -> list[dict[str, Any]]:
    spine = decisions(labels(given_labels), LABEL, ["card"], cut)
    return list(as_of(spine, [(VIEW, features(given_features))], cut).to_pylist())


def naive(spine: list[dict[str, Any]], rows: list[Any], cut: int) -> list[dict[str, Any]]:
    """The same by looking at every row."""
    last = float("-inf")

    def worth(row: Any) -> Any:
        return (row[1], *(last if value is None else value for value in row[2:]))

    found = []
    for one in spine:
        then = [row for row in rows if row[0] == one["card"] and row[1] <= min(one["_at"], cut)]
        best = max(then, key=worth) if then else None
        if best is None or one["_at"] - best[1] > 50:
            best = (None, None, None, None)
        found.append({**one, "sum": best[2], "count": best[3]})
    return found


@settings(max_examples=10, deadline=None)
@given(label_rows, feature_rows, moments)
def test_each_row_has_the_newest_that_was_true(told: list[Any], rows: list[Any], cut: int) -> None:
    found = training(told, rows, cut)
    bare = [{name: one[name] for name in ("card", "_at", "_label")} for one in found]
    assert found == naive(bare, rows, cut)


@settings(max_examples=10, deadline=None)
@given(label_rows, feature_rows, feature_rows, label_rows, moments, st.randoms())
def test_nothing_after_the_cut_changes_a_training_row(
    told: list[Any], rows: list[Any], later: list[Any], told_later: list[Any], cut: int, chance: Any
) -> None:
    before = training(told, rows, cut)
    past = [row for row in rows if row[1] <= cut]
    future = [(card, at + cut + 1, *rest) for card, at, *rest in later]
    answers = [row for row in told if row[1] + row[2] <= cut]
    unknown = [(card, at, cut + 1 + wait, fraud) for card, at, wait, fraud in told_later]
    shuffled, answered = past + future, answers + unknown
    chance.shuffle(shuffled)
    chance.shuffle(answered)
    assert training(answered, shuffled, cut) == before


@settings(max_examples=8, deadline=None)
@given(label_rows, feature_rows, feature_rows)
def test_nothing_after_a_decision_changes_its_row(told: list[Any], rows: list[Any], more: list[Any]) -> None:
    before = training(told, rows, 200)
    if not before:
        return
    moment = before[len(before) // 2]["_at"]
    later = [(card, moment + 1 + at, *rest) for card, at, *rest in more]
    kept = [row for row in rows if row[1] <= moment]
    after = training(told, kept + later, 200)
    assert [one for one in after if one["_at"] <= moment] == [one for one in before if one["_at"] <= moment]


def test_a_label_counts_from_when_it_is_known() -> None:
    late = Label(table="frauds", column="fraud", delay=10)
    rows = labels([("a", 0, 0, 1), ("a", 5, 0, 0), ("a", 20, 0, 1)])
    assert decisions(rows, late, ["card"], 14).column("_at").to_pylist() == [0]
    assert decisions(rows, late, ["card"], 15).column("_at").to_pylist() == [0, 5]


def test_a_yes_that_is_told_early_waits_for_the_others() -> None:
    both = Label(table="frauds", column="fraud", known="told", delay=10)
    rows = labels([("a", 0, 10, 0), ("a", 5, 1, 1), ("a", 6, 30, 0)])
    assert decisions(rows, both, ["card"], 14).column("_at").to_pylist() == [0]
    assert decisions(rows, both, ["card"], 20).column("_at").to_pylist() == [0, 5]


def test_moments_of_any_type_are_nanoseconds() -> None:
    for unit in ("s", "ms", "us", "ns"):
        column = pa.chunked_array([pa.array([1], pa.int64()).cast(pa.timestamp(unit, "UTC"))])
        assert nanos(column, "t", "at").to_pylist() == [{"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}[unit]]
    with pytest.raises(BoucleError, match="no moment"):
        nanos(pa.chunked_array([["noon"]]), "t", "at")
    with pytest.raises(BoucleError, match="out of range"):
        nanos(pa.chunked_array([pa.array([2**60], pa.timestamp("s"))]), "t", "at")


def test_what_is_no_number_is_told() -> None:
    spine = decisions(labels([("a", 1, 0, 1)]), LABEL, ["card"], 9)
    text = features([("a", 1, 1.0, 1.0)]).set_column(2, "sum", pa.array(["much"]))
    with pytest.raises(BoucleError, match="takes numbers"):
        as_of(spine, [(VIEW, text)], 9)
    other = FeatureView(name="v", table="spent", entity=("terminal",), columns=("sum",))
    with pytest.raises(BoucleError, match="'terminal'"):
        as_of(spine, [(other, features([]))], 9)

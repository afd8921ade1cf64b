"""Data drift: silent when nothing changed, at the declared rate; loud when it did; the same whatever the cut."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, wasserstein_distance

from boucle.clock import SECOND
from boucle.drift.change import DataDrift
from boucle.drift.change.compare import compare
from boucle.errors import BoucleError
from boucle.features.dependence import inflation
from boucle.features.sketch import learn, merge, tally
from boucle.ports import Operator
from tests.drift.change.rows import START, block, cut, told

WORDS = np.array(["steel", "brass", "zinc"])


def plant(rows: int, seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    return {
        "force": draw.normal(100, 5, rows),
        "parts": draw.poisson(3, rows),
        "alloy": WORDS[draw.choice(3, rows, p=[0.6, 0.3, 0.1])],
        "door": draw.random(rows) < 0.1,
    }


def numbers(rows: int, columns: int, seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    return {f"c{place}": draw.normal(0, 1, rows) for place in range(columns)}


def test_every_kind_of_change_is_told_with_its_onset() -> None:
    step = DataDrift("drift", columns=["force", "parts", "alloy", "door"], reference=1000, window=500)
    assert isinstance(step, Operator)
    assert told(step, block(plant(2000, 1)))[-1]["drifted"] is False
    changed = plant(1000, 2)
    changed["force"] = changed["force"] + 3
    changed["alloy"] = np.where(changed["alloy"] == "steel", "bronze", changed["alloy"])
    changed["door"] = pa.array(
        [None if place % 4 == 0 else bool(door) for place, door in enumerate(changed["door"])]
    )
    rows = told(step, block(changed, 2000))
    assert len(rows) == 2 * 2 * 4
    off = {(row["column"], row["kind"]) for row in rows[-8:] if row["drifted"]}
    assert off == {("force", "ks"), ("alloy", "chi2"), ("door", "missing")}
    force = next(row for row in rows if row["column"] == "force")
    assert force["shift"] == pytest.approx(3, abs=0.5)
    assert force["since"].timestamp() == START // SECOND + 2000
    assert force["says_en"].startswith("force: the distribution moved (mean +")
    assert "a bougé (moyenne +" in force["says_fr"]
    alloy = next(row for row in rows if row["column"] == "alloy")
    assert alloy["effect"] == pytest.approx(0.6, abs=0.06)
    assert "60 %" in alloy["says_en"] or "6" in alloy["says_en"]


def test_binned_distances_are_those_of_scipy_on_all_rows() -> None:
    draw = np.random.default_rng(3)
    before, after = draw.gamma(2, 3, 4000), draw.gamma(2.4, 3, 3000)
    reference = learn(pa.array(before))
    found = compare(reference, tally(pa.array(after), reference), "ks", "ks")
    exact = ks_2samp(before, after)
    assert found.effect == pytest.approx(exact.statistic, abs=0.01)
    assert found.effect <= exact.statistic + 1e-12  # conservative
    assert found.wasserstein == pytest.approx(wasserstein_distance(before, after) / before.std(), rel=0.02)
    assert found.shift == pytest.approx(after.mean() - before.mean(), abs=1e-3)


def test_false_alarms_when_nothing_changed_stay_under_the_declared_rate() -> None:
    windows = alarms = 0
    for seed in range(12):
        step = DataDrift(
            "drift",
            columns=[f"c{place}" for place in range(10)],
            reference=500,
            window=100,
            rate=0.1,
            least=0,
        )
        rows = told(step, block(numbers(1500, 10, seed)))
        times = {row["at"] for row in rows}
        windows += len(times)
        alarms += len({row["at"] for row in rows if row["drifted"]})
    assert windows == 120
    assert alarms / windows <= 0.1  # any column of ten


def test_benjamini_hochberg_finds_more_and_a_shift_of_half_a_deviation_is_found() -> None:
    powers = []
    for control in ("by", "bh"):
        hits = 0
        for seed in range(5):
            step = DataDrift("drift", columns=[f"c{place}" for place in range(10)], reference=1000, window=200,
                             rate=0.05, least=0.1, control=control)  # fmt: skip
            told(step, block(numbers(1000, 10, seed)))
            later = numbers(200, 10, 100 + seed)
            later["c3"] = later["c3"] + 0.5
            hits += any(row["drifted"] and row["column"] == "c3" for row in told(step, block(later, 1000)))
        powers.append(hits)
    assert powers[0] >= 4
    assert powers[1] >= powers[0]


def test_slow_signals_do_not_alarm_on_their_own_slowness() -> None:
    """An AR(1) signal of 20 rows: taken as independent, most windows would alarm."""
    alarms = windows = 0
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=12_000)
        slow = np.zeros(12_000)
        for place in range(1, 12_000):
            slow[place] = 0.9 * slow[place - 1] + noise[place]
        assert 12 < inflation(slow) < 30
        step = DataDrift("drift", columns=["slow"], reference=4000, window=400, rate=0.05, least=0)
        rows = [row for row in told(step, block({"slow": slow})) if row["kind"] == "ks"]
        windows += len(rows)
        alarms += sum(row["drifted"] for row in rows)
        naive = [ks_2samp(slow[:4000], slow[at : at + 400]).pvalue < 0.05 for at in range(4000, 12_000, 400)]
        assert sum(naive) >= 8  # of 20
    assert alarms / windows <= 0.05


def test_hundreds_of_thousands_of_rows_do_not_alarm_on_nothing() -> None:
    draw = np.random.default_rng(5)
    settings_: dict[str, Any] = {"columns": ["value"], "reference": 100_000, "window": 400_000}
    data = np.concatenate([draw.normal(0, 1, 100_000), draw.normal(0.03, 1, 400_000)])
    (quiet, _) = told(DataDrift("drift", **settings_), block({"value": data}))
    (loud, _) = told(DataDrift("drift", least=0.0, **settings_), block({"value": data}))
    assert quiet["q"] < 1e-6
    assert (quiet["drifted"], loud["drifted"]) == (False, True)


def by_press(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["press"], row["at"], row["column"], row["kind"]))


@settings(max_examples=3, deadline=None)
@given(st.sets(st.integers(1, 1099), max_size=6))
def test_cuts_and_restarts_change_nothing(places: set[int]) -> None:
    columns = plant(1100, 7)
    columns["press"] = np.array(["one", "two"])[np.arange(1100) % 2]
    whole = block(columns)
    declared: dict[str, Any] = {
        "columns": ["force", "alloy", "parts"],
        "by": ["press"],
        "reference": 100,
        "window": 50,
    }
    expected = told(DataDrift("drift", **declared), whole)
    step, found = DataDrift("drift", **declared), []
    for part in cut(whole, sorted(places)):
        found += told(step, part)
        again = DataDrift("drift", **declared)
        again.restore(step.snapshot())
        step = again
    assert by_press(found) == by_press(expected)
    assert len(found) == 2 * 9 * 3 * 2


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64) | st.none(), min_size=2, max_size=60),
    st.data(),
)
def test_tallies_of_parts_are_the_tally_of_the_whole(values: list[float | None], data: st.DataObject) -> None:
    column = pa.array(values, pa.float64())
    reference = learn(column)
    place = data.draw(st.integers(0, len(values)))
    parts = [tally(column.slice(0, place), reference), tally(column.slice(place), reference)]
    assert merge(parts) == merge(parts[::-1]) == tally(column, reference) == reference.tally
    found = compare(reference, reference.tally, "psi", "psi")
    assert found.effect == pytest.approx(0, abs=1e-9)
    assert found.p > 0.99


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([None, "", "a", "é", "\0other"]), min_size=1, max_size=40))
def test_any_words_are_compared(words: list[str | None]) -> None:
    column = pa.array(words, pa.string())
    reference = learn(column)
    assert compare(reference, tally(column, reference), "ks", "ks").effect == 0


def test_memory_is_bounded_and_the_oldest_key_is_forgotten() -> None:
    step = DataDrift("drift", columns=["value"], by=["unit"], reference=50, window=20, keys=3)
    sizes = []
    for turn in range(6):
        told(
            step,
            *(
                block({"value": np.arange(40.0) % 7, "unit": [f"u{unit}"] * 40})
                for unit in range(turn, turn + 3)
            ),
        )
        sizes.append(len(step.snapshot()))
    assert step.describe()["keys"] == 3
    assert sizes[-1] <= 2 * sizes[0]
    assert step.describe({"unit": "u0"})["remembered"] == []
    assert step.describe({"unit": "u7"})["remembered"][0]["learned"] == 40


@pytest.mark.parametrize(
    ("declared", "code"),
    [
        ({"columns": []}, "B761"),
        ({"columns": ["a", "a"]}, "B761"),
        ({"columns": ["a"], "window": 3}, "B761"),
        ({"columns": ["a"], "rate": 1.5}, "B761"),
        ({"columns": ["a"], "test": "t"}, "B761"),
    ],
)
def test_settings_that_cannot_work_are_refused(declared: dict[str, Any], code: str) -> None:
    with pytest.raises(BoucleError) as refused:
        DataDrift("drift", **declared)
    assert refused.value.code == code
    assert refused.value.fix


def test_wrong_columns_and_states_are_refused_in_words() -> None:
    step = DataDrift("drift", columns=["value"], reference=50, window=20)
    with pytest.raises(BoucleError, match="B762"):
        step.step(block({"other": [1.0]}))
    with pytest.raises(BoucleError, match="B760"):
        told(step, block({"value": [[1.0]] * 60}))
    timeless = block({"value": [1.0]})
    bare = type(timeless)("rows", timeless.rows.set_column(0, "at", pa.array([1])), 0, timeless.position)
    step = DataDrift("drift", columns=["value"], reference=50, window=20)
    told(step, block({"value": np.arange(50.0)}))
    with pytest.raises(BoucleError, match="B762"):
        step.step(bare)
    with pytest.raises(BoucleError, match="B602"):
        step.restore(b"junk")
    with pytest.raises(BoucleError, match="B763"):
        DataDrift("drift", columns=["force"]).restore(step.snapshot())


def test_blocks_of_one_row_teach_the_same_in_little_memory() -> None:
    whole = block({"value": np.random.default_rng(1).normal(size=160), "other": ["a", "b"] * 80})
    declared: dict[str, Any] = {"columns": ["value", "other"], "reference": 140, "window": 20}
    step = DataDrift("drift", **declared)
    found, largest = [], 0
    for one in cut(whole, list(range(1, 160))):
        found += told(step, one)
        largest = max(largest, len(step.snapshot()))
    assert found == told(DataDrift("drift", **declared), whole)
    assert len(found) == 4
    assert largest < 60_000  # 140 Blocks as they came would take twice that


def test_a_column_that_changes_its_type_is_refused() -> None:
    step = DataDrift("drift", columns=["value"], reference=100, window=20)
    told(step, block({"value": [1.0] * 50}))
    with pytest.raises(BoucleError, match="B762"):
        told(step, block({"value": ["a"] * 50}))

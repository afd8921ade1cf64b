"""What a model does, from scores and labels that come late, against sklearn on the joined rows."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, f1_score, precision_score, recall_score, roc_auc_score

from boucle.block import Block, Position
from boucle.errors import BoucleError
from boucle.loop.metrics import exposition
from boucle.loop.view import StepView
from boucle.ports import Counts, Operator
from boucle.serve.monitor import Performance
from boucle.serve.monitor.figures import Figure, calibration, measured
from boucle.serve.monitor.tally import Binary, Bins
from boucle.serve.monitor.usual import Usual
from tests.stream.laws import FOREVER, table
from tests.web.sample import SampleLoop, StillClock

HOUR = 3600 * 1_000_000_000
Rows = list[dict[str, Any]]


def monitor(**declared: Any) -> Performance:
    told = {"id": "id", "score": "score", "label": "fraud", "window": "1h", "wait": "1d"} | declared
    return Performance("performance", predictions="scored", labels="labels", **told)


def batch(rows: Rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows).set_column(
        0, "at", pa.array([row["at"] for row in rows], pa.timestamp("ns", "UTC"))
    )


def day(seed: int, count: int = 600, drift: float = 0.0) -> tuple[Rows, Rows]:
    """Calibrated chances over six hours, and their labels one to twenty hours later."""
    chance = np.random.default_rng(seed)
    at = np.sort(chance.integers(0, 6 * HOUR, count))
    scores = chance.beta(1, 3, count)
    truth = chance.random(count) < np.clip(scores + drift, 0, 1)
    after = at + chance.integers(HOUR, 20 * HOUR, count)
    predictions = [
        {"at": int(t), "id": index, "score": float(s), "version": "1"}
        for index, (t, s) in enumerate(zip(at, scores, strict=True))
    ]
    labels = [
        {"at": int(t), "id": index, "fraud": int(y)}
        for index, (t, y) in enumerate(zip(after, truth, strict=True))
    ]
    return predictions, sorted(labels, key=lambda row: row["at"])


def play(
    operator: Operator, predictions: Rows, labels: Rows, cuts: Sequence[int] = (), crash: Any = None
) -> Rows:
    """Both streams in Blocks that end at the cuts (hours), then all that remains."""
    out: list[Block] = []
    done = -1
    for number, end in enumerate([*sorted(set(cuts)), 60 * 24]):
        for stream, rows in (("scored", predictions), ("labels", labels)):
            part = [row for row in rows if done < row["at"] < end * HOUR]
            some = batch(part) if part else batch(rows[:1]).slice(0, 0)
            out += operator.step(Block(stream, some, end * HOUR, Position(stream, number)))
        done = end * HOUR - 1
        if crash is not None and number == 1:
            state, operator = operator.snapshot(), crash()
            operator.restore(state)
    for stream, rows in (("scored", predictions), ("labels", labels)):
        out += operator.step(Block(stream, batch(rows[:1]).slice(0, 0), FOREVER, Position(stream, 99)))
    return table(out, "performance")


def value(rows: Rows, figure: str, hour: int, **of: Any) -> float:
    found = [
        row
        for row in rows
        if row["figure"] == figure
        and row["window_start"] == hour * HOUR
        and all(row[name] == said for name, said in of.items())
    ]
    return float(found[-1]["value"])


def test_figures_are_those_of_sklearn() -> None:
    predictions, labels = day(1)
    rows = play(monitor(), predictions, labels)
    truth = {row["id"]: row["fraud"] for row in labels}
    for hour in range(6):
        own = [row for row in predictions if row["at"] // HOUR == hour]
        score, said = np.array([row["score"] for row in own]), [truth[row["id"]] for row in own]
        decided = score >= 0.5
        expected = {
            "precision": precision_score(said, decided, zero_division=math.nan),
            "recall": recall_score(said, decided),
            "f1": f1_score(said, decided),
            "brier": brier_score_loss(said, score),
            "base_rate": np.mean(said),
            "rows": len(own),
        }
        for figure, wanted in expected.items():
            assert value(rows, figure, hour, complete=True) == pytest.approx(wanted, abs=1e-5), figure
        # pairs that share one of 512 bins are counted as half right
        assert value(rows, "auc", hour, complete=True) == pytest.approx(roc_auc_score(said, score), abs=0.005)


@settings(max_examples=25)
@given(st.data())
def test_cut_and_crash_change_nothing(data: st.DataObject) -> None:
    predictions, labels = day(2, count=40)
    labels += [dict(labels[3], at=labels[-1]["at"] + 5, fraud=1 - labels[3]["fraud"])]
    labels += [dict(labels[5], at=labels[-1]["at"] + 30 * 24 * HOUR)]
    whole = play(monitor(every="30min"), predictions, labels)
    cuts = data.draw(st.lists(st.integers(0, 60), max_size=8))
    crash = (lambda: monitor(every="30min")) if data.draw(st.booleans()) else None
    assert play(monitor(every="30min"), predictions, labels, cuts, crash) == whole


def test_a_label_that_is_corrected_counts_once() -> None:
    predictions = [{"at": 10, "id": "a", "score": 0.9}, {"at": 11, "id": "b", "score": 0.2}]
    labels = [
        {"at": HOUR, "id": "a", "fraud": 0},
        {"at": 2 * HOUR, "id": "b", "fraud": 0},
        {"at": 3 * HOUR, "id": "a", "fraud": 1},
        {"at": 4 * HOUR, "id": "a", "fraud": 1},
    ]
    step = monitor()
    rows = play(step, predictions, labels)
    precision = [(row["value"], row["labelled"]) for row in rows if row["figure"] == "precision"]
    assert precision == [(0.0, 1), (0.0, 2), (1.0, 2), (1.0, 2)]
    counts = step.counts
    assert (counts["matched"], counts["corrected"], counts["same"]) == (2, 1, 1)
    assert counts["labels"] == 4


def test_every_row_is_accounted_for() -> None:
    predictions: Rows = [
        {"at": 1, "id": 1, "score": 0.4},
        {"at": 2, "id": 1, "score": 0.5},
        {"at": 3, "id": 2, "score": None},
        {"at": 4, "id": 3, "score": math.inf},
        {"at": 5, "id": 4, "score": 1.5},
        {"at": 6, "id": 5, "score": 0.1},
    ]
    labels: Rows = [
        {"at": HOUR, "id": 1, "fraud": 1},
        {"at": HOUR, "id": 2, "fraud": 1},
        {"at": HOUR, "id": None, "fraud": 1},
        {"at": HOUR, "id": 5, "fraud": None},
        {"at": HOUR, "id": 5, "fraud": 7},
        {"at": 40 * HOUR, "id": 5, "fraud": 1},
    ]
    step = monitor()
    rows = play(step, predictions, labels)
    counts = step.counts
    assert counts["predictions"] == 6
    assert (counts["unscored"], counts["twice"], counts["unlabelled"], counts["waiting"]) == (3, 1, 1, 0)
    assert (counts["labels"], counts["refused"], counts["matched"]) == (6, 3, 1)
    # one of a row without a score, one that came after its prediction was forgotten
    assert counts["unknown"] + counts["early"] == 2
    assert value(rows, "unscored", 0, complete=True) == 3


def test_nobody_complained_is_an_answer_where_it_is_declared() -> None:
    predictions, labels = day(3)
    only_fraud = [row for row in labels if row["fraud"]]
    told = play(monitor(absent="negative"), predictions, only_fraud)
    whole = play(monitor(), predictions, labels)
    for figure in ("auc", "f1", "brier", "base_rate"):
        assert value(told, figure, 2, complete=True) == value(whole, figure, 2, complete=True)


def days(count: int, drift_from: int) -> tuple[Rows, Rows]:
    """One window a day, labels two days later; from `drift_from` on the score says nothing any more."""
    chance = np.random.default_rng(5)
    predictions, labels = [], []
    for number in range(count):
        scores = chance.beta(1, 2, 400)
        moved = chance.permutation(scores) if number >= drift_from else scores
        for index, (score, real) in enumerate(zip(scores, chance.random(400) < moved, strict=True)):
            at, name = number * 24 * HOUR + index * 10**9, f"{number}-{index}"
            predictions.append({"at": at, "id": name, "score": float(score)})
            labels.append({"at": at + 47 * HOUR, "id": name, "fraud": int(real)})
    return predictions, sorted(labels, key=lambda row: row["at"])


def test_quality_is_estimated_before_labels_come_and_a_fall_is_told_when_they_do() -> None:
    predictions, labels = days(20, drift_from=15)
    rows = play(monitor(window="1d", every="1d", wait="48h"), predictions, labels)
    estimates = {
        row["window_start"]: row["value"] for row in rows if row["estimated"] and row["figure"] == "auc"
    }
    truths = {row["window_start"]: row for row in rows if row["complete"] and row["figure"] == "auc"}
    sound = [start for start in estimates if start < 15 * 24 * HOUR]
    assert len(sound) >= 9
    off = [abs(estimates[start] - truths[start]["value"]) for start in sound]
    assert np.mean(off) < 0.025
    unusual = sorted(start // (24 * HOUR) for start, row in truths.items() if row["unusual"])
    assert unusual == [15, 16, 17, 18, 19]


def test_a_regression_has_errors_in_its_unit() -> None:
    predictions = [{"at": i, "id": i, "score": 10.0 + i} for i in range(4)]
    labels = [{"at": HOUR + i, "id": i, "fraud": 10.0 + (-1) ** i} for i in range(4)]
    rows = play(monitor(kind="regression"), predictions, labels)
    off = np.array([10 + i - (10 + (-1) ** i) for i in range(4)])
    for figure, wanted in {
        "mae": np.abs(off).mean(),
        "rmse": np.sqrt((off**2).mean()),
        "bias": off.mean(),
    }.items():
        assert value(rows, figure, 0, complete=True) == pytest.approx(wanted)


def test_groups_and_versions_are_told_apart() -> None:
    predictions, labels = day(4)
    for row in predictions:
        row["country"] = "fr" if row["id"] % 2 else None
    rows = play(monitor(version="version", group="country"), predictions, labels)
    assert {(row["version"], row["group"]) for row in rows} == {("1", "fr"), ("1", "")}
    total = sum(value(rows, "rows", 1, group=group, complete=True) for group in ("fr", ""))
    assert total == sum(row["at"] // HOUR == 1 for row in predictions)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(0, 60))
def test_counts_in_two_parts_are_those_of_the_whole(rows: list[tuple[float, bool]], cut: int) -> None:
    bins = Bins(0.3)

    def counted(part: list[tuple[float, bool]]) -> Binary:
        scores, truth = np.array([s for s, _ in part]), np.array([float(y) for _, y in part])
        tally = Binary.empty(bins.count)
        tally.score(bins.of(scores))
        tally.label(bins.of(scores), scores, truth, 1)
        return tally

    one, whole = counted(rows[:cut]), counted(rows)
    one.add(counted(rows[cut:]))
    assert one.save() == whole.save()
    assert {k: repr(v) for k, v in measured(one, bins).items()} == {
        k: repr(v) for k, v in measured(whole, bins).items()
    }


def test_chances_rise_with_the_score() -> None:
    bins = Bins(0.5)
    chance = np.random.default_rng(6)
    scores = chance.random(5000)
    truth = (chance.random(5000) < scores**2).astype(float)
    tally = Binary.empty(bins.count)
    assert calibration(tally, 30) is None
    tally.score(bins.of(scores))
    tally.label(bins.of(scores), scores, truth, 1)
    rates = calibration(tally, 30)
    assert rates is not None
    assert (np.diff(rates) >= 0).all()
    assert rates[bins.of(np.array([0.7]))[0]] == pytest.approx(0.49, abs=0.08)


def test_chance_alone_is_hardly_ever_unusual() -> None:
    chance = np.random.default_rng(7)
    usual = Usual(history=30, sigmas=4.0, effect=0.0)
    broken = 0
    for _ in range(2000):
        figure = Figure(float(chance.normal(0.8, 0.02)), 0.02)
        limits = usual.limits(figure)
        broken += limits is not None and limits.broken(figure.value)
        usual.learn(figure)
    assert broken <= 4
    assert usual.limits(Figure(0.8, 0.02)).broken(0.6)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"threshold": 1.0}, {"kind": "other"}, {"absent": "positive"}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BoucleError, match="B750"):
        monitor(**wrong)


def test_other_columns_and_other_states_are_refused() -> None:
    step = monitor()
    with pytest.raises(BoucleError, match="B221"):
        step.step(Block("other", batch([{"at": 1, "id": 1}]), 0, Position("p", 0)))
    with pytest.raises(BoucleError, match="B2"):
        step.step(Block("scored", batch([{"at": 1, "id": 1}]), 0, Position("p", 0)))
    with pytest.raises(BoucleError, match="B602"):
        step.restore(b"\xc1")


def test_what_became_of_the_rows_is_on_metrics() -> None:
    step = monitor()
    play(step, *day(8, count=30))
    assert isinstance(step, Counts)
    view = msgspec.structs.replace(
        SampleLoop(StillClock(5.0)).view(),
        steps=(StepView("performance", "", (), 1, 1, 0.0, 1.0, 1.0, counts=step.counts),),
    )
    text = exposition(view).decode()
    assert 'boucle_step_became_total{step="performance",what="matched"} 30.0' in text

"""Labels that come a month late: joined to predictions on disk, every one accounted for, in little memory."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.errors import BoucleError
from boucle.serve.monitor import Performance, past
from boucle.serve.monitor.past import Past
from tests.serve.test_performance import HOUR, Rows, monitor, play

DAY = 24 * HOUR


def quiet(*told: Any) -> None:
    del told


def month(days: int, a_day: int, seed: int = 1) -> tuple[Rows, Rows]:
    """Calibrated chances, and for a third of them a label 25 to 31 days later; the rest within a day."""
    chance = np.random.default_rng(seed)
    count = days * a_day
    at = np.sort(chance.integers(0, days * DAY, count))
    scores = chance.beta(1, 2, count)
    truth = chance.random(count) < scores
    wait = np.where(
        chance.random(count) < 1 / 3,
        chance.integers(25 * DAY, 31 * DAY, count),
        chance.integers(0, DAY, count),
    )
    predictions = [
        {"at": int(t), "id": f"p{place}", "score": float(s), "version": "1"}
        for place, (t, s) in enumerate(zip(at, scores, strict=True))
    ]
    labels = [
        {"at": int(t), "id": f"p{place}", "fraud": int(y)}
        for place, (t, y) in enumerate(zip(at + wait, truth, strict=True))
    ]
    return predictions, sorted(labels, key=lambda row: row["at"])


def last(rows: Rows, **of: Any) -> dict[Any, Any]:
    """The last value told of each window and figure."""
    return {
        (row["window_start"], row["figure"]): row["value"]
        for row in rows
        if row["complete"] and all(row[name] == said for name, said in of.items())
    }


def balanced(counts: dict[str, int]) -> bool:
    said = ("refused", "same", "corrected", "matched", "too_late", "unknown", "early")
    return counts["labels"] == sum(counts[name] for name in said)


def test_a_month_late_the_figures_are_those_of_patience(tmp_path: Path) -> None:
    predictions, labels = month(12, 40)
    step = monitor(window="1d", wait="2d", upto="40d")
    step.attach(tmp_path, quiet)
    rows = play(step, predictions, labels)
    patient = play(monitor(window="1d", wait="40d"), predictions, labels)
    found, wanted = last(rows), last(patient)
    assert found.keys() == wanted.keys()
    assert all(found[key] == pytest.approx(wanted[key]) for key in wanted)
    counts = step.counts
    assert balanced(counts)
    assert counts["matched"] == counts["labels"] == len(labels)
    assert counts["matched_late"] == sum(
        row["at"] - predictions[int(row["id"][1:])]["at"] > 2 * DAY for row in labels
    )
    again = [row for row in rows if row["figure"] == "auc" and row["window_start"] == 0 and row["complete"]]
    assert len(again) > 2, "the window is told anew"
    assert [row["revision"] for row in again] == sorted({row["revision"] for row in again})
    assert len({row["labelled"] for row in again}) == len(again)


def test_every_label_is_joined_too_late_unknown_a_duplicate_or_a_correction() -> None:
    predictions: Rows = [{"at": 10 + place, "id": place, "score": 0.9} for place in range(6)]
    predictions += [{"at": 50 * DAY, "id": 99, "score": 0.5}]
    labels: Rows = [
        {"at": HOUR, "id": 0, "fraud": 1},
        {"at": 20 * DAY, "id": 0, "fraud": 1},  # said before
        {"at": 20 * DAY, "id": 1, "fraud": 0},  # a month late
        {"at": 20 * DAY + 1, "id": 1, "fraud": 1},  # and corrected
        {"at": 20 * DAY + 2, "id": 1, "fraud": 1},  # and said again
        {"at": 21 * DAY, "id": 2, "fraud": None},
        {"at": 22 * DAY, "id": 77, "fraud": 1},  # nobody predicted it
        {"at": 40 * DAY, "id": 3, "fraud": 1},  # after `upto`
    ]
    step = monitor(window="1d", wait="1d", upto="30d")
    rows = play(step, predictions, labels, cuts=[2, 24 * 20, 24 * 30])
    counts = step.counts
    assert balanced(counts)
    assert {name: counts[name] for name in ("matched", "matched_late", "same", "corrected", "refused")} == {
        "matched": 2, "matched_late": 1, "same": 2, "corrected": 1, "refused": 1,
    }  # fmt: skip
    assert counts["too_late"] + counts["unknown"] + counts["early"] == 2
    assert last(rows)[0, "precision"] == 1.0
    assert counts["predictions"] == counts["matched"] + counts["unlabelled"] + counts["waiting"]


def test_a_fraud_that_is_told_a_month_later_was_no_negative() -> None:
    predictions: Rows = [{"at": 10 + place, "id": place, "score": 0.9} for place in range(4)]
    predictions += [{"at": 50 * DAY, "id": 99, "score": 0.5}]
    labels: Rows = [{"at": 20 * DAY, "id": 1, "fraud": 1}, {"at": 20 * DAY, "id": 2, "fraud": 0}]
    rows = play(monitor(window="1d", wait="1d", upto="30d", absent="negative"), predictions, labels)
    told = [row for row in rows if row["figure"] == "precision" and row["window_start"] == 0]
    assert [(row["value"], row["labelled"]) for row in told if row["complete"]] == [(0.0, 4), (0.25, 4)]


@settings(max_examples=6, deadline=None)
@example(cuts=[867], crash=False, full=3)  # a label long after anything was told, and a cut before its tick
@given(cuts=st.lists(st.integers(0, 24 * 50), max_size=6), crash=st.booleans(), full=st.sampled_from([3, 50]))
def test_cut_and_crash_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], crash: bool, full: int
) -> None:
    predictions, labels = month(6, 20, seed=3)
    labels += [dict(labels[-1], at=labels[-1]["at"] + HOUR, fraud=1 - labels[-1]["fraud"])]
    folder = tmp_path_factory.mktemp("past")

    def made() -> Performance:
        step = monitor(window="1d", wait="1d", upto="35d")
        step.attach(folder, quiet)
        return step

    whole = play(monitor(window="1d", wait="1d", upto="35d"), predictions, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past, "_FULL", full)
        assert play(made(), predictions, labels, cuts, made if crash else None) == whole


def test_what_a_killed_process_wrote_after_its_checkpoint_is_not_seen_twice(tmp_path: Path) -> None:
    predictions, labels = month(6, 20, seed=4)

    def made() -> Performance:
        step = monitor(window="1d", wait="1d", upto="35d")
        step.attach(tmp_path, quiet)
        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past, "_FULL", 4)
        whole = play(monitor(window="1d", wait="1d", upto="35d"), predictions, labels)
        first = made()
        kept = first.snapshot()
        play(first, predictions, labels)  # and then it is killed
        assert len(list((tmp_path / "past").glob("*.npy"))) > 5
        again = made()
        again.restore(kept)
        assert list((tmp_path / "past").iterdir()) == []
        assert play(again, predictions, labels) == whole


def rows_of(count: int, first: int = 0, at: int = 0) -> tuple[Any, ...]:
    keys = Past.keys(range(first, first + count))
    times = np.arange(at, at + count)
    return keys, times, np.full(count, 0.5), np.zeros(count, np.int64), np.full(count, math.nan)


def test_a_storm_of_labels_takes_little_memory(tmp_path: Path) -> None:
    kept = Past()
    kept.open(tmp_path)
    for part in range(10):
        kept.put(*rows_of(70_000, part * 70_000, part * 70_000))
    assert len(kept) == 700_000
    assert len(kept.save()) < 1000, "the rows are on disk"
    assert sum(one.shape[1] for one in kept._open) == 0
    keys = Past.keys(np.random.default_rng(1).permutation(1_400_000)[:200_000].tolist())
    known, rows = kept.find(keys)
    assert 0.48 < known.mean() < 0.52
    assert (rows[0][known] == keys[known]).all()
    kept.forget(350_000)
    assert len(kept) == 350_000
    assert len(list(tmp_path.iterdir())) == 10, "an older checkpoint may still ask for them"
    for _ in range(3):
        kept.save()
    assert len(list(tmp_path.iterdir())) == 5


def test_the_newest_of_an_id_holds_and_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    kept = Past()
    kept.open(tmp_path / "past")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past, "_FULL", 10)
        kept.put(*rows_of(10))
        keys, at, scores, tally, labels = rows_of(10)
        (tmp_path / "past").rename(tmp_path / "away")
        kept.put(keys, at, scores, tally, labels + 1 if not math.isnan(labels[0]) else np.ones(10))
        _, rows = kept.find(keys)
        assert Past.columns(rows)[3].tolist() == [1.0] * 10
        (tmp_path / "away").rename(tmp_path / "past")
        kept.put(*rows_of(1, 50))
    assert len(kept) == 21
    assert sorted(one.name for one in (tmp_path / "past").iterdir() if one.suffix == ".npy") == [
        "000000000000.npy", "000000000001.npy",
    ]  # fmt: skip
    again = Past()
    again.open(tmp_path / "past")
    again.load(kept.save())
    known, rows = again.find(keys)
    assert known.all()
    assert Past.columns(rows)[3].tolist() == [1.0] * 10


@pytest.mark.parametrize("damage", [b"", b"junk", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}"])
def test_a_damaged_or_missing_file_is_said(tmp_path: Path, damage: bytes) -> None:
    kept = Past()
    kept.open(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past, "_FULL", 10)
        kept.put(*rows_of(10))
    (place,) = tmp_path.iterdir()
    place.unlink()
    if damage:
        place.write_bytes(damage)
    again = Past()
    again.open(tmp_path)
    with pytest.raises(BoucleError, match="B755"):
        again.load(kept.save())


def test_ids_that_are_null_and_settings_that_cannot_be() -> None:
    step = monitor(window="1h", wait="1h", upto="2d")
    rows = pa.record_batch(
        {
            "at": pa.array([1, 2, 40 * HOUR], pa.timestamp("ns", "UTC")),
            "id": pa.array([None, 5, 6], pa.int64()),
            "score": [0.1, 0.2, 0.3],
        }
    )
    step.step(Block("scored", rows, 40 * HOUR, Position("scored", 0)))
    none = pa.record_batch(
        {"at": rows["at"].slice(0, 0), "id": rows["id"].slice(0, 0), "fraud": pa.array([], pa.int8())}
    )
    step.step(Block("labels", none, 40 * HOUR, Position("labels", 0)))
    assert step.counts["kept"] == 1
    with pytest.raises(BoucleError, match="B750"):
        monitor(wait="2d", upto="1d")

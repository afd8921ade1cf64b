"""Versions change between two Blocks, each row is recorded with the one that scored it, and scored by it again."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.errors import BoucleError
from boucle.serve import Score
from boucle.serve.switches import Switches
from tests.serve.models import linear, registered

MODEL = "models:risk@champion"
MARKS = {"version": "by", "arm": "arm", "fallback": "why"}
Told = list[tuple[str, dict[str, Any]]]


def rows(values: list[float], keys: list[str] | None = None) -> Block:
    columns = {"a": pa.array(values, pa.float64())}
    if keys is not None:
        columns["card"] = pa.array(keys)
    return Block("features", pa.record_batch(columns), 0, Position("p", 0))


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def make(tmp_path: Path, told: Told) -> Iterator[Callable[..., Score]]:
    made: list[Score] = []

    def attached(folder: str = "run", **declared: Any) -> Score:
        score = Score("risk", model=MODEL, folder=tmp_path, marks=MARKS, **declared)
        score.attach(tmp_path / folder, lambda kind, severity, says, evidence: told.append((kind, evidence)))
        made.append(score)
        return score

    yield attached
    for score in made:
        score.close()


def versions(score: Score, values: list[float]) -> list[str]:
    (block,) = score.step(rows(values))
    given: list[str] = block.rows["by"].to_pylist()
    return given


def test_promotion_and_rollback_under_load_lose_no_row(
    tmp_path: Path, make: Callable[..., Score], told: Told
) -> None:
    registry = registered(tmp_path, linear(1.0), linear(2.0))
    score = make(fallback="previous")
    score.live()
    seen: list[tuple[str, float, float]] = []
    ending = threading.Event()

    def load() -> None:
        at = 0
        while not ending.is_set():
            values = [float(at + one) for one in range(16)]
            (block,) = score.step(rows(values))
            seen.extend(
                zip(block.rows["by"].to_pylist(), values, block.rows["risk"].to_pylist(), strict=True)
            )
            at += 16

    path = threading.Thread(target=load)
    path.start()
    until(lambda: len(seen) > 100)
    registry.promote("risk", 2, by="tests")
    until(lambda: seen[-1][0] == "2")
    registry.rollback("risk", by="tests")
    until(lambda: seen[-1][0] == "1")
    ending.set()
    path.join()
    assert [value for _, value, _ in seen] == [float(one) for one in range(len(seen))]
    assert all(score == value * int(version) for version, value, score in seen)
    assert score.ledger.balanced()
    assert score.ledger.scored == len(seen)
    assert [kind for kind, _ in told] == ["model_changed", "model_changed"]


def test_rows_scored_again_after_a_crash_are_scored_by_the_same_version(
    tmp_path: Path, make: Callable[..., Score]
) -> None:
    registry = registered(tmp_path, linear(1.0), linear(2.0), linear(3.0))
    score = make()
    score.live()
    first = versions(score, [1.0] * 10)
    kept = score.snapshot()
    first += versions(score, [1.0] * 7)
    registry.promote("risk", 2, by="tests")
    until(lambda: "2" in versions_of_next(score, first))
    score.close()  # the process is gone; meanwhile somebody promotes
    registry.promote("risk", 3, by="tests")
    again = make()
    again.restore(kept)
    second = versions(again, [1.0] * (len(first) - 10))  # one Block now, whatever the cut was before
    assert second == first[10:]
    again.live()
    until(lambda: versions(again, [1.0]) == ["3"])


def versions_of_next(score: Score, first: list[str]) -> list[str]:
    given = versions(score, [1.0])
    first += given
    return given


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    registered(folder, linear(1.0), linear(2.0), linear(3.0))
    return folder


@given(
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    changes=st.lists(st.tuples(st.integers(0, 60), st.sampled_from([1.0, 2.0, 3.0])), max_size=5),
    restart=st.integers(0, 60),
)
@settings(max_examples=10, deadline=None)
def test_any_cut_into_blocks_gives_the_same_versions(
    tmp_path_factory: pytest.TempPathFactory,
    three: Path,
    cuts: list[int],
    changes: list[tuple[int, float]],
    restart: int,
) -> None:
    folder = three
    weights = (1.0, 2.0, 3.0)
    run = tmp_path_factory.mktemp("cuts")
    score = Score("risk", model=MODEL, folder=folder)
    ready = {
        weight: score._follower._load(f"models:risk/{number}") for number, weight in enumerate(weights, 1)
    }
    score.attach(run, lambda *_: None)
    score.live()
    due, kept, at, given = sorted(changes, key=lambda one: one[0]), None, 0, list[float]()
    for value in range(60):
        while due and due[0][0] == value:
            score._deliver({"champion": ready[due.pop(0)[1]]})
        if value == restart:
            kept = score.snapshot()
        given += score.step(rows([1.0]))[0].rows["risk"].to_pylist()
    score.close()
    again = Score("risk", model=MODEL, folder=folder)
    again.attach(run, lambda *_: None)
    if kept is not None:
        again.restore(kept)
        at = restart
    begun = at
    second: list[float] = []
    for place in range(60):
        count = min(cuts[place % len(cuts)], 60 - at)
        if count:
            second += again.step(rows([1.0] * count))[0].rows["risk"].to_pylist()
            at += count
    again.close()
    assert second == given[begun:]


def test_a_restart_does_not_need_the_registry(tmp_path: Path, make: Callable[..., Score], told: Told) -> None:
    registered(tmp_path, linear(2.0))
    score = make()
    versions(score, [1.0])
    kept = score.snapshot()
    score.close()
    (tmp_path / "registry").rename(tmp_path / "away")
    again = make(fallback={"constants": {"risk": 0.5}})
    again.restore(kept)
    assert versions(again, [1.0]) == ["1"]
    assert [kind for kind, _ in told] == ["model_trouble"]
    again.live()
    (tmp_path / "away").rename(tmp_path / "registry")
    until(lambda: told[-1][0] == "model_well")
    assert versions(again, [3.0]) == ["1"]


def test_no_version_at_all_and_no_fallback_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BoucleError, match="B619"):
        Score("risk", model=MODEL, folder=tmp_path)


def test_until_the_registry_is_there_the_fallback_answers(
    tmp_path: Path, make: Callable[..., Score], told: Told
) -> None:
    score = make(fallback=[{"rule": {"risk": "a / 10"}}])
    score.live()
    (block,) = score.step(rows([5.0]))
    assert block.rows["risk"].to_pylist() == [0.5]
    assert block.rows["why"].to_pylist() == ["unavailable"]
    registered(tmp_path, linear(2.0))
    until(lambda: versions(score, [1.0]) == ["1"])
    assert score.ledger.balanced()
    assert {kind for kind, _ in told} == {"model_trouble", "model_well", "model_changed"}


def test_a_version_that_cannot_be_used_changes_nothing(
    tmp_path: Path, make: Callable[..., Score], told: Told
) -> None:
    registry = registered(tmp_path, linear(1.0), linear(1.0, output="other"), linear(1.0, 1.0), linear(4.0))
    score = make()
    score.live()
    assert versions(score, [1.0]) == ["1"]
    for number, code in ((2, "B654"), (3, "B654")):
        registry.promote("risk", number, by="tests")
        until(lambda: bool(told) and told[-1][0] == "model_trouble")
        assert code in told[-1][1]["why"]
        assert versions(score, [1.0]) == ["1"]
        registry.rollback("risk", by="tests")
        until(lambda: told[-1][0] == "model_well")
    object_ = tmp_path / "registry" / "objects" / registry.resolve("risk/4").object / "model.onnx"
    sound = object_.read_bytes()
    registry.promote("risk", 4, by="tests")
    until(lambda: versions(score, [1.0]) == ["4"])
    registry.rollback("risk", by="tests")
    until(lambda: versions(score, [1.0]) == ["1"])
    assert object_.read_bytes() == sound


def test_a_corrupted_file_is_refused_and_taken_once_it_is_repaired(
    tmp_path: Path, make: Callable[..., Score], told: Told
) -> None:
    registry = registered(tmp_path, linear(1.0), linear(2.0))
    score = make()
    score.live()
    registry.promote("risk", 2, by="tests")
    until(lambda: versions(score, [1.0]) == ["2"])
    score.close()
    registry.rollback("risk", by="tests")
    object_ = tmp_path / "registry" / "objects" / registry.resolve("risk/2").object / "model.onnx"
    sound = object_.read_bytes()
    again = make("elsewhere")
    again.live()
    assert versions(again, [1.0]) == ["1"]
    registry.promote("risk", 2, by="tests")
    object_.write_bytes(sound[:-7])
    until(lambda: versions(again, [1.0]) == ["2"] or (bool(told) and told[-1][0] == "model_trouble"))
    object_.write_bytes(sound)
    until(lambda: versions(again, [1.0]) == ["2"])
    assert again.ledger.balanced()


@given(st.binary(max_size=200))
@settings(max_examples=30, deadline=None)
def test_any_bytes_as_a_journal_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    (folder / "switches.jsonl").write_bytes(content)
    journal = Switches()
    with contextlib.suppress(BoucleError):
        journal.open(folder)
    journal.close()


def test_canary_is_sticky_and_exact(tmp_path: Path, make: Callable[..., Score]) -> None:
    registry = registered(tmp_path, linear(1.0), linear(2.0))
    registry.promote("risk", 2, "challenger", by="tests")
    canary = {"model": "models:risk@challenger", "percent": 10, "key": "card"}
    score = make(canary=canary)
    keys = [f"card-{number % 20_000}" for number in range(40_000)]
    (block,) = score.step(rows([1.0] * len(keys), keys))
    arms = np.array(block.rows["arm"].to_pylist())
    assert (arms[:20_000] == arms[20_000:]).all()
    assert abs((arms == "canary").mean() - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 20_000)
    assert block.rows["risk"].to_pylist() == [2.0 if arm == "canary" else 1.0 for arm in arms]
    for percent, share in ((0, 0.0), (100, 1.0)):
        other = make(f"run-{percent}", canary={**canary, "percent": percent})
        (block,) = other.step(rows([1.0] * 100, keys[:100]))
        assert np.mean([arm == "canary" for arm in block.rows["arm"].to_pylist()]) == share

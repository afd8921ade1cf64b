"""A canary on trial: how often it decides wrongly, how soon it decides rightly, and what it does then."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.errors import BoucleError
from boucle.quality.key_hash import keys_of
from boucle.serve import Trial
from boucle.serve.evidence import Evidence
from tests.serve.models import linear, registered


def decided(
    draw: Callable[[np.random.Generator], Any], runs: int, alpha: float, margin: float = 0.0
) -> list[Any]:
    """(verdict, pairs until then) of each run, looked at after every pair."""
    told = []
    for run in range(runs):
        evidence = Evidence(alpha, margin)
        taken = evidence.add(draw(np.random.default_rng(run)))
        told.append((evidence.verdict, taken))
    return told


@pytest.mark.parametrize(
    "name",
    ["rates", "rare", "skewed", "wide", "trend"],
)
def test_no_better_challenger_is_promoted_more_often_than_alpha(name: str) -> None:
    def draw(random: np.random.Generator) -> Any:
        rows = 2000
        if name == "rates":
            return random.binomial(1, 0.2, rows) - random.binomial(1, 0.2, rows)
        if name == "rare":
            return random.binomial(1, 0.005, rows) - random.binomial(1, 0.005, rows)
        if name == "skewed":  # seldom much better, mostly a little worse: the mean is 0
            return np.where(random.random(rows) < 0.05, 0.95, -0.05)
        if name == "wide":
            return random.choice([-1.0, 1.0], rows)
        return random.uniform(-1, 1, rows) * np.linspace(0.01, 1, rows)

    alpha, runs = 0.05, 300
    told = decided(draw, runs, alpha)
    bound = alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)
    assert np.mean([verdict == "better" for verdict, _ in told]) <= bound
    assert np.mean([verdict == "worse" for verdict, _ in told]) <= bound


def test_a_better_challenger_is_found_within_a_few_times_the_least_possible() -> None:
    # Errors 20 % against 15 %: sigma² = 0.29, so 2 sigma² ln(1/alpha) / delta² = 1070 pairs at the least.
    told = decided(lambda random: random.binomial(1, 0.20, 8000) - random.binomial(1, 0.15, 8000), 60, 0.01)
    assert {verdict for verdict, _ in told} == {"better"}
    assert np.median([pairs for _, pairs in told]) < 3 * 1070


def test_within_the_margin_is_not_better() -> None:
    told = decided(
        lambda random: random.binomial(1, 0.20, 4000) - random.binomial(1, 0.19, 4000), 200, 0.05, 0.02
    )
    assert np.mean([verdict == "better" for verdict, _ in told]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_the_interval_holds_at_all_times_at_once() -> None:
    missed = 0
    for run in range(200):
        random = np.random.default_rng(run)
        evidence, out = Evidence(0.1), False
        for _ in range(40):
            evidence.add((random.binomial(1, 0.3, 25) - random.binomial(1, 0.2, 25)).astype(np.float64))
            evidence.state[8] = evidence.state[9] = 0.0  # the interval alone, however far the bets are
            evidence.state[3] = evidence.state[4] = 0.0
            low, high = evidence.interval()
            out = out or not low <= 0.1 <= high
        missed += out
    assert missed / 200 <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 200)


def outcomes(random: np.random.Generator, rows: int, champion: float, challenger: float, **more: Any) -> Any:
    arms = np.where(random.random(rows) < 0.2, "canary", "champion")
    wrong = random.random(rows) < np.where(arms == "canary", challenger, champion)
    return pa.record_batch(
        {
            "at": pa.array(np.arange(rows) * 1000, pa.timestamp("ns", "UTC")),
            "arm": arms,
            "version": np.where(arms == "canary", "2", "1"),
            "wrong": wrong.astype(np.float64),
            **more,
        }
    )


def run(trial: Trial, rows: Any, cuts: list[int]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    at = turn = 0
    while at < rows.num_rows:
        count = cuts[turn % len(cuts)]
        turn += 1
        given_ = trial.step(Block("o", rows.slice(at, count), 0, Position("p", at)))
        told += given_[0].rows.to_pylist()
        at += count
    return told


def trial_of(folder: Path, **declared: Any) -> Trial:
    return Trial("trial", model="models:risk", loss="wrong", folder=folder, **declared)


@given(cuts=st.lists(st.integers(1, 700), min_size=1, max_size=4), restart=st.integers(0, 899))
@settings(max_examples=8, deadline=None)
def test_any_cut_and_any_restart_decides_the_same(cuts: list[int], restart: int) -> None:
    rows = outcomes(np.random.default_rng(3), 900, 0.7, 0.1)
    whole = run(trial_of(Path(), least=20), rows, [900])
    assert [one["decision"] for one in whole] == ["promote"]
    first = trial_of(Path(), least=20)
    told = run(first, rows.slice(0, restart), cuts)
    again = trial_of(Path(), least=20)
    again.restore(first.snapshot())
    told += run(again, rows.slice(restart), cuts)
    assert told == whole


def test_one_unit_is_one_witness() -> None:
    rows = outcomes(np.random.default_rng(3), 3000, 0.4, 0.2, card=["the same"] * 3000)
    trial = trial_of(Path(), unit="card")
    assert run(trial, rows, [500]) == []
    assert trial.state.repeated == 2999


def test_however_many_units_there_are_memory_is_bounded_and_none_counts_twice() -> None:
    cards = np.random.default_rng(4).integers(0, 4000, 12_000)
    rows = outcomes(np.random.default_rng(3), 12_000, 0.5, 0.35, card=cards)
    # Arms by the hash of the card, as a canary's are.
    high = keys_of([pa.array(cards)])[0] >> np.uint64(63)
    rows = rows.set_column(1, "arm", pa.array(np.where(high == 0, "canary", "champion")))
    rows = rows.set_column(2, "version", pa.array(np.where(high == 0, "2", "1")))
    trial = trial_of(Path(), unit="card", units=300, alpha=0.001, least=100_000)
    run(trial, rows, [500])
    state = trial.state
    assert 0 < len(state.units) <= 300
    assert state.thinned >= 3
    assert sum(state.counts.values()) + state.repeated + state.passed == 12_000
    assert sum(state.counts.values()) > 800, "units that were thinned out have counted once"
    assert 0.4 < state.counts["canary"] / sum(state.counts.values()) < 0.6, "both arms are thinned alike"


def test_outcomes_of_versions_that_went_say_nothing() -> None:
    rows = outcomes(np.random.default_rng(3), 600, 0.4, 0.2)
    trial = trial_of(Path(), least=100_000)
    run(trial, rows, [500])
    third = rows.set_column(
        2, "version", pa.array(["3" if one == "2" else one for one in rows["version"].to_pylist()])
    )
    run(trial, third, [500])
    assert trial.state.versions == {"champion": "1", "canary": "3"}
    run(trial, rows.filter(pa.compute.equal(rows["arm"], "canary")), [500])
    assert trial.state.stale > 50


@pytest.mark.parametrize("better", [True, False])
def test_what_was_decided_is_carried_out_once_with_its_evidence(tmp_path: Path, better: bool) -> None:
    registry = registered(tmp_path, linear(1.0), linear(2.0))
    registry.promote("risk", 2, "challenger", by="tests")
    told: list[tuple[str, dict[str, Any]]] = []
    trial = trial_of(tmp_path)
    trial.attach(tmp_path / "run", lambda kind, severity, says, evidence: told.append((kind, evidence)))
    rows = outcomes(np.random.default_rng(5), 3000, 0.3, 0.1 if better else 0.6)
    run(trial, rows, [1000])
    assert registry.roles("risk").generation == 2  # decided, not yet live: nobody has acted
    trial.live()
    until = time.monotonic() + 20
    while not told and time.monotonic() < until:
        time.sleep(0.002)
    again = trial_of(tmp_path)
    again.restore(trial.snapshot())
    again.attach(tmp_path / "run", lambda kind, severity, says, evidence: told.append((kind, evidence)))
    again.live()
    while len(told) < 2 and time.monotonic() < until:
        time.sleep(0.002)
    trial.close()
    again.close()
    roles = registry.roles("risk")
    assert roles.roles.get("champion") == (2 if better else 1)
    assert "challenger" not in roles.roles
    assert roles.generation == 3
    assert roles.history[-1].by == "trial trial"
    assert [evidence["done"] for _, evidence in told] == ["done", "done before" if better else "overtaken"]
    if better:
        assert roles.history[-1].evidence["pairs"] >= 100


def test_where_approval_is_declared_a_person_is_asked(tmp_path: Path) -> None:
    registry = registered(tmp_path, linear(1.0), linear(2.0))
    registry.promote("risk", 2, "challenger", by="tests")
    said: list[dict[str, str]] = []
    trial = trial_of(tmp_path, approval=True)
    trial.attach(tmp_path, lambda kind, severity, says, evidence: said.append(says))
    trial.live()
    run(trial, outcomes(np.random.default_rng(5), 3000, 0.3, 0.1), [1000])
    until = time.monotonic() + 20
    while not said and time.monotonic() < until:
        time.sleep(0.002)
    trial.close()
    assert registry.roles("risk").roles == {"champion": 1, "challenger": 2}
    assert "boucle promote risk 2" in said[0]["en"]


def test_a_step_that_cannot_decide_is_refused(tmp_path: Path) -> None:
    for wrong in ({"alpha": 0.0}, {"margin": 1.0}, {"least": 0}, {"units": 1}):
        with pytest.raises(BoucleError, match="B657"):
            trial_of(tmp_path, **wrong)
    with pytest.raises(BoucleError, match="B602"):
        trial_of(tmp_path).restore(b"\xc1")

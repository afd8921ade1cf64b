"""How others judge, worked out by hand; and the scripts on the public sets, where they are at hand."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bench.judged import nab, skab
from bench.public_femto import Bearing, judged, score

DATA = Path(__file__).parents[4] / "shared" / "data"


def test_outliers_are_counted_over_all_files() -> None:
    found = skab.outliers([[False, True, True], [False]], [[True, True, False], [False]])
    assert (found.f1, found.far, found.mar) == (0.5, 0.5, 0.5)


def test_windows_of_change_points_do_not_overlap() -> None:
    assert skab.windows([10, 40, 200], 60) == [(10, 70), (70, 100), (200, 260)]


def test_change_points_by_hand() -> None:
    points = [[100.0]]
    assert skab.change_points(points, [[100.0]], "standard") == pytest.approx(100)
    assert skab.change_points(points, [[]], "standard") == 0
    # At the end of the window it costs a false alarm, and saves a miss: 1 of the 2 from nothing to perfection.
    assert skab.change_points(points, [[160.0]], "standard") == pytest.approx(100 * (1 - 0.11) / 2)
    # In the middle: halfway between 1 and -0.11.
    assert skab.change_points(points, [[130.0]], "standard") == pytest.approx(100 * (1 + 0.445) / 2)
    # A false alarm costs 0.11, the second one inside the window nothing.
    assert skab.change_points(points, [[50.0, 100.0, 120.0]], "standard") == pytest.approx(100 * 1.89 / 2)
    assert skab.change_points(points, [[50.0, 100.0]], "low_fp") == pytest.approx(100 * 1.78 / 2)
    assert skab.change_points(points, [[50.0]], "low_fn") == pytest.approx(100 * -0.11 / 3)


def series(*alarms: int) -> nab.Series:
    scores = np.zeros(1000)
    scores[list(alarms)] = 1
    return nab.Series(scores, [(500, 599)])


def test_nab_by_hand() -> None:
    assert nab.probation(1000) == 150
    assert nab.probation(20_000) == 750
    assert nab.judge([series()], 0.5).score == 0
    assert nab.judge([series(500)], 0.5).score == pytest.approx(100)
    # One row before the end: -(599 - 599 + 1)/100 of the way, and the perfect detection is worth sigmoid(-1).
    last = (2 / (1 + math.exp(-0.05)) - 1) / (2 / (1 + math.exp(-5)) - 1)
    assert nab.judge([series(599)], 0.5).score == pytest.approx(50 * (last + 1))
    # Far from a window a false alarm costs 0.11; in the window the second one neither costs nor earns.
    far = nab.judge([series(300, 500, 520)], 0.5)
    assert far.score == pytest.approx(100 * 1.89 / 2)
    assert (far.found, far.alarms, far.true_alarms) == (1, 3, 2)
    assert far.precision == pytest.approx(2 / 3)
    assert nab.judge([series(300, 500)], 0.5, "low_fp").score == pytest.approx(100 * 1.78 / 2)
    assert nab.judge([series(300)], 0.5, "low_fn").score == pytest.approx(100 * -0.11 / 3)
    # Right after the window it is forgiven in part: (600 - 599) / 99.
    near = 0.11 * (2 / (1 + math.exp(5 / 99)) - 1)
    assert nab.judge([series(600)], 0.5).score == pytest.approx(50 * near)
    # In probation nothing counts.
    assert nab.judge([series(10)], 0.5).score == 0


def test_the_best_threshold_is_found() -> None:
    one = series(500)
    one.scores[300] = 0.5
    found = nab.best([one])
    assert found.threshold > 0.5
    assert found.score == pytest.approx(100)


def test_the_score_of_a_predicted_life_by_hand() -> None:
    assert score(100, 100) == 1
    assert score(100, 80) == pytest.approx(0.5)  # 20 % too short
    assert score(100, 105) == pytest.approx(0.5)  # 5 % too long


def test_a_bearing_that_wears_as_the_others_did_is_told_better_than_by_its_age() -> None:
    runs = []
    for life in (5000.0, 9000.0, 20_000.0):
        at = np.arange(0.0, life + 10, 10)
        runs.append(Bearing(at, np.exp(np.log(64) * at / life)))
    ours, naive = judged(runs[2], runs[:2])
    assert ours > 0.45  # a fifth early, by caution, is 0.5
    assert naive < 0.3


@pytest.mark.parametrize("name", ["skab", "mfpt", "epa", "tep", "femto", "nab"])
def test_without_the_data_a_script_says_so(name: str, tmp_path: Path) -> None:
    if name != "epa":  # the six share the words; one process is enough
        source = Path(f"bench/public_{name}.py").read_text(encoding="utf-8")
        assert "options(__doc__" in source
        return
    command = [sys.executable, "-m", f"bench.public_{name}", "--json", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["figures"] == []
    assert "give its folder with --data" in done.stderr


@pytest.mark.skipif(not (DATA / "skab").exists(), reason="needs ../shared/data/skab (waico/SKAB)")
def test_skab_is_judged_better_than_the_best_published() -> None:
    from bench.public_skab import judge

    told = judge(DATA / "skab")
    found = skab.outliers([one.anomaly for one in told.values()], [one.alert for one in told.values()])
    assert found.f1 > 0.79
    assert found.far < 0.136
    assert found.mar < 0.28
    points = [one.points for one in told.values()]
    assert skab.change_points(points, [one.changes for one in told.values()], "standard") > 37.53

"""Signals that know of each other: faults that each alone would hide, and a plant that is left alone."""

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from boucle.block import Block, Position
from boucle.edge.agreement import Agreement
from boucle.edge.redundancy import learn, scores
from boucle.errors import BoucleError

SIGNALS = ("feed", "valve", "level", "pressure", "heat")


def process(seed: int, count: int = 900) -> NDArray[np.float64]:
    """Five signals moved by two slow causes."""
    draw = np.random.default_rng(seed)
    causes = np.zeros((count, 2))
    for place in range(1, count):
        causes[place] = 0.9 * causes[place - 1] + draw.normal(0, 1, 2)
    shares = np.array([[1.0, 0.8, 0.0, 0.5, 0.3], [0.0, 0.4, 1.0, -0.6, 0.7]])
    return np.asarray(20 + causes @ shares + draw.normal(0, 0.3, (count, 5)))


def block(wide: NDArray[np.float64]) -> Block:
    named: dict[str, Any] = {name: wide[:, place] for place, name in enumerate(SIGNALS)}
    named["at"] = pa.array(range(len(wide)), pa.timestamp("s", "UTC"))
    return Block("rows", pa.record_batch(named), 0, Position("rows", len(wide)))


def alerts(wide: NDArray[np.float64]) -> list[int]:
    (out,) = Agreement("scores", columns=SIGNALS, train=500).step(block(wide))
    return [place for place, row in enumerate(out.rows.to_pylist()) if row["alert"]]


def test_a_small_offset_that_its_own_range_hides_is_seen() -> None:
    wide = process(1)
    wide[700:, 1] += 1.0  # the signal's own deviation is 2
    found = [place for place in alerts(wide) if place >= 700]
    assert found[0] < 725
    assert len(found) > 150


def test_a_sticking_signal_is_seen() -> None:
    wide = process(2)
    for place in range(700, 900):
        wide[place, 1] = wide[place - place % 12, 1]
    found = [place for place in alerts(wide) if place >= 700]
    assert found[0] < 740
    assert len(found) > 100


def test_a_normal_process_is_left_alone() -> None:
    assert sum(len(alerts(process(seed))) for seed in range(3, 7)) <= 48  # of 1600 rows


def test_the_step_gives_what_the_whole_run_gives_and_a_gap_is_unscored() -> None:
    wide = process(8, 620)
    step = Agreement("scores", columns=SIGNALS, train=500)
    (out,) = step.step(block(wide))
    model = learn(wide[:500])
    assert out.rows.column("score").to_pylist()[500:] == pytest.approx(scores(model, wide[500:]).tolist())
    gap = wide[-1:].copy()
    gap[0, 2] = np.nan
    (out,) = step.step(block(gap))
    assert out.rows.column("score").to_pylist() == [None]


def test_a_state_of_other_columns_or_broken_arrays_is_refused() -> None:
    step = Agreement("scores", columns=SIGNALS, train=120)
    step.step(block(process(9, 130)))
    other = Agreement("scores", columns=SIGNALS[:3], train=120)
    with pytest.raises(BoucleError, match="5 columns"):
        other.restore(step.snapshot())
    version, keys = msgspec.msgpack.decode(step.snapshot())
    keys[0][1]["model"]["mean"][0] = [7]
    with pytest.raises(BoucleError, match="B602"):
        step.restore(msgspec.msgpack.encode((version, keys)))

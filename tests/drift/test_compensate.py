"""Corrected rows: bounded, told, ended by a calibration, and never a guess."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.cli.main import main
from boucle.drift import Attribute
from boucle.drift.compensate import Compensate
from boucle.errors import BoucleError
from boucle.ports import Operator
from tests.drift.harness import PRESS
from tests.drift.seconds import Row, block, seconds


def half(row: Row, since: int) -> None:
    """The x axis reads six tenths."""
    row["x_mean"] *= 0.6
    for band in range(8):
        row[f"x_band_{band}"] *= 0.36


def hot(row: Row, since: int) -> None:
    row["bearing_temperature"] += 6.0


def through(rows: list[Row], made: Compensate) -> list[dict[str, Any]]:
    """Every second to the verdicts first, then to the correction."""
    attribute, found = Attribute("verdicts"), []
    for row in rows:
        for verdict in attribute.step(block([row])):
            assert made.step(verdict) == ()
        found += [one for out in made.step(block([row], "features")) for one in out.rows.to_pylist()]
    return found


def test_gain_is_set_right_once_the_verdict_is_sure() -> None:
    made = Compensate("features_right")
    assert isinstance(made, Operator)
    rows = through(seconds(34, half), made)
    assert rows[16]["corrected"] is None, "not before the verdict"
    assert json.loads(rows[-1]["corrected"])["vib_x"]["gain"] == pytest.approx(0.6, abs=0.02)
    assert rows[-1]["x_band_4"] == pytest.approx(8e-3, rel=0.15)
    assert rows[-1]["y_band_4"] == pytest.approx(8e-3, rel=0.15)


def test_zero_is_set_right_until_the_sensor_was_calibrated() -> None:
    made = Compensate("features_right")
    rows = seconds(36, hot)
    assert through(rows, made)[-1]["bearing_temperature"] == pytest.approx(46, abs=0.5)
    calibrated = {"machine": "press-1", "sensor": "bearing_temperature", "at": rows[-1]["at"]}
    made.step(block([calibrated], "calibrations"))
    (out,) = made.step(block(rows[-1:], "features"))
    assert out.rows.column("corrected").to_pylist() == [None]


@pytest.mark.parametrize("bounds", [{"most_gain": 1.5}, {"least": 1.0}])
def test_what_is_out_of_bounds_is_left_alone(bounds: dict[str, Any]) -> None:
    rows = through(seconds(34, half), Compensate("right", **bounds))
    assert rows[-1]["corrected"] is None


def test_an_offset_beyond_its_bound_is_left_alone() -> None:
    rows = through(seconds(34, hot), Compensate("right", most_offset={"bearing_temperature": 3.0}))
    assert rows[-1]["bearing_temperature"] == pytest.approx(52, abs=0.5)


def verdict(**changed: Any) -> Block:
    row = {"machine": "m", "family": "sensor", "cause": "gain", "sensor": "all", "confidence": 0.99,
           "evidence": '{"size": 0.8}', "speed": 40.0} | changed  # fmt: skip
    return Block("verdicts", pa.RecordBatch.from_pylist([row]), 0, Position("v", 1))


def test_every_axis_and_back_to_nothing() -> None:
    made = Compensate("right")
    made.step(verdict())
    again = Compensate("right")
    again.restore(made.snapshot())
    row = {"machine": "m", "speed": 40.0, "x_rms": 0.8, "y_rms": None, "z_velocity": 1.6}
    features = Block("features", pa.RecordBatch.from_pylist([row]), 0, Position("f", 1))
    (out,) = again.step(features)
    (told,) = out.rows.to_pylist()
    assert (told["x_rms"], told["y_rms"], told["z_velocity"]) == (1.0, None, 2.0)
    again.step(verdict(family="machine", cause="imbalance", sensor="machine"))
    assert again.step(features)[0].rows.column("corrected").to_pylist() != [None], "wear ends no correction"
    again.step(verdict(family="none", cause="", sensor="machine"))
    assert again.step(features)[0].rows.column("corrected").to_pylist() == [None]


@settings(max_examples=40)
@given(st.one_of(st.text(), st.from_regex(r'\{"size": (null|true|-?\d+(\.\d+)?|"a"|\[\])\}', fullmatch=True)))
def test_evidence_that_makes_no_sense_corrects_nothing_absurd(evidence: str) -> None:
    made = Compensate("right")
    made.step(verdict(evidence=evidence))
    row = {"machine": "m", "speed": 40.0, "x_rms": 1.0}
    (out,) = made.step(Block("features", pa.RecordBatch.from_pylist([row]), 0, Position("f", 1)))
    assert 0.5 <= out.rows.column("x_rms").to_pylist()[0] <= 2.0


@pytest.mark.parametrize("wrong", [{"least": 0}, {"most_gain": 0.5}, {"most_offset": {"vib_x": -1}}])
def test_bounds_that_bound_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BoucleError, match="B690"):
        Compensate("right", **wrong)


def test_a_snapshot_of_another_version_is_refused() -> None:
    for state in (b"\xc1", b"\x82\xa7version\x63\xabcorrections\x80"):
        with pytest.raises(BoucleError, match="B602"):
            Compensate("right").restore(state)


STEP = """
  - id: features_set_right
    use: boucle.drift.compensate:Compensate
    from: [features, verdicts]
    with: {least: 0.9, most_gain: 2.0}

tables:
"""


def test_the_press_takes_it_as_a_step_and_lineage_knows_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    press = tmp_path / "press"
    shutil.copytree(PRESS, press)
    product = press / "product.yaml"
    product.write_text(product.read_text("utf-8").replace("\ntables:\n", STEP, 1), encoding="utf-8")
    assert main(["check", str(press)]) == 0
    assert "sound" in capsys.readouterr().out
    columns = {
        "features": ["machine", "speed", "x_rms"],
        "verdicts": ["machine", "cause", "confidence", "evidence"],
    }
    traced = Compensate.trace(columns).columns
    assert {one.stream for one in traced["x_rms"]} == {"features"}
    assert {one.stream for one in traced["corrected"]} == {"verdicts"}

"""The operator around the judgement: schema, restart, sentences, settings."""

import json
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.drift import VERDICT, Attribute
from boucle.drift.sentences import name_machine, say
from boucle.errors import BoucleError
from boucle.ports import Operator
from boucle.testing.scenario import Fault
from tests.drift.harness import START, run, single

_HELD: dict[str, Any] = {}


def health() -> list[dict[str, Any]]:
    """Rows of `health` of one press whose x axis loses gain; simulated once."""
    if not _HELD:
        fault = Fault(machine="press-1", kind="gain", sensor="vib_x", to=0.58, onset=14)
        _HELD["rows"] = run(single(fault, seconds=30), seed=2).rows["health"]
    rows: list[dict[str, Any]] = _HELD["rows"]
    return rows


def block(rows: list[dict[str, Any]]) -> Block:
    return Block("health", pa.RecordBatch.from_pylist(rows), START, Position("v", 1))


def test_every_row_gets_a_verdict_with_its_evidence() -> None:
    made = Attribute("verdicts")
    assert isinstance(made, Operator)
    (out,) = made.step(block(health()))
    assert out.rows.schema.equals(VERDICT)
    assert (out.stream, out.watermark, out.position) == ("verdicts", START, Position("v", 1))
    first, *_, last = out.rows.to_pylist()
    assert (first["family"], first["confidence"]) == ("none", 0.0)
    assert first["says_en"] == "Press 1: learning what is normal."
    assert first["onset"] is None
    assert last["subject"] == "press-1/vib_x"
    assert last["says_en"].startswith(
        "Press 1, vib_x: the sensor lost 42 % of its gain; all bands fell together"
    )
    assert last["says_fr"].startswith("Presse 1, vib_x : le capteur a perdu 42 % de son gain")
    assert START // SECOND + 14 <= last["onset"].timestamp() <= START // SECOND + 20
    evidence = json.loads(last["evidence"])
    assert evidence["size"] == pytest.approx(0.58, abs=0.01)
    assert all(shift == pytest.approx(-0.545, abs=0.06) for shift in evidence["shift"]["x"])
    assert max(abs(shift) for shift in evidence["shift"]["y"]) < 0.1
    assert last["zone"] in "AB"


@settings(max_examples=8, deadline=None)
@given(st.sets(st.integers(1, 29), max_size=5))
def test_cuts_and_restarts_change_nothing(cuts: set[int]) -> None:
    rows = health()
    (whole,) = Attribute("verdicts").step(block(rows))
    made, found = Attribute("verdicts"), []
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), len(rows)], strict=True):
        found += [row for out in made.step(block(rows[first:last])) for row in out.rows.to_pylist()]
        again = Attribute("verdicts")
        again.restore(made.snapshot())
        assert again.snapshot() == made.snapshot()
        made = again
    assert found == whole.rows.to_pylist()


def test_a_row_with_nothing_but_a_machine_is_a_verdict_too() -> None:
    made = Attribute("verdicts")
    made.step(block(health()[:14]))
    bare = dict.fromkeys(health()[0]) | {"machine": "press-1", "at": health()[14]["at"]}
    rows = pa.RecordBatch.from_pylist([bare], schema=block(health()).rows.schema)
    (out,) = made.step(Block("health", rows, 0, Position("v", 1)))
    (row,) = out.rows.to_pylist()
    assert (row["family"], row["zone"], row["health"]) == ("none", None, None)


def test_an_axis_that_fell_silent_is_a_dropout() -> None:
    rows = [dict(row) for row in health()[:14]]
    silent = [dict(row) for row in health()[4:14]]
    for index, row in enumerate(silent):
        row |= {name: None for name in row if name.startswith("y_")}
        row["at"] = pa.scalar(START + (14 + index) * SECOND, pa.timestamp("ns", tz="UTC")).as_py()
    (out,) = Attribute("verdicts").step(block(rows + silent))
    last = out.rows.to_pylist()[-1]
    assert (last["family"], last["cause"], last["subject"]) == ("sensor", "dropout", "press-1/vib_y")


def test_empty_in_nothing_out() -> None:
    empty = block(health()).rows.slice(0, 0)
    assert Attribute("verdicts").step(Block("health", empty, 0, Position("v", 1))) == ()


@pytest.mark.parametrize("wrong", [{"baseline": 2}, {"hold": 0}, {"clear": 0}, {"zones": [1, 2]}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BoucleError, match="B220"):
        Attribute("verdicts", **wrong)


@pytest.mark.parametrize("shares", [{}, {"hydraulic_pressure": 0.4, "motor_current": 0.0, "mesh": 0.6}])
def test_load_shares_that_say_nothing_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(BoucleError, match="B691"):
        Attribute("verdicts", load_shares=shares)


def test_a_snapshot_of_another_version_is_refused() -> None:
    made = Attribute("verdicts")
    for state in (b"\xc1", msgspec.msgpack.encode({"version": 99, "courses": {}})):
        with pytest.raises(BoucleError, match="B602"):
            made.restore(state)


CAUSES = (
    ("outer_race", 12.3), ("inner_race", 5.0), ("imbalance", 1.53), ("lubrication", 2.0), ("gain", 0.55),
    ("gain", 1.4), ("offset", -0.12), ("stuck", 0.0), ("noise", 3.0), ("dropout", 0.21), ("loose", 0.5),
    ("clock", -300.0),
)  # fmt: skip


@pytest.mark.parametrize(("cause", "size"), CAUSES)
def test_every_cause_has_a_sentence_in_both_languages(cause: str, size: float) -> None:
    for told in (
        say(cause, "press-3", sensor="vib_x", size=size),
        say(cause, "press-3", size=size, every=True),
    ):
        assert told["en"].startswith("Press 3")
        assert told["fr"].startswith("Presse 3")
        assert "{" not in told["en"] + told["fr"]
        assert "nan" not in told["en"] + told["fr"]
    french = say(cause, "press-3", sensor="vib_x", size=size)["fr"]
    assert not any(f"{digit}." in french for digit in "0123456789"), "a decimal comma in French"


def test_the_sentence_of_an_offset() -> None:
    told = say("offset", "press-3", sensor="vib_x", size=-0.12)
    assert "by -0.12 g" in told["en"]
    assert "de −0,12 g" in told["fr"]
    assert name_machine("mill") == ("mill", "mill")

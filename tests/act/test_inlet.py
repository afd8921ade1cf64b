"""Commands from the bus: strictly decoded, never believed."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.act.inlet import Inlet
from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.event import Command, Outcome
from boucle.ports import WIRE
from boucle.quality.reject import REASONS
from boucle.testing.clock import ManualClock
from tests.act.plant import SPEED, START, Plant

GOOD: dict[str, Any] = {
    "id": "c-1",
    "target": SPEED,
    "verb": "set",
    "value": 30,
    "not_after": START + 4 * SECOND,
}


def wire(*payloads: bytes, retained: bool = False) -> Block:
    rows = pa.RecordBatch.from_pydict(
        {
            "topic": ["press/commands"] * len(payloads),
            "payload": list(payloads),
            "received": [START] * len(payloads),
            "retained": [retained] * len(payloads),
        },
        schema=WIRE,
    )
    return Block("commands", rows, 0, Position("commands", 1))


def send(plant: Plant, *orders: Any, retained: bool = False) -> list[str]:
    inlet = Inlet(plant.dispatcher.submit, plant.clock)
    payloads = [order if isinstance(order, bytes) else json.dumps(order).encode() for order in orders]
    rejects = inlet.take(wire(*payloads, retained=retained))
    plant.dispatcher.step(0)
    return [one.reason for one in rejects]


def test_a_command_from_outside_goes_the_same_way(plant: Plant) -> None:
    assert send(plant, GOOD) == []
    assert plant.last().outcome is Outcome.applied
    assert send(plant, GOOD) == []
    assert plant.last().outcome is Outcome.duplicate


def test_a_time_as_text_is_understood(plant: Plant) -> None:
    assert send(plant, {**GOOD, "not_after": "2026-01-01T00:00:04Z"}) == []
    assert plant.last().outcome is Outcome.applied


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"not_after": START - 1}, "expired"),
        ({"not_after": 0}, "expired"),
        ({"value": 99}, "out_of_bounds"),
        ({"value": {}}, "not_a_number"),
        ({"verb": "safe", "value": 24}, "unknown_verb"),
        ({"target": "plc/press-9/oil"}, "unknown_target"),
        ({"target": "mes/press-1/job_order"}, "unknown_verb"),
    ],
)
def test_the_guard_sees_it(plant: Plant, change: dict[str, Any], code: str) -> None:
    assert send(plant, {**GOOD, **change}) == []
    assert plant.last().code == code
    assert plant.wire.writes == []


def test_a_retained_command_gets_a_receipt_and_nothing_else(plant: Plant) -> None:
    assert send(plant, GOOD, retained=True) == []
    assert (plant.last().outcome, plant.last().code) == (Outcome.refused, "retained")
    assert plant.wire.writes == []


def test_one_that_asks_for_approval_waits(plant: Plant) -> None:
    assert send(plant, {**GOOD, "needs_approval": True}) == []
    assert [command.id for command in plant.dispatcher.held()] == ["c-1"]


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (b"", "malformed"),
        (b"\xff", "malformed"),
        (b"[" * 99_999, "malformed"),
        (b" " * 70_000 + b"{}", "malformed"),
        (json.dumps(GOOD).replace("30", "NaN").encode(), "malformed"),
        ([GOOD], "wrong_type"),
        ({**GOOD, "value": "30"}, "wrong_type"),
        ({**GOOD, "value": None}, "wrong_type"),
        ({**GOOD, "value": True}, "wrong_type"),
        ({**GOOD, "id": ""}, "wrong_type"),
        ({**GOOD, "id": "a\nb"}, "wrong_type"),
        ({**GOOD, "id": "x" * 201}, "wrong_type"),
        ({**GOOD, "not_after": -1}, "wrong_type"),
        ({**GOOD, "not_after": 2**64}, "wrong_type"),
        ({**GOOD, "not_after": "soon"}, "malformed"),
        ({**GOOD, "approved": True}, "unknown_column"),
        ({**GOOD, "issued_at": 1}, "unknown_column"),
        ({name: value for name, value in GOOD.items() if name != "not_after"}, "missing"),
    ],
    ids=range(18),
)
def test_what_is_no_command_goes_to_quarantine(plant: Plant, order: Any, reason: str) -> None:
    assert send(plant, order) == [reason]
    assert reason in REASONS
    assert plant.receipts == []


@given(st.binary(max_size=80), st.integers(0, 100), st.integers(1, 255))
def test_no_bytes_are_a_crash(noise: bytes, place: int, flip: int) -> None:
    flipped = bytearray(json.dumps(GOOD).encode())
    flipped[place % len(flipped)] ^= flip
    taken: list[Command] = []

    def submit(command: Command, *, retained: bool = False) -> None:
        taken.append(command)

    rejects = Inlet(submit, ManualClock(START)).take(wire(noise, bytes(flipped)))
    assert len(taken) + len(rejects) == 2

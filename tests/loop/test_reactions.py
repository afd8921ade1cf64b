"""What the press does about each cause a verdict can name: to the PLC, to the MES, to the data, or to nobody at all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from boucle.block import Block, Position, as_dicts
from boucle.drift.attribute import VERDICT
from boucle.event import Outcome
from tests.loop.manual import START, ManualPlant

SECOND = 1_000_000_000


class Reaction(NamedTuple):
    """Events, work orders, and the speed asked of the machine."""

    events: list[str]
    orders: list[str]
    setpoint: float


SENSOR = Reaction(["sensor_drift"], ["Calibration"], 40.0)
MACHINE = Reaction(["machine_wear"], ["Maintenance"], 30.0)
WANTED = {
    **dict.fromkeys(
        [("sensor", cause) for cause in ("gain", "offset", "stuck", "noise", "dropout", "loose", "clock")],
        SENSOR,
    ),
    **dict.fromkeys(
        [("machine", cause) for cause in ("outer_race", "inner_race", "imbalance", "lubrication")], MACHINE
    ),
    ("operation", "new_regime"): Reaction(["new_regime"], ["ModelReview"], 40.0),
    ("operation", "known_point"): Reaction([], [], 40.0),
    ("operation", "hall"): Reaction([], [], 40.0),
    ("unknown", "unknown"): Reaction(["unexplained"], ["Inspection"], 40.0),
    ("none", "none"): Reaction([], [], 40.0),
}


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[ManualPlant]:
    plant = ManualPlant(tmp_path)
    plant.loop.open()
    yield plant
    plant.loop.close()


def verdict(family: str, cause: str, second: int, **evidence: Any) -> Block:
    subject = "press-1/vib_x" if family == "sensor" else "press-1"
    row: dict[str, Any] = {
        "machine": "press-1", "sensor": "vib_x", "at": START + second * SECOND, "health": 0.7, "rul_h": 100.0,
        "speed": 40.0, "setpoint": 40.0, "zone": "B", "family": family, "cause": cause, "subject": subject,
        "confidence": 0.97, "onset": START, "says_en": f"{subject}: {cause}", "says_fr": f"{subject} : {cause}",
        "evidence": json.dumps(evidence),
    }  # fmt: skip
    columns = [pa.array([row[field.name]], field.type) for field in VERDICT]
    return Block(
        "verdicts", pa.record_batch(columns, schema=VERDICT), row["at"], Position("verdicts", second)
    )


def told(plant: ManualPlant, family: str, cause: str, seconds: int = 90) -> Reaction:
    """What comes of a verdict that stands for so long."""
    for second in range(1, seconds):
        plant.clock.advance(1)
        plant.loop.action.consider(verdict(family, cause, second), plant.clock.now())
        plant.loop.action.dispatcher.step(0)
    assert all(receipt.outcome is Outcome.applied for _, receipt in plant.receipts())
    setpoint = float(plant.plc.value("press-1", "speed_setpoint"))
    return Reaction(
        [one.kind for one in plant.events()], [one["WorkType"] for one in plant.orders.all()], setpoint
    )


@pytest.mark.parametrize(("family", "cause"), WANTED)
def test_each_cause_has_its_reaction(plant: ManualPlant, family: str, cause: str) -> None:
    assert told(plant, family, cause) == WANTED[family, cause]


@pytest.mark.parametrize(
    ("family", "cause", "seconds"), [("unknown", "unknown", 8), ("operation", "new_regime", 40)]
)
def test_what_passes_by_itself_troubles_nobody(
    plant: ManualPlant, family: str, cause: str, seconds: int
) -> None:
    assert told(plant, family, cause, seconds) == Reaction([], [], 40.0)


def test_a_sensor_is_corrected_until_it_is_found_sound(plant: ManualPlant) -> None:
    plant.run(5)
    plant.loop.settle()
    (step,) = [one for one in plant.loop.path.steps if one.id == "features_right"]
    (features, *_) = plant.loop.tables.read("features")

    def corrected() -> Any:
        (out,) = step.operator.step(Block("features", features.rows, 0, Position("features", 1)))
        rows = {row["machine"]: row["corrected"] for row in as_dicts(out.rows)}
        return rows["press-1"] and json.loads(rows["press-1"])

    assert corrected() is None
    step.operator.step(verdict("sensor", "gain", 1, size=0.6))
    assert corrected()["vib_x"]["gain"] == pytest.approx(0.6)
    step.operator.step(verdict("none", "none", 2))
    assert corrected() is None
    assert plant.events() == []

"""The press's wide row: joined by machine and second, given at once or when the watermark closes it."""

from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.clock import SECOND, Nanos
from boucle.edge import EVENTS
from boucle.errors import BoucleError
from boucle.ports import Operator
from tests.drift.harness import START, operators

TIME = pa.timestamp("ns", tz="UTC")


def event(machine: str, axis: str, second: int, rms: float = 0.1) -> dict[str, Any]:
    row: dict[str, Any] = {field.name: 1.0 for field in EVENTS if field.type == pa.float64()}
    told = {"machine": machine, "sensor": f"vib_{axis}", "at": START + second * SECOND, "rms": rms}
    return row | told | {"count": 10_000, "complete": True, "zone": "A", "alert": False}


def events(*rows: dict[str, Any], watermark: Nanos = 0) -> Block:
    batch = pa.RecordBatch.from_pylist(list(rows), schema=EVENTS)
    return Block("vibration_events", batch, watermark, Position("v", 3))


def process(*rows: tuple[str, str, float, float, str]) -> Block:
    machine, sensor, at, value, status = zip(*rows, strict=True)
    batch = pa.record_batch(
        {
            "machine": pa.array(machine),
            "sensor": pa.array(sensor),
            "at": pa.array([START + round(time * SECOND) for time in at], TIME),
            "value": pa.array(value, pa.float64()),
            "status": pa.array(status),
        }
    )
    return Block("process", batch, 0, Position("p", 1))


def step() -> Any:
    return operators().PressFeatures("features")


def rows(blocks: Any) -> list[dict[str, Any]]:
    return [row for block in blocks for row in block.rows.to_pylist()]


def test_a_row_is_given_with_its_third_axis() -> None:
    made = step()
    assert isinstance(made, Operator)
    assert made.step(events(event("press-1", "x", 0, 0.1), event("press-1", "y", 0, 0.2))) == ()
    (block,) = made.step(events(event("press-1", "z", 0, 0.3)))
    (row,) = rows([block])
    assert (row["x_rms"], row["y_rms"], row["z_rms"]) == (0.1, 0.2, 0.3)
    assert (row["x_count"], row["x_alert"], row["x_velocity"]) == (10_000, False, 1.0)
    assert row["speed"] is None
    assert block.rows.schema.equals(operators().FEATURES)


def test_a_missing_axis_is_null_once_the_watermark_has_passed() -> None:
    made = step()
    made.step(events(event("press-1", "x", 0)))
    (row,) = rows(made.step(events(watermark=START + SECOND)))
    assert row["x_rms"] == 0.1
    assert row["y_rms"] is row["z_count"] is row["z_alert"] is None
    assert made.step(events(event("press-1", "y", 0), watermark=START + SECOND)) == ()
    assert made.late_rows == 1


def test_slow_values_are_means_and_set_points_are_those_in_force() -> None:
    made = step()
    made.step(
        process(
            ("press-1", "motor_current", -0.6, 1000.0, "Good"),
            ("press-1", "motor_current", 0.1, 60.0, "Good"),
            ("press-1", "motor_current", 0.4, 62.0, "Good"),
            ("press-1", "motor_current", 0.6, 1000.0, "Good"),
            ("press-1", "speed_actual", 0.2, 40.0, "Good"),
            ("press-1", "speed_actual", 0.5, 39.0, "Good"),
            ("press-1", "speed_setpoint", -9.0, 40.0, "Good"),
            ("press-1", "oil_temperature", 0.2, 38.0, "BadSensorFailure"),
            ("press-1", "bearing_temperature", -2.0, 45.0, "Good"),
            ("press-2", "hydraulic_pressure", 0.0, 150.0, "Good"),
        )
    )
    (row,) = rows(made.step(events(*(event("press-1", axis, 0) for axis in "xyz"))))
    assert row["motor_current"] == 61.0, "of the second that ends in the middle of the window"
    assert (row["speed"], row["setpoint"]) == (39.0, 40.0)
    assert row["oil_temperature"] is None, "bad quality is not a value"
    assert row["bearing_temperature"] == 45.0, "still in force"
    assert row["hydraulic_pressure"] is None, "another machine's"


def test_the_noise_of_a_slow_value_does_not_feel_the_stroke() -> None:
    made = step()
    readings = [150.0, 150.4, 150.1, 150.5, 176.0, 181.0, 151.0, 150.6, 150.2, 150.5]
    made.step(
        process(
            *(
                ("press-1", "hydraulic_pressure", -0.45 + 0.1 * i, value, "Good")
                for i, value in enumerate(readings)
            ),
            *(("press-1", "motor_current", -0.45 + 0.1 * i, 60.0, "Good") for i in range(4)),
            ("press-1", "oil_temperature", 0.0, 38.0, "Good"),
        )
    )
    (row,) = rows(made.step(events(*(event("press-1", axis, 0) for axis in "xyz"))))
    assert row["hydraulic_pressure_noise"] == pytest.approx(0.4)
    assert row["hydraulic_pressure_count"] == 10
    assert (row["motor_current_noise"], row["motor_current_count"]) == (0.0, 4), "it stands still"
    assert (row["oil_temperature_noise"], row["oil_temperature_count"]) == (None, 1)
    assert (row["bearing_temperature_noise"], row["bearing_temperature_count"]) == (None, 0)


def test_slow_values_of_a_silent_plc_are_not_values() -> None:
    made = step()
    made.step(process(("press-1", "motor_current", 0.0, 60.0, "Good")))
    (row,) = rows(made.step(events(*(event("press-1", axis, 40) for axis in "xyz"))))
    assert row["motor_current"] is None


@given(st.data())
def test_the_order_of_arrival_does_not_matter_and_a_restart_changes_nothing(data: st.DataObject) -> None:
    every = [event(m, a, s, rms=s + ord(a)) for m in ("press-1", "press-2") for a in "xyz" for s in range(3)]
    given_ = data.draw(st.permutations(every))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(every) - 1), max_size=5)))
    made, found = step(), []
    made.step(process(("press-1", "motor_current", 0.0, 60.0, "Good")))
    for first, last in zip([0, *cuts], [*cuts, len(every)], strict=True):
        found += rows(made.step(events(*given_[first:last])))
        again = step()
        again.restore(made.snapshot())
        made = again
    expected = step()
    expected.step(process(("press-1", "motor_current", 0.0, 60.0, "Good")))
    assert sorted(found, key=str) == sorted(rows(expected.step(events(*every))), key=str)


def test_a_snapshot_of_another_version_is_refused() -> None:
    made = step()
    with pytest.raises(BoucleError, match="B602"):
        made.restore(b"\xc1")
    state = msgspec.msgpack.decode(made.snapshot())
    with pytest.raises(BoucleError, match="version 9"):
        made.restore(msgspec.msgpack.encode(state | {"version": 9}))

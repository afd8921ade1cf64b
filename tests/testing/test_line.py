"""The line: the same bytes for the same seed, the truth beside the data, bad input on the wire."""

import json
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boucle.clock import SECOND
from boucle.errors import BoucleError
from boucle.ports import WIRE
from boucle.product.project import load_project
from boucle.testing import Disturbance, Fault, Operation, PressLine, Scenario, load_scenario
from boucle.testing.disturbance import EXPECTED, VIBRATION, Message
from boucle.testing.line import PROCESS_SCHEMA
from boucle.testing.machine import Machine

START = 1_800_000_000 * SECOND
PRESS = Path("examples/press/scenario.yaml")
QUIET = Scenario(machines=("press-1",))


def run(line: PressLine, seconds: float) -> list[Message]:
    return [message for _ in range(round(seconds * 10)) for message in line.messages(line.step())]


def decoded(payload: bytes) -> pa.RecordBatch:
    return pa.ipc.open_stream(payload).read_next_batch()


def vibration(line: PressLine, seconds: float, machine: str = "press-1") -> np.ndarray:
    parts = [dict(line.step().vibration)[machine] for _ in range(round(seconds * 10))]
    rows = [np.stack([np.asarray(row.values) for row in batch.column("samples")]) for batch in parts]
    return np.concatenate(rows, axis=1)


def test_the_same_seed_gives_the_same_bytes() -> None:
    story = load_scenario(PRESS)
    first, second, other = (PressLine(story, seed, START) for seed in (3, 3, 4))
    assert run(first, 20) == run(second, 20)
    assert first.injections == second.injections
    assert first.history().equals(second.history())
    assert run(other, 1) != run(PressLine(story, 3, START), 1)


def test_machines_do_not_depend_on_each_other() -> None:
    story = load_scenario(PRESS)
    together = [Machine(name, index, story, 5) for index, name in enumerate(story.machines)]
    waves = [[machine.step(1000)[0] for machine in together] for _ in range(20)]
    alone = Machine("press-2", 1, story, 5)
    assert all(np.array_equal(alone.step(1000)[0], chunk[1]) for chunk in waves)
    few, many = PressLine(Scenario(machines=("press-1",))), PressLine(Scenario())
    assert np.array_equal(vibration(few, 1), vibration(many, 1))


def test_a_fault_leaves_the_other_machines_bytes_alone() -> None:
    fault = Fault(machine="press-2", kind="outer_race", onset=0.5)
    with_it, without = PressLine(Scenario(faults=(fault,))), PressLine(Scenario())
    for _ in range(20):
        one, two = dict(with_it.step().vibration), dict(without.step().vibration)
        assert one["press-1"].equals(two["press-1"])
        assert one["press-3"].equals(two["press-3"])
    assert not one["press-2"].equals(two["press-2"])


def test_ticks_keep_the_contracts_of_the_product() -> None:
    contracts = load_project(PRESS.parent).contracts
    tick = PressLine(Scenario(), start=START).step()
    assert tick.process.schema.equals(PROCESS_SCHEMA)
    assert contracts["process"].schema().equals(PROCESS_SCHEMA)
    assert contracts["vibration"].schema().equals(VIBRATION)
    name, batch = tick.vibration[1]
    assert (name, batch.num_rows, batch.schema) == ("press-2", 3, VIBRATION)
    row = batch.slice(0, 1).to_pylist()[0]
    assert (row["producer"], row["seq"], row["sensor"], row["rate_hz"]) == ("press-2-daq", 0, "vib_x", 10_000)
    assert len(row["samples"]) == 1000
    assert batch.column("at").cast(pa.int64()).to_pylist() == [START] * 3
    assert tick.last == START + 99_900_000
    assert set(tick.process.column("at").cast(pa.int64()).to_pylist()) == {tick.last}
    assert tick.process.num_rows == 3 * 8


def test_chunks_follow_each_other_without_a_gap() -> None:
    line = PressLine(QUIET, start=START)
    ticks = [line.step() for _ in range(25)]
    assert [tick.at for tick in ticks] == [START + number * SECOND // 10 for number in range(25)]
    assert [dict(tick.vibration)["press-1"].column("seq")[0].as_py() for tick in ticks] == list(range(25))


def test_a_slower_set_point_slows_vibration_and_wear() -> None:
    story = Scenario(
        machines=("press-1",), faults=(Fault(machine="press-1", kind="outer_race", onset=0, severity=0.4),)
    )
    fast, slow = PressLine(story), PressLine(story)
    slow.set_speed("press-1", 30)
    (quick, calm) = (vibration(line, 20)[:, 100_000:] for line in (fast, slow))
    assert np.all(calm.std(1) < 0.85 * quick.std(1))
    assert slow.state("press-1").damage < fast.state("press-1").damage - 0.02
    assert slow.state("press-1").rul_h > fast.state("press-1").rul_h * 1.3
    assert slow.state("press-1").speed == pytest.approx(30, abs=0.5)


def test_set_points_that_make_no_sense_are_refused() -> None:
    line = PressLine(QUIET)
    with pytest.raises(ValueError, match="-1"):
        line.set_speed("press-1", -1)
    with pytest.raises(ValueError, match="nan"):
        line.set_speed("press-1", float("nan"))
    with pytest.raises(BoucleError, match="press-9"):
        line.set_speed("press-9", 30)


def test_people_change_the_operating_point() -> None:
    operation = (Operation(machine="press-1", at=1, speed=32), Operation(machine="press-1", at=2, load=0.5))
    line = PressLine(Scenario(machines=("press-1",), operation=operation))
    vibration(line, 1)
    assert line.state("press-1").setpoint == 40
    vibration(line, 3)
    state = line.state("press-1")
    assert (state.setpoint, state.load) == (32, 0.5)


def test_the_truth_of_the_default_story() -> None:
    line = PressLine(load_scenario(PRESS), start=START)
    assert [record["begun"] for record in line.truth()] == [False, False]
    for _ in range(600):
        line.step()
    wear, drift = line.truth()
    assert wear | {"severity": 0} == {
        "machine": "press-2",
        "sensor": "",
        "subject": "press-2",
        "family": "machine",
        "cause": "outer_race",
        "onset": START + 15 * SECOND,
        "begun": True,
        "severity": 0,
        "to": None,
    }
    assert 0.5 < wear["severity"] < 0.8, "serious at 60 s"
    assert (drift["subject"], drift["family"], drift["cause"]) == ("press-3/vib_x", "sensor", "gain")
    assert drift["onset"] == START + 40 * SECOND
    assert drift["severity"] == 1
    assert line.state("press-3").gains["vib_x"] == pytest.approx(0.55)
    assert line.state("press-3").gains["vib_y"] == 1
    assert line.state("press-3").damage == 0
    json.dumps(line.truth())
    history = line.history()
    assert history.num_rows == 3 * 60
    at = history.column("at").cast(pa.int64()).to_pylist()
    rows = zip(at, history.to_pylist(), strict=True)
    second = {(row["machine"], (moment - START) // SECOND): row for moment, row in rows}
    assert second["press-2", 13]["damage"] == 0
    assert 0.2 < second["press-2", 35]["damage"] < 0.35, "clearly there at 35 s"
    assert second["press-2", 35]["cause"] == "outer_race"
    assert second["press-2", 35]["rul_h"] > second["press-2", 50]["rul_h"]
    assert second["press-1", 59]["damage"] == 0


def test_a_dropped_axis_leaves_the_others_and_a_dropped_accelerometer_a_gap_in_seq() -> None:
    def line(sensor: str) -> PressLine:
        fault = Fault(machine="press-1", kind="dropout", sensor=sensor, onset=0, to=0.5)
        return PressLine(Scenario(machines=("press-1",), faults=(fault,)))

    one = line("vib_x")
    ticks = [dict(one.step().vibration)["press-1"] for _ in range(100)]
    assert {batch.num_rows for batch in ticks} == {2, 3}
    assert all({"vib_y", "vib_z"} <= set(batch.column("sensor").to_pylist()) for batch in ticks)
    slow = line("motor_current")
    assert {slow.step().process.num_rows for _ in range(100)} == {7, 8}


def test_every_kind_of_bad_input_goes_out_and_is_on_record() -> None:
    kinds = list(EXPECTED)
    disturbances = tuple(Disturbance(kind=kind, count=4) for kind in msgspec.convert(kinds, list[str]))  # type: ignore[arg-type]
    line = PressLine(Scenario(duration=60, disturbances=disturbances), start=START)
    messages = run(line, 60)
    assert Counter(injection.kind for injection in line.injections) == dict.fromkeys(kinds, 4)
    added = Counter(message.injected for message in messages if message.injected)
    assert added == {kind: 4 for kind in kinds if kind != "out_of_order"}
    good = [message for message in messages if not message.injected]
    assert len(good) == 3 * 600
    assert sum(message.readings for message in good) == 9 * 600
    by_kind = {message.injected: message for message in messages}
    with pytest.raises(pa.ArrowInvalid):
        decoded(by_kind["malformed"].payload)
    assert decoded(by_kind["wrong_type"].payload).schema.field("seq").type == pa.string()
    samples = {
        kind: np.asarray(decoded(by_kind[kind].payload).column("samples")[0].values)
        for kind in ("nan", "inf")
    }
    assert np.isnan(samples["nan"]).sum() == np.isinf(samples["inf"]).sum() == 1
    assert decoded(by_kind["unknown_sensor"].payload).column("sensor").to_pylist() == ["vib_w"]
    assert by_kind["duplicate"].payload in {message.payload for message in good}
    clean = PressLine(Scenario(duration=60), start=START)
    assert {message.payload for message in run(clean, 60)} == {message.payload for message in good}, (
        "good data whole"
    )


def test_out_of_order_is_one_chunk_late() -> None:
    line = PressLine(
        Scenario(machines=("press-1",), disturbances=(Disturbance(kind="out_of_order", times=(1.05,)),))
    )
    order = [decoded(message.payload).column("seq")[0].as_py() for message in run(line, 2)]
    assert order[9:14] == [9, 11, 10, 12, 13]


def test_json_on_the_wire_says_the_same() -> None:
    arrow, text = PressLine(QUIET, start=START), PressLine(QUIET, start=START)
    first = decoded(arrow.messages(arrow.step())[0].payload)
    rows = json.loads(text.messages(text.step(), "json")[0].payload)
    assert [row["sensor"] for row in rows] == ["vib_x", "vib_y", "vib_z"]
    assert rows[0]["at"] == START
    assert np.array_equal(np.float32(rows[2]["samples"]), np.asarray(first.column("samples")[2].values))


def test_blocks_for_a_loop_on_the_manual_clock() -> None:
    line = PressLine(Scenario(), start=START)
    tick = line.step()
    wire = line.wire_block(line.messages(tick), tick.last)
    assert (wire.stream, wire.rows.schema, len(wire)) == ("vibration", WIRE, 3)
    assert wire.rows.column("topic")[0].as_py() == "press/press-1/vibration"
    process = line.process_block(tick)
    assert (process.stream, len(process), process.position.offset) == ("process", 24, 24)


def test_a_line_made_early_begins_when_it_is_started() -> None:
    line = PressLine(load_scenario(PRESS))
    line.begin(START)
    assert line.step().at == START
    with pytest.raises(ValueError, match="already"):
        line.begin(START)


def test_a_recording_holds_the_truth_beside_the_data(tmp_path: Path) -> None:
    PressLine(load_scenario(PRESS), seed=2, start=START).record(tmp_path, 3)
    fast, slow, history = (
        pq.read_table(tmp_path / f"{name}.parquet") for name in ("vibration", "process", "history")
    )
    assert (fast.num_rows, slow.num_rows, history.num_rows) == (9 * 30, 24 * 30, 9)
    assert fast.schema.equals(VIBRATION)
    told = json.loads((tmp_path / "truth.json").read_text(encoding="utf-8"))
    assert (told["seed"], told["seconds"], len(told["truth"])) == (2, 3.0, 2)

"""The story end to end over MQTT, OPC UA and HTTP, held against what really happened."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from boucle.bus.broker import find_mosquitto
from boucle.catalog.lineage import events
from boucle.event import Outcome
from boucle.lake.sql import Sql
from boucle.testing.line import PressLine
from tests.loop.plant import SocketPlant, quiet_line, short_story

pytestmark = pytest.mark.real

SEED = 3
SECONDS = 36.0
TAIL = 6.0


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SocketPlant]:
    """The short story, told once for all the tests here."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    folder = tmp_path_factory.mktemp("plant")
    with SocketPlant(folder, short_story(SECONDS), seed=SEED, speed=2.0) as running:
        running.play()
        running.run_until(SECONDS)
        running.finish()
        yield running


@pytest.fixture(scope="module")
def lake(plant: SocketPlant) -> Iterator[Sql]:
    sql = Sql(plant.folder / "lake")
    yield sql
    sql.close()


def truth(plant: SocketPlant, machine: str) -> dict[str, Any]:
    (fault,) = [fault for fault in plant.line.truth() if fault["machine"] == machine]
    return fault


def scalar(lake: Sql, query: str) -> Any:
    return lake.query(query).column(0)[0].as_py()


def expected(plant: SocketPlant, end: str) -> int:
    return sum(one.readings for one in plant.line.injections if one.expected == end)


def test_the_worn_press_is_named_with_its_cause(plant: SocketPlant) -> None:
    (wear,) = plant.events("machine_wear")
    fault = truth(plant, "press-2")
    assert wear.subject == fault["subject"] == "press-2"
    assert wear.evidence["cause"] == fault["cause"] == "outer_race"
    assert wear.at > fault["onset"], "nothing is said before it happens"
    assert abs(wear.evidence["onset"] - fault["onset"]) < 5e9


def test_the_lying_sensor_is_named_with_its_cause(plant: SocketPlant) -> None:
    (drift,) = plant.events("sensor_drift")
    fault = truth(plant, "press-3")
    assert drift.evidence["subject"] == fault["subject"] == "press-3/vib_x"
    assert drift.evidence["cause"] == fault["cause"] == "gain"
    assert drift.at > fault["onset"]


def test_the_mes_holds_a_maintenance_and_a_calibration_order(plant: SocketPlant) -> None:
    orders = {(order["WorkType"], order["HierarchyScope"]): order for order in plant.orders.all()}
    assert set(orders) == {("Maintenance", "press-2"), ("Calibration", "press-3/vib_x")}
    assert orders["Maintenance", "press-2"]["Parameters"]["Cause"] == "outer_race"
    assert "not a sensor" in orders["Maintenance", "press-2"]["Description"]
    assert len(plant.orders.all()) == 2


def test_only_the_worn_press_is_slowed_down_and_within_its_envelope(plant: SocketPlant) -> None:
    commands = plant.receipts("plc/")
    assert commands, "the worn press is slowed down"
    for command, receipt in commands:
        assert command.target == "plc/press-2/speed_setpoint"
        assert receipt.outcome is Outcome.applied, receipt.why
        assert 24 <= command.value < 40
        assert receipt.read_back == pytest.approx(command.value)
        assert receipt.latency_ms is not None
    assert plant.logic.value("press-2", "speed_setpoint") == pytest.approx(commands[-1][0].value)
    assert plant.logic.value("press-1", "speed_setpoint") == 40
    assert plant.logic.value("press-3", "speed_setpoint") == 40


def test_the_slower_press_vibrates_less_than_it_would_have(plant: SocketPlant, lake: Sql) -> None:
    """Beside the same press left alone: same seed, same wear, nobody touches its set-point."""
    assert plant.line.press("press-2").setpoint == pytest.approx(30)
    twin = PressLine(plant.scenario, SEED, plant.line.start)
    left_alone: list[float] = []
    while twin.elapsed < SECONDS:
        tick = twin.step()
        if twin.elapsed > SECONDS - TAIL:
            rows = dict(tick.vibration)["press-2"].to_pylist()
            left_alone += [
                float(np.mean(np.square(row["samples"]))) for row in rows if row["sensor"] == "vib_x"
            ]
    since = plant.line.start + int((SECONDS - TAIL) * 1e9)
    stored = lake.query(
        "select rms from vibration_events where machine = 'press-2' and sensor = 'vib_x' "
        f"and epoch_ns(at) >= {since}"
    ).column("rms").to_pylist()  # fmt: skip
    assert len(stored) >= TAIL - 2
    assert math.sqrt(np.mean(np.square(stored))) < 0.85 * math.sqrt(np.mean(left_alone))
    assert plant.line.state("press-2").damage < twin.state("press-2").damage


def test_every_reading_is_accounted_for(plant: SocketPlant) -> None:
    total = plant.loop.picture.accounting()
    assert total.balanced()
    assert total.pending == total.shed == 0
    vibration = plant.loop.intakes["vibration"].accounting
    assert vibration.received == plant.gateway.sent.readings > 0
    assert plant.gateway.sent.dropped_messages == plant.gateway.sent.waiting == 0
    assert vibration.duplicate == expected(plant, "duplicate")
    assert vibration.late == expected(plant, "late")
    assert vibration.quarantined == expected(plant, "quarantined")
    process = plant.loop.intakes["process"].accounting
    # A subscription samples the newest value every 100 ms of the wall; here two scans pass in that time.
    assert process.received > 0.4 * plant.gateway.process_rows
    assert process.quarantined == process.shed == 0


REASONS = {"nan": "not_finite", "inf": "not_finite"}
"""Kind of bad input → the reason it is quarantined for, where the two are called differently."""


def test_bad_input_is_found_in_quarantine_under_its_reason(plant: SocketPlant, lake: Sql) -> None:
    injected = Counter(
        REASONS.get(one.kind, one.kind) for one in plant.line.injections if one.expected == "quarantined"
    )
    assert injected, "the story holds bad input"
    assert plant.loop.quarantine.counts() == injected
    rows = lake.query("select reason, count(*) as n from quarantine group by reason").to_pylist()
    assert {row["reason"]: row["n"] for row in rows} == injected
    assert scalar(lake, "select count(*) from quarantine where payload is null") == 0


def test_the_tables_hold_what_was_stored(plant: SocketPlant, lake: Sql) -> None:
    zones = {table.name: table.zone for table in lake.tables()}
    assert zones["vibration_events"] == "silver"
    assert zones["maintenance_summary"] == "gold"
    intakes = plant.loop.intakes
    assert scalar(lake, "select count(*) from vibration_raw") == intakes["vibration"].accounting.stored
    assert scalar(lake, "select count(*) from process_raw") == intakes["process"].accounting.stored
    assert (
        scalar(lake, "select count(*) from (select distinct producer, seq, sensor from vibration_raw)")
        == intakes["vibration"].accounting.stored
    )
    assert scalar(lake, "select count(*) from vibration_late") == expected(plant, "late")
    for table in plant.loop.picture.view().tables:
        assert table.behind_s == 0, table.name
        assert table.rows == (scalar(lake, f"select count(*) from {table.name}") if table.rows else 0)
    said = lake.query("select id from events").column("id").to_pylist()
    assert sorted(said) == sorted(event.id for event in plant.events())


def test_every_second_is_reduced_once_and_whole(plant: SocketPlant, lake: Sql) -> None:
    rows = lake.query(
        "select machine, sensor, epoch_ns(at) as second, count from vibration_events"
    ).to_pylist()
    found = {(row["machine"], row["sensor"], row["second"]): row["count"] for row in rows}
    assert len(found) == len(rows), "no second twice"
    whole = range(math.ceil(plant.line.start / 1e9), int(plant.line.now / 1e9) - 1)
    assert len(whole) > SECONDS - 4
    for machine in plant.line.machines:
        for sensor in ("vib_x", "vib_y", "vib_z"):
            for second in whole:
                assert found[machine, sensor, second * 10**9] >= 10_000


def test_lineage_leads_from_the_topic_to_the_tables(plant: SocketPlant) -> None:
    told = list(events(plant.folder / "lineage"))
    assert [told[0]["eventType"], told[-1]["eventType"]] == ["START", "COMPLETE"]
    assert {one["run"]["runId"] for one in told} == {told[0]["run"]["runId"]}
    assert {one["name"] for one in told[0]["inputs"]} >= {"press/+/vibration", "process"}
    assert {one["name"] for one in told[0]["outputs"]} >= {
        "silver/vibration_events",
        "gold/maintenance_summary",
    }


def test_metrics_parse_and_add_up(plant: SocketPlant) -> None:
    families = {
        family.name: family
        for family in text_string_to_metric_families(plant.loop.picture.metrics().decode())
    }
    readings = {
        sample.labels["outcome"]: sample.value
        for sample in families["boucle_readings"].samples
        if sample.name.endswith("_total")
    }
    assert readings["in"] == sum(value for name, value in readings.items() if name != "in") > 0
    assert readings["in"] == plant.loop.picture.accounting().received
    assert families["boucle_readings_pending"].samples[0].value == 0
    reasons = [s.value for s in families["boucle_quarantined"].samples if s.name.endswith("_total")]
    assert sum(reasons) == readings["quarantined"]
    assert families["boucle_automatic"].samples[0].value == 1
    quantiles = {(s.labels["step"], s.labels["quantile"]) for s in families["boucle_step_seconds"].samples}
    assert {("health", "0.5"), ("health", "0.95"), ("health", "0.99")} <= quantiles
    delays = {s.labels["source"]: s.value for s in families["boucle_watermark_delay_seconds"].samples}
    assert 0 < delays["vibration"] < 60
    assert all(s.value > 0 for s in families["boucle_step_state_bytes"].samples)
    assert families["boucle_queue_blocks"].samples[0].value == 0
    health = {s.labels["machine"]: s.value for s in families["boucle_machine_health"].samples}
    assert set(health) == set(plant.line.machines)
    assert health["press-2"] < min(health["press-1"], health["press-3"])


def test_the_mes_shows_the_orders_to_people(plant: SocketPlant) -> None:
    with httpx.Client(base_url=plant.mes.url, trust_env=False) as http:
        page = http.get("/", headers={"Accept-Language": "fr"}).text
    assert "press-3/vib_x" in page


def test_the_embedded_broker_loses_nothing(tmp_path: Path) -> None:
    """Without mosquitto the demo runs on amqtt: slower, but complete."""
    scenario = replace(quiet_line(), machines=("press-1", "press-2"))
    with SocketPlant(tmp_path, scenario, speed=2.0, kind="amqtt") as plant:
        plant.play()
        plant.run_until(7)
        plant.finish()
        vibration = plant.loop.intakes["vibration"].accounting
        assert vibration.received == vibration.stored == plant.gateway.sent.readings
        assert vibration.received >= 7 / 0.1 * 3 * 2
        assert plant.loop.picture.accounting().balanced()
        assert plant.gateway.sent.dropped_messages == 0

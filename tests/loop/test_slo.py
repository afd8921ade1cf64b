"""Objectives of a running loop: an outage is told and over; budgets survive restarts and kills; all is measured."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from boucle.cli.main import main
from boucle.event import Event, Outcome, Receipt, Severity
from boucle.loop.slo import Objectives
from boucle.loop.view import ObjectiveView
from boucle.product.sla import Objective, Sla
from boucle.quality.slo.history import read_past
from tests.loop.served import Served

FRESH = {"id": "fresh", "property": "freshness", "value": 2, "unit": "min", "element": "readings"}
MONTH = {"fresh": {"target": "99.9%", "window": "30d"}}
CLEARED = "slo_burn_fast_over"


class Make(Protocol):
    """Makes a product whose service is promised; it is closed after the test."""

    def __call__(self, items: Any, beside: Any = None) -> Served: ...


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Served] = []

    def one(items: Any, beside: Any = None) -> Served:
        made.append(Served(tmp_path, items, beside))
        return made[-1]

    yield one
    for plant in made:
        plant.loop.close()


def kinds(plant: Served) -> list[str]:
    return [event.kind for event in plant.events()]


def burns(view: ObjectiveView) -> dict[str, bool]:
    return {burn.name: burn.fires for burn in view.burns}


def test_an_outage_burns_fast_is_told_once_and_ends(make: Make) -> None:
    plant = make([FRESH], MONTH)
    plant.pass_(120)
    assert kinds(plant) == []
    before = plant.objective("fresh")
    assert (before.compliance, before.left, before.exhausts_s) == (1.0, 1.0, float("inf"))
    plant.pass_(10, silent=True)
    (fast, *_) = plant.events()
    assert (fast.kind, fast.severity, fast.subject) == ("slo_burn_fast", Severity.alarm, "slo fresh")
    assert fast.says["en"].startswith("freshness of readings: the error budget of 30 d burns")
    assert fast.says["fr"].startswith("fraîcheur de readings : le budget d'erreur de 30 j se consume")
    plant.pass_(10, silent=True)
    assert kinds(plant).count("slo_burn_fast") == 1, "told once"
    now = plant.objective("fresh")
    assert now.left == pytest.approx(1 - 18 / 43.2, abs=0.01), "two of twenty minutes were within the bound"
    assert burns(now)["fast"]
    assert 0 < now.exhausts_s < 86400
    page = plant.loop.picture.metrics().decode()
    assert 'boucle_slo_alert{alert="fast",slo="fresh"} 1.0' in page
    assert 'boucle_slo_budget_left{slo="fresh"} 0.58' in page
    plant.pass_(30)
    over = next(event for event in plant.events() if event.kind == CLEARED)
    assert over.severity is Severity.info
    assert "no longer burns too fast (after 2" in over.says["en"]
    assert "ne se consume plus trop vite (après 2" in over.says["fr"]
    assert not burns(plant.objective("fresh"))["fast"]
    plant.loop.tables.flush()
    stored = [row["kind"] for one in plant.loop.tables.read("events") for row in one.rows.to_pylist()]
    assert next(kind for kind in stored if kind.startswith("slo_")) == "slo_burn_fast"
    assert CLEARED in stored


@pytest.mark.parametrize("killed", [False, True])
def test_a_restart_keeps_budget_history_and_alerts(make: Make, killed: bool) -> None:
    plant = make([FRESH], MONTH)
    plant.pass_(60)
    plant.pass_(12, silent=True)
    assert "slo_burn_fast" in kinds(plant)
    before, told = plant.objective("fresh"), kinds(plant).count("slo_burn_fast")
    plant.restart(killed=killed)
    # While nobody ran it grew older: the time of the restart is counted too.
    plant.clock.advance(600)
    plant.loop.pump()
    after = plant.objective("fresh")
    assert kinds(plant).count("slo_burn_fast") == told, "it goes on, it does not begin again"
    assert after.total == before.total + 600_000
    assert after.good == before.good
    plant.pass_(40)
    assert CLEARED in kinds(plant)
    assert plant.objective("fresh").left == pytest.approx(1 - 21 / 43.2, abs=0.01)


def test_a_long_gap_is_counted_minute_by_minute(make: Make) -> None:
    plant = make([FRESH], {"fresh": {"target": "90%", "window": "2d"}})
    plant.pass_(5)
    plant.loop.close()
    plant.clock.advance(3 * 86400)
    plant.restart()
    plant.loop.pump()
    told = plant.objective("fresh")
    assert told.compliance == 0.0, "two days of nothing, and what was before is out of the window"
    assert told.total == pytest.approx(2 * 86_400_000, abs=120_000)


def test_rows_by_their_own_counters_and_by_their_age(make: Make) -> None:
    items = [
        {"property": "errorRate", "value": 2, "unit": "%"},
        {"property": "completeness", "value": 90, "unit": "%", "element": "readings"},
        {"property": "latency", "value": 3, "unit": "s", "element": "readings"},
        {"property": "throughput", "value": 2, "unit": "rows/min", "element": "readings"},
        {"property": "frequency", "value": 90, "unit": "s", "element": "readings"},
    ]
    plant = make(items)
    plant.pass_(10)
    plant.pass_(2, value=-1.0)  # refused: below its minimum
    plant.clock.advance(60)
    plant.send(behind=0.5)
    plant.send(behind=30)  # late
    plant.send(behind=0.5)  # the same again
    for _ in range(3):  # a turn ends with a Block of which nothing is left
        plant.loop.pump()
    told = {one.measure: (one.good, one.total) for one in plant.loop.picture.fresh().objectives}
    assert told["errorRate"] == (26, 30), "twenty, four refused, two, two late, two again"
    assert told["completeness"] == (22, 28)
    plant.send(behind=0.0)
    plant.pass_(1, step=4)
    told = {one.measure: (one.good, one.total) for one in plant.loop.picture.fresh().objectives}
    good, total = told["latency"]
    assert (good, total) == (22 + 30, 22 + 32), "one waited for four seconds"
    assert told["throughput"][1] >= 12
    assert told["throughput"][1] - told["throughput"][0] == 2, "two minutes had only refused rows"


def test_rows_are_not_counted_again_after_a_restart(make: Make) -> None:
    items = [{"property": "latency", "value": 3, "unit": "s", "element": "readings"}]
    plant = make(items)
    plant.pass_(20)
    before = plant.objective("latency-readings")
    # Killed: the checkpoint is of the beginning, all rows are worked through again.
    plant.restart(killed=True)
    plant.loop.pump()
    again = plant.objective("latency-readings")
    assert before.total <= again.total + 2 <= before.total + 4, "at most the last Block"
    assert again.total - again.good <= 2


def test_commands_are_in_time_when_they_were_read_back_in_time(tmp_path: Path) -> None:
    told: list[Event] = []
    objective = Objective(id="prompt", measure="latency", target=0.9, window=3600.0, bound=0.05)
    plant = Served(tmp_path, [])
    promised = Objectives(
        Sla((objective,)), plant.loop.plan.project, plant.folder, plant.loop.intakes, plant.clock, told.append
    )
    for outcome, latency, read_back in [
        (Outcome.applied, 49.0, 30.0),
        (Outcome.applied, 51.0, 30.0),
        (Outcome.applied, 900.0, None),  # a work order
        (Outcome.refused, 1.0, None),
        (Outcome.duplicate, 1.0, None),
        (Outcome.failed, None, None),
        (Outcome.expired, None, None),
    ]:
        promised.receipt(Receipt("c", "plc/x", outcome, 0, latency_ms=latency, read_back=read_back))
    (view,) = promised.view()
    plant.loop.close()
    assert (view.good, view.total) == (1, 4)


class _Door(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def door() -> Iterator[http.server.ThreadingHTTPServer]:
    class Door(_Door):
        """One of this test."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_that_answers_is_available(make: Make, door: http.server.ThreadingHTTPServer) -> None:
    items = [{"id": "up", "property": "availability", "value": "99%", "element": "sums"}]
    plant = make(items, {"up": {"probe": f"http://127.0.0.1:{door.server_port}/sums"}})
    plant.pass_(2, step=10)
    assert (plant.objective("up").good, plant.objective("up").total) == (110_000, 110_000)
    door.RequestHandlerClass.status = 404  # type: ignore[attr-defined]
    plant.pass_(1, step=10)
    assert plant.objective("up").compliance == 1.0, "it answers, whatever it says of an address"
    door.RequestHandlerClass.status = 503  # type: ignore[attr-defined]
    plant.pass_(1, step=10)
    told = plant.objective("up")
    assert told.total - told.good == 60_000


def test_a_table_that_can_be_read_is_available(make: Make) -> None:
    items = [{"id": "up", "property": "availability", "value": "99%", "element": "sums"}]
    plant = make(items)
    plant.pass_(0.5, step=10)
    assert plant.objective("up").total == 0, "there is no table yet"
    plant.pass_(4, step=10)
    before = plant.objective("up")
    assert before.total == before.good > 0
    for file in (plant.folder / "lake" / "silver" / "sums").rglob("*.parquet"):
        file.write_bytes(b"gone")
    for _ in range(6):
        plant.clock.advance(10)
        plant.loop.objectives.look()
    after = plant.objective("up")
    assert after.total - after.good == 60_000


def test_values_agree_with_a_source_of_truth(make: Make) -> None:
    items = [{"id": "right", "property": "accuracy", "value": "99%", "element": "readings.value"}]
    beside = {
        "right": {"reference": "truth.csv", "key": ["pump"], "tolerance": "10%", "referenceColumn": "right"}
    }
    plant = make(items, beside)
    plant.pass_(1)
    told = plant.objective("right")
    assert (told.total, told.why.startswith("truth.csv: ")) == (0, True)
    (plant.project / "truth.csv").write_text("pump,right\np1,1.0\n")
    plant.pass_(5)
    plant.pass_(1, value=1.2)
    told = plant.objective("right")
    assert (told.good, told.total, told.why) == (5, 6, "")
    assert plant.events() == [], "one wrong row wakes nobody"
    plant.pass_(5, value=1.2)
    assert "slo_burn_fast" in kinds(plant)


def test_a_replay_promises_nothing(make: Make) -> None:
    plant = make([FRESH], MONTH)
    plant.pass_(3)
    assert read_past(plant.folder) is not None
    plant.loop.close()
    into = plant.folder.with_name("again")
    words = ["replay", str(plant.project), "--lake", str(plant.folder), "--into", str(into), "--json"]
    assert main(words) == 0
    assert not (into / "slo").exists()


def told_of(plant: Served, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main(["slo", "--run", str(plant.folder), *words]) == 0
    return capsys.readouterr().out


def test_the_command_reads_a_run_also_while_it_goes_on(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    dates = [{"property": "endOfSupport", "value": "2032-05-12"}]
    plant = make([FRESH, *dates], MONTH)
    plant.pass_(60)
    plant.pass_(20, silent=True)
    told = json.loads(told_of(plant, capsys, "--json"))
    (one,) = told["objectives"]
    assert told["product"] == "pumps"
    assert one["left"] == pytest.approx(1 - 18 / 43.2, abs=0.01)
    assert one["burns"]["fast"]["fires"]
    assert told["lifetimes"] == [{"name": "endOfSupport", "at": "2032-05-12T00:00:00+00:00"}]
    text = told_of(plant, capsys)
    assert "fresh " in text
    assert "58 %" in text
    assert "fast" in text
    assert "endOfSupport" in text
    file = plant.folder / "slo" / "history.ndjson"
    whole = file.read_bytes()
    told_of(plant, capsys)
    assert file.read_bytes() == whole, "who only reads cuts nothing off"


def test_a_run_without_objectives_is_told(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    plant = make([])
    plant.pass_(1)
    assert plant.loop.picture.fresh().objectives == ()
    plant.loop.close()
    assert not (plant.folder / "slo").exists()
    assert main(["slo", "--run", str(plant.folder)]) == 1
    assert "B472" in capsys.readouterr().err


def test_a_full_disk_forgets_no_count(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plant = make([FRESH], MONTH)
    plant.pass_(5)
    from boucle.errors import Unavailable
    from boucle.quality.slo.history import History

    real = History.append

    def full(self: History, entry: Any) -> None:
        raise Unavailable("B430", "the file cannot be written")

    monkeypatch.setattr(History, "append", full)
    plant.clock.advance(60)
    with pytest.raises(Unavailable):
        plant.loop.objectives.look()
    monkeypatch.setattr(History, "append", real)
    plant.clock.advance(60)
    plant.loop.objectives.look()
    past = read_past(plant.folder)
    assert past is not None
    good, total = past.minutes["fresh"].between(0, 2**40)
    told = plant.objective("fresh")
    assert (good, total) == (told.good, told.total)

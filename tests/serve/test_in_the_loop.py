"""A product whose model is changed while it runs, and whose process then stops without a word."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.bus.memory import MemorySource
from boucle.event import Event
from boucle.loop.metrics import exposition
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.ports import WIRE
from boucle.product.project import load_project
from boucle.testing.clock import ManualClock
from tests.serve.models import linear, registered

START = 1_790_000_000_000_000_000
PRODUCT = """
apiVersion: v1.0.0
kind: DataProduct
id: risks
name: Risks
version: 0.1.0
status: active
domain: evaluation
inputPorts:
  - {name: payments, version: 1.0.0, contractId: payments}
outputPorts:
  - {name: scored, type: tables, version: 1.0.0, contractId: payments}
---
apiVersion: v3.1.0
kind: DataContract
id: payments
name: Payments
version: 1.0.0
status: active
schema:
  - name: payments
    physicalType: topic
    properties:
      - {name: card, logicalType: string, required: true}
      - {name: seq, logicalType: integer, physicalType: int64, required: true}
      - {name: at, logicalType: timestamp, physicalType: timestamp_ns, required: true}
      - {name: a, logicalType: number, required: false}
---
kind: Loop
apiVersion: boucle/v1
id: risks-loop
product: risks
contract: payments
sources:
  payments:
    from: memory:payments
    schema: payments
    format: json
    dedupe: [card, seq]
    lateness: 0s
steps:
  - id: scored
    use: boucle.serve.score:Score
    from: [payments]
    with:
      model: models:risk@champion
      marks: {version: version, fallback: why}
      fallback: [previous, {constants: {risk: 0.5}}]
      cost: {per_cpu_hour: 0.04, currency: EUR}
tables:
  scored: {from: scored, zone: gold}
"""


class Running:
    """The product on a clock of ours, its source in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent = folder, 0
        (folder / "product").mkdir(parents=True)
        (folder / "product" / "product.yaml").write_text(PRODUCT, encoding="utf-8")
        self.registry = registered(folder / "product", linear(1.0), linear(2.0), linear(3.0))
        self.events: list[Event] = []
        self.source = MemorySource(stream="payments")
        self.start()

    def start(self) -> None:
        self.clock = ManualClock(START + self.sent * 10**9)
        self.loop = Loop(
            build_plan(load_project(self.folder / "product")),
            self.clock,
            sources={"payments": self.source},
            actuators={},
            folder=self.folder / "run",
            listener=lambda told: self.events.append(told) if isinstance(told, Event) else None,
            inlet=False,
        )
        self.loop.open()

    def send(self, rows: int) -> None:
        told = [
            {
                "card": "c",
                "seq": number,
                "at": _text(number),
                "a": None if number % 10 == 9 else float(number),
            }
            for number in range(self.sent, self.sent + rows)
        ]
        columns: dict[str, Any] = {
            "topic": ["payments"] * rows,
            "payload": [json.dumps(one).encode() for one in told],
            "received": [START] * rows,
            "retained": [False] * rows,
        }
        self.sent += rows
        self.clock.advance(rows)
        self.source.put(
            Block("payments", pa.RecordBatch.from_pydict(columns, schema=WIRE), 0, Position("p", self.sent))
        )
        while self.loop.advance("payments"):
            pass
        self.loop.settle()

    def send_until(self, version: str) -> None:
        until = time.monotonic() + 20
        while self.scored()[-1]["version"] != version:
            assert time.monotonic() < until
            self.send(1 if self.sent % 10 != 9 else 2)
            time.sleep(0.002)

    def scored(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for block in self.loop.tables.read("scored"):
            rows += [row for row in block.rows.to_pylist() if row["seq"] % 10 != 9]
        return rows


def _text(number: int) -> str:
    import datetime as dt

    return dt.datetime.fromtimestamp(START // 10**9 + number, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def running(tmp_path: Path) -> Any:
    plant = Running(tmp_path)
    yield plant
    plant.loop.close()


def test_each_row_once_with_the_version_that_scored_it_although_the_process_stops(running: Running) -> None:
    running.send(20)
    running.registry.promote("risk", 2, by="tests")
    running.send_until("2")
    running.registry.rollback("risk", by="tests")
    running.send_until("1")
    before = running.scored()
    running.loop._within = True
    running.loop.close()
    running.registry.promote("risk", 3, by="tests")
    running.start()  # all of the log comes again, and is scored as it was
    assert running.scored() == before
    running.send_until("3")
    after = running.scored()
    assert after[: len(before)] == before
    assert [row["seq"] for row in after] == [number for number in range(running.sent) if number % 10 != 9]
    assert all(row["risk"] == row["a"] * int(row["version"]) for row in after)
    ledger = running.loop.picture.fresh().scores[0]
    assert ledger.rows == running.sent
    assert ledger.rows == ledger.scored + sum(ledger.fallback.values())


def test_what_is_scored_and_what_it_costs_is_on_the_metrics_page(running: Running) -> None:
    running.send(20)
    running.registry.promote("risk", 2, by="tests")
    running.send_until("2")
    page = exposition(running.loop.picture.fresh()).decode()
    for wanted in (
        f'boucle_score_rows_total{{outcome="in",reason="",step="scored"}} {running.sent}.0',
        'outcome="fallback",reason="null_features"',
        'boucle_score_seconds_bucket{arm="champion",le="+Inf",model="risk",step="scored",version="2"}',
        'boucle_score_cost_total{arm="champion",currency="EUR",model="risk",step="scored",version="1"}',
    ):
        assert wanted in page
    kinds = [event.kind for event in running.events if event.kind.startswith("model_")]
    assert kinds == ["model_trouble", "model_changed"]
    assert {"en", "fr"} <= running.events[-1].says.keys()


def test_a_replay_follows_nobody(tmp_path: Path, running: Running) -> None:
    running.send(5)
    loop = Loop(
        build_plan(load_project(running.folder / "product")),
        ManualClock(START),
        sources={"payments": MemorySource(stream="payments")},
        actuators={},
        folder=tmp_path / "replay",
        inlet=False,
        promises=False,
    )
    loop.open()
    (step,) = loop.path.steps
    assert step.operator._follower._thread is None  # type: ignore[attr-defined]
    loop.close()

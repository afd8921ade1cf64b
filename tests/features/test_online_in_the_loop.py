"""A product whose features are kept and looked up while it runs, and whose process then stops without a word."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.bus.memory import MemorySource
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.ports import WIRE
from boucle.product.project import load_project
from boucle.testing.clock import ManualClock
from tests.features.redis_server import redis_server
from tests.serve.models import linear

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
  - name: limits
    physicalType: topic
    properties:
      - {name: card, logicalType: string, required: true}
      - {name: at, logicalType: timestamp, physicalType: timestamp_ns, required: true}
      - {name: a, logicalType: number, required: false}
---
kind: Loop
apiVersion: boucle/v1
id: risks-loop
product: risks
contract: payments
sources:
  payments: {from: "memory:payments", schema: payments, format: json, dedupe: [card, seq], lateness: 0s}
  limits: {from: "memory:limits", schema: limits, format: json, dedupe: [card, at], lateness: 0s}
features:
  limits: {from: limits, entity: [card], columns: [a], ttl: 1h}
steps:
  - id: known
    use: boucle.features.online:Online
    from: [payments, limits]
    with: {view: limits, keep: limits, default: {a: 100.0}, state: how}
  - id: scored
    use: boucle.serve.score:Score
    from: [known]
    with: {model: models/risk}
tables:
  scored: {from: scored, zone: gold}
  limits: {from: limits, zone: silver}
"""


class Running:
    """The product on a clock of ours, its sources in memory."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder, self.sent = folder, 0
        (folder / "product").mkdir(parents=True)
        (folder / "product" / "product.yaml").write_text(PRODUCT, encoding="utf-8")
        (folder / "product" / "boucle.toml").write_text(f'[features]\nstore = "{store}"\n', encoding="utf-8")
        linear(2.0).save(folder / "product" / "models" / "risk")
        self.sources = {name: MemorySource(stream=name) for name in ("payments", "limits")}
        self.start()

    def start(self) -> None:
        self.clock = ManualClock(START + self.sent * 10**9)
        self.loop = Loop(
            build_plan(load_project(self.folder / "product")),
            self.clock,
            sources=dict(self.sources),
            actuators={},
            folder=self.folder / "run",
            inlet=False,
        )
        self.loop.open()

    def send(self, source: str, **told: Any) -> None:
        self.sent += 1
        at = f"2026-09-21T13:46:40.{self.sent:03d}Z"
        columns: dict[str, Any] = {
            "topic": [source],
            "payload": [json.dumps({"card": "c", "at": at, **told}).encode()],
            "received": [START],
            "retained": [False],
        }
        self.clock.advance(1)
        rows = pa.RecordBatch.from_pydict(columns, schema=WIRE)
        self.sources[source].put(Block(source, rows, 0, Position("p", self.sent)))
        while self.loop.advance(source):
            pass
        self.loop.settle()

    def scored(self) -> dict[int, tuple[float, str]]:
        return {
            row["seq"]: (row["risk"], row["how"])
            for block in self.loop.tables.read("scored")
            for row in block.rows.to_pylist()
        }


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_features_are_there_when_a_row_is_scored_and_after_a_crash(tmp_path: Path, kind: str) -> None:
    with redis_server(tmp_path) as server:
        running = Running(tmp_path / "risks", server.address if kind == "redis" else "memory:")
        running.send("payments", seq=1)
        running.send("limits", a=3.0)
        running.send("payments", seq=2)
        running.send("limits", a=4.0)
        running.send("payments", seq=3)
        running.loop._within = True  # the process ends here without a word: all of the log comes again
        running.loop.close()
        running.start()
        running.send("payments", seq=4)
        assert running.scored() == {
            1: (200.0, "missing"), 2: (6.0, "found"), 3: (8.0, "found"), 4: (8.0, "found")
        }  # fmt: skip
        running.loop.close()

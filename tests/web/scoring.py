"""Payments scored by a model while others are in its shadow and on trial, and labels that come later: a real loop.

`python -m tests.web.scoring --port 8080` serves the page on it.
"""

import argparse
import datetime as dt
import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from boucle.block import Block, Position
from boucle.bus.memory import MemorySource
from boucle.event import Event
from boucle.features.sketch import learn
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.models.algorithms import fit, to_onnx, trees
from boucle.models.file import Column, ModelFile
from boucle.models.record import SKETCHES
from boucle.models.registry import registry_of
from boucle.ports import WIRE
from boucle.product.project import load_project
from boucle.testing.clock import ManualClock
from boucle.web import create_app, serve

START = 1_790_000_000_000_000_000
LATER = 40
"""Seconds until what became of a payment is known."""
PRODUCT = """
apiVersion: v1.0.0
kind: DataProduct
id: card-fraud
name: Card fraud
version: 0.1.0
status: active
domain: payments
inputPorts: [{name: payments, version: 1.0.0, contractId: payments}]
outputPorts: [{name: scored, type: tables, version: 1.0.0, contractId: payments}]
---
apiVersion: v3.1.0
kind: DataContract
id: payments
name: Payments and what became of them
version: 1.0.0
status: active
schema:
  - name: payments
    physicalType: topic
    properties:
      - {name: payment, logicalType: integer, physicalType: int64, required: true}
      - {name: card, logicalType: string, required: true}
      - {name: at, logicalType: timestamp, physicalType: timestamp_ns, required: true}
      - {name: amount, logicalType: number, required: false}
      - {name: count_1h, logicalType: number, required: true}
  - name: labels
    physicalType: topic
    properties:
      - {name: payment, logicalType: integer, physicalType: int64, required: true}
      - {name: at, logicalType: timestamp, physicalType: timestamp_ns, required: true}
      - {name: fraud, logicalType: integer, physicalType: int64, required: true}
---
kind: Loop
apiVersion: boucle/v1
id: fraud-loop
product: card-fraud
contract: payments
view: {title: {en: Card fraud, fr: Fraude à la carte}}
sources:
  payments: {from: "memory:payments", schema: payments, format: json, dedupe: [payment], lateness: 0s}
  labels: {from: "memory:labels", schema: labels, format: json, dedupe: [payment, at], lateness: 0s}
steps:
  - id: scored
    title: {en: Chance of fraud, fr: Risque de fraude}
    use: boucle.serve.score:Score
    from: [payments]
    with:
      model: models:fraud@champion
      fallback: [previous, {constants: {probability: 0.5}}]
      shadow: {model: "models:fraud@candidate", flips: {probability: 0.5}, flip: 0.2, tolerance: 0.05}
      canary: {model: "models:fraud@challenger", percent: 30, key: card}
      marks: {version: version, arm: arm, fallback: why}
      cost: {per_cpu_hour: 0.04, currency: EUR}
      watch: {every: 20s, rows: [40, 4000], usual: false}
  - id: performance
    use: boucle.serve.monitor:Performance
    from: [scored, labels]
    with:
      {predictions: scored, labels: labels, id: payment, score: probability, label: fraud, window: 20s, wait: 60s,
       upto: 1h, every: 5s, version: version}
  - id: outcomes
    use: boucle.stream.join:IntervalJoin
    from: [scored, labels]
    with: {left: scored, right: labels, by: [payment], lower: 0s, upper: 1h}
  - id: trial
    use: boucle.serve.trial:Trial
    from: [outcomes]
    with:
      {model: "models:fraud", loss: abs(fraud - probability), time: left_at, unit: card, approval: true, alpha: 0.001}
  - id: reasons
    use: boucle.serve.explain:Explain
    from: [scored]
    with: {model: "models:fraud@champion", version: version, where: probability >= 0.5, keep: [at, payment]}
  - id: drift
    use: boucle.drift.change:DataDrift
    from: [scored]
    with: {columns: [amount, count_1h], reference: "models:fraud@champion", version: version, window: 60, hold: 2}
tables:
  scored: {from: scored, zone: gold}
"""


class Scoring:
    """The product on a clock of ours. `send` a second of payments at a time; their labels follow by themselves."""

    def __init__(self, folder: Path, *, cards: int = 10_000) -> None:
        self.folder, self.second, self._cards = folder, 0, cards
        (folder / "product").mkdir(parents=True)
        (folder / "product" / "product.yaml").write_text(PRODUCT, encoding="utf-8")
        self.registry = registry_of(folder / "product")
        for number in range(3):
            self._train(number)
        for version, role in ((1, "champion"), (2, "challenger"), (3, "candidate")):
            self.registry.promote("fraud", version, role, by="marie", why="trained on October")
        self.events: list[Event] = []
        self.sources = {name: MemorySource(stream=name) for name in ("payments", "labels")}
        self.clock = ManualClock(START)
        self._chance = np.random.default_rng(11)
        self._labels: dict[int, list[dict[str, Any]]] = {}
        self._sent = 0
        self.loop = Loop(
            build_plan(load_project(folder / "product")),
            self.clock,
            sources=self.sources,
            actuators={},
            folder=folder / "run",
            listener=lambda told: self.events.append(told) if isinstance(told, Event) else None,
            inlet=False,
        )
        self.loop.open()

    def _train(self, number: int) -> None:
        chance = np.random.default_rng(number)
        inputs = chance.random((600, 2)).astype(np.float32)
        # The first learnt from noisy labels, the second from better ones, the third from another world.
        weight = (1.0, 1.0, -0.2)[number]
        truth = (
            inputs[:, 0] + weight * inputs[:, 1] + chance.normal(0, (0.5, 0.05, 0.3)[number], 600)
            > (1 + weight) / 2
        )
        settings = {"n_estimators": 12, "num_leaves": 6}
        made = fit("lightgbm", "classification", settings, inputs, truth.astype(np.float64), number)
        model = ModelFile.build(
            to_onnx(made, "lightgbm", "classification", 2, "probability"),
            name="fraud",
            inputs=(Column("amount"), Column("count_1h")),
            outputs=(Column("probability"),),
            created="2026-11-22T00:00:00Z",
            trained_on={"seeds": [number]},
            metrics={},
        )
        sketches = {
            name: learn(pa.array(inputs[:, place])) for place, name in enumerate(("amount", "count_1h"))
        }
        files = {**trees(made, "lightgbm"), SKETCHES: msgspec.json.encode(sketches)}
        self.registry.add(model, by="marie", files=files)

    def send(self, seconds: int, *, rows: int = 10, shift: float = 0.0) -> None:
        """So many seconds of payments; `shift` moves their amounts."""
        for _ in range(seconds):
            moment = START + self.second * 10**9
            told = []
            for number in range(rows):
                amount, count = self._chance.random(2).tolist()
                payment, self._sent = self._sent, self._sent + 1
                when = _text(moment + number * 10**9 // rows)
                card = f"card-{self._chance.integers(self._cards)}"
                row = {
                    "payment": payment,
                    "card": card,
                    "at": when,
                    "amount": amount + shift,
                    "count_1h": count,
                }
                told.append(row | {"amount": None} if self._chance.random() < 0.01 else row)
                label = {
                    "payment": payment,
                    "at": _text(moment + LATER * 10**9),
                    "fraud": int(amount + count > 1),
                }
                self._labels.setdefault(self.second + LATER, []).append(label)
            self.second += 1
            self.clock.advance(1)
            self._put("payments", told)
            self._put("labels", self._labels.pop(self.second - 1, []))
            for name in self.sources:
                while self.loop.advance(name):
                    pass
            self.loop.models.look()
        score = next(step.operator for step in self.loop.path.steps if step.id == "scored")
        score.shadow.settle()  # type: ignore[attr-defined]

    def _put(self, stream: str, told: list[dict[str, Any]]) -> None:
        columns = {
            "topic": [stream] * len(told),
            "payload": [json.dumps(one).encode() for one in told],
            "received": [self.clock.now()] * len(told),
            "retained": [False] * len(told),
        }
        if told:
            rows = pa.RecordBatch.from_pydict(columns, schema=WIRE)
            self.sources[stream].put(Block(stream, rows, 0, Position(stream, 0)))


def _text(at: int) -> str:
    whole, part = divmod(at, 10**9)
    return f"{dt.datetime.fromtimestamp(whole, dt.UTC):%Y-%m-%dT%H:%M:%S}.{part:09d}Z"


def main() -> None:
    """Serve the page on three minutes of payments until Ctrl-C."""
    asked = argparse.ArgumentParser(description="the page of models on payments")
    asked.add_argument("--port", type=int, default=8080)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plant = Scoring(Path(folder))
        plant.send(160)
        plant.send(20, shift=0.4)
        with serve(create_app(plant.loop.picture), port=options.port) as server:
            print(f"the page is at {server.url}models")
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                print("closing")
        plant.loop.close()


if __name__ == "__main__":
    main()

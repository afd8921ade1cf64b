"""A small product whose service is promised, on the manual clock."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa

from boucle.bus.memory import MemorySource
from boucle.clock import SECOND
from boucle.event import Command, Event, Receipt
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.loop.view import ObjectiveView
from boucle.product.project import load_project
from boucle.testing.clock import ManualClock

START = 1_790_000_000 * SECOND

PRODUCT = """\
kind: DataProduct
apiVersion: v1.0.0
id: pumps
name: Pumps
version: 1.0.0
status: active
---
kind: DataContract
apiVersion: {version}
id: pump-signals
version: 1.0.0
status: active
schema:
  - name: readings
    physicalType: file
    properties:
      - {{name: at, logicalType: timestamp, physicalType: timestamp_ns, required: true}}
      - {{name: pump, logicalType: string, required: true}}
      - {{name: value, logicalType: number, required: true, logicalTypeOptions: {{minimum: 0}}}}
  - name: sums
    physicalType: table
    properties:
      - {{name: at, logicalType: timestamp, required: true}}
      - {{name: pump, logicalType: string}}
      - {{name: total, logicalType: number}}
  - name: elsewhere
    properties:
      - {{name: at, logicalType: timestamp, required: true}}
  - name: unfed
    properties:
      - {{name: at, logicalType: timestamp, required: true}}
slaProperties: {items}
customProperties: {beside}
---
kind: Loop
apiVersion: boucle/v1
id: pump-loop
product: pumps
contract: pump-signals
sources:
  readings: {{from: "memory:readings", schema: readings, partition: [pump], lateness: 1s, idle: 5s, dedupe: [pump, at]}}
steps:
  - id: sums
    use: boucle.stream.window:Tumbling
    from: [readings]
    with: {{by: [pump], size: 10s, values: {{total: sum(value)}}}}
tables:
  kept: {{from: readings, zone: raw, partition: [pump]}}
  sums: {{from: sums, zone: silver, partition: [pump], key: [pump, at]}}
  elsewhere: {{from: sums, zone: silver, to: "postgresql://127.0.0.1:1/x?table=y"}}
"""


def served(items: Any, beside: Any = None, version: str = "v3.1.0") -> str:
    """The product with these promises, and what is said beside them."""
    custom = [{"property": "serviceLevelObjectives", "value": beside}] if beside else []
    return PRODUCT.format(items=json.dumps(items), beside=json.dumps(custom), version=version)


class Served:
    """The product, run by hand: readings of two pumps come every `step` seconds, unless `silent`."""

    def __init__(self, folder: Path, items: Any, beside: Any = None) -> None:
        self.project = folder / "product"
        self.project.mkdir(parents=True)
        text = served(items, beside).replace("  elsewhere: {from", "  # elsewhere: {from")
        (self.project / "product.yaml").write_text(text)
        self.folder = folder / "run"
        self.clock = ManualClock(START)
        self.source = MemorySource(stream="readings")
        self.told: list[Event | tuple[Command, Receipt]] = []
        self.loop = self._new()
        self.loop.open()

    def _new(self) -> Loop:
        plan = build_plan(load_project(self.project, None, {"run.lake_every": "60s"}))
        return Loop(
            plan, self.clock, sources={"readings": self.source}, actuators={}, folder=self.folder,
            listener=self.told.append, inlet=False,
        )  # fmt: skip

    def restart(self, *, killed: bool = False) -> None:
        """A new loop on the same folder; killed: the one before never came to an end."""
        held = self.folder.with_name("held")
        if killed:
            shutil.copytree(self.folder, held)
        self.loop.close()
        if killed:
            shutil.rmtree(self.folder)
            held.rename(self.folder)
        self.loop = self._new()
        self.loop.open()

    def pass_(self, minutes: float, *, silent: bool = False, step: float = 60.0, value: float = 1.0) -> None:
        """Let time pass."""
        for _ in range(round(minutes * 60 / step)):
            self.clock.advance(step)
            if not silent:
                self.send(value)
            self.loop.pump()

    def send(self, value: float = 1.0, behind: float = 0.0) -> None:
        """A reading of each pump, `behind` seconds old."""
        at = self.clock.now() - round(behind * SECOND)
        self.source.put_rows(
            pa.record_batch(
                {
                    "at": pa.array([at, at], pa.timestamp("ns", "UTC")),
                    "pump": ["p1", "p2"],
                    "value": [value, value],
                }
            )
        )

    def events(self) -> list[Event]:
        """What was told of objectives."""
        return [one for one in self.told if isinstance(one, Event) and one.kind.startswith("slo_")]

    def objective(self, id_: str) -> ObjectiveView:
        """Where an objective stands."""
        return next(one for one in self.loop.picture.fresh().objectives if one.id == id_)

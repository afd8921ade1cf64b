"""The press plant on the manual clock: the whole loop, no sockets, no waiting, the same every time."""

from pathlib import Path
from typing import Any

from boucle.bus.memory import MemorySource
from boucle.event import Command, Event, Receipt
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.product.project import load_project
from boucle.testing.clock import ManualClock
from boucle.testing.line import PressLine
from boucle.testing.mes import FakeMes, OrderBook
from boucle.testing.plc import FakePlc, PlcLogic
from boucle.testing.scenario import Scenario, load_scenario

PRESS = Path("examples/press")
START = 1_790_000_000_000_000_000


class ManualPlant:
    """The simulated line, a fake PLC and MES, and a loop, all stepped by hand."""

    def __init__(
        self, folder: Path, seed: int = 1, scenario: Scenario | None = None, start: int = START
    ) -> None:
        self.scenario = scenario or load_scenario(PRESS / "scenario.yaml")
        self.clock = ManualClock(start)
        self.line = PressLine(self.scenario, seed, start)
        self.plc = PlcLogic(self.line.machines, self.clock, self.scenario.speed)
        self.orders = OrderBook(self.clock)
        self.mes = FakeMes(self.orders)
        self.vibration, self.process = MemorySource(stream="vibration"), MemorySource(stream="process")
        self.told: list[Event | tuple[Command, Receipt]] = []
        self.folder = folder
        self._ticks = 0
        self.loop = self.new_loop()

    def restart(self) -> None:
        """A new loop on the same folder, as after a stop of the process."""
        self.loop = self.new_loop()
        self.loop.open()

    def new_loop(self) -> Loop:
        overrides = {
            "addresses.broker": "127.0.0.1:1",
            "addresses.plc": "127.0.0.1:2",
            "addresses.mes": "127.0.0.1:3",
            "run.lake_every": "60s",
        }
        project = load_project(PRESS, None, overrides)
        return Loop(
            build_plan(project),
            self.clock,
            sources={"vibration": self.vibration, "process": self.process},
            actuators={"plc": FakePlc(self.plc), "mes": self.mes},
            folder=self.folder,
            listener=self.told.append,
            inlet=False,
        )

    def run(self, seconds: float | None = None) -> None:
        """Let `seconds` of the story pass."""
        for _ in range(round((self.scenario.duration if seconds is None else seconds) / self.scenario.chunk)):
            self.step()

    def step(self) -> None:
        tick = self.line.step()
        self.clock.advance((tick.last - self.clock.now()) / 1e9)
        self.process.put(self.line.process_block(tick))
        self.vibration.put(self.line.wire_block(self.line.messages(tick), self.clock.now()))
        for source in ("process", "vibration"):
            while self.loop.advance(source):
                pass
        self._ticks += 1
        if self._ticks % 50 == 0:  # a real loop syncs in its own thread; here it would cost most of the time
            self.loop.settle()
        for machine in self.line.machines:
            self.line.set_speed(machine, float(self.plc.value(machine, "speed_setpoint")))

    def events(self, kind: str | None = None) -> list[Event]:
        return [one for one in self.told if isinstance(one, Event) and kind in (None, one.kind)]

    def receipts(self, prefix: str = "") -> list[tuple[Command, Receipt]]:
        return [one for one in self.told if isinstance(one, tuple) and one[0].target.startswith(prefix)]

    def verdicts(self, machine: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for block in self.loop.tables.read("verdicts"):
            rows += [row for row in block.rows.to_pylist() if row["machine"] == machine]
        return rows

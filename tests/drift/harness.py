"""The press path without sockets: PressLine → Reduce → PressFeatures → Score → Attribute."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from boucle.block import Block, Position
from boucle.clock import SECOND, Nanos
from boucle.drift import Attribute
from boucle.edge import Reduce
from boucle.loop.path import Path as LoopPath
from boucle.loop.path import Step
from boucle.serve import Score
from boucle.testing.line import PressLine, Tick
from boucle.testing.scenario import Fault, Operation, Scenario

PRESS = Path(__file__).parents[2] / "examples" / "press"
START: Nanos = 1_700_000_000 * SECOND
_LATENESS = SECOND // 2

Row = dict[str, Any]
Each = Callable[[PressLine, list[Row]], None]


def operators() -> Any:
    """The press's own operators, imported by file as the loop does."""
    name = "press_operators"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, PRESS / "operators.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


class Harness:
    """The path, with the rows of every stream it gave."""

    def __init__(self, **settings: Any) -> None:
        self.rows: dict[str, list[Row]] = {
            "vibration_events": [],
            "features": [],
            "health": [],
            "verdicts": [],
        }
        steps = [
            Step("vibration_events", "", ("vibration", "process"), Reduce("vibration_events")),
            Step("features", "", ("vibration_events", "process"), operators().PressFeatures("features")),
            Step("health", "", ("features",), Score("health", model="models/press_health", folder=PRESS)),
            Step("verdicts", "", ("health",), Attribute("verdicts", **settings)),
        ]
        taps = {stream: [self._keep] for stream in self.rows}
        self.path = LoopPath(steps, taps)

    def push(self, tick: Tick) -> list[Row]:
        """One tick of the line; the verdicts it led to."""
        before = len(self.rows["verdicts"])
        self.path.push(Block("process", tick.process, tick.last - _LATENESS, Position("process", 0)))
        for _, batch in tick.vibration:
            self.path.push(Block("vibration", batch, tick.at - _LATENESS, Position("vibration", 0)))
        return self.rows["verdicts"][before:]

    def _keep(self, block: Block) -> None:
        self.rows[block.stream] += block.rows.to_pylist()


def run(scenario: Scenario, seed: int, *, seconds: float | None = None, each: Each | None = None) -> Harness:
    """Run a scenario; `each` sees the line and the new verdicts after every tick, and may act."""
    line = PressLine(scenario, seed=seed, start=START)
    harness = Harness()
    while line.elapsed < (scenario.duration if seconds is None else seconds) - 1e-9:
        verdicts = harness.push(line.step())
        if each is not None:
            each(line, verdicts)
    return harness


def single(fault: Fault | None, *operations: Operation, seconds: float = 45, **changed: Any) -> Scenario:
    """One press with at most one fault."""
    faults = () if fault is None else (fault,)
    return Scenario(machines=("press-1",), faults=faults, operation=operations, duration=seconds, **changed)


def seen(rows: Sequence[Row], machine: str) -> list[tuple[str, str, str]]:
    """The different verdicts of a machine, in order of appearance."""
    found: list[tuple[str, str, str]] = []
    for row in rows:
        told = (row["family"], row["cause"], row["subject"])
        if row["machine"] == machine and (not found or found[-1] != told):
            found.append(told)
    return found

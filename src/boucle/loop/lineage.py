"""Tells, as OpenLineage events, what a running loop reads and writes: from sensor topic to PLC and MES."""

import time
from pathlib import Path

from boucle.catalog.lineage import Dataset, Lineage, Run, Written, dataset, table
from boucle.clock import Clock
from boucle.loop.intake import Intake
from boucle.loop.plan import Plan
from boucle.loop.tables import Tables

__all__ = ["LoopLineage"]

_EVERY = 60.0
"""Seconds of the wall between two RUNNING events; what was written is summed, not sampled."""


class LoopLineage:
    """One life of the loop as one run of its job."""

    def __init__(
        self, plan: Plan, intakes: dict[str, Intake], tables: Tables, folder: Path, clock: Clock
    ) -> None:
        self._intakes, self._tables = intakes, tables
        project = plan.project
        self._sources: dict[str, Dataset] = {
            name: dataset(
                project.settings.fill(spec.from_),
                project.contracts[spec.schema].schema(),
                name=_path(spec.from_, name),
            )
            for name, spec in project.loop.sources.items()
        }
        self._outputs = {name: table(folder / "lake", zone, name) for name, zone in tables.zones.items()}
        self._actuators = [
            dataset(project.settings.fill(actuator.to), name=name)
            for name, actuator in project.loop.actuators.items()
        ]
        self._job = project.loop.id
        self._lineage = Lineage(folder / "lineage", clock, namespace=project.id)
        self._run: Run | None = None
        self._due = 0.0

    def start(self) -> None:
        """The loop begins."""
        outputs = [*self._outputs.values(), *self._actuators]
        self._run = self._lineage.start(self._job, list(self._sources.values()), outputs, kind="STREAMING")
        self._due = time.monotonic() + _EVERY

    def step(self) -> None:
        """Say how far it has come, once a minute."""
        if self._run is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + _EVERY
            self._run.running(self._written())

    def end(self, failure: BaseException | None) -> None:
        """The loop ends, well or not."""
        if self._run is None:
            return
        if failure is None:
            self._run.complete(self._written())
        else:
            self._run.fail(failure, self._written())
        self._run = None

    def _written(self) -> dict[str, Written]:
        written = {
            self._outputs[view.name].name: Written(view.rows, version=view.version)
            for view in self._tables.view()
            if view.version >= 0
        }
        for name, intake in self._intakes.items():
            written[self._sources[name].name] = Written(intake.accounting.received)
        return written


def _path(address: str, name: str) -> str:
    return name if address.startswith("opc.tcp:") else ""

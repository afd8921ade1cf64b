"""Tells, as OpenLineage events, what a running loop reads and writes: from sensor topic to PLC and MES, by column.

They are lines of a journal first, which survive a crash; the table `lineage_events` of the lake follows it.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import structs

from boucle.catalog.entry import read_entry
from boucle.catalog.export import Exporter, ExportThread
from boucle.catalog.graph import WHOLE, Graph, Node
from boucle.catalog.lineage import Column, Dataset, Lineage, Run, Written, dataset, table
from boucle.catalog.lineage_log import LINEAGE_TABLE, LineageLog
from boucle.clock import Clock
from boucle.errors import BoucleError
from boucle.lake.whole import Lake
from boucle.lake.writer import Feed, LakeWriter
from boucle.loop.columns import trace_product
from boucle.loop.intake import Intake
from boucle.loop.plan import Plan
from boucle.loop.tables import Tables

__all__ = ["LoopLineage", "check_kept_name"]

_EVERY = 60.0
"""Seconds of the wall between two RUNNING events; what was written is summed, not sampled."""


class LoopLineage:
    """One life of the loop as one run of its job.

    With the setting `lineage.to` the events are also sent to a receiver (`boucle.catalog.export`).
    """

    def __init__(
        self, plan: Plan, intakes: dict[str, Intake], tables: Tables, folder: Path, clock: Clock
    ) -> None:
        self._intakes, self._tables = intakes, tables
        project = plan.project
        check_kept_name(tables.zones, project.folder / "product.yaml")
        self._sources: dict[str, Dataset] = {
            name: dataset(
                project.settings.fill(spec.from_),
                project.contracts[spec.schema].schema(),
                name=_path(spec.from_, name),
            )
            for name, spec in project.loop.sources.items()
        }
        self._outputs = {name: table(tables.lake, zone, name) for name, zone in tables.zones.items()}
        self._actuators = [
            dataset(project.settings.fill(actuator.to), name=name)
            for name, actuator in project.loop.actuators.items()
        ]
        self._columns(plan)
        self._job = project.loop.id
        self._lineage = Lineage(folder / "lineage", clock, namespace=project.id)
        kept = Lake(tables.lake).table("raw", LINEAGE_TABLE, partition_by=("day",))
        self._writer = LakeWriter(
            [Feed(LineageLog(folder / "lineage"), kept)], clock, seconds=tables.every, compact_every=20
        )
        self._run: Run | None = None
        self._due = 0.0
        self._export: ExportThread | None = None
        settings = {one.name: str(one.value) for one in project.settings.all()}
        if to := settings.get("lineage.to"):
            key = str(settings.get("lineage.key", ""))
            self._export = ExportThread(Exporter(folder / "lineage", project.settings.fill(to), key))

    def _columns(self, plan: Plan) -> None:
        """What each column of a table, and each signal of an actuator, is made from."""
        project = plan.project
        entry = read_entry(project.folder / "product.yaml", "product.yaml")
        told = trace_product(entry, project.folder, fill=project.settings.fill)
        graph = Graph(told.links)
        topics = {f"{one.namespace}/{one.name}": one for one in self._sources.values()}

        def made_from(node: Node) -> tuple[Column, ...]:
            return tuple(
                Column(topics[source.name], source.column, one.how, one.says)
                for source, one in graph.sources(node)
                if source.name in topics and source.column != WHOLE
            )

        for thing in told.things:
            if thing.kind == "table" and thing.name in self._outputs:
                columns = {field.name: made_from(thing.node.of(field.name)) for field in thing.fields}
                self._outputs[thing.name] = structs.replace(
                    self._outputs[thing.name],
                    made_from={name: made for name, made in columns.items() if made},
                    rows_from=made_from(thing.node),
                )
        for place, actuator in enumerate(project.loop.actuators):
            signals: dict[str, dict[tuple[Any, ...], Column]] = {}
            for thing in told.things:
                if thing.kind == "command" and thing.name.partition("/")[0] == actuator:
                    signal = thing.name.rpartition("/")[2]
                    for one in made_from(thing.node):  # several rules may command one signal
                        known = (one.dataset.id, one.name, one.how, one.says)
                        signals.setdefault(signal, {})[known] = one
            made = {signal: tuple(columns.values()) for signal, columns in signals.items()}
            self._actuators[place] = structs.replace(self._actuators[place], made_from=made)

    def start(self) -> None:
        """The loop begins."""
        outputs = [*self._outputs.values(), *self._actuators]
        self._run = self._lineage.start(self._job, list(self._sources.values()), outputs, kind="STREAMING")
        self._due = time.monotonic() + _EVERY
        if self._export is not None:
            self._export.start()

    def step(self) -> None:
        """Say how far it has come, once a minute; let the table of the lineage follow."""
        self._writer.step()
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
        self._writer.step(force=True)
        if self._export is not None:
            self._export.close()

    def _written(self) -> dict[str, Written]:
        written = {
            self._outputs[view.name].name: Written(view.rows, version=view.version)
            for view in self._tables.view()
            if view.version >= 0
        }
        for name, intake in self._intakes.items():
            written[self._sources[name].name] = Written(intake.accounting.received)
        return written


def check_kept_name(tables: Iterable[str], declared_in: Path) -> None:
    """Raise B543 when a product declares a table under the name of the lineage's own."""
    if LINEAGE_TABLE in tables:
        raise BoucleError(
            "B543",
            f'the table name "{LINEAGE_TABLE}" is kept for the lineage',
            where=str(declared_in),
            fix="give the table another name",
        )


def _path(address: str, name: str) -> str:
    return name if address.startswith("opc.tcp:") else ""

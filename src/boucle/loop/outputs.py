"""The output ports of type `files` and `events`, run beside the loop by the process that also writes the lake.

Each has a folder of the run, `outputs/<port>`, with what it did (`state.json`) and what its receiver refused for good
(`dead.ndjson`). A port that fails is told once and tried again; it holds back neither the loop nor another port.
"""

import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from boucle.clock import Clock, SystemClock
from boucle.errors import BoucleError, Unavailable
from boucle.lake.delta import LakeTable
from boucle.lake.whole import Lake
from boucle.outlet.carriers import carrier, secret_of
from boucle.outlet.courier import Courier, Delivered, read_delivered
from boucle.outlet.exporter import Exported, Exporter, read_exported
from boucle.outlet.notes import TableNote, notes
from boucle.outlet.ports import OutputPort, output_ports
from boucle.product.duration import seconds
from boucle.product.project import Project

__all__ = ["Outputs", "Port", "declared_outputs", "send_again", "states_of"]

_log = logging.getLogger("boucle.loop.outputs")

_LOOK = 0.5
"""Seconds between two looks at the tables."""


class Port(Struct, frozen=True):
    """A port, as plain values another process can be given; addresses are filled in."""

    port: OutputPort
    product: str
    to: str
    folder: str
    """Of the run: what it did."""
    note: TableNote


def declared_outputs(project: Project, run: Path) -> list[Port]:
    """The ports the loop runs. An events port without `to` is read over HTTP (`boucle serve`), not delivered."""
    about = notes(project.contract.value)
    found = []
    for one in output_ports(project.product.value):
        to = project.settings.fill(one.settings.get("to" if one.kind == "events" else "folder", ""))
        if one.kind == "files" or (one.kind == "events" and to):
            folder = str(run / "outputs" / one.name)
            found.append(Port(one, project.id, to, folder, about.get(one.table, TableNote())))
    return found


def states_of(run: Path) -> dict[str, Delivered | Exported]:
    """What each port of a run has done, by name."""
    found: dict[str, Delivered | Exported] = {}
    for file in sorted((run / "outputs").glob("*/state.json")):
        state = read_delivered(file.parent) if b'"taken"' in file.read_bytes() else read_exported(file.parent)
        if state is not None:
            found[file.parent.name] = state
    return found


def send_again(project: Project, run: Path, names: Iterable[str]) -> str:
    """Send the dead letters that were asked for, where no loop runs on the folder; why the receiver took none, or "".

    While a loop runs its own process delivers, and nothing is done here.
    """
    with (run / "lake.lock").open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
        lake = str(project.settings.get("run.lake").value) or str(run / "lake")
        outputs = Outputs(declared_outputs(project, run), lake, SystemClock())
        try:
            for name in names:
                outputs.again(name)
        except Unavailable as error:
            return str(error)
        finally:
            outputs.close()
    return ""


class Outputs:
    """All ports of a product. Call `step` from one thread, or `run` in one of its own."""

    def __init__(self, ports: list[Port], lake: str, clock: Clock) -> None:
        self._ports, self._lake, self._clock = ports, lake, clock
        self._couriers: dict[str, Courier] = {}
        self._exporters: dict[str, Exporter] = {}
        self._refused: set[str] = set()

    def run(self, stop: threading.Event, patience: float = 5.0) -> None:
        """Until `stop` is set; what came last is still delivered, within `patience` seconds."""
        try:
            while not stop.wait(_LOOK):
                self.step(stop.is_set)
            until = time.monotonic() + patience
            self.step(lambda: time.monotonic() > until)
        finally:
            self.close()

    def step(self, stop: Callable[[], bool] = bool) -> int:
        """Let each port do what is due; how many events were handled."""
        done = 0
        for one in self._ports:
            if stop():
                break
            try:
                if one.port.kind == "files":
                    if exporter := self._exporter(one):
                        exporter.step()
                elif courier := self._courier(one):
                    done += courier.step(stop)
            except BoucleError as error:
                self._told(one, error)
            except OSError as error:
                _log.warning("port %s waits for the disk: %s", one.port.name, error)
        return done

    def _told(self, one: Port, error: BoucleError) -> None:
        if one.port.name not in self._refused:
            self._refused.add(one.port.name)
            _log.error("port %s does not run: %s", one.port.name, error)

    def _table(self, name: str) -> LakeTable | None:
        return next((one for one in reversed(self._lake_tables()) if one.name == name), None)

    def _lake_tables(self) -> list[LakeTable]:
        return Lake(self._lake).tables()

    def _courier(self, one: Port) -> Courier | None:
        name, given = one.port.name, one.port.settings
        if name not in self._couriers and name not in self._refused:
            table = self._table(one.port.table)
            if table is None:
                return None  # nothing has arrived there yet
            secret = secret_of(given.get("secret", ""))
            client = f"boucle-{one.product}-{name}"
            out = carrier(one.to, given.get("topic", ""), client, secret, int(given.get("attempts", "5")))
            self._couriers[name] = Courier(table, one.product, out, Path(one.folder), one.note)
        return self._couriers.get(name)

    def _exporter(self, one: Port) -> Exporter | None:
        name, given = one.port.name, one.port.settings
        if name not in self._exporters:
            table = self._table(one.port.table)
            if table is None:
                return None
            self._exporters[name] = Exporter(
                table, Path(self._lake), Path(one.folder), self._clock,
                to=Path(one.to) if one.to else None, form=given.get("format", "parquet"), note=one.note,
                every=seconds(given.get("every", "1h")), keep=int(given.get("keep", "7")),
            )  # fmt: skip
        return self._exporters[name]

    def again(self, name: str) -> None:
        """Send the dead letters of a port that were asked for, and nothing else; Unavailable: its receiver is away."""
        for one in self._ports:
            if one.port.name == name and (courier := self._courier(one)):
                courier.again()

    def states(self) -> Iterator[tuple[str, Delivered | Exported]]:
        """What each port has done so far."""
        yield from ((name, one.state) for name, one in self._couriers.items())
        yield from ((name, one.state) for name, one in self._exporters.items())

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""
        for courier in self._couriers.values():
            with suppress(BoucleError):
                courier.close()
        self._couriers.clear()

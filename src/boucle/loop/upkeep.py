"""What is done to the lake beside a running loop: tables refined when inputs have something new, and kept in order.

It runs in a thread of the process that also commits to the lake (`loop.lakekeeper`), niced, away from the path. What
fails is told once and tried again at its next turn; nothing here can hold a commit, a reader or the path back for
longer than the commit of a table itself.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

from boucle.clock import SECOND, Clock
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.span import merge_late
from boucle.lake.upkeep import compact, expire, vacuum
from boucle.lake.whole import Lake
from boucle.product.document import LoopDocument
from boucle.product.duration import seconds
from boucle.product.project import load_project
from boucle.product.sla import compile_sla
from boucle.product.transforms import UpkeepSpec
from boucle.refine.run import refine, waits
from boucle.refine.transform import Transform, transforms_of

__all__ = ["Care", "Caretaker"]

_log = logging.getLogger("boucle.loop.upkeep")

_LOOK = 2.0
"""Seconds between two looks for something new."""


class Care(Struct, frozen=True):
    """What is looked after, as plain values another process can be given."""

    lake: str
    """The lake's folder or address."""
    work: str
    """The folder for what is staged and what a gate held back."""
    product: str
    """The product's folder."""


class Caretaker:
    """Looks after one lake; call `step` now and then, from one thread, or `run` in one of its own."""

    def __init__(self, care: Care, clock: Clock) -> None:
        project = load_project(Path(care.product))
        self.lake, self.work, self.loop, self.clock = Lake(care.lake), Path(care.work), project.loop, clock
        self.retention = compile_sla(project.contract, project.loop, project.contracts)[0].retention
        self.transforms = [one for one in transforms_of(project) if one.spec.when == "new"]
        self.failures: dict[str, str] = {}
        """Table → why it could not be refined or kept in order at the last turn."""
        self.held: dict[str, str] = {}
        """Table → what its gates held against the last batch, and where that lies."""
        self._due: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set, within the patience of one table's work."""
        while not stop.wait(_LOOK):
            self.step(stop)

    def step(self, stop: threading.Event | None = None, *, force: bool = False) -> None:
        """Refine what has something new, then see to the tables whose turn it is (`force`: all)."""
        for one in self.transforms:
            if stop is not None and stop.is_set():
                return
            self._guarded(one.name, partial(self._refine, one))
        for table in self.lake.tables():
            if stop is not None and stop.is_set():
                return
            rule = self.loop.lake.of(table.name)
            now = time.monotonic()
            if force or self._due.setdefault(table.name, now + seconds(rule.every)) <= now:
                self._due[table.name] = now + seconds(rule.every)
                self._guarded(table.name, partial(self._keep, table, rule))

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except BoucleError as error:
            if self.failures.get(name) != str(error):
                _log.warning("the lake's %s, tried again later: %s", name, error)
            self.failures[name] = str(error)
        else:
            self.failures.pop(name, None)

    def _refine(self, transform: Transform) -> None:
        known = {table.name for table in self.lake.tables()}
        if not {text.rpartition(".")[2] for text in transform.spec.from_} <= known:
            return  # nothing has arrived there yet
        if waits(transform, self.lake, self.work):
            outcome = refine(transform, self.lake, self.work, again=False)
            if outcome.state == "held":
                told = "; ".join(f"{one.gate}: {one.says}" for one in outcome.verdicts if not one.holds)
                _log.warning("a batch of %s is held back in %s: %s", transform.name, outcome.held_in, told)
                self.held[transform.name] = f"{told} ({outcome.held_in})"
            else:
                self.held.pop(transform.name, None)

    def _keep(self, table: LakeTable, rule: UpkeepSpec) -> None:
        """Late rows first, then what is too old, then few files, then none that nobody needs."""
        if rule.late == "merge":
            for late, key in _late(self.loop, table.name):
                merge_late(table, self.lake.table("raw", late), key)
        table.remember(seconds(rule.history))
        kept = self.retention.get(table.name) or (seconds(rule.rows) if rule.rows else 0)
        if kept and table.time:
            expire(table, self.clock.now() - int(kept * SECOND))
        compact(table)
        vacuum(table, seconds(rule.history))


def _late(loop: LoopDocument, name: str) -> Iterator[tuple[str, list[str]]]:
    """The table of late rows that belong to a table, and the columns that identify one."""
    spec = loop.tables.get(name)
    if spec is not None and not spec.to and spec.from_ in loop.sources:
        yield f"{spec.from_}_late", list(spec.key or loop.sources[spec.from_].dedupe)

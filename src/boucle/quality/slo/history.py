"""The history of objectives on disk: what was counted since the entry before, and how far each measure had come.

One line an entry, checked (`boucle.quality.ledger`), so that a kill tears at most the last. What was counted and how
far are one entry: nothing is counted twice for being read again. Minutes older than the longest window are dropped
when the file is opened.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from boucle.bus.log_disk import sync_folder
from boucle.clock import Nanos
from boucle.product.sla import Objective, Sla
from boucle.quality.ledger import Ledger, lines_of
from boucle.quality.slo.counts import Cell, Minutes

__all__ = ["Counted", "History", "Past", "read_past"]

_POINTS = 60
"""Of a course that is drawn."""

_log = logging.getLogger("boucle.quality.slo")


class Counted(Struct, frozen=True, tag="counted"):
    """What was counted since the entry before."""

    at: Nanos
    cells: dict[str, list[Cell]] = {}
    marks: dict[str, Any] = {}
    """Objective → how far its measure had come; the measure knows what it means."""
    firing: dict[str, Nanos] = {}
    """`objective/rule` → since when; all that fire."""


class Declared(Struct, frozen=True, tag="declared"):
    """What was promised from here on, and under which product."""

    at: Nanos
    product: str
    sla: Sla


class Past(Struct):
    """A history, read."""

    product: str = ""
    at: Nanos = 0
    sla: Sla = Sla()
    minutes: dict[str, Minutes] = {}
    marks: dict[str, Any] = {}
    firing: dict[str, Nanos] = {}


def _file(folder: Path) -> Path:
    return folder / "slo" / "history.ndjson"


def read_past(folder: Path) -> Past | None:
    """The history of a run's folder, also while the run goes on; None when there is none."""
    file = _file(folder)
    return _past(lines_of(file)) if file.exists() else None


def _past(lines: Iterable[bytes | None]) -> Past:
    """What the entries say; whatever is no entry is left out, and told in the log."""
    decoder: Any = msgspec.json.Decoder(Counted | Declared)
    past, damaged = Past(), 0
    kept: dict[str, list[Cell]] = {}
    for line in lines:
        try:
            entry = decoder.decode(line or b"")
        except (msgspec.DecodeError, ValueError, RecursionError):
            damaged += 1
            continue
        past.at = max(past.at, entry.at)
        if isinstance(entry, Declared):
            past.product, past.sla = entry.product, entry.sla
            continue
        for name, cells in entry.cells.items():
            kept.setdefault(name, []).extend(cells)
        past.marks |= entry.marks
        past.firing = dict(entry.firing)
    if damaged:
        _log.warning("%d entries of the history of objectives cannot be read and are left out", damaged)
    for objective in past.sla.objectives:
        minutes = past.minutes[objective.id] = minutes_of(objective)
        for cell in kept.get(objective.id, ()):
            if all(-(2**62) < number < 2**62 for number in cell) and cell[0] >= 0:
                minutes.add(*cell)
    return past


def minutes_of(objective: Objective) -> Minutes:
    """Empty counts, as long as an objective looks back."""
    return Minutes(round(objective.window / 60) + 1)


class History:
    """The history of a running loop. `open` first; a disk that takes nothing raises `Unavailable` B430.

    Once the file is larger than `room` bytes, and twice as large as when it was last written anew, it is.
    """

    def __init__(self, folder: Path, room: int = 8_000_000) -> None:
        self._path = _file(folder)
        self._ledger: Ledger | None = None
        self._room = self._least_room = room

    def open(self, product: str, sla: Sla, now: Nanos) -> Past:
        """What was before, under today's objectives; the file holds that and no more from here on."""
        before = _past(lines_of(self._path)) if self._path.exists() else Past()
        past = Past(product, now, sla, marks={}, firing={})
        for objective in sla.objectives:
            minutes = past.minutes[objective.id] = minutes_of(objective)
            if objective.id in before.minutes:
                minutes.merge(before.minutes[objective.id])
            if objective.id in before.marks:
                past.marks[objective.id] = before.marks[objective.id]
        names = {objective.id for objective in sla.objectives}
        past.firing = {name: at for name, at in before.firing.items() if name.rpartition("/")[0] in names}
        self._rewrite(past)
        return past

    def _rewrite(self, past: Past) -> None:
        beside = self._path.with_suffix(".start")
        beside.unlink(missing_ok=True)
        ledger = Ledger(beside)
        ledger.append(msgspec.json.encode(Declared(past.at, past.product, past.sla)))
        cells = {name: list(minutes.cells()) for name, minutes in past.minutes.items()}
        ledger.append(msgspec.json.encode(Counted(past.at, cells, past.marks, past.firing)))
        ledger.close()
        beside.replace(self._path)
        sync_folder(self._path.parent)
        self._ledger = Ledger(self._path)
        self._room = max(self._least_room, 2 * self._ledger.size())

    def append(self, entry: Counted) -> None:
        """Durable when this returns."""
        assert self._ledger is not None
        self._ledger.append(msgspec.json.encode(entry))
        self._ledger.flush()
        if self._ledger.size() > self._room:
            self._ledger.close()
            self._rewrite(_past(lines_of(self._path)))

    def close(self) -> None:
        """Give back the file. Safe to call twice."""
        if self._ledger is not None:
            self._ledger.close()


def history_cells(minutes: Minutes, now: int) -> Iterator[tuple[int, float]]:
    """(minutes before now, share that was good) since the first count, in equal spans, the oldest first."""
    covered = min(minutes.size - 1, now - minutes.first + 1) if minutes.first >= 0 else 0
    span = max(1, -(-covered // _POINTS))
    for begin in range(now - covered + 1, now + 1, span):
        good, total = minutes.between(begin, begin + span - 1)
        if total:
            yield now - begin, good / total

"""Opening an event log for writing: what the last process left is found whole, or named as damaged."""

import logging
import os
from pathlib import Path
from typing import NamedTuple

from boucle.block import Position
from boucle.bus.log_compact import remove_unfinished
from boucle.bus.log_disk import sync_folder
from boucle.bus.log_producers import Producers
from boucle.bus.segments import Segment, first_row, repair, segment_names, walk
from boucle.errors import BoucleError

__all__ = ["Recovered", "recover"]

_log = logging.getLogger("boucle.bus.log")


class Recovered(NamedTuple):
    """Where writing goes on; `torn` tails were cut off on the way."""

    segment: Segment | None
    handle: int
    end: int
    source: Position | None
    producers: Producers
    torn: int


def recover(folder: Path, durable: int | None) -> Recovered:
    """Cut off a torn tail and open the last segment. B311 when rows before `durable` are not whole."""
    listed = os.listdir(folder)  # noqa: PTH208 - a Path each costs more, and there may be thousands
    remove_unfinished(folder, listed)
    names = segment_names(listed)
    found = Recovered(None, -1, 0, None, Producers(), 0)
    while names and found.segment is None:
        found = _resumed(folder / names[-1], durable, found.torn)
        if found.segment is None:
            names.pop()
    if found.source is None and len(names) > 1:
        found = found._replace(source=_last_source(folder, *names[-2:]))
    if durable is not None and durable > found.end:
        if found.handle >= 0:
            os.close(found.handle)
        what = f"rows {found.end} to {durable} were durable and are gone"
        raise BoucleError("B311", what, where=str(folder), fix="restore the folder from a copy")
    return found


def _resumed(file: Path, durable: int | None, torn: int) -> Recovered:
    first = first_row(file.name)
    producers = Producers()
    found, cut = repair(file, first, durable, producers)
    if cut or found is None:
        torn += 1
        _log.warning("%s: %d bytes of a torn tail cut off; none of it was flushed", file, cut)
    if found is None:
        file.unlink()
        sync_folder(file.parent)
        return Recovered(None, -1, first, None, producers, torn)
    handle = os.open(file, os.O_RDWR)
    if cut:
        os.ftruncate(handle, found.size)
    os.fsync(handle)
    source = None if found.last is None else Position(*found.last)
    return Recovered(found, handle, found.end, source, producers, torn)


def _last_source(folder: Path, name: str, following: str) -> Position | None:
    end = first_row(following)
    for frame, *_ in walk(folder / name, first_row(name), end - 1, end):
        if frame.rows:
            return Position(frame.label, frame.mark)
    return None

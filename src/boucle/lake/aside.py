"""The older part of a table's log, in a folder of its own: every tool lists a log as a whole, so it is kept short.

What lies aside is read as before, by us: time travel, history and changes know both places; other tools see the last
versions. Buckets list from an offset and need none of it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from boucle.lake.place import Local, Place, commit_file, number_of

if TYPE_CHECKING:
    from boucle.lake.delta import LakeTable

__all__ = ["OLDER", "commit_text", "forget", "is_aside", "set_aside"]

OLDER = "_older"
"""Below a table's folder: its log as it was, but for the last versions."""
_RECENT = 500
"""Versions whose log stays where every tool looks for it."""


def commit_text(place: Place, version: int) -> str | None:
    """The commit that made a version, wherever it lies; None when the log forgot it."""
    file = commit_file(version)
    text = place.text(file)
    return place.text(f"{OLDER}/{file}") if text is None else text


def is_aside(place: Place, version: int) -> bool:
    """Whether the log of a version was set aside."""
    return place.exists(f"{OLDER}/{commit_file(version)}")


def set_aside(table: "LakeTable", last: int = _RECENT) -> int:
    """Move the log of all but about the `last` versions; returns how many files.

    The log begins with a checkpoint then, as a reader needs it.
    """
    place = table.place
    if not isinstance(place, Local):
        return 0
    with table.alone() as newest:
        if newest is None:
            return 0
        log, older = place.folder / "_delta_log", place.folder / OLDER / "_delta_log"
        first = _checkpoint(log.glob("*.checkpoint.parquet"), newest.version - last)
        moved = sorted(file for file in log.iterdir() if -1 < number_of(file.name) < first)
        if moved:
            older.mkdir(parents=True, exist_ok=True)
        for file in moved:
            file.rename(older / file.name)
        return len(moved)


def forget(place: Local, oldest: int) -> None:
    """Delete what was set aside and no version from `oldest` on needs."""
    log, older = place.folder / "_delta_log", place.folder / OLDER / "_delta_log"
    first = max(_checkpoint(one.glob("*.checkpoint.parquet"), oldest) for one in (log, older))
    for file in older.glob("*"):
        if -1 < number_of(file.name) < first:
            file.unlink(missing_ok=True)


def _checkpoint(files: Iterable[Path], most: int) -> int:
    """The newest version up to `most` that has a checkpoint; 0 when there is none."""
    return max((number for file in files if (number := number_of(file.name)) <= most), default=0)

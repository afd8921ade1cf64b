"""What keeps a table quick and small: files joined or ordered anew, rows too old, files no version needs any more.

Each of these is one or more commits of its own beside the writer; whatever is killed, readers see the table as it
was before or as it is after. None changes a row that is kept.
"""

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from msgspec import Struct

from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.lake.aside import forget, set_aside
from boucle.lake.datafile import DataFile, read
from boucle.lake.delta import LakeTable
from boucle.lake.deltars import properties
from boucle.lake.parts import Part
from boucle.lake.place import Local

__all__ = ["Vacuumed", "compact", "expire", "order", "vacuum"]

TARGET_BYTES = 32_000_000
"""Large enough to read well, small enough that joining again and again costs little."""
_AT_ONCE = 4 * TARGET_BYTES
"""Bytes of files joined in one commit: what is in memory at once."""
_LEAST_AGE = 600.0
"""Seconds for which every file stays: somebody may still read it, or be about to commit it."""


class Vacuumed(Struct, frozen=True):
    """What a vacuum deleted, and the oldest version that is still whole."""

    files: int
    bytes: int
    oldest: int


def compact(table: LakeTable, target_bytes: int = TARGET_BYTES) -> int:
    """Join small files of each partition into larger ones and return the version; rows stay the same.

    Files are read and written while others append; only the commit waits for its turn. When somebody else took a
    file away meanwhile, nothing happens to its neighbours either, and the next turn sees to them.
    """
    for joined in _batched(_small(table.files(), target_bytes), _AT_ONCE):
        schema = table.schema
        partitions = [name for name in table.partition_by if name in schema.names]
        gone = [file for group in joined for file in group]
        new = (_joined(table, group, schema, partitions) for group in joined)
        try:
            table.exchange(new, gone, because={"did": "compact", "files": len(gone)})
        except BoucleError as error:
            if error.code not in {"B505", "B521"}:
                raise
    set_aside(table)
    return table.version


def _joined(
    table: LakeTable, files: Sequence[DataFile], schema: pa.Schema, partitions: Sequence[str]
) -> Part:
    """The rows of files of one partition, in order of time, without the columns that name it."""
    inside = pa.schema([field for field in schema if field.name not in partitions])
    rows = pa.concat_tables([read(file, inside, table.place) for file in files])
    if table.time in rows.column_names and not _ordered(rows.column(table.time)):
        rows = rows.sort_by(table.time)
    return {name: files[0].partition[name] for name in partitions}, rows


def _ordered(at: pa.ChunkedArray) -> bool:
    """Whether no row is younger than the next: files of one writer nearly always are, and need no sorting."""
    return not at.null_count and bool((np.diff(at.cast(pa.int64()).to_numpy()) >= 0).all())


def _small(files: Iterable[DataFile], target_bytes: int) -> Iterator[list[DataFile]]:
    """Groups of files of one partition that make about a target each; a file nearly as large stays alone."""
    small: dict[tuple[str | None, ...], list[DataFile]] = {}
    for file in sorted(files, key=lambda file: (file.start or 0, file.written_ms, file.path)):
        if file.bytes < target_bytes * 3 // 4:
            small.setdefault(tuple(file.partition.values()), []).append(file)
    for group in map(_tier, small.values()):
        bin_: list[DataFile] = []
        for file in group:
            if bin_ and sum(one.bytes for one in bin_) + file.bytes > target_bytes:
                if len(bin_) > 1:
                    yield bin_
                bin_ = []
            bin_.append(file)
        if len(bin_) > 1:
            yield bin_


def _tier(files: list[DataFile]) -> list[DataFile]:
    """The files worth joining now, in their order: a large one waits until what is joined with it is a fair share.

    So a row is written again a few times while its file grows, and not at every turn.
    """
    held, most = 0, 0
    for size in sorted(file.bytes for file in files):
        if held and size > 4 * held:
            break
        held, most = held + size, size
    return [file for file in files if file.bytes <= most]


def _batched(groups: Iterable[list[DataFile]], most: int) -> Iterator[list[list[DataFile]]]:
    batch: list[list[DataFile]] = []
    held = 0
    for group in groups:
        size = sum(file.bytes for file in group)
        if batch and held + size > most:
            yield batch
            batch, held = [], 0
        batch.append(group)
        held += size
    if batch:
        yield batch


def order(table: LakeTable, columns: Sequence[str]) -> int:
    """Order the rows of each partition along a Z-curve of `columns` and return the version; rows stay the same.

    A filter on any of them then reads fewer files. Writers wait meanwhile. B522 for a column that cannot be ordered.
    """
    schema = table.schema
    known = [name for name in schema.names if not pa.types.is_nested(schema.field(name).type)]
    partitions = set().union(*(file.partition for file in table.files()), set())
    for name in columns:
        if name not in known or name in partitions:
            raise BoucleError(
                "B522",
                f'"{name}" cannot order table "{table.name}"',
                why="it is no column, a list, or already the partition",
                fix=f"one of: {', '.join(known_name for known_name in known if known_name not in partitions)}",
            )
    with table.alone() as log:
        if log is not None:
            log.delta().optimize.z_order(
                list(columns),
                target_size=TARGET_BYTES,
                commit_properties=properties({}, {"did": "order", "by": list(columns)}),
            )
    return table.version


def expire(table: LakeTable, before: Nanos) -> int:
    """Drop rows older than `before`, by whole files: what shares a file with a younger row stays. Returns how many."""
    old = [file for file in table.files() if file.end is not None and file.end <= before]
    rows = sum(file.rows for file in old)
    if old:
        table.put([], old, because={"did": "expire", "rows": rows})
    return rows


def vacuum(
    table: LakeTable, keep_seconds: float, *, now: float | None = None, dry_run: bool = False
) -> Vacuumed:
    """Delete the files that no version of the last `keep_seconds` needs; older versions cannot be read any more.

    Needed is what was in the version current at that moment, and whatever any later commit added. Every other file
    that is as old goes, also one that a killed writer left behind. At least ten minutes are kept, so that whoever
    reads a snapshot, or is about to commit files, is not disturbed.
    """
    now = time.time() if now is None else now
    horizon = now - max(keep_seconds, _LEAST_AGE)
    with table.alone() as log:
        if log is None:
            return Vacuumed(0, 0, -1)
        newest = log.version
        oldest = _current_at(table, newest, horizon)
        needed = {file.inside for file in table.files(oldest)}
        for version in range(oldest + 1, newest + 1):
            needed.update(table.commit(version).get("add", {}))
        needed.update(file.inside for file in table.files(newest))
        files = size = 0
        for found in list(table.place.found()):
            if found.path not in needed and found.seconds < horizon:
                files, size = files + 1, size + found.bytes
                if not dry_run:
                    table.place.remove(found.path)
        if not dry_run:
            if isinstance(table.place, Local):
                forget(table.place, oldest)
            else:
                log.delta().cleanup_metadata()
    return Vacuumed(files, size, oldest)


def _current_at(table: LakeTable, newest: int, horizon: float) -> int:
    """The version that was the newest at a moment (seconds since the epoch), or the oldest the log still knows."""
    version = newest
    while version > 0:
        commit = table.commit(version)
        if not commit:
            return version + 1
        if commit["info"].get("timestamp", 0) / 1000 <= horizon:
            break
        version -= 1
    return version

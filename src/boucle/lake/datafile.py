"""The Parquet files a table version is made of: what the Delta log says of them, and their rows."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from msgspec import Struct

from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.lake.place import Place

__all__ = ["DataFile", "cut", "data_file", "overlaps", "read"]

BLOCK_BYTES = 8_000_000
MILLI: Nanos = 1_000_000
_WIDE = 1_000_000
"""Bytes from which several threads read a file sooner than one."""


class DataFile(Struct, frozen=True):
    """One Parquet file of a table version; `start` and `end` bound its rows' times (None: unknown)."""

    path: str
    rows: int
    written_ms: int
    start: Nanos | None
    end: Nanos | None
    partition: dict[str, str | None]
    inside: str = ""
    """The path within the table."""
    bytes: int = 0
    logged: str = ""
    """The path as the log writes it: URL-encoded, each writer in its own way."""


def _nanos(moment: object) -> Nanos | None:
    return None if moment is None else int(pa.scalar(moment, pa.timestamp("us", tz="UTC")).value) * 1000


def data_file(action: dict[str, Any], place: Place, time: str) -> DataFile:
    """A DataFile from an add action of the Delta log, flattened.

    A path is URL-encoded there, on top of the folder names' own; `DeltaTable.file_uris` is no help: it leaves a
    space in the table's folder encoded.
    """
    end = _nanos(action.get(f"max.{time}"))
    partition = {
        key.partition(".")[2]: value for key, value in action.items() if key.startswith("partition.")
    }
    inside = unquote(str(action["path"]))
    return DataFile(
        path=place.full(inside),
        rows=action["num_records"] or 0,
        written_ms=action["modification_time"] or 0,
        start=_nanos(action.get(f"min.{time}")),
        end=None if end is None else end + MILLI,
        partition={key: None if value is None else str(value) for key, value in partition.items()},
        inside=inside,
        bytes=action["size_bytes"] or 0,
        logged=str(action["path"]),
    )


def overlaps(file: DataFile, since: Nanos | None, until: Nanos | None) -> bool:
    """Whether the file may hold rows in [since, until)."""
    begins_in_time = until is None or file.start is None or file.start < until
    return begins_in_time and (since is None or file.end is None or file.end >= since)


def read(file: DataFile, schema: pa.Schema, place: Place) -> pa.Table:
    """Every row of the file in the columns of `schema`; B505 when the file is gone."""
    try:
        # not read_table: it would read partition columns out of the folder names, with guessed types
        rows = place.open(file.path).read(use_threads=file.bytes > _WIDE)
    except FileNotFoundError as error:
        raise BoucleError(
            "B505",
            "a file of this table version is gone",
            where=file.path,
            why="it was vacuumed or deleted",
            fix="read a newer version",
        ) from error
    columns = []
    for field in schema:
        if field.name in file.partition:
            value = pa.scalar(file.partition[field.name], pa.string()).cast(field.type)
            columns.append(pa.repeat(value, len(rows)))
        elif field.name in rows.column_names:
            columns.append(rows.column(field.name).cast(field.type))
        else:
            columns.append(pa.nulls(len(rows), field.type))
    return pa.table(columns, schema=schema)


def cut(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """Batches of at most about BLOCK_BYTES."""
    if not len(rows):
        return
    per_block = max(1, len(rows) * BLOCK_BYTES // max(rows.nbytes, BLOCK_BYTES))
    for begin in range(0, len(rows), per_block):
        yield from rows.slice(begin, per_block).combine_chunks().to_batches()

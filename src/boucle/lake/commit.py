"""A commit as the Delta protocol writes it: a file of JSON lines, named by the version it makes.

Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md, "Actions" and "Per-file Statistics".
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from boucle import __version__
from boucle.clock import Nanos
from boucle.lake.datafile import MILLI, DataFile
from boucle.lake.place import Place

__all__ = ["Action", "Add", "Line", "Remove", "encoded", "file_of", "lines_of", "written"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)


class Add(Struct, rename="camel"):
    """A data file that joins the table; `path` is URL-encoded, on top of the folder names' own."""

    path: str
    partition_values: dict[str, str | None]
    size: int
    modification_time: int
    data_change: bool = True
    stats: str | None = None


class Remove(Struct, rename="camel"):
    """A data file that leaves the table, named as its Add named it."""

    path: str
    data_change: bool = True
    deletion_timestamp: int | None = None
    extended_file_metadata: bool | None = None
    partition_values: dict[str, str | None] | None = None
    size: int | None = None


Action = Add | Remove


class Txn(Struct, rename="camel"):
    """The last transaction of an application."""

    app_id: str
    version: int


class Line(Struct, rename="camel", omit_defaults=True):
    """One line of a commit: one of these."""

    add: Add | UnsetType = UNSET
    remove: Remove | UnsetType = UNSET
    txn: Txn | UnsetType = UNSET
    commit_info: dict[str, Any] | UnsetType = UNSET
    protocol: Raw | UnsetType = UNSET
    meta_data: Raw | UnsetType = UNSET


class _Statistics(Struct, rename="camel"):
    num_records: int = 0
    min_values: dict[str, Any] = {}
    max_values: dict[str, Any] = {}


_LINES = msgspec.json.Decoder(Line)
_STATISTICS = msgspec.json.Decoder(_Statistics)
_ENCODER = msgspec.json.Encoder()


def lines_of(text: str) -> Iterator[Line]:
    """What a commit did; ValueError when it is none."""
    try:
        yield from map(_LINES.decode, text.splitlines())
    except msgspec.MsgspecError as error:
        raise ValueError(f"a commit that is none: {error}") from error


def written(
    actions: Iterable[Action],
    partition_by: Sequence[str],
    marks: Mapping[str, int],
    because: Mapping[str, Any] | None,
) -> bytes:
    """The lines of a commit of ours."""
    now = time.time_ns() // 1_000_000
    info = {
        "timestamp": now,
        "operation": "WRITE",
        "operationParameters": {
            "mode": "Append",
            "partitionBy": _ENCODER.encode(list(partition_by)).decode(),
        },
        "engineInfo": f"boucle:{__version__}",
        **({"boucle": because} if because else {}),
    }
    lines: list[Line | dict[str, Any]] = [Line(commit_info=info)]
    lines += [Line(add=one) if isinstance(one, Add) else Line(remove=one) for one in actions]
    lines += [{"txn": {"appId": app, "version": number, "lastUpdated": now}} for app, number in marks.items()]
    return _ENCODER.encode_lines(lines)


def encoded(path: str) -> str:
    """A path within the table as the log writes it, and as delta-rs does, which takes two spellings for two files."""
    return quote(path, safe="/=").replace("~", "%7E")


def file_of(add: Add, place: Place, time_column: str) -> DataFile:
    """The data file an Add speaks of; what its statistics do not say is unknown."""
    inside = unquote(add.path)
    try:
        told = _STATISTICS.decode(add.stats or "{}")
    except msgspec.MsgspecError:
        told = _Statistics()
    end = _nanos(told.max_values.get(time_column))
    return DataFile(
        path=place.full(inside),
        rows=told.num_records,
        written_ms=add.modification_time,
        start=_nanos(told.min_values.get(time_column)),
        end=None if end is None else end + MILLI,
        partition=add.partition_values,
        inside=inside,
        bytes=add.size,
        logged=add.path,
    )


def _nanos(moment: Any) -> Nanos | None:
    """A moment of the statistics, in UTC unless it says otherwise; None for what is none."""
    if not isinstance(moment, str):
        return None
    try:
        told = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return ((told if told.tzinfo else told.replace(tzinfo=UTC)) - _EPOCH) // _MICRO * 1000

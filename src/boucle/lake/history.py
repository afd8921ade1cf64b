"""A table's past: its versions, the one of a moment, what changed between two of them, and the way back to one."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.lake.aside import is_aside
from boucle.lake.datafile import DataFile, data_file, read
from boucle.lake.delta import LakeTable
from boucle.lake.deltars import properties

__all__ = [
    "Change",
    "Version",
    "changed",
    "changes",
    "moment_of",
    "restore",
    "version_at",
    "version_of",
    "versions",
]


class Version(Struct, frozen=True):
    """One commit: when it was made (ms since the epoch), what it did, why, and how many files it added and took."""

    number: int
    at_ms: int
    did: str
    because: dict[str, Any]
    added: int
    removed: int


class Change(Struct, frozen=True):
    """Rows that a version added, and rows that it took away, as they lie at rest. Joined files change nothing."""

    version: int
    at_ms: int
    inserted: pa.Table
    deleted: pa.Table


def versions(table: LakeTable, last: int = 0) -> list[Version]:
    """The commits the log still knows, newest first; at most `last` of them (0: all)."""
    found: list[Version] = []
    number = table.version
    while number >= 0 and (not last or len(found) < last):
        commit = table.commit(number)
        if not commit:
            break
        because = commit["info"].get("boucle") or {}
        did = because.get("did") or str(commit["info"].get("operation", "")).lower()
        at = int(commit["info"].get("timestamp", 0))
        found.append(Version(number, at, did, because, len(commit["add"]), len(commit["remove"])))
        number -= 1
    return found


def version_at(table: LakeTable, moment: datetime) -> int:
    """The version that was the newest at a moment; B523 when the table is younger, or the log forgot it."""
    asked = moment.timestamp() * 1000
    oldest = None
    number = table.version
    while number >= 0:
        commit = table.commit(number)
        if not commit:
            break
        oldest = int(commit["info"].get("timestamp", 0))
        if oldest <= asked:
            return number
        number -= 1
    begins = "it has no version" if oldest is None else f"the oldest it knows is of {_moment(oldest)}"
    raise BoucleError(
        "B523",
        f'table "{table.name}" cannot say what it held at {moment.isoformat()}',
        where=str(table.folder),
        why=begins,
        fix="ask for a later moment; `boucle lake history` lists the versions",
    )


def version_of(table: LakeTable, text: str) -> int:
    """The version people mean by `17`, `2026-11-21` or `2026-11-21T10:00:00Z` (UTC unless it says otherwise)."""
    if re.fullmatch(r"\d{1,9}", text):
        number = int(text)
        if number > table.version:
            raise BoucleError(
                "B505",
                f'table "{table.name}" has no version {number}',
                where=str(table.folder),
                fix=f"ask for a version from 0 to {table.version}",
            )
        return number
    return version_at(table, moment_of(text))


def moment_of(text: str) -> datetime:
    """A moment as people write it, UTC unless it says otherwise; B524 for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BoucleError(
            "B524",
            f'"{text}" is neither a version nor a moment',
            why=str(error),
            fix="write a number, or a moment like 2026-11-21T10:00:00Z",
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def restore(table: LakeTable, version: int, because: str = "") -> int:
    """Make the table what it was at a version, by a new commit; returns the new version. Nothing is forgotten.

    Rows added since stay in the history. Raises B505 when files of that version are gone.
    """
    if gone := [file for file in table.files(version) if not table.place.exists(file.inside)]:
        raise BoucleError(
            "B505",
            f'version {version} of table "{table.name}" cannot be restored: {len(gone)} of its files are gone',
            where=gone[0].path,
            why="it is older than what the table keeps",
            fix="`boucle lake history` lists the versions; restore a younger one",
        )
    why = {"did": "restore", "version": version, "why": because}
    if is_aside(table.place, version):
        then, now = ({file.inside: file for file in table.files(number)} for number in (version, None))
        back = [file for path, file in then.items() if path not in now]
        return table.bring_back(back, [file for path, file in now.items() if path not in then], why)
    with table.alone() as log:
        assert log is not None
        if version == log.version:
            return version
        delta = log.delta()
        delta.restore(version, commit_properties=properties({}, why))
        return int(delta.version())


def changes(table: LakeTable, since: int, until: int | None = None) -> Iterator[Change]:
    """What each version after `since` changed, up to `until` (None: the newest), oldest first.

    Raises B525 when the log no longer knows a commit between them: read the whole table instead.
    """
    last = table.version if until is None else until
    for number in range(since + 1, last + 1):
        commit = table.commit(number)
        if not commit:
            raise BoucleError(
                "B525",
                f'the log of table "{table.name}" no longer knows what version {number} changed',
                where=str(table.folder),
                why="it is older than what the table keeps",
                fix="start again from the whole table",
            )
        added = [_file(table, path, action) for path, action in commit["add"].items() if action["dataChange"]]
        taken = [
            _file(table, path, action)
            for path, action in commit["remove"].items()
            if action.get("dataChange", True)
        ]
        if added or taken:
            schema = table.schema_at(number)
            new, old = _rows(table, added, schema), _rows(table, taken, schema)
            if len(new) and len(old):
                new, old = _without(new, old), _without(old, new)
            yield Change(number, int(commit["info"].get("timestamp", 0)), new, old)


def changed(table: LakeTable, since: int, until: int) -> bool:
    """Whether any version after `since`, up to `until`, changed a row, as its commit says; yes in doubt."""
    for number in range(since + 1, until + 1):
        commit = table.commit(number)
        actions = [*commit.get("add", {}).values(), *commit.get("remove", {}).values()]
        if not commit or any(action.get("dataChange", True) for action in actions):
            return True
    return False


def _file(table: LakeTable, path: str, action: dict[str, Any]) -> DataFile:
    told = {"path": "", "num_records": 0, "modification_time": 0, "size_bytes": action.get("size") or 0}
    told |= {f"partition.{name}": value for name, value in (action.get("partitionValues") or {}).items()}
    file = data_file(told, table.place, "")
    return DataFile(table.place.full(path), 0, 0, None, None, file.partition, path, file.bytes)


def _rows(table: LakeTable, files: list[DataFile], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *(read(file, schema, table.place) for file in files)])


def _without(rows: pa.Table, others: pa.Table) -> pa.Table:
    """The rows that are not among the others, each as often as it is there more than once."""
    from boucle.lake.duck import connection

    with connection() as duck:
        duck.register("one", rows)
        duck.register("other", others)
        left = duck.sql("SELECT * FROM one EXCEPT ALL SELECT * FROM other").to_arrow_table()
    return left.cast(rows.schema)

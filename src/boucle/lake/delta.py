"""A table of the lake as a Delta Lake folder, written and read through delta-rs.

What delta-rs leaves to its caller, and this file does (measured on deltalake 1.6.6):

- the same (app, transaction) written twice in sequence would be accepted twice: the table's own
  transaction version is read first;
- it retries a commit that lost a race by itself, and then two that take the same files away both succeed, rows and
  all: no commit is ever retried there; who loses looks at the newest version and begins again;
- data files are written here and only committed there: a third of the time, and any exchange of files is one commit;
- commits slow down as the log grows unless `delta.checkpointInterval` is small: it is 10;
- statistics hold milliseconds, cut off: a file's last row may lie up to 1 ms after its stated maximum;
- `DeltaTable.to_pyarrow_table()` aborts short processes at exit: Parquet files are read one by one;
- a full disk comes as a plain DeltaError, or as an OSError, or as a commit that failed: all mean "not now";
- nothing is ever fsync'ed: `sync` does, and says up to which version the table survives a power cut;
- in a folder one process at a time commits, held apart by a lock on a file that a killed one lets go of;
- a type is never widened: `append` rewrites the files that have the narrow one, in one commit;
- deletion vectors are never enabled, because delta-rs itself then refuses to read the table.
"""

import json
import os
import threading
import time as wall
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, PostCommitHookProperties, RemoveAction

from boucle.block import Block, Position
from boucle.clock import Nanos
from boucle.errors import BoucleError, Unavailable
from boucle.lake.datafile import DataFile, cut, data_file, overlaps, read
from boucle.lake.parts import new_name, parts, statistics
from boucle.lake.place import Local, fsync, place_of
from boucle.lake.stored import DAY, check_transaction, from_stored, stored_schema, to_stored, widened

__all__ = ["LakeTable"]

PARTITIONS = ("machine", "sensor", "day")
_CONFIGURATION = {
    "delta.checkpointInterval": "10",
    # Checkpoints need not remember what was taken away: our vacuum asks the log, and they stay small.
    "delta.deletedFileRetentionDuration": "interval 0 seconds",
    "delta.logRetentionDuration": "interval 168 hours",
}
_TIMED = "event time: "
"""How a table's description begins; the column follows. Delta has no properties of our own."""
_AFTER = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
"""Looking for expired logs at each checkpoint costs as much as the log is long: `vacuum` does it now and then."""
_OLDER = "_older"
"""Below a table's folder: its log as it was, but for the last versions; see `set_aside`."""
_RECENT = 500
"""Versions whose log stays where every tool looks for it."""
_RACES = 8


class LakeTable:
    """A Delta table: appends are transactions, reads are snapshots, columns are only ever added.

    It is made by the first append, in a folder or below `s3://bucket/prefix`. One object serves several threads;
    several processes may append to one table, and the loser of a race simply commits after the winner. `time` names
    the column of event time ("": there is none); a table that exists knows its own.
    """

    def __init__(
        self, where: str | Path, *, time: str = "at", partition_by: Sequence[str] = PARTITIONS
    ) -> None:
        self.place = place_of(where)
        self.folder = Path(self.place.parts)
        """The table's folder; only a name for what lies in a bucket."""
        self.name = self.folder.name
        self.zone = self.folder.parent.name
        self.partition_by = tuple(partition_by)
        self.time = time
        """The column of event time; "" when there is none."""
        self._lock = threading.RLock()
        self._table: DeltaTable | None = None
        self._synced = -1
        self._inherited = -1
        self._counted = (-1, 0)

    @property
    def version(self) -> int:
        """The newest version; -1 before the first append."""
        with self._lock:
            table = self._refresh()
            return -1 if table is None else int(table.version())

    @property
    def rows(self) -> int:
        """Rows in the newest version, from the Delta log alone."""
        with self._lock:
            table = self._refresh()
            if table is None:
                return 0
            if self._counted[0] != table.version():
                counts = pa.table(table.get_add_actions(flatten=True)).column("num_records")
                self._counted = (table.version(), pc.sum(counts).as_py() or 0)
            return self._counted[1]

    @property
    def schema(self) -> pa.Schema:
        """The columns at rest, in order; no columns before the first append."""
        return self.schema_at(None)

    def schema_at(self, version: int | None) -> pa.Schema:
        """The columns at rest as they were at a version (None: the newest)."""
        with self._lock:
            table = self._refresh() if version is None else self._snapshot(version)
            return pa.schema([]) if table is None else _schema(table)

    def files(self, version: int | None = None) -> list[DataFile]:
        """The Parquet files that make up a version."""
        table = self._snapshot(version)
        return [] if table is None else self._files(table)

    def transaction(self, app: str) -> int | None:
        """The last transaction `app` committed to this table; None when it never did."""
        with self._lock:
            table = self._refresh()
            last = None if table is None else table.transaction_version(app)
            return None if last is None else int(last)

    def append(
        self,
        block: Block | Sequence[Block],
        *,
        app: str = "",
        transaction: int | None = None,
        after: int | None = None,
    ) -> int:
        """Add the rows of one Block, or of several in one commit, and return the table's version.

        With `transaction`, a number that only grows for each `app`, sending the same rows again
        changes nothing; with `after`, rows are added only when that is the app's last transaction
        (0: none yet), else B509. Raises B502 when a column changed its type, B503 for rows that cannot be
        stored, `Unavailable` when the table cannot be written now.
        """
        blocks = [block] if isinstance(block, Block) else list(block)
        check_transaction(app, transaction)
        marks = {} if transaction is None else {app: transaction}
        return self.put(
            [one.rows for one in blocks], marks=marks, after={} if after is None else {app: after}
        )

    def put(
        self,
        batches: Sequence[pa.RecordBatch],
        gone: Sequence[DataFile] = (),
        *,
        marks: Mapping[str, int] | None = None,
        after: Mapping[str, int] | None = None,
        because: Mapping[str, Any] | None = None,
    ) -> int:
        """Add rows as they are in flight and take whole files away, in one commit; returns the version.

        `marks` are transactions by app: when the table has them all, nothing happens. `because` is kept in the
        history. Raises B521 when a file of `gone` is not in the newest version any more: look again.
        """
        with self._lock, self._told():
            return self._put(batches, gone, marks or {}, after or {}, because)

    def _put(
        self,
        batches: Sequence[pa.RecordBatch],
        gone: Sequence[DataFile],
        marks: Mapping[str, int],
        after: Mapping[str, int],
        because: Mapping[str, Any] | None,
    ) -> int:
        with self.place.alone():
            for attempt in range(_RACES):
                table = self._refresh()
                nothing = not gone and not any(batch.num_rows for batch in batches)
                if table is not None and (self._has(table, marks) or (nothing and not because)):
                    return int(table.version())
                self._check_after(table, after)
                wanted = [stored_schema(batch.schema, self.time, self.partition_by) for batch in batches]
                table = table or self._create(wanted[0])
                target = now = _schema(table)
                for schema in wanted:
                    target = widened(self.name, target, schema)
                try:
                    rows = to_stored(batches, target, self.time) if batches else target.empty_table()
                    if target != now and not gone and _same_widths(now, target):
                        # columns and their first rows in one commit, which delta-rs can
                        write_deltalake(
                            table,
                            rows,
                            mode="append",
                            schema_mode="merge",
                            commit_properties=_properties(marks, because),
                        )
                        return int(table.version())
                    if target != now:
                        self._evolve(table, now, target)
                    taken = self._without(table, gone, change=True)
                    written = self.write_parts(rows, self._names(table), change=True)
                    return self._commit(table, taken + written, marks, because)
                except CommitFailedError:
                    # another writer won this version; `_refresh` sees its rows and its transaction
                    if attempt == _RACES - 1:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def exchange(
        self,
        new: Iterable[pa.Table],
        gone: Sequence[DataFile],
        *,
        because: Mapping[str, Any],
        marks: Mapping[str, int] | None = None,
        after: Mapping[str, int] | None = None,
        change: bool = False,
    ) -> int:
        """Put rows, as they lie at rest, in the place of files, in one commit; returns the version.

        They are written while others go on appending; only the commit waits for its turn. `change` says that they
        are other rows, not the same in other files. B521 when a file of `gone` was taken away meanwhile; B509 when
        the last transactions are not those of `after`.
        """
        with self._told():
            with self._lock:
                names = self._names(self._refresh())
            written = [one for rows in new for one in self.write_parts(rows, names, change=change)]
            with self._lock, self.place.alone():
                for _ in range(_RACES):
                    table = self._refresh()
                    assert table is not None
                    if self._has(table, marks or {}):
                        return int(table.version())
                    self._check_after(table, after or {})
                    actions = self._without(table, gone, change=change) + written
                    try:
                        return self._commit(table, actions, marks or {}, because)
                    except CommitFailedError:
                        continue
        raise self._unavailable(RuntimeError("others commit without a pause"))

    def properties_now(self) -> dict[str, str]:
        """The table's own settings, as the newest version has them."""
        with self._lock:
            table = self._refresh()
            return {} if table is None else dict(table.metadata().configuration)

    def set_aside(self, last: int = _RECENT) -> int:
        """Move the log of all but about the `last` versions to a folder of its own; returns how many files.

        A folder's log is listed as a whole at each commit, so what lies there makes each a little slower. Moved aside
        it is read as before, by us: time travel, history and changes know both places. Buckets list from an offset.
        """
        if not isinstance(self.place, Local):
            return 0
        with self.alone() as table:
            if table is None:
                return 0
            log, older = self.folder / "_delta_log", self.folder / _OLDER / "_delta_log"
            keep = int(table.version()) - last
            checkpoints = [_number(file) for file in log.glob("*.checkpoint.parquet")]
            first = max((number for number in checkpoints if number <= keep), default=0)
            moved = sorted(file for file in log.iterdir() if -1 < _number(file) < first)
            if moved:
                older.mkdir(parents=True, exist_ok=True)
            for file in moved:
                file.rename(older / file.name)
            return len(moved)

    def is_aside(self, version: int) -> bool:
        """Whether the log of a version was set aside."""
        return self.place.exists(f"{_OLDER}/{_commit_file(version)}")

    def forget(self, oldest: int) -> None:
        """Delete what was set aside of the log and no version from `oldest` on needs."""
        older = self.folder / _OLDER / "_delta_log"
        checkpoints = [_number(file) for file in older.glob("*.checkpoint.parquet")]
        first = max((number for number in checkpoints if number <= oldest), default=0)
        for file in older.glob("*"):
            if -1 < _number(file) < first:
                file.unlink(missing_ok=True)

    def bring_back(
        self, back: Sequence[DataFile], lost: Sequence[DataFile], because: Mapping[str, Any]
    ) -> int:
        """Add files that an earlier version had and take others away, in one commit; returns the version."""
        with self.alone() as table:
            assert table is not None
            now = int(wall.time() * 1000)
            again = [
                AddAction(
                    file.inside,
                    file.bytes,
                    file.partition,
                    now,
                    True,
                    statistics(self.place.open(file.path).read()),
                )
                for file in back
            ]
            return self._commit(table, self._without(table, lost, change=True) + again, {}, because)

    def remember(self, seconds: float) -> None:
        """Keep the log of so many seconds, so that every version of that time can be found again."""
        wanted = {"delta.logRetentionDuration": f"interval {max(1, int(seconds // 3600))} hours"}
        with self.alone() as table:
            if table is not None and not wanted.items() <= table.metadata().configuration.items():
                table.alter.set_table_properties(wanted, commit_properties=self.properties(did="remember"))

    def merge(
        self,
        new: Iterable[pa.Table],
        key: Sequence[str],
        *,
        because: Mapping[str, Any],
        marks: Mapping[str, int],
        after: Mapping[str, int],
    ) -> int:
        """Rows at rest, each in the place of the one with its key, or added; one commit, and the version returned."""
        same = " AND ".join(f"have.`{one}` = new.`{one}`" for one in key)
        with self.alone() as table:
            assert table is not None
            if self._has(table, marks):
                return int(table.version())
            self._check_after(table, after)
            empty = _schema(table).empty_table()
            merger = table.merge(
                pa.concat_tables([empty, *new]),
                same,
                source_alias="new",
                target_alias="have",
                commit_properties=_properties(marks, because),
            )
            merger.when_matched_update_all().when_not_matched_insert_all().execute()
            return int(table.version())

    def fit(self, schema: pa.Schema) -> pa.Schema:
        """Make the table, or give it the columns and widths, that rows of `schema` need; returns the one at rest."""
        wanted = stored_schema(schema, self.time, self.partition_by)
        with self.alone() as found:
            table = found or self._create(wanted)
            now = _schema(table)
            target = widened(self.name, now, wanted)
            if target != now:
                self._evolve(table, now, target)
            return target

    def _names(self, table: DeltaTable | None) -> list[str]:
        return [] if table is None else list(table.metadata().partition_columns)

    def write_parts(self, rows: pa.Table, partition_by: Sequence[str], *, change: bool) -> list[Any]:
        """Data files of rows at rest, which no version has yet; what a commit must say of each."""
        actions = []
        for partition, part in parts(rows, partition_by):
            path = new_name(partition)
            size = self.place.write(path, part)
            actions.append(
                AddAction(path, size, partition, int(wall.time() * 1000), change, statistics(part))
            )
        return actions

    def _without(self, table: DeltaTable | None, gone: Sequence[DataFile], change: bool) -> list[Any]:
        if not gone:
            return []
        present = set() if table is None else {file.inside for file in self._files(table)}
        if missing := [file for file in gone if file.inside not in present]:
            raise BoucleError(
                "B521",
                f'table "{self.name}" has changed meanwhile: {len(missing)} of {len(gone)} files were taken away',
                where=str(self.folder),
                why="somebody else joined, replaced or restored rows at the same moment",
                fix="do it again: it starts from the newest version",
            )
        now = int(wall.time() * 1000)
        return [RemoveAction(file.inside, change, now, file.bytes, file.partition) for file in gone]

    def _commit(
        self,
        table: DeltaTable,
        actions: list[Any],
        marks: Mapping[str, int],
        because: Mapping[str, Any] | None,
        mode: str = "append",
        schema: pa.Schema | None = None,
    ) -> int:
        table.create_write_transaction(
            actions,
            mode,
            schema or _schema(table),
            self._names(table),
            commit_properties=_properties(marks, because),
            post_commithook_properties=_AFTER,
        )
        table.update_incremental()
        return int(table.version())

    def _evolve(self, table: DeltaTable, now: pa.Schema, target: pa.Schema) -> None:
        """Give the table the columns and widths of `target`, before rows that need them."""
        if not _same_widths(now, target):
            # Files of the narrow type would be unreadable to other readers of Delta: they are written again.
            written = [
                action
                for file in self._files(table)
                for action in self.write_parts(
                    read(file, target, self.place), self._names(table), change=True
                )
            ]
            self._commit(table, written, {}, {"did": "widen"}, mode="overwrite", schema=target)
            return
        added = Schema.from_arrow(pa.schema([field for field in target if field.name not in now.names]))
        table.alter.add_columns(list(added.fields), commit_properties=_properties({}, {"did": "add columns"}))
        table.update_incremental()

    def _create(self, schema: pa.Schema) -> DeltaTable:
        partitions = [name for name in self.partition_by if name in schema.names]
        if isinstance(self.place, Local):
            self.folder.mkdir(parents=True, exist_ok=True)
        DeltaTable.create(
            self.place.uri,
            schema=schema,
            mode="ignore",
            partition_by=partitions,
            description=_TIMED + self.time,
            configuration=_CONFIGURATION,
            storage_options=self.place.options,
        )
        self._table = self._opened(None)
        return self._table

    def scan(
        self, since: Nanos | None = None, until: Nanos | None = None, version: int | None = None
    ) -> Iterator[Block]:
        """Rows with `since` ≤ time < `until`, in order of time, as they were at `version`.

        Files are merged as their time ranges begin, so memory holds only those that overlap.
        Rows of equal time come in order of their partition columns. Raises B505 for a version
        that does not exist or whose files were vacuumed.
        """
        table = self._snapshot(version)
        if table is None:
            return
        schema = _schema(table)
        if not self.time:
            yield from self._unordered(table, schema)
            return
        order = [self.time, *(n for n in self.partition_by if n in schema.names and n != DAY)]
        files = sorted(
            (file for file in self._files(table) if overlaps(file, since, until)),
            key=lambda file: (file.start or 0, file.written_ms, file.path),
        )
        held: list[pa.Table] = []
        given = 0
        for index, file in enumerate(files):
            held.append(self._between(self.in_flight(read(file, schema, self.place)), since, until))
            horizon = files[index + 1].start or 0 if index + 1 < len(files) else None
            if horizon is not None and horizon <= (file.start or 0):
                continue
            ready, later = self._split(pa.concat_tables(held), horizon)
            held = [later]
            for batch in cut(ready.sort_by([(name, "ascending") for name in order])):
                given += batch.num_rows
                last = batch.column(self.time)[-1].value
                yield Block(self.name, batch, last, Position(self.name, given))

    def _unordered(self, table: DeltaTable, schema: pa.Schema) -> Iterator[Block]:
        given = 0
        for file in self._files(table):
            for batch in cut(self.in_flight(read(file, schema, self.place))):
                given += batch.num_rows
                yield Block(self.name, batch, 0, Position(self.name, given))

    def _between(self, rows: pa.Table, since: Nanos | None, until: Nanos | None) -> pa.Table:
        at = rows.column(self.time)
        if since is not None:
            rows = rows.filter(pc.greater_equal(at, pa.scalar(since, pa.int64()).cast(at.type)))
            at = rows.column(self.time)
        if until is not None:
            rows = rows.filter(pc.less(at, pa.scalar(until, pa.int64()).cast(at.type)))
        return rows

    def _split(self, rows: pa.Table, horizon: Nanos | None) -> tuple[pa.Table, pa.Table]:
        if horizon is None:
            return rows, rows.slice(0, 0)
        at = rows.column(self.time)
        early = pc.less(at, pa.scalar(horizon, pa.int64()).cast(at.type))
        return rows.filter(early), rows.filter(pc.invert(early))

    def compact(self) -> int:
        """Join small files of each partition into larger ones and return the version; rows stay the same."""
        from boucle.lake.upkeep import compact

        return compact(self)

    def sync(self) -> int:
        """Return the version up to which this table survives a power cut, having fsync'ed up to it.

        The log that feeds the table may forget only what lies before it. What a bucket answered is stored.
        """
        if not isinstance(self.place, Local):
            return self.version
        with self._told():
            return self._sync()

    def _sync(self) -> int:
        with self._lock:
            table = self._refresh()
            if table is None:
                return -1
            if self._synced < self._inherited:
                # another process may have left anything unwritten: once, everything is flushed
                os.sync()
                self._synced = self._inherited
            log = self.folder / "_delta_log"
            folders = {self.folder.parent, self.folder, log}
            for version in range(self._synced + 1, int(table.version()) + 1):
                added = [self.folder / path for path in self.commit(version).get("add", {})]
                for path in (
                    *added,
                    log / f"{version:020d}.checkpoint.parquet",
                    log / f"{version:020d}.json",
                ):
                    fsync(path)
                    folders.update(parent for parent in path.parents if parent.is_relative_to(self.folder))
            fsync(log / "_last_checkpoint")
            for folder in folders:
                fsync(folder)
            self._synced = int(table.version())
            return self._synced

    def commit(self, version: int) -> dict[str, dict[str, Any]]:
        """What a commit did: `add` and `remove` by path within the table, and `info`; {} when the log forgot it."""
        file = _commit_file(version)
        text = self.place.text(file) or self.place.text(f"{_OLDER}/{file}")
        found: dict[str, dict[str, Any]] = {"add": {}, "remove": {}, "info": {}} if text else {}
        for line in (text or "").splitlines():
            action = json.loads(line)
            for kind in ("add", "remove"):
                if kind in action:
                    found[kind][unquote(action[kind]["path"])] = action[kind]
            if "commitInfo" in action:
                found["info"] = action["commitInfo"]
        return found

    def properties(self, **because: Any) -> Any:
        """What delta-rs is told with a change it makes itself: why, and never to retry."""
        return _properties({}, because)

    @contextmanager
    def alone(self) -> Iterator[DeltaTable | None]:
        """The table at its newest version, and nobody of this machine who changes it meanwhile; None: not made yet.

        What goes wrong with it is told as `Unavailable`.
        """
        with self._lock, self._told(), self.place.alone():
            yield self._refresh()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (DeltaError, OSError) as error:
            raise self._unavailable(error) from error

    def _refresh(self) -> DeltaTable | None:
        try:
            if self._table is None:
                self._table = self._opened(None)
                self._inherited = max(self._inherited, int(self._table.version()))
            elif self.place.exists(_commit_file(int(self._table.version()) + 1)):
                self._follow(self._table)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise self._unavailable(error) from error
        return self._table

    def _follow(self, table: DeltaTable) -> None:
        try:
            table.update_incremental()
        except (DeltaError, OSError):
            # what it read before may have been set aside meanwhile: it looks anew
            self._table = None
            self._table = self._opened(None)

    def _opened(self, version: int | None) -> DeltaTable:
        table = DeltaTable(self.place.uri, version=version, storage_options=self.place.options)
        told = table.metadata()
        self.partition_by = tuple(told.partition_columns) or self.partition_by
        said = told.description or ""
        self.time = said.removeprefix(_TIMED) if said.startswith(_TIMED) else self.time
        return table

    def _snapshot(self, version: int | None) -> DeltaTable | None:
        try:
            if version is not None and self.is_aside(version):
                return DeltaTable(f"{self.place.uri}/{_OLDER}", version=version)
            return self._opened(version)
        except (DeltaError, OSError) as error:
            nobody = isinstance(error, TableNotFoundError)
            if nobody and (version is None or self.version < 0):
                return None
            if version is None:
                raise self._unavailable(error) from error
            known = 0 <= version <= self.version
            raise BoucleError(
                "B505",
                f'version {version} of table "{self.name}" cannot be read any more'
                if known
                else f'table "{self.name}" has no version {version}',
                where=str(self.folder),
                why="the log forgot it" if nobody else str(error),
                fix=f"ask for a version from 0 to {self.version}; `boucle lake history` lists them",
            ) from error

    def _files(self, table: DeltaTable) -> list[DataFile]:
        actions = pa.table(table.get_add_actions(flatten=True))
        return [data_file(action, self.place, self.time) for action in actions.to_pylist()]

    def in_flight(self, rows: pa.Table) -> pa.Table:
        """Rows at rest as they were in flight."""
        return from_stored(rows, day=bool(self.time) and DAY in self.partition_by)

    def _check_after(self, table: DeltaTable | None, after: Mapping[str, int]) -> None:
        for app, number in after.items():
            done = 0 if table is None else int(table.transaction_version(app) or 0)
            if done != number:
                raise BoucleError(
                    "B509",
                    f'table "{self.name}" is at transaction {done} of "{app}", not at {number}',
                    where=str(self.folder),
                    why="another writer serves the same log",
                    fix="let one process write a lake; this one goes on from where the table is",
                )

    def _has(self, table: DeltaTable, marks: Mapping[str, int]) -> bool:
        done = {app: table.transaction_version(app) for app in marks}
        return bool(marks) and all(
            done[app] is not None and done[app] >= number for app, number in marks.items()
        )

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(
            "B504",
            f'table "{self.name}" cannot be written or read now',
            where=str(self.folder),
            why=str(error),
            fix="check the disk's space and rights; the rows stay in the log and are tried again",
        )


def _number(file: Path) -> int:
    """The version a file of the log belongs to; -1 for one that belongs to none."""
    head = file.name[:20]
    return int(head) if len(head) == 20 and head.isdigit() else -1


def _commit_file(version: int) -> str:
    return f"_delta_log/{version:020d}.json"


def _properties(marks: Mapping[str, int], because: Mapping[str, Any] | None) -> CommitProperties:
    return CommitProperties(
        app_transactions=[Transaction(app, number) for app, number in marks.items()] or None,
        custom_metadata={"boucle": dict(because)} if because else None,
        max_commit_retries=0,
    )


def _same_widths(now: pa.Schema, target: pa.Schema) -> bool:
    return all(now.field(name).type == target.field(name).type for name in now.names)


def _schema(table: DeltaTable) -> pa.Schema:
    return pa.schema(
        [pa.field(field.name, field.type) for field in pa.schema(table.schema().to_arrow()).remove_metadata()]
    )

"""A table of the lake as a Delta Lake folder, written and read through delta-rs.

What delta-rs leaves to its caller, and this file does (measured on deltalake 1.6.6):

- the same (app, transaction) written twice in sequence would be accepted twice: the table's own
  transaction version is read first;
- commits slow down as the log grows unless `delta.checkpointInterval` is small: it is 10;
- statistics hold milliseconds, cut off: a file's last row may lie up to 1 ms after its stated maximum;
- `DeltaTable.to_pyarrow_table()` aborts short processes at exit: Parquet files are read one by one;
- a full disk comes as a plain DeltaError, or as an OSError, or as a commit that failed: all mean "not now";
- nothing is ever fsync'ed: `sync` does, and says up to which version the table survives a power cut;
- joining files while another process appends or joins, too, leaves the old files beside the new ones, rows and all
  (two appends alone are told apart): one process at a time changes a table, held apart by a lock on a file;
- deletion vectors are never enabled, because delta-rs itself then refuses to read the table.
"""

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from boucle.block import Block, Position
from boucle.clock import Nanos
from boucle.errors import BoucleError, Unavailable
from boucle.lake.datafile import DataFile, cut, data_file, overlaps, path_of, read
from boucle.lake.stored import DAY, check_additive, check_transaction, from_stored, stored_schema, to_stored

__all__ = ["LakeTable"]

PARTITIONS = ("machine", "sensor", "day")
_CONFIGURATION = {"delta.checkpointInterval": "10"}
_RACES = 5
TARGET_BYTES = 32_000_000
"""Large enough to read well, small enough that joining again and again costs little."""


class LakeTable:
    """A Delta table: appends are transactions, reads are snapshots, columns are only ever added.

    The folder is made by the first append. One object serves several threads; several processes
    may append to one table, and the loser of a race simply commits after the winner.
    """

    def __init__(
        self, folder: str | Path, *, time: str = "at", partition_by: Sequence[str] = PARTITIONS
    ) -> None:
        self.folder = Path(folder).absolute()
        self.name = self.folder.name
        self.zone = self.folder.parent.name
        self.time = time
        self.partition_by = tuple(partition_by)
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
        with self._lock:
            table = self._refresh()
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
        stored, `Unavailable` when the folder cannot be written now.
        """
        blocks = [block] if isinstance(block, Block) else list(block)
        check_transaction(app, transaction)
        with self._lock:
            try:
                with self._alone():
                    return self._append([one.rows for one in blocks], app, transaction, after)
            except (DeltaError, OSError) as error:
                raise self._unavailable(error) from error

    def _append(
        self, batches: Sequence[pa.RecordBatch], app: str, transaction: int | None, after: int | None
    ) -> int:
        for attempt in range(_RACES):
            table = self._refresh()
            done = None if table is None or transaction is None else table.transaction_version(app)
            if table is not None and (_covers(done, transaction) or not any(b.num_rows for b in batches)):
                return int(table.version())
            if after is not None and (done or 0) != after:
                raise self._overtaken(app, after, done or 0)
            wanted = [stored_schema(batch.schema, self.time, self.partition_by) for batch in batches]
            table = table or self._create(wanted[0])
            now = _schema(table)
            for schema in wanted:
                check_additive(self.name, now, schema)
            target = pa.unify_schemas([now, *wanted])
            rows = to_stored(batches, target, self.time)
            try:
                self._commit(table, rows, app, transaction)
            except CommitFailedError:
                if attempt == _RACES - 1:
                    raise
                # another writer won this version; `_refresh` sees its rows and its transaction
                continue
            return int(table.version())
        raise AssertionError("the last attempt returns or raises")

    def _commit(self, table: DeltaTable, rows: pa.Table, app: str, transaction: int | None) -> None:
        marks = None if transaction is None else [Transaction(app, transaction)]
        write_deltalake(
            table,
            rows,
            mode="append",
            schema_mode="merge",
            commit_properties=CommitProperties(app_transactions=marks),
        )

    def _create(self, schema: pa.Schema) -> DeltaTable:
        partitions = [name for name in self.partition_by if name in schema.names]
        self.folder.mkdir(parents=True, exist_ok=True)
        DeltaTable.create(
            self.folder,
            schema=schema,
            mode="ignore",
            partition_by=partitions,
            configuration=_CONFIGURATION,
        )
        self._table = DeltaTable(self.folder)
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
        order = [self.time, *(n for n in self.partition_by if n in schema.names and n != DAY)]
        files = sorted(
            (file for file in self._files(table) if overlaps(file, since, until)),
            key=lambda file: (file.start or 0, file.written_ms, file.path),
        )
        held: list[pa.Table] = []
        given = 0
        for index, file in enumerate(files):
            held.append(self._between(from_stored(read(file, schema)), since, until))
            horizon = files[index + 1].start or 0 if index + 1 < len(files) else None
            if horizon is not None and horizon <= (file.start or 0):
                continue
            ready, later = self._split(pa.concat_tables(held), horizon)
            held = [later]
            for batch in cut(ready.sort_by([(name, "ascending") for name in order])):
                given += batch.num_rows
                last = batch.column(self.time)[-1].value
                yield Block(self.name, batch, last, Position(self.name, given))

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

    def compact(self, target_bytes: int = TARGET_BYTES) -> int:
        """Join small files of each partition into larger ones and return the version; rows stay the same.

        Old files stay until `vacuum`, so earlier versions remain readable. Appends wait meanwhile.
        """
        if not self.folder.exists():
            return -1
        try:
            with self._alone():
                table = self._snapshot(None)
                if table is None:
                    return -1
                table.optimize.compact(target_size=target_bytes)
                return int(table.version())
        except (DeltaError, OSError) as error:
            raise self._unavailable(error) from error

    def vacuum(self, keep_hours: int = 168) -> int:
        """Delete files that no version of the last `keep_hours` needs; returns how many.

        Versions older than that can then no longer be read (B505).
        """
        table = self._snapshot(None)
        if table is None:
            return 0
        return len(table.vacuum(keep_hours, dry_run=False, enforce_retention_duration=False))

    def sync(self) -> int:
        """Return the version up to which this table survives a power cut, having fsync'ed up to it.

        The log that feeds the table may forget only what lies before it.
        """
        try:
            return self._sync()
        except OSError as error:
            raise self._unavailable(error) from error

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
                commit = self._commit_file(version)
                for path in (
                    *_added(self.folder, commit),
                    log / f"{version:020d}.checkpoint.parquet",
                    commit,
                ):
                    fsync(path)
                    folders.update(parent for parent in path.parents if parent.is_relative_to(self.folder))
            fsync(log / "_last_checkpoint")
            for folder in folders:
                fsync(folder)
            self._synced = int(table.version())
            return self._synced

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process changes this table meanwhile. A killed one lets go."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / f".{self.name}.lock").open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def _refresh(self) -> DeltaTable | None:
        try:
            if self._table is None:
                self._table = DeltaTable(self.folder)
                self._inherited = max(self._inherited, int(self._table.version()))
            elif self._commit_file(int(self._table.version()) + 1).exists():
                self._table.update_incremental()
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise self._unavailable(error) from error
        return self._table

    def _commit_file(self, version: int) -> Path:
        return self.folder / "_delta_log" / f"{version:020d}.json"

    def _snapshot(self, version: int | None) -> DeltaTable | None:
        try:
            return DeltaTable(self.folder, version=version)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            raise BoucleError(
                "B505",
                f'table "{self.name}" has no version {version}' if version is not None else str(error),
                where=str(self.folder),
                why=str(error),
                fix=f"ask for a version from 0 to {self.version}",
            ) from error

    def _files(self, table: DeltaTable) -> list[DataFile]:
        actions = pa.table(table.get_add_actions(flatten=True))
        return [data_file(action, self.folder, self.time) for action in actions.to_pylist()]

    def _overtaken(self, app: str, after: int, done: int) -> BoucleError:
        return BoucleError(
            "B509",
            f'table "{self.name}" is at transaction {done} of "{app}", not at {after}',
            where=str(self.folder),
            why="another writer serves the same log",
            fix="let one process write a lake; this one goes on from where the table is",
        )

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(
            "B504",
            f'table "{self.name}" cannot be written or read now',
            where=str(self.folder),
            why=str(error),
            fix="check the disk's space and rights; the rows stay in the log and are tried again",
        )


def _covers(done: int | None, transaction: int | None) -> bool:
    return done is not None and transaction is not None and done >= transaction


def _schema(table: DeltaTable) -> pa.Schema:
    return pa.schema(
        [pa.field(field.name, field.type) for field in pa.schema(table.schema().to_arrow()).remove_metadata()]
    )


def _added(folder: Path, commit: Path) -> Iterator[Path]:
    """The data files a commit added."""
    if not commit.exists():
        return
    for line in commit.read_text(encoding="utf-8").splitlines():
        action = json.loads(line)
        if "add" in action:
            yield path_of(folder, action["add"]["path"])


def fsync(path: Path) -> None:
    """Return when a file or folder, if it exists, survives a power cut."""
    if not path.exists():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""A table of the lake: a Delta Lake folder, or a prefix of a bucket, that any tool that reads Delta reads.

What a commit is made of, and where each part lives: rows as they lie at rest (`stored`), in files of one partition
each (`parts`), published as one version (`publish`); the newest version is kept in memory (`log`) and read in order of
time (`scan`). Figures and decisions: docs/why/lake.md.

- statistics hold milliseconds, cut off: a file's last row may lie up to 1 ms after its stated maximum;
- `DeltaTable.to_pyarrow_table()` aborts short processes at exit: Parquet files are read one by one;
- `sync` says up to which version the table survives a power cut;
- in a folder one process at a time commits, held apart by a lock on a file that a killed one lets go of;
- a type is never widened in place: the files that have the narrow one are written again, in one commit.
"""

import json
import threading
import time as wall
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from boucle.block import Block
from boucle.clock import Nanos
from boucle.errors import BoucleError, Unavailable
from boucle.lake import deltars
from boucle.lake.aside import OLDER, commit_text, is_aside
from boucle.lake.commit import Action, Add, Remove, encoded
from boucle.lake.datafile import DataFile, read
from boucle.lake.durable import Durable
from boucle.lake.log import TIMED, Log, files_of
from boucle.lake.parts import Part, new_name, parts, statistics
from boucle.lake.place import Local, place_of
from boucle.lake.publish import publish
from boucle.lake.scan import Scan
from boucle.lake.stored import DAY, check_transaction, from_stored, stored_schema, to_stored, widened

__all__ = ["LakeTable"]

PARTITIONS = ("machine", "sensor", "day")
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
        self._log: Log | None = None
        self._durable = Durable(self.place) if isinstance(self.place, Local) else None
        self._inherited = -1

    @property
    def version(self) -> int:
        """The newest version; -1 before the first append."""
        with self._lock:
            log = self._refresh()
            return -1 if log is None else log.version

    @property
    def rows(self) -> int:
        """Rows in the newest version, from the Delta log alone."""
        with self._lock:
            log = self._refresh()
            return 0 if log is None else log.rows

    @property
    def schema(self) -> pa.Schema:
        """The columns at rest, in order; no columns before the first append."""
        return self.schema_at(None)

    def schema_at(self, version: int | None) -> pa.Schema:
        """The columns at rest as they were at a version (None: the newest)."""
        return self._at(version)[0]

    def files(self, version: int | None = None) -> list[DataFile]:
        """The Parquet files that make up a version."""
        return self._at(version)[1]

    def _at(self, version: int | None) -> tuple[pa.Schema, list[DataFile]]:
        """Columns and files of a version; none of either before the first append."""
        with self._lock:
            log = self._refresh()
            if log is not None and version in {None, log.version}:
                return log.schema, list(log.files.values())
        if log is None:
            if version is None or version < 0:
                return pa.schema([]), []
            raise self._unknown(version, "it was never written to")
        assert version is not None
        return self._past(version)

    def _past(self, version: int) -> tuple[pa.Schema, list[DataFile]]:
        try:
            below = OLDER if is_aside(self.place, version) else ""
            then = deltars.open_table(self.place, version, below)
        except deltars.BROKEN as error:
            forgot = isinstance(error, deltars.TableNotFoundError)
            raise self._unknown(version, "the log forgot it" if forgot else str(error)) from error
        return deltars.schema_of(then), files_of(then, self.place, self.time)

    def _unknown(self, version: int, why: str) -> BoucleError:
        known = 0 <= version <= self.version
        return BoucleError(
            "B505",
            f'version {version} of table "{self.name}" cannot be read any more'
            if known
            else f'table "{self.name}" has no version {version}',
            where=str(self.folder),
            why=why,
            fix=f"ask for a version from 0 to {self.version}; `boucle lake history` lists them",
        )

    def transaction(self, app: str) -> int | None:
        """The last transaction `app` committed to this table; None when it never did."""
        with self._lock:
            log = self._refresh()
            return None if log is None else log.mark(app)

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
                log = self._refresh()
                nothing = not gone and not any(batch.num_rows for batch in batches)
                if log is not None and (log.has(marks) or (nothing and not because)):
                    return log.version
                self._check_after(log, after)
                wanted = [stored_schema(batch.schema, self.time, self.partition_by) for batch in batches]
                log = log or self._create(wanted[0])
                target = now = log.schema
                for schema in wanted:
                    target = widened(self.name, target, schema)
                try:
                    rows = to_stored(batches, target, self.time) if batches else target.empty_table()
                    if target != now and not gone and _same_widths(now, target):
                        # columns and their first rows in one commit, which delta-rs can
                        deltars.append_columns(log.delta(), rows, deltars.properties(marks, because))
                        log.follow()
                        return log.version
                    if target != now:
                        self._evolve(log, target)
                    taken = self._without(log, gone, change=True)
                    written = self.write_parts(parts(rows, log.partitions), change=True)
                    return self._commit(log, taken + written, marks, because)
                except deltars.CommitFailedError:
                    # another writer won this version; `_refresh` sees its rows and its transaction
                    if attempt == _RACES - 1:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def exchange(
        self,
        new: Iterable[pa.Table | Part],
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
                log = self._refresh()
                names = [] if log is None else log.partitions
            written = [
                action
                for one in new
                for action in self.write_parts(
                    [one] if isinstance(one, tuple) else parts(one, names), change=change
                )
            ]
            with self._lock, self.place.alone():
                for _ in range(_RACES):
                    log = self._refresh()
                    assert log is not None
                    if log.has(marks or {}):
                        return log.version
                    self._check_after(log, after or {})
                    actions = self._without(log, gone, change=change) + written
                    try:
                        return self._commit(log, actions, marks or {}, because)
                    except deltars.CommitFailedError:
                        continue
        raise self._unavailable(RuntimeError("others commit without a pause"))

    def properties_now(self) -> dict[str, str]:
        """The table's own settings, as the newest version has them."""
        with self._lock:
            log = self._refresh()
            return {} if log is None else dict(log.configuration)

    def bring_back(
        self, back: Sequence[DataFile], lost: Sequence[DataFile], because: Mapping[str, Any]
    ) -> int:
        """Add files that an earlier version had and take others away, in one commit; returns the version."""
        with self.alone() as log:
            assert log is not None
            now = _now()
            again: list[Action] = [
                Add(
                    file.logged,
                    file.partition,
                    file.bytes,
                    now,
                    stats=statistics(self.place.open(file.path).read()),
                )
                for file in back
            ]
            return self._commit(log, self._without(log, lost, change=True) + again, {}, because)

    def remember(self, seconds: float) -> None:
        """Keep the log of so many seconds, so that every version of that time can be found again."""
        wanted = {"delta.logRetentionDuration": f"interval {max(1, int(seconds // 3600))} hours"}
        with self.alone() as log:
            if log is not None and not wanted.items() <= log.configuration.items():
                why = deltars.properties({}, {"did": "remember"})
                log.delta().alter.set_table_properties(wanted, commit_properties=why)

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
        with self.alone() as log:
            assert log is not None
            delta = log.delta()
            if log.has(marks):
                return log.version
            self._check_after(log, after)
            rows = pa.concat_tables([log.schema.empty_table(), *new])
            deltars.merge(delta, rows, key, deltars.properties(marks, because))
            return int(delta.version())

    def fit(self, schema: pa.Schema) -> pa.Schema:
        """Make the table, or give it the columns and widths, that rows of `schema` need; returns the one at rest."""
        wanted = stored_schema(schema, self.time, self.partition_by)
        with self.alone() as found:
            log = found or self._create(wanted)
            target = widened(self.name, log.schema, wanted)
            if target != log.schema:
                self._evolve(log, target)
            return target

    def write_parts(self, new: Iterable[Part], *, change: bool) -> list[Action]:
        """Data files of rows at rest, which no version has yet; what a commit must say of each."""
        actions: list[Action] = []
        for partition, part in new:
            path = new_name(partition)
            size = self.place.write(path, part)
            actions.append(Add(encoded(path), partition, size, _now(), change, statistics(part)))
        return actions

    def _without(self, log: Log, gone: Sequence[DataFile], change: bool) -> list[Action]:
        if missing := [file for file in gone if file.inside not in log.files]:
            raise BoucleError(
                "B521",
                f'table "{self.name}" has changed meanwhile: {len(missing)} of {len(gone)} files were taken away',
                where=str(self.folder),
                why="somebody else joined, replaced or restored rows at the same moment",
                fix="do it again: it starts from the newest version",
            )
        now = _now()
        return [
            Remove(log.files[file.inside].logged, change, now, True, file.partition, file.bytes)
            for file in gone
        ]

    def _commit(
        self,
        log: Log,
        actions: Sequence[Action],
        marks: Mapping[str, int],
        because: Mapping[str, Any] | None,
    ) -> int:
        publish(log, actions, marks, because)
        return log.version

    def _evolve(self, log: Log, target: pa.Schema) -> None:
        """Give the table the columns and widths of `target`, before rows that need them."""
        if _same_widths(log.schema, target):
            deltars.add_columns(
                log.delta(), [field for field in target if field.name not in log.schema.names]
            )
        else:
            # Files of the narrow type would be unreadable to other readers of Delta: they are written again.
            again = (
                part
                for file in log.files.values()
                for part in parts(read(file, target, self.place), log.partitions)
            )
            written, why = self.write_parts(again, change=True), deltars.properties({}, {"did": "widen"})
            deltars.commit(log.delta(), written, why, mode="overwrite", schema=target)
        log.follow()

    def _create(self, schema: pa.Schema) -> Log:
        partitions = [name for name in self.partition_by if name in schema.names]
        if isinstance(self.place, Local):
            self.folder.mkdir(parents=True, exist_ok=True)
        deltars.create(self.place, schema, partitions, TIMED + self.time)
        inherited = self._inherited
        log = self._refresh()
        assert log is not None
        self._inherited = inherited  # what another process wrote is not what this one just did
        return log

    def scan(
        self, since: Nanos | None = None, until: Nanos | None = None, version: int | None = None
    ) -> Iterator[Block]:
        """Rows with `since` ≤ time < `until`, in order of time, as they were at `version`.

        Files are merged as their time ranges begin, so memory holds only those that overlap.
        Rows of equal time come in order of their partition columns. Raises B505 for a version
        that does not exist or whose files were vacuumed.
        """
        schema, files = self._at(version)
        scan = Scan(self.name, self.place, files, schema, time=self.time, partition_by=self.partition_by)
        yield from scan.blocks(since, until)

    def in_flight(self, rows: pa.Table) -> pa.Table:
        """Rows at rest as they were in flight."""
        return from_stored(rows, day=bool(self.time) and DAY in self.partition_by)

    def compact(self) -> int:
        """Join small files of each partition into larger ones and return the version; rows stay the same."""
        from boucle.lake.upkeep import compact

        return compact(self)

    def sync(self) -> int:
        """Return the version up to which this table survives a power cut, having fsync'ed up to it.

        The log that feeds the table may forget only what lies before it. What a bucket answered is stored.
        """
        with self._lock, self._told():
            version = self.version
            if self._durable is not None and version >= 0:
                self._durable.flush(version, self._inherited)
            return version

    def commit(self, version: int) -> dict[str, dict[str, Any]]:
        """What a commit did: `add` and `remove` by path within the table, and `info`; {} when the log forgot it."""
        text = commit_text(self.place, version)
        found: dict[str, dict[str, Any]] = {"add": {}, "remove": {}, "info": {}} if text else {}
        for line in (text or "").splitlines():
            action = json.loads(line)
            for kind in ("add", "remove"):
                if kind in action:
                    found[kind][unquote(action[kind]["path"])] = action[kind]
            if "commitInfo" in action:
                found["info"] = action["commitInfo"]
        return found

    @contextmanager
    def alone(self) -> Iterator[Log | None]:
        """The newest version, and nobody of this machine who changes the table meanwhile; None: not made yet.

        What goes wrong with it is told as `Unavailable`.
        """
        with self._lock, self._told(), self.place.alone():
            yield self._refresh()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except deltars.BROKEN as error:
            raise self._unavailable(error) from error

    def _refresh(self) -> Log | None:
        log, self._log = self._log, None
        try:
            if log is None:
                log = Log(self.place)
                self._inherited = max(self._inherited, log.version)
            else:
                log.follow()
        except (deltars.TableNotFoundError, FileNotFoundError):
            return None
        except deltars.BROKEN as error:
            raise self._unavailable(error) from error
        self.partition_by = tuple(log.partitions) or self.partition_by
        self.time = self.time if log.time is None else log.time
        self._log = log
        return log

    def _check_after(self, log: Log | None, after: Mapping[str, int]) -> None:
        for app, number in after.items():
            done = 0 if log is None else log.mark(app) or 0
            if done != number:
                raise BoucleError(
                    "B509",
                    f'table "{self.name}" is at transaction {done} of "{app}", not at {number}',
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


def _now() -> int:
    return int(wall.time() * 1000)


def _same_widths(now: pa.Schema, target: pa.Schema) -> bool:
    return all(now.field(name).type == target.field(name).type for name in now.names)

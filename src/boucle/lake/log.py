"""What the newest version of a table holds, kept in memory and brought up to date by the commits that follow.

delta-rs opens a table: it knows protocols and checkpoints. From there on the next commit is the file with the next
number, so that looking for it and reading it costs the same however long the log is.
"""

from collections.abc import Mapping
from urllib.parse import unquote

import pyarrow as pa

from boucle.lake.aside import commit_text
from boucle.lake.commit import file_of, lines_of
from boucle.lake.datafile import DataFile, data_file
from boucle.lake.deltars import BROKEN, DeltaTable, open_table, schema_of
from boucle.lake.place import Place

__all__ = ["TIMED", "Log", "files_of"]

TIMED = "event time: "
"""How a table's description begins; the column follows. Delta has no properties of our own."""
_UNDERSTOOD = {
    "delta.checkpointInterval",
    "delta.deletedFileRetentionDuration",
    "delta.logRetentionDuration",
}


class Log:
    """One table's newest version. Call `follow` before asking; not for two threads at once."""

    version: int
    schema: pa.Schema
    partitions: list[str]
    configuration: dict[str, str]
    files: dict[str, DataFile]
    """Path within the table → file."""
    rows: int
    plain: bool
    """Whether a commit may be written without delta-rs: no constraint and no feature of Delta asks for more."""
    time: str | None
    """The column of event time, when the table says one."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._open()

    def _open(self) -> None:
        self._delta = delta = open_table(self.place)
        told = delta.metadata()
        self.version = int(delta.version())
        self.schema = schema_of(delta)
        self.partitions = list(told.partition_columns)
        self.configuration = dict(told.configuration)
        said = told.description or ""
        self.time = said.removeprefix(TIMED) if said.startswith(TIMED) else None
        self._marks: dict[str, int | None] = {}
        self.files = {file.inside: file for file in files_of(delta, self.place, self.time or "at")}
        self.rows = sum(file.rows for file in self.files.values())
        needs = delta.protocol()
        named = {name for name in self.configuration if name.startswith("delta.")}
        self.plain = (
            needs.min_reader_version <= 1
            and needs.min_writer_version <= 2
            and named <= _UNDERSTOOD
            and "delta.invariants" not in delta.schema().to_json()
        )

    def follow(self) -> None:
        """Read the commits there are since; delta-rs's errors and OSError when the table cannot be read now."""
        newest = self.place.newest(self.version)
        if newest < self.version:
            self._open()  # another table lies there now
        while self.version < newest:
            text = commit_text(self.place, self.version + 1)
            if text is None or not self.take(text):
                self._open()
                return

    def take(self, text: str) -> bool:
        """Take the next commit in; False when delta-rs must look: it changed columns or settings."""
        try:
            lines = list(lines_of(text))
        except ValueError as error:
            raise OSError(f"version {self.version + 1}: {error}") from error
        if any(line.protocol or line.meta_data for line in lines):
            return False
        for line in lines:
            if line.remove:
                self._drop(unquote(line.remove.path))
            if line.txn:
                self._marks[line.txn.app_id] = line.txn.version
        for line in lines:
            if line.add:
                file = file_of(line.add, self.place, self.time or "at")
                self._drop(file.inside)
                self.files[file.inside] = file
                self.rows += file.rows
        self.version += 1
        return True

    def _drop(self, inside: str) -> None:
        gone = self.files.pop(inside, None)
        self.rows -= 0 if gone is None else gone.rows

    def mark(self, app: str) -> int | None:
        """The last transaction of an application; None when it never made one."""
        if app not in self._marks:
            last = self._delta.transaction_version(app)
            self._marks[app] = None if last is None else int(last)
        return self._marks[app]

    def has(self, marks: Mapping[str, int]) -> bool:
        """Whether all of these transactions, one at least, were made before."""
        done = [(self.mark(app), number) for app, number in marks.items()]
        return bool(done) and all(last is not None and last >= number for last, number in done)

    def delta(self) -> DeltaTable:
        """The same version for delta-rs, after `follow`."""
        if int(self._delta.version()) < self.version:
            try:
                self._delta.update_incremental()
            except BROKEN:
                self._delta = open_table(self.place)
        if int(self._delta.version()) != self.version:
            # part of what it would have read was set aside meanwhile, or somebody was faster just now
            self._open()
        return self._delta


def files_of(delta: DeltaTable, place: Place, time: str) -> list[DataFile]:
    """The files of a version that delta-rs opened."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    needed = {"path", "num_records", "modification_time", "size_bytes", f"min.{time}", f"max.{time}"}
    names = [name for name in actions.column_names if name in needed or name.startswith("partition.")]
    return [data_file(action, place, time) for action in actions.select(names).to_pylist()]

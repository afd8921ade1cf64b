"""Consumer groups: who reads the log, and how far each has come, durably.

One small file per group under `groups/`, replaced whole: magic, i64 row number, CRC-32.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from boucle.block import Block, Position
from boucle.bus.log_disk import locked, number_in, number_text, refused, replace_file
from boucle.errors import BoucleError, ContractBroken, PositionLost

__all__ = ["Group", "Log", "committed_rows", "groups_held"]

_FOLDER = "groups"
_MAGIC = b"BCLFGRUP"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class Log(Protocol):
    """What a group asks of its log."""

    folder: Path
    stream: str

    def start(self) -> Position:
        """Before the first row that is kept."""
        ...

    def durable(self) -> Position:
        """After the last durable row."""
        ...

    def read(self, after: Position | None = None, max_rows: int | None = None) -> Iterator[Block]:
        """The durable rows after a Position."""
        ...


class Group:
    """How far one consumer of a log has come. From its first use on, retention keeps its rows.

    Any process may have it; the furthest commit counts. Raises ContractBroken (B316) for a name or a
    Position that cannot be, B311 when its file was changed, PositionLost when its rows are gone.
    """

    def __init__(self, log: Log, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ContractBroken(
                "B316",
                f'"{name}" cannot name a consumer group',
                where=str(log.folder),
                why="the name is that of its file",
                fix="take up to 100 letters, digits, and _ . -",
            )
        self.name = name
        self._log = log
        self._file = log.folder / _FOLDER / name
        with groups_held(log.folder):
            if not self._file.exists():
                self._write(log.start().offset)

    def position(self) -> Position:
        """Before the first row that this group has not committed."""
        committed = _committed(self._file)
        if committed is None:
            raise PositionLost(
                "B312",
                f'the group "{self.name}" has no position',
                where=str(self._log.folder),
                why="it was forgotten",
                fix="ask the log for the group again; it starts at the first row kept",
            )
        return Position(self._log.stream, committed)

    def commit(self, upto: Position) -> None:
        """All rows before `upto` are done with: durable when this returns. An earlier one changes nothing."""
        end = self._log.durable().offset
        if upto.partition != self._log.stream or not 0 <= upto.offset <= end:
            raise ContractBroken(
                "B316",
                f'the group "{self.name}" cannot commit {upto.partition} {upto.offset}',
                where=str(self._log.folder),
                why=f"the durable rows of {self._log.stream} end at {end}",
                fix="commit the position of a Block read from this log",
            )
        with groups_held(self._log.folder):
            if upto.offset > self.position().offset:
                self._write(upto.offset)

    def lag(self) -> int:
        """How many rows were durable and not committed, counting those that compaction removed."""
        return max(0, self._log.durable().offset - self.position().offset)

    def read(self, max_rows: int | None = None) -> Iterator[Block]:
        """The rows after what was committed; PositionLost when retention did not wait for this group."""
        at, first = self.position(), self._log.start()
        if at.offset < first.offset:
            raise PositionLost(
                "B312",
                f'row {at.offset}, where the group "{self.name}" stands, is not in the log',
                where=str(self._log.folder),
                why=f"retention removed the rows before {first.offset}",
                fix=f"commit {first.offset} to go on from there, or keep the log longer (hold_for_groups)",
            )
        return self._log.read(at, max_rows)

    def forget(self) -> None:
        """Remove the group: retention waits for it no longer."""
        with groups_held(self._log.folder):
            self._file.unlink(missing_ok=True)

    def _write(self, row: int) -> None:
        try:
            replace_file(self._file, number_text(_MAGIC, row))
        except OSError as error:
            raise refused(self._log.folder, error) from error


@contextmanager
def groups_held(folder: Path) -> Iterator[None]:
    """No group comes, goes or commits meanwhile, in any process."""
    try:
        (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(folder, error) from error
    with locked(folder / "groups.lock"):
        yield


def committed_rows(folder: Path) -> dict[str, int]:
    """Group → the row before which it is done; B311 when one of the files was changed."""
    files = sorted((folder / _FOLDER).glob("[!.]*"))
    found = ((file.name, _committed(file)) for file in files)
    return {name: row for name, row in found if row is not None}


def _committed(file: Path) -> int | None:
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return None
    row = number_in(_MAGIC, text)
    if row is None:
        raise BoucleError(
            "B311",
            "the position of the group is damaged",
            where=str(file),
            why="its bytes are not what was written",
            fix="remove the file: the group starts again at the first row kept",
        )
    return row

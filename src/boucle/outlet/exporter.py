"""A files port at work: the table's newest version as files in a folder, on a schedule, the old ones removed.

What was done is kept in `state.json` beside the versions, so that a restart goes on with the schedule.
"""

import logging
import shutil
from pathlib import Path

import msgspec
from msgspec import Struct

from boucle.bus.log_disk import replace_file
from boucle.clock import SECOND, Clock, Nanos
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.sql import Sql
from boucle.outlet.export import export
from boucle.outlet.notes import TableNote
from boucle.outlet.ports import check_contract

__all__ = ["Exported", "Exporter", "read_exported"]

_log = logging.getLogger("boucle.outlet.exporter")


class Exported(Struct):
    """What a files port has done."""

    version: int = -1
    """The table's, as it was exported last."""
    rows: int = 0
    times: int = 0
    at: Nanos = 0
    failure: str = ""


def read_exported(folder: Path) -> Exported | None:
    """What the port of a folder has done; None when it never ran, or its file cannot be read."""
    try:
        return msgspec.json.decode((folder / "state.json").read_bytes(), type=Exported)
    except (OSError, msgspec.MsgspecError):
        return None


class Exporter:
    """Exports one table `every` so many seconds when it has something new, and keeps the last `keep` versions."""

    def __init__(
        self, table: LakeTable, lake: Path, folder: Path, clock: Clock, *,
        to: Path | None = None, form: str = "parquet", every: float = 3600.0, keep: int = 7,
        note: TableNote | None = None,
    ) -> None:  # fmt: skip
        self._table, self._lake, self._folder, self._clock = table, lake, folder, clock
        self._to, self._form, self._every, self._keep_last, self._note = to or folder, form, every, keep, note
        folder.mkdir(parents=True, exist_ok=True)
        self.state = read_exported(folder) or Exported()
        self._next: Nanos = self.state.at + int(every * SECOND) if self.state.at else 0

    def step(self) -> bool:
        """Export when it is time and there is something new; whether it did."""
        now, version = self._clock.now(), self._table.version
        if now < self._next or version <= self.state.version or not self._table.rows:
            return False  # an empty table would use up its turn
        self._next = now + int(self._every * SECOND)
        try:
            rows = self._export(version)
        except BoucleError as error:
            if self.state.failure != str(error):
                _log.warning("%s was not exported, tried again later: %s", self._folder.name, error)
            self.state.failure = str(error)
            self._save()
            return False
        self.state = Exported(version, rows, self.state.times + 1, now)
        self._save()
        self._remove_old()
        return True

    def _export(self, version: int) -> int:
        if self._note is not None:
            check_contract(self._table.name, self._table.schema, self._note)
        sql = Sql(self._lake, "512MB")
        try:
            return int(export(sql, self._table, self._to, self._form, version)["rows"])
        finally:
            sql.close()

    def _remove_old(self) -> None:
        place = self._to / self._table.name
        versions = sorted(int(one.name) for one in place.iterdir() if one.name.isdecimal())
        for old in versions[: -self._keep_last]:
            shutil.rmtree(place / str(old), ignore_errors=True)

    def _save(self) -> None:
        replace_file(self._folder / "state.json", msgspec.json.encode(self.state))

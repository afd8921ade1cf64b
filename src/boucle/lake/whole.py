"""A lake as a whole: its tables, wherever it lies, found by name."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from boucle.errors import BoucleError, Unavailable
from boucle.lake.delta import LakeTable
from boucle.lake.place import Bucket, is_bucket

__all__ = ["ZONES", "Lake"]

ZONES = ("raw", "silver", "gold")
"""From what came in to what people decide on; a bare table name means the most refined zone that has it."""


class Lake:
    """The tables below one folder, or below `s3://bucket/prefix?endpoint=…`, at `zone/name`."""

    def __init__(self, where: str | Path) -> None:
        self.where = str(where)

    def path(self, zone: str, name: str) -> str:
        """The address of a table, there or not."""
        head, mark, options = self.where.partition("?")
        return f"{head.rstrip('/')}/{zone}/{name}{mark}{options}"

    def table(self, zone: str, name: str, *, time: str = "at", partition_by: Sequence[str] = ()) -> LakeTable:
        """A table, there or not yet; one that exists knows its own time and partitions."""
        return LakeTable(self.path(zone, name), time=time, partition_by=partition_by)

    def tables(self) -> list[LakeTable]:
        """Every table, raw zone first, then by name."""
        return [self.table(zone, name) for zone in ZONES for name in self._names(zone)]

    def _names(self, zone: str) -> list[str]:
        if not is_bucket(self.where):
            return sorted(log.parent.name for log in Path(self.where, zone).glob("*/_delta_log"))
        try:
            return Bucket(self.path(zone, "")).folders()
        except OSError as error:
            raise Unavailable(
                "B541",
                "the lake's bucket cannot be listed now",
                where=self.where.partition("?")[0],
                why=str(error),
                fix="check the address, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that the server answers",
            ) from error

    def find(self, text: str) -> LakeTable:
        """The table meant by `readings` or `raw.readings`, the most refined zone first; B528 names the likely one."""
        zone, _, name = text.rpartition(".")
        known = [(one, table) for one in reversed(ZONES) for table in self._names(one)]
        for one, table in known:
            if table == name and zone in {"", one}:
                return self.table(one, name)
        words = [f"{one}.{table}" for one, table in known]
        near = difflib.get_close_matches(text, [*words, *(table for _, table in known)], n=1)
        hint = f'Did you mean "{near[0]}"? ' if near else ""
        raise BoucleError(
            "B528",
            f'there is no table "{text}"',
            where=self.where,
            fix=f"{hint}Known: {', '.join(sorted(words)) or 'none yet, run the loop first'}",
        )

"""The lake: tables with history and transactions, their writer beside the path, and SQL over them.

A table is a Delta Lake folder at `<lake>/<zone>/<table>`, zone being raw, silver or gold, so any
tool that reads Delta reads it. Nothing here is imported until it is used.
"""

from typing import TYPE_CHECKING

from boucle.lazily import lazily

if TYPE_CHECKING:
    from boucle.lake.delta import LakeTable
    from boucle.lake.memory import MemoryTable
    from boucle.lake.sql import Sql
    from boucle.lake.writer import Behind, Feed, LakeWriter, LogReader

__all__ = ["Behind", "Feed", "LakeTable", "LakeWriter", "LogReader", "MemoryTable", "Sql"]

_HOMES = {
    "Behind": "writer",
    "Feed": "writer",
    "LakeTable": "delta",
    "LakeWriter": "writer",
    "LogReader": "writer",
    "MemoryTable": "memory",
    "Sql": "sql",
}


__getattr__ = lazily(__name__, _HOMES)

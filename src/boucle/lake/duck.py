"""DuckDB for our own work on rows (joins, differences, transformations): in memory, without network or extensions.

Questions of users go through `boucle.lake.sql`, which is confined to one lake.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from boucle.lake.quoting import literal, name

__all__ = ["DuckError", "connection", "literal", "name"]

DuckError = duckdb.Error
_BOUNDS = ("TimeZone = 'UTC'", "python_enable_replacements = false", "autoinstall_known_extensions = false")


@contextmanager
def connection(memory: str = "1GB", spill: Path | None = None, threads: int = 0) -> Iterator[Any]:
    """A fresh database that holds at most `memory`; what does not fit goes to `spill`, when there is one."""
    opened = duckdb.connect(":memory:")
    try:
        for setting in _BOUNDS:
            opened.execute(f"SET {setting}")
        opened.execute(f"SET memory_limit = {literal(memory)}")
        opened.execute(f"SET temp_directory = {literal(str(spill) if spill else '')}")
        if threads:
            opened.execute(f"SET threads = {threads}")
        yield opened
    finally:
        opened.close()

"""Data opened to be looked at: a table of DuckDB's that is read again for each question, never held in memory."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from msgspec import Struct

from boucle.errors import BoucleError

__all__ = ["Broken", "Opened", "connect", "name_of", "quoted", "spilled", "text"]

_MEMORY = "600MB"


class Broken(Struct, frozen=True):
    """A line that could not be read."""

    line: int
    """In the file, from 1, as an editor counts."""
    why: str
    content: bytes


class Opened(Struct):
    """A table called `data`, and what is known about it before it is looked at."""

    connection: Any
    name: str
    untyped: bool
    """Whether every column is text whose type must be guessed."""
    loose: bool = False
    """Whether columns of text may hold moments, as in JSON."""
    notes: list[str] = []
    """What was passed over or repaired on the way, for people."""
    broken: list[Broken] = []
    broken_lines: int = 0
    """All of them; `broken` holds the first ones."""
    keys: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    """What a database says of its own table."""
    address: str = ""
    after: Callable[[], None] | None = None
    """Asked once all rows have been read: what could not be."""


def connect(folder: Path) -> Any:
    """A DuckDB that spills into `folder` before it takes more than its share of memory."""
    connection = duckdb.connect(":memory:")
    for setting, value in (("memory_limit", _MEMORY), ("temp_directory", str(folder)), ("TimeZone", "UTC")):
        connection.execute(f"set {setting} = {text(value)}")
    connection.execute("set preserve_insertion_order = true")
    connection.execute("set autoinstall_known_extensions = false")
    return connection


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"


def name_of(path: Path) -> str:
    """What a table out of this file is called."""
    return path.name.partition(".")[0] or "table"


def spilled(batches: Iterator[pa.RecordBatch], schema: pa.Schema, folder: Path) -> Path:
    """The batches in a Parquet file, so that they can be read as often as there are questions."""
    import pyarrow.parquet as pq

    with tempfile.NamedTemporaryFile(dir=folder, suffix=".parquet", delete=False) as file:
        path = Path(file.name)
    try:
        with pq.ParquetWriter(path, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise BoucleError(
            "B249", "the rows do not fit together", why=str(error), fix="look at the column named"
        ) from None
    return path

"""A small lake behind each interface, for the tests of the room."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa

from boucle.block import Block, Position
from boucle.lake.delta import LakeTable
from boucle.lake.sql import Sql
from boucle.outlet.endpoint import SqlEndpoint
from boucle.outlet.notes import ColumnNote, TableNote
from boucle.testing.conformance.table import readings

ABOUT = {
    "features": TableNote(
        "One row per machine and second.",
        ("machine", "at"),
        {
            "machine": ColumnNote("string", "", "which press", True),
            "at": ColumnNote("timestamp", "", "when", True),
            "value": ColumnNote("number", "", "how much it shakes", False, "mm/s"),
        },
    )
}


def make_lake(folder: Path) -> Path:
    """raw.vibration with 6 rows, silver.features with 4."""
    LakeTable(folder / "raw" / "vibration").append(readings(0, 6))
    LakeTable(folder / "silver" / "features").append(readings(0, 4, zone=["A", "A", "B", "B"]))
    return folder


def numbered(count: int) -> Block:
    """Rows that tell their number, with ties, nulls and a list."""
    rows = pa.record_batch(
        {
            "machine": pa.array([f"press-{row % 3}" for row in range(count)]),
            "sensor": pa.array(["vib_x"] * count),
            "at": pa.array(
                [1_767_225_600_000_000_000 + row // 2 * 1_000_000_000 for row in range(count)],
                pa.timestamp("ns", "UTC"),
            ),
            "number": pa.array(range(count), pa.int64()),
            "share": pa.array([None if row % 5 == 0 else row / 7 for row in range(count)], pa.float64()),
        }
    )
    return Block("numbered", rows, 0, Position("numbered", count))


@contextmanager
def endpoint(folder: Path, memory: str = "1GB", **how: Any) -> Iterator[SqlEndpoint]:
    """A SQL endpoint on a free port."""
    sql = Sql(folder, memory, postgres=True)
    try:
        with SqlEndpoint(sql, port=0, about=ABOUT, **how) as running:
            yield running
    finally:
        sql.close()


def connected(to: SqlEndpoint, **how: Any) -> "psycopg.Connection[Any]":
    """psycopg, as user ana."""
    told = {
        "host": "127.0.0.1",
        "port": to.port,
        "user": "ana",
        "dbname": "boucle",
        "autocommit": True,
        **how,
    }
    return psycopg.connect(**told)

"""Payments for the shop of these tests, and the shop itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from boucle.block import Block, Position, as_rows
from boucle.clock import SECOND
from boucle.lake.delta import LakeTable
from boucle.lake.duck import connection
from boucle.lake.whole import Lake
from boucle.product.project import Project, load_project
from boucle.refine.inputs import show

SHOP = Path(__file__).parent / "shop"
START = 1_767_225_600_000_000_000
DAY = 86_400 * SECOND

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("at", pa.timestamp("ns", tz="UTC")),
        pa.field("card", pa.string()),
        pa.field("amount", pa.float64()),
    ]
)


def payments(*rows: tuple[int, int, str, float]) -> Block:
    """Rows of (id, day, card, amount)."""
    values = [
        {"id": number, "at": START + day * DAY + number * SECOND + 7, "card": card, "amount": amount}
        for number, day, card, amount in rows
    ]
    return Block("payments", as_rows(values, SCHEMA), 0, Position("payments", len(rows)))


def shop(folder: Path = SHOP) -> Project:
    return load_project(folder)


def arrived(lake: Lake, *rows: tuple[int, int, str, float]) -> int:
    """Append payments to the raw table."""
    return LakeTable(lake.path("raw", "payments"), partition_by=("day",)).append(payments(*rows))


def ask(
    lake: Lake, table: str, columns: Sequence[str], *, group: Sequence[str] = ()
) -> list[tuple[Any, ...]]:
    """Some columns of a table, in order."""
    found = lake.find(table)
    grouped = f"GROUP BY {', '.join(group)}" if group else ""
    with connection() as duck:
        show(duck, found, found.version, "it")
        text = f"SELECT {', '.join(columns)} FROM it {grouped} ORDER BY ALL"
        answer: list[tuple[Any, ...]] = duck.execute(text).fetchall()
    return answer

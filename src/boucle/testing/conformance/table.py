"""What every Table must do; run it on yours: `for check in TABLE_CHECKS: check(open_table)`.

`open_table(name)` returns the table of that name, which outlives the object for a durable adapter
and is empty the first time a name is asked for.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.errors import BoucleError
from boucle.ports import Table

__all__ = ["START", "TABLE_CHECKS", "OpenTable", "readings", "rows_of"]

OpenTable: TypeAlias = Callable[[str], Table]

START = 1_767_225_599_123_456_789
"""Half a second before 2026 ends its first day: rows one second apart cross midnight, UTC."""

READINGS = pa.schema(
    [
        pa.field("machine", pa.string(), nullable=False),
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("samples", pa.list_(pa.float32())),
    ]
)


def readings(first: int, count: int, **columns: Sequence[Any]) -> Block:
    """`count` readings of two machines, one second and one nanosecond apart, from the `first` on."""
    numbers = range(first, first + count)
    rows: dict[str, Any] = {
        "machine": [f"press-{1 + number % 2}" for number in numbers],
        "sensor": ["vib_x"] * count,
        "at": [START + number * (SECOND + 1) for number in numbers],
        "value": [float(number) for number in numbers],
        "samples": [[number + 0.5] * 3 for number in numbers],
    }
    batch = pa.RecordBatch.from_pydict(rows, schema=READINGS)
    for name, values in columns.items():
        batch = batch.append_column(name, pa.array(values))
    return Block("readings", batch, 0, Position("readings", first + count))


def rows_of(table: Table, **limits: int) -> list[dict[str, Any]]:
    """Every row of a scan; times as whole nanoseconds, so that nothing is rounded away."""
    rows: list[dict[str, Any]] = []
    for block in table.scan(**limits):
        batch = block.rows.set_column(
            block.rows.schema.get_field_index("at"), "at", block.rows.column("at").cast(pa.int64())
        )
        rows += batch.to_pylist()
    return rows


def refusal_of(attempt: Callable[[], object]) -> str:
    """The code of the BoucleError that `attempt` raises; empty when it raises none."""
    try:
        attempt()
    except BoucleError as error:
        return error.code
    return ""


def gives_back_every_row(open_table: OpenTable) -> None:
    """Rows come back to the nanosecond, waveforms to the sample."""
    table = open_table("exact")
    table.append(readings(0, 4))
    assert rows_of(table) == [
        {
            "machine": f"press-{1 + number % 2}",
            "sensor": "vib_x",
            "at": START + number * (SECOND + 1),
            "value": float(number),
            "samples": [number + 0.5] * 3,
        }
        for number in range(4)
    ]


def scans_in_order_of_time(open_table: OpenTable) -> None:
    """Whatever the order of the appends, a scan is in order of time and its watermarks hold."""
    table = open_table("order")
    for first in (20, 0, 30, 10):
        table.append(readings(first, 10))
    assert [row["value"] for row in rows_of(table)] == [float(number) for number in range(40)]
    blocks = list(table.scan())
    watermarks = [block.watermark for block in blocks]
    assert watermarks == sorted(watermarks)
    assert [block.position.offset for block in blocks] == sorted(block.position.offset for block in blocks)
    assert blocks[-1].position.offset == 40


def limits_are_half_open(open_table: OpenTable) -> None:
    """`since` is in, `until` is out, to the nanosecond."""
    table = open_table("limits")
    table.append(readings(0, 10))
    third, sixth = START + 3 * (SECOND + 1), START + 6 * (SECOND + 1)
    assert [row["value"] for row in rows_of(table, since=third, until=sixth)] == [3.0, 4.0, 5.0]
    assert [row["value"] for row in rows_of(table, since=third + 1, until=sixth + 1)] == [4.0, 5.0, 6.0]
    assert rows_of(table, since=START + 11 * (SECOND + 1)) == []


def versions_stay_readable(open_table: OpenTable) -> None:
    """Each append makes a later version; an earlier one still shows what it showed."""
    table = open_table("versions")
    first = table.append(readings(0, 3))
    second = table.append(readings(3, 3))
    assert second > first
    assert len(rows_of(table, version=first)) == 3
    assert len(rows_of(table, version=second)) == 6
    assert len(rows_of(table)) == 6


def a_transaction_counts_once(open_table: OpenTable) -> None:
    """The same (app, transaction), or an older one, adds nothing; another app's adds its rows."""
    table = open_table("once")
    version = table.append(readings(0, 3), app="writer", transaction=3)
    assert table.append(readings(0, 3), app="writer", transaction=3) == version
    assert table.append(readings(0, 2), app="writer", transaction=2) == version
    assert len(rows_of(table)) == 3
    table.append(readings(3, 1), app="writer", transaction=4)
    table.append(readings(4, 1), app="other", transaction=1)
    assert [row["value"] for row in rows_of(table)] == [0.0, 1.0, 2.0, 3.0, 4.0]


def a_transaction_outlives_the_object(open_table: OpenTable) -> None:
    """Opened again, the table still knows what was committed to it."""
    open_table("reopened").append(readings(0, 3), app="writer", transaction=3)
    open_table("reopened").append(readings(0, 3), app="writer", transaction=3)
    assert len(rows_of(open_table("reopened"))) == 3


def columns_are_added(open_table: OpenTable) -> None:
    """A new column is null in older rows, and a missing one null in newer rows."""
    table = open_table("wider")
    table.append(readings(0, 1))
    table.append(readings(1, 1, zone=["A"]))
    table.append(readings(2, 1))
    assert [row["zone"] for row in rows_of(table)] == [None, "A", None]


def a_changed_type_is_refused(open_table: OpenTable) -> None:
    """Text in a column of numbers raises B502, and the table is as it was."""
    table = open_table("typed")
    table.append(readings(0, 1, extra=[1]))
    assert refusal_of(lambda: table.append(readings(1, 1, extra=["5"]))) == "B502"
    assert len(rows_of(table)) == 1


def nothing_is_not_an_error(open_table: OpenTable) -> None:
    """A table nobody wrote to has no rows, and an append of no rows adds none."""
    table = open_table("empty")
    assert rows_of(table) == []
    table.append(readings(0, 1))
    table.append(readings(1, 0))
    assert len(rows_of(table)) == 1


def is_a_table(open_table: OpenTable) -> None:
    """It has the methods of the port."""
    assert isinstance(open_table("port"), Table)


TABLE_CHECKS: tuple[Callable[[OpenTable], None], ...] = (
    is_a_table,
    nothing_is_not_an_error,
    gives_back_every_row,
    scans_in_order_of_time,
    limits_are_half_open,
    versions_stay_readable,
    a_transaction_counts_once,
    a_transaction_outlives_the_object,
    columns_are_added,
    a_changed_type_is_refused,
)

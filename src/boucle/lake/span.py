"""Rows that come after the fact: a span of event time replaced as a whole, and late rows brought home.

Both are one commit each, so a reader sees the table before or after, and both may be repeated: a backfill gives the
same rows again, late rows are known by their transaction and their key.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from boucle.block import Block, Position
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.lake.datafile import DataFile, overlaps, read
from boucle.lake.delta import LakeTable
from boucle.lake.history import changes

__all__ = ["backfill", "from_file", "merge_late"]

_TRIES = 5


def backfill(
    table: LakeTable, blocks: Iterable[Block], since: Nanos, until: Nanos, because: str = ""
) -> tuple[int, int]:
    """Replace the rows with `since` ≤ time < `until` by those of `blocks`; (rows taken away, rows added).

    One commit: whoever reads sees all of the old rows or all of the new ones. B526 for a new row outside the span.
    """
    new = [block.rows for block in blocks if len(block)]
    for batch in new:
        _check_within(table, batch, since, until)
    added = sum(batch.num_rows for batch in new)
    why = {"did": "backfill", "since": since, "until": until, "rows": added, "why": because}
    for attempt in range(_TRIES):
        reached = [file for file in table.files() if overlaps(file, since, until)]
        stay = list(_outside(table, reached, since, until))
        taken = sum(file.rows for file in reached) - sum(batch.num_rows for batch in stay)
        try:
            table.put([*stay, *new], reached, because=why)
        except BoucleError as error:
            if error.code != "B521" or attempt == _TRIES - 1:
                raise
            continue
        return taken, added
    raise AssertionError("the last attempt returns or raises")


def _check_within(table: LakeTable, batch: pa.RecordBatch, since: Nanos, until: Nanos) -> None:
    if table.time not in batch.schema.names:
        raise BoucleError(
            "B526",
            f'rows without "{table.time}" cannot fill a span of time',
            fix=f'give each row its event time in a column "{table.time}"',
        )
    at = batch.column(table.time).cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
    ends = pc.min_max(at).as_py()
    if at.null_count or ends["min"] < since or ends["max"] >= until:
        raise BoucleError(
            "B526",
            f"rows from {ends['min']} to {ends['max']} ns do not all lie in the span [{since}, {until})",
            why="they would be there twice after the next backfill of their own time",
            fix="cut the input to the span, or widen --since and --until",
        )


def _outside(
    table: LakeTable, files: Sequence[DataFile], since: Nanos, until: Nanos
) -> Iterator[pa.RecordBatch]:
    """The rows of these files that the span does not touch, in flight."""
    schema = table.schema
    for file in files:
        rows = table.in_flight(read(file, schema, table.place))
        at = rows.column(table.time).cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
        rows = rows.filter(pc.or_(pc.less(at, since), pc.greater_equal(at, until)))
        yield from rows.combine_chunks().to_batches()


def from_file(file: Path, table: LakeTable, since: Nanos, until: Nanos) -> Iterator[Block]:
    """The rows of a Parquet file with `since` ≤ time < `until`, typed as the table's; B529 when it cannot be read."""
    try:
        reader = pq.ParquetFile(file)
        known = table.in_flight(table.schema.empty_table()).schema
        for batch in reader.iter_batches(100_000):
            if table.time not in batch.schema.names:
                raise pa.ArrowInvalid(f'there is no column "{table.time}"')
            kinds = [
                known.field(field.name) if field.name in known.names else field for field in batch.schema
            ]
            rows = pa.Table.from_batches([batch]).cast(pa.schema(kinds))
            at = rows.column(table.time).cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
            rows = rows.filter(pc.and_(pc.greater_equal(at, since), pc.less(at, until)))
            for one in rows.combine_chunks().to_batches():
                yield Block(table.name, one, 0, Position(table.name, 0))
    except (OSError, pa.ArrowException) as error:
        raise BoucleError(
            "B529",
            f'{file} cannot fill table "{table.name}"',
            why=" ".join(str(error).split())[:300],
            fix="give a Parquet file with the table's columns",
        ) from error


def merge_late(table: LakeTable, late: LakeTable, key: Sequence[str]) -> int:
    """Bring the rows of `late` that are new since the last time into `table`; returns how many it lacked.

    A row whose key the table has already is left out: it came twice. What was merged is a transaction of the table,
    so a row is merged once whatever is killed. B527 when a column of `key` is missing.
    """
    app = f"late/{late.name}"
    upto = late.version
    done = table.transaction(app)
    if upto < 0 or (done is not None and done >= upto):
        return 0
    found = [change.inserted for change in changes(late, -1 if done is None else done, upto)]
    rows = pa.concat_tables([late.schema_at(upto).empty_table(), *found], promote_options="default")
    new = _lacking(table, late.in_flight(rows), key)
    table.put(
        new.combine_chunks().to_batches() if len(new) else [],
        marks={app: upto},
        after={app: done or 0},
        because={"did": "merge late rows", "from": late.name, "upto": upto, "rows": len(new)},
    )
    return len(new)


def _lacking(table: LakeTable, rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """The rows whose key neither the table has nor an earlier one of them."""
    if missing := [name for name in key if name not in rows.column_names]:
        raise BoucleError(
            "B527",
            f'late rows of table "{table.name}" cannot be told apart: they have no column {", ".join(missing)}',
            fix="name the columns that identify a reading: `key` of the table, or `dedupe` of the source",
        )
    if not len(rows):
        return rows
    from boucle.lake.duck import connection, name

    at = pc.min_max(rows.column(table.time).cast(pa.int64())).as_py()
    known = [
        block.rows.select(list(key))
        for block in table.scan(since=at["min"], until=at["max"] + 1)
        if len(block)
    ]
    marked = rows.append_column("#", pa.array(range(len(rows)), pa.int64()))
    columns = ", ".join(f"late.{name(one)}" for one in key)
    same = " AND ".join(f"late.{name(one)} IS NOT DISTINCT FROM known.{name(one)}" for one in key)
    with connection() as duck:
        duck.register("late", _whole(marked.select([*key, "#"])))
        duck.register(
            "known", _whole(pa.Table.from_batches(known) if known else rows.select(list(key)).slice(0, 0))
        )
        keep = duck.sql(
            f'SELECT min("#") AS "#" FROM late ANTI JOIN known ON {same} GROUP BY {columns} ORDER BY 1'  # noqa: S608 - quoted names
        ).to_arrow_table()
    return rows.take(keep.column("#"))


def _whole(rows: pa.Table) -> pa.Table:
    """Times as whole numbers: DuckDB keeps microseconds of a time with a zone."""
    return pa.table(
        {
            name: rows.column(name).cast(pa.int64())
            if pa.types.is_timestamp(rows.schema.field(name).type)
            else rows.column(name)
            for name in rows.column_names
        }
    )

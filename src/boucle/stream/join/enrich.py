"""Rows with what is known of their key: from a table, or from a slowly changing stream."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from msgspec import msgpack

from boucle.block import Block
from boucle.errors import BoucleError
from boucle.ports import From, Traced
from boucle.stream.join.as_of import AsOfJoin
from boucle.stream.join.sides import By, encoded, pairs_of
from boucle.stream.origin import ANY, Inputs, carried, made_of, one_of
from boucle.stream.rows import require
from boucle.stream.sequence import state_of

__all__ = ["Enrich"]


class Enrich:
    """Left rows with what is known of their key: from a table, or from a second stream, the last value.

    `table` is rows (list of mappings, RecordBatch, Table) or a .csv or .parquet file, relative to the product's
    folder; every key stands there once. With `right` the last row of that stream at or before is taken, at
    most `ttl` old: an AsOfJoin. A row whose key is not known has nulls, and is counted in `unknown`.
    """

    def __init__(
        self,
        stream: str,
        *,
        by: By,
        table: Any = None,
        left: str = "",
        right: str = "",
        ttl: str | float | None = None,
        time: str = "at",
        idle: str | float | None = None,
        folder: str | Path = ".",
    ) -> None:
        if (table is None) == (not right) or (right and not left):
            fix = "give table: file.csv, or left and right: two streams"
            raise BoucleError("B220", f"{stream}: one thing to enrich with is wanted", fix=fix)
        self._stream = stream
        self.unknown = 0
        self._pairs = pairs_of(stream, by)
        self._join: AsOfJoin | None = None
        if right:
            self._join = AsOfJoin(stream, left=left, right=right, by=by, tolerance=ttl, time=time, idle=idle)
            return
        self._table = _read_table(stream, table, Path(folder), list(self._pairs.values()))
        require(stream, list(self._pairs.values()), self._table.schema)
        self._places: dict[bytes, int] | None = None

    @classmethod
    def trace(
        cls, inputs: Inputs, *, by: By, table: Any = None, folder: str | Path = ".", **declared: Any
    ) -> Traced:
        """The left columns, and those that the table or the right stream has beside the key."""
        if table is None:
            return AsOfJoin.trace(inputs, by=by, **declared)
        pairs, stream = pairs_of("", by), one_of(inputs)
        told = f"looked up in {table}" if isinstance(table, str | Path) else "looked up"
        names = _read_table(stream, table, Path(folder), list(pairs.values())).schema.names
        source = str(table) if isinstance(table, str | Path) else "table"
        there = inputs.get(stream, (ANY,))
        more = {
            f"{name}_right" if name in there else name: (From(source, name, "IDENTITY", told),)
            for name in names
            if name not in pairs.values()
        }
        keys = (*made_of(stream, pairs, "JOIN", told), *made_of(source, pairs.values(), "JOIN", told))
        return Traced(carried(inputs) | {name: (*made, *keys) for name, made in more.items()})

    @property
    def late_rows(self) -> int:
        """Rows that came after their turn; a table waits for nothing."""
        return self._join.late_rows if self._join else 0

    def step(self, block: Block) -> Sequence[Block]:
        """The rows with the other columns of their key."""
        if self._join:
            told = self._join.step(block)
            # A late left row has no `right_at`: nobody looked for its partner.
            made = (out.rows for out in told if out.stream == self._stream)
            self.unknown += sum(rows.column("right_at").null_count for rows in made)
            return told
        require(self._stream, list(self._pairs), block.rows.schema)
        if self._places is None:
            self._places = self._index(block.rows.schema)
        keys = encoded(block.rows, list(self._pairs))
        places = [None if key is None else self._places.get(key) for key in keys]
        self.unknown += places.count(None)
        more = [name for name in self._table.schema.names if name not in self._pairs.values()]
        taken = self._table.select(more).take(pa.array(places, pa.int64()))
        there = block.rows.schema.names
        names = [*there, *(f"{name}_right" if name in there else name for name in more)]
        rows = pa.record_batch([*block.rows.columns, *taken.columns], names)
        return (Block(self._stream, rows, block.watermark, block.position),)

    def _index(self, schema: pa.Schema) -> dict[bytes, int]:
        table = self._table
        for one, two in self._pairs.items():
            index, kind = table.schema.get_field_index(two), schema.field(one).type
            try:
                table = table.set_column(index, two, table.column(two).cast(kind))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                what = f"{self._stream}: {two} of the table is no {kind} as {one} is"
                raise BoucleError("B221", what, why=str(error), fix="bring the table in line") from error
        places: dict[bytes, int] = {}
        for place, key in enumerate(encoded(table, list(self._pairs.values()))):
            if key is not None and places.setdefault(key, place) != place:
                what = f"{self._stream}: {msgpack.decode(key)} stands in the table twice"
                raise BoucleError("B221", what, fix="leave one row for each key")
        return places

    def snapshot(self) -> bytes:
        """The count; the table itself is read again."""
        return msgpack.encode((1, self.unknown, self._join.snapshot() if self._join else b""))

    def restore(self, state: bytes) -> None:
        """Continue; B602 when another version wrote it."""
        _, self.unknown, join = state_of(tuple[int, int, bytes], state, 1, self._stream)
        if self._join:
            self._join.restore(join)


def _read_table(stream: str, table: Any, folder: Path, keys: Sequence[str]) -> pa.RecordBatch:
    try:
        if isinstance(table, str | Path):
            file = folder / table
            if file.suffix == ".csv":
                # Keys stay as they are written, 007 too, until the stream's type is known.
                options = pa.csv.ConvertOptions(column_types={key: pa.string() for key in keys})
                table = pa.csv.read_csv(file, convert_options=options)
            elif file.suffix == ".parquet":
                table = pa.parquet.read_table(file)
            else:
                fix = "give a .csv or .parquet file"
                raise BoucleError("B220", f"{stream}: {table} is no table", fix=fix)
        elif isinstance(table, Sequence):
            table = pa.Table.from_pylist([dict(row) for row in table])
        whole = pa.table(table).combine_chunks()
        batches = whole.to_batches()
    except (OSError, pa.ArrowInvalid, TypeError, ValueError) as error:
        raise BoucleError(
            "B220", f"{stream}: the table cannot be read", why=str(error), fix="see table:"
        ) from error
    return pa.concat_batches(batches) if batches else pa.RecordBatch.from_pylist([], whole.schema)

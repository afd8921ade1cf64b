"""Steps that look at rows one by one: Map, Filter, Select, FlatMap; and Union, several inputs as one stream.

They hold no rows back and compute nothing across rows, so any cut of the stream into Blocks gives the same
rows. A Block that loses all its rows is passed on empty: its watermark is what later steps wait for.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import msgpack

from boucle.block import Block, Position, as_dicts, as_rows
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.ports import From, Traced
from boucle.product.duration import seconds
from boucle.stream.expression import Expression, Typed, column_of
from boucle.stream.origin import Inputs, carried, computed, filtered, one_of, opaque
from boucle.stream.sequence import Ready, state_of

__all__ = ["Filter", "FlatMap", "Map", "Select", "Union", "late_blocks"]

_VERSION = 1
Computed = str | Expression | Callable[[pa.RecordBatch], pa.Array]


def late_blocks(stream: str, ready: Ready, position: Position) -> list[Block]:
    """Rows that came after their turn, as Blocks of `<stream>/late`; they carry `late_by_ns`."""
    return [Block(f"{stream}/late", rows, ready.watermark, position) for rows in ready.late]


class _Column:
    """An expression bound to the rows it last saw, or a function of them."""

    def __init__(self, computed: Computed) -> None:
        self._expression = Expression(computed) if isinstance(computed, str) else computed
        self._schema: pa.Schema | None = None
        self._typed: Typed | None = None

    def of(self, rows: pa.RecordBatch) -> pa.Array:
        if not isinstance(self._expression, Expression):
            return self._expression(rows)
        if self._typed is None or (self._schema is not rows.schema and self._schema != rows.schema):
            self._schema, self._typed = rows.schema, self._expression.bind(rows.schema)
        return column_of(self._typed, rows)


class _Stateless:
    """A step that remembers nothing."""

    def __init__(self, stream: str) -> None:
        self._stream = stream

    def step(self, block: Block) -> Sequence[Block]:
        """One Block for each, with the same watermark and position."""
        return (Block(self._stream, self.rows(block.rows), block.watermark, block.position),)

    def rows(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """What becomes of the rows."""
        raise NotImplementedError

    def snapshot(self) -> bytes:
        """Nothing to remember."""
        return msgpack.encode((_VERSION,))

    def restore(self, state: bytes) -> None:
        """Nothing to continue; B602 when another version wrote it."""
        state_of(tuple[int], state, _VERSION, self._stream)


class Map(_Stateless):
    """Adds or replaces columns: `{kelvin: temperature + 273.15}`, or functions of the RecordBatch.

    All of them see the rows as they came in. B220 for an expression that cannot be read, B221 for a column
    that is not there.
    """

    def __init__(self, stream: str, *, columns: Mapping[str, Computed]) -> None:
        super().__init__(stream)
        if not columns:
            raise BoucleError("B220", f"{stream}: no columns", fix="give columns: {name: expression}")
        self._columns = {name: _Column(computed) for name, computed in columns.items()}

    @classmethod
    def trace(cls, inputs: Inputs, *, columns: Mapping[str, Computed]) -> Traced:
        """Columns as they are, and what each expression reads."""
        return Traced(carried(inputs) | {name: computed(told, inputs) for name, told in columns.items()})

    def rows(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the computed columns; new ones stand last."""
        columns = dict(zip(rows.schema.names, rows.columns, strict=True))
        columns |= {name: computed.of(rows) for name, computed in self._columns.items()}
        return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


class Filter(_Stateless):
    """Keeps the rows for which `where` is true; unknown (null) is not true."""

    def __init__(self, stream: str, *, where: Computed) -> None:
        super().__init__(stream)
        self._where = _Column(where)

    @classmethod
    def trace(cls, inputs: Inputs, *, where: Computed) -> Traced:
        """Columns as they are; which rows there are, the condition decides."""
        return Traced(carried(inputs), filtered(where, inputs))

    def rows(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that hold."""
        mask = self._where.of(rows)
        if not pa.types.is_boolean(mask.type):
            raise BoucleError("B221", f"{self._stream}: where gives {mask.type}", fix="give a condition")
        if pc.all(mask, skip_nulls=False).as_py():
            return rows
        return rows.filter(mask)


class Select(_Stateless):
    """Picks columns, in that order: `[machine, at]`, or under new names: `{machine: asset, at: at}`."""

    def __init__(self, stream: str, *, columns: Sequence[str] | Mapping[str, str]) -> None:
        super().__init__(stream)
        named = columns if isinstance(columns, Mapping) else {name: name for name in columns}
        if not named or isinstance(columns, str):
            raise BoucleError("B220", f"{stream}: no columns", fix="give columns: [name, …] or {new: old}")
        self._columns = dict(named)

    @classmethod
    def trace(cls, inputs: Inputs, *, columns: Sequence[str] | Mapping[str, str]) -> Traced:
        """Each column from the one it was, under its new name."""
        named = columns if isinstance(columns, Mapping) else {name: name for name in columns}
        return Traced({new: (From(one_of(inputs), old),) for new, old in named.items()})

    def rows(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with these columns only."""
        names = list(self._columns.values())
        require(self._stream, names, rows.schema)
        return rows.select(names).rename_columns(list(self._columns))


class FlatMap(_Stateless):
    """Several rows, or none, for each row.

    Either `explode: column`, one row for each item of a list column (an empty or null list gives none), or
    in Python a `function` from a row (dict, times in ns) to rows, with the `schema` of what it gives.
    """

    def __init__(
        self,
        stream: str,
        *,
        explode: str | None = None,
        function: Callable[[dict[str, Any]], Sequence[Mapping[str, Any]]] | None = None,
        schema: pa.Schema | None = None,
    ) -> None:
        super().__init__(stream)
        if (explode is None) == (function is None) or (function is None) != (schema is None):
            fix = "give explode: a list column; or, in Python, function and schema"
            raise BoucleError("B220", f"{stream}: one way of making rows is wanted", fix=fix)
        self._explode, self._function, self._schema = explode, function, schema

    @classmethod
    def trace(cls, inputs: Inputs, *, explode: str | None = None, **declared: Any) -> Traced:
        """Columns as they are, the list's one item at a time; a function may use all of them."""
        if explode is None:
            schema = declared.get("schema")
            return opaque(inputs, "a function of Python", schema.names if schema is not None else ("*",))
        items = From(one_of(inputs), explode, "TRANSFORMATION", f"each item of {explode}")
        return Traced(carried(inputs) | {explode: (items,)})

    def rows(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that the rows gave, in order."""
        if self._explode is None:
            assert self._function is not None
            made = [dict(out) for row in as_dicts(rows) for out in self._function(row)]
            return as_rows(made, self._schema)
        require(self._stream, [self._explode], rows.schema)
        lists = rows.column(self._explode)
        if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)):
            raise BoucleError("B221", f"{self._explode} is {lists.type}", fix="explode wants a list column")
        index = rows.schema.get_field_index(self._explode)
        taken = rows.take(pc.list_parent_indices(lists))
        return taken.set_column(index, self._explode, pc.list_flatten(lists))


class Union:
    """Several inputs of the same columns as one stream; its watermark is the least of theirs.

    With `idle` an input that far behind the leading one no longer holds the watermark back. B221 when an input
    has other columns than the first; they are put in its order.
    """

    def __init__(self, stream: str, *, inputs: Sequence[str], idle: str | float | None = None) -> None:
        if len(set(inputs)) < 1 or isinstance(inputs, str):
            raise BoucleError("B220", f"{stream}: no inputs", fix="give inputs: [stream, …]")
        self._stream = stream
        self._idle = 2**63 if idle is None else int(seconds(idle) * SECOND)
        self._marks: dict[str, Nanos] = dict.fromkeys(inputs, 0)
        self._watermark: Nanos = 0
        self._columns: list[tuple[str, str]] = []

    @classmethod
    def trace(cls, inputs: Inputs, **declared: Any) -> Traced:
        """Each column from all inputs."""
        del declared
        return Traced(carried(inputs))

    def step(self, block: Block) -> Sequence[Block]:
        """The rows as they are, under the least watermark."""
        if block.stream not in self._marks:
            fix = f"this step reads {', '.join(self._marks)}"
            raise BoucleError("B221", f"{block.stream} is no input of {self._stream}", fix=fix)
        columns = [(field.name, str(field.type)) for field in block.rows.schema]
        self._columns = self._columns or columns
        rows = block.rows
        if columns != self._columns:
            if sorted(columns) != sorted(self._columns):
                other = sorted({name for name, _ in set(columns) ^ set(self._columns)})
                what = f"{block.stream} has other columns than the inputs of {self._stream} before it"
                fix = "bring them in line with Select or Map"
                raise BoucleError("B221", what, why=f"they differ in {', '.join(other)}", fix=fix)
            rows = rows.select([name for name, _ in self._columns])
        self._marks[block.stream] = max(self._marks[block.stream], block.watermark)
        leading = max(self._marks.values())
        least = min(mark for mark in self._marks.values() if mark >= leading - self._idle or mark == 0)
        self._watermark = max(self._watermark, least)
        return (Block(self._stream, rows, self._watermark, block.position),)

    def snapshot(self) -> bytes:
        """How far each input is."""
        return msgpack.encode((_VERSION, self._marks, self._watermark, self._columns))

    def restore(self, state: bytes) -> None:
        """Continue; B602 when another version wrote it."""
        kind = tuple[int, dict[str, int], int, list[tuple[str, str]]]
        _, self._marks, self._watermark, self._columns = state_of(kind, state, _VERSION, self._stream)


def names_of(by: Sequence[str] | str) -> tuple[str, ...]:
    """Columns, declared as one name or as several."""
    return (by,) if isinstance(by, str) else tuple(by)


def require(stream: str, names: Sequence[str], schema: pa.Schema) -> None:
    """B221 unless all these columns are there, once each."""
    for name in names:
        if schema.names.count(name) != 1:
            fix = f"columns: {', '.join(schema.names)}"
            raise BoucleError("B221", f"{stream}: there is no column {name!r}", fix=fix)


def require_of(stream: str, given: str, names: Iterable[str], schema: pa.Schema) -> None:
    """B221 naming every one of these columns that the input `given` does not have."""
    if missing := sorted(set(names) - set(schema.names)):
        what = f"{stream}: {given} has no column {', '.join(missing)}"
        raise BoucleError("B221", what, fix=f"it has {', '.join(schema.names)}")

"""What the steps of a pattern ask of a row, and what is remembered of the rows they took."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.stream.expression import Expression, Typed, column_of, plain_column, scalar_of
from boucle.stream.pattern.program import Program
from boucle.stream.rows import require

__all__ = ["Conditions", "Now", "Record", "Records", "Row"]

_WORD = 60
_KINDS = (pa.int64(), pa.float64(), pa.string(), pa.bool_())
Row: TypeAlias = tuple[Any, ...]
Verdict: TypeAlias = bool | None


class Record(Struct, array_like=True, frozen=True):
    """The rows that a step took, as far as anything refers to them."""

    count: int
    first: int
    """Number of its first row within the key."""
    last: int
    first_at: Nanos
    last_at: Nanos
    first_row: tuple[Any, ...]
    last_row: tuple[Any, ...]
    sums: tuple[Any, ...]


Records: TypeAlias = dict[str, Record]


class Now(Struct):
    """A row being looked at, and what conditions may refer to."""

    row: Row
    at: Nanos
    index: int
    number: int
    previous: Row | None
    records: Records
    held: Sequence[str] = ()


class Conditions:
    """The conditions of the steps and the measures, over the columns of a stream."""

    def __init__(self, stream: str, program: Program, measures: Mapping[str, str]) -> None:
        self._stream = stream
        self.where = {n: Expression(step.where, steps=program.steps) for n, step in program.steps.items()}
        self.measures = {n: Expression(text, steps=program.steps) for n, text in measures.items()}
        self.bit = {name: bit for bit, name in enumerate(program.steps)}
        self.asks = False
        """Whether anything looks at the row before (`prev`)."""
        self.fits: list[int] = []
        """Per row a mask of the steps that may take it."""
        self.rows: list[Row] = []

    def looks_at_row(self, name: str) -> bool:
        """Whether the step is judged by the row alone."""
        return all(
            node.op == "column" or (node.op == "step" and node.value[0] == name)
            for node in self.where[name].leaves()
        )

    def bind(self, schema: pa.Schema) -> list[pa.Field]:
        """Conditions and measures over these columns, which are told as such; B221 for one that is not there."""
        told = [*self.where.values(), *self.measures.values()]
        leaves = [node for text in told for node in text.leaves()]
        names = (node.value if node.op in ("column", "prev") else node.value[-1] for node in leaves)
        self._columns = sorted({name for name in names if name})
        self.asks = any(node.op == "prev" for node in leaves)
        aggregates = {node.value for node in leaves if node.op == "aggregate"}
        self._sums: dict[str, list[tuple[str, int]]] = {}
        typed = {name: text.bind(schema) for name, text in self.measures.items()}
        where = {name: text.bind(schema) for name, text in self.where.items()}
        require(self._stream, self._columns, schema)
        for what, step, column in sorted(aggregates):
            for part in ("sum", "n") if what == "avg" else (what,):
                if what in ("min", "max", "sum", "avg"):
                    self._sums.setdefault(step, []).append((part, self._columns.index(column)))
        self._by_row = {name: _own(one, name) for name, one in where.items() if self.looks_at_row(name)}
        self._by_past = {
            name: scalar_of(one, self._leaf) for name, one in where.items() if name not in self._by_row
        }
        self._told_measures = {name: scalar_of(one, self._leaf) for name, one in typed.items()}
        for name, one in where.items():
            if one.type != pa.bool_():
                raise BoucleError("B221", f"{self._stream}: {name} gives {one.type}", fix="give a condition")
        return [pa.field(name, _told(one, schema)) for name, one in typed.items()]

    def _leaf(self, node: Typed) -> Callable[[Now], Any]:
        if node.type not in _KINDS:
            what = f"{self._stream}: a pattern cannot remember {node.type}"
            raise BoucleError("B221", what, fix="use numbers, texts, times or booleans")
        what, step, column = (
            ("", "", node.value) if isinstance(node.value, str) else (("last", *node.value)[-3:])
        )
        index = self._columns.index(column) if column else 0
        if node.op == "column":
            return lambda now: now.row[index]
        if node.op == "prev":
            return lambda now: None if now.previous is None else now.previous[index]
        if what == "count":
            return lambda now: record.count if (record := now.records.get(step)) else 0
        if what == "last":
            return lambda now: record.last_row[index] if (record := now.records.get(step)) else None
        if what == "first":
            return lambda now: record.first_row[index] if (record := now.records.get(step)) else None
        place = self._sums[step].index(("sum" if what == "avg" else what, index))
        if what != "avg":
            return lambda now: record.sums[place] if (record := now.records.get(step)) else None
        count = self._sums[step].index(("n", index))

        def mean(now: Now) -> float | None:
            record = now.records.get(step)
            return float(record.sums[place] / record.sums[count]) if record and record.sums[count] else None

        return mean

    def take(self, rows: pa.RecordBatch) -> None:
        """The columns that are asked for, and what can be judged for all rows at once."""
        columns = [plain_column(rows, name).to_pylist() for name in self._columns]
        self.rows = list(zip(*columns, strict=True)) if columns else [()] * rows.num_rows
        masks = {name: column_of(one, rows) for name, one in self._by_row.items()}
        # What cannot be judged from the row alone may always fit.
        always = sum(1 << self.bit[name] for name in self._by_past)
        fits = np.full(rows.num_rows, always, dtype=object if len(self.bit) > _WORD else np.int64)
        for name, mask in masks.items():
            fits[pc.fill_null(mask, fill_value=False).to_numpy(zero_copy_only=False)] |= 1 << self.bit[name]
        self.fits = fits.tolist()
        self._masks = {name: mask.to_pylist() for name, mask in masks.items()}

    def judge(self, name: str, now: Now, records: Records) -> tuple[Verdict, Records | None]:
        """Whether the row fits a step; what is remembered if it does."""
        if name in self._by_row:
            return self._masks[name][now.index], None
        now.records = self.taken(records, name, now)
        verdict: Verdict = self._by_past[name](now)
        return verdict, now.records

    def taken(self, records: Records, name: str, now: Now) -> Records:
        """What is remembered once the step took the row."""
        return {
            **records,
            name: self._record(records.get(name), name, now),
            "": self._record(records.get(""), "", now),
        }

    def _record(self, old: Record | None, name: str, now: Now) -> Record:
        wanted = self._sums.get(name, ())
        sums = old.sums if old else tuple(0 if what == "n" else None for what, _ in wanted)
        new = tuple(_fold(what, past, now.row[i]) for past, (what, i) in zip(sums, wanted, strict=True))
        if old is None:
            return Record(1, now.number, now.number, now.at, now.at, now.row, now.row, new)
        return Record(old.count + 1, old.first, now.number, old.first_at, now.at, old.first_row, now.row, new)

    def measured(self, records: Records, at: Nanos) -> dict[str, Any]:
        """The measures of a match."""
        now = Now(records[""].last_row, at, 0, 0, None, records)
        return {name: measure(now) for name, measure in self._told_measures.items()}


def _fold(what: str, past: Any, value: Any) -> Any:
    """A running aggregate with one more value; null is not counted."""
    if value is None:
        return past
    if what == "n":
        return past + 1
    if past is None:
        return value
    if what == "sum":
        return past + value
    return min(past, value) if what == "min" else max(past, value)


def _own(node: Typed, step: str) -> Typed:
    """A condition on one row only: what the step says of itself is said of that row."""
    if node.op == "step" and node.value[0] == step:
        return Typed("column", node.type, (), node.value[1])
    return Typed(node.op, node.type, tuple(_own(one, step) for one in node.args), node.value)


def _told(node: Typed, schema: pa.Schema) -> pa.DataType:
    """The type of a measure: a time stays a time."""
    if node.op in ("column", "step", "aggregate") and node.value[0] not in ("count", "sum", "avg"):
        column = node.value if isinstance(node.value, str) else node.value[-1]
        kind = schema.field(column).type
        if pa.types.is_timestamp(kind):
            return pa.timestamp("ns", kind.tz)
    return node.type

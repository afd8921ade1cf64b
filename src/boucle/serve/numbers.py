"""The numbers of a Block that models take, as one matrix, and the rows again with the outputs behind them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.stream.appended import Extended

__all__ = ["Numbers", "missing"]

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]


def missing(schema: pa.Schema, signature: pa.Schema) -> list[str]:
    """What of a signature a stream does not have, in words."""
    wrong = []
    for field in signature:
        index = schema.get_field_index(field.name)
        if index < 0:
            wrong.append(f"{field.name} is missing")
        elif schema.field(index).type != field.type:
            wrong.append(f"{field.name} is {schema.field(index).type}, not {field.type}")
    return wrong


class Numbers:
    """Columns of one schema as float32, and outputs appended to its rows."""

    def __init__(self, schema: pa.Schema, columns: Sequence[str], gives: pa.Schema) -> None:
        self.schema, self.columns, self._gives = schema, list(columns), gives
        self._rows = Extended(schema, [(name, True) for name in self.columns], list(gives))
        self._fast = bool(self.columns) and all(self._rows.read)
        self._doubles = all(pa.types.is_float64(field.type) for field in gives)
        self._count = 0

    def take(self, rows: pa.RecordBatch) -> Floats32:
        """The matrix (rows, columns) of a Block; NaN where a number is null."""
        self._count = rows.num_rows
        if self._fast and self._count:
            self._rows.take(rows)
            numbers = self._rows.numbers[:, : self._count].view(np.float64)
            return numbers.T.astype(np.float32, order="C")
        if not self.columns:
            return np.zeros((self._count, 0), np.float32)
        tensor = rows.select(self.columns).to_tensor(null_to_nan=True)
        return np.asarray(tensor.to_numpy(), dtype=np.float32)

    def begin(self) -> Floats:
        """Where the outputs go (outputs, rows); NaN becomes null."""
        if self._fast and self._doubles and self._count:
            self._rows.begin()
            return self._rows.values()
        self._apart = np.empty((len(self._gives), self._count))
        return self._apart

    def give(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the outputs behind them."""
        if self._fast and self._doubles and self._count:
            return self._rows.give(rows)
        self._rows.drop()
        columns = [
            pa.array(values, mask=np.isnan(values)).cast(field.type)
            for values, field in zip(self._apart, self._gives, strict=True)
        ]
        return pa.RecordBatch.from_arrays(
            [*rows.columns, *columns],
            schema=pa.schema([*rows.schema, *self._gives], rows.schema.metadata),
        )

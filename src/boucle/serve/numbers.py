"""The numbers of a Block that models take, as one matrix, and the rows again with the outputs behind them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.compiled import compiled
from boucle.stream.appended import Extended

__all__ = ["Numbers", "missing", "put"]

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


@compiled
def _turn(numbers: Any, matrix: Any) -> bool:
    """Columns of float64 as rows of float32; whether all are finite."""
    sound = True
    for row in range(matrix.shape[0]):
        for column in range(matrix.shape[1]):
            matrix[row, column] = numbers[column, row]
            sound &= np.isfinite(matrix[row, column])
    return sound


@compiled
def put(answer: Any, values: Any) -> bool:
    """Rows of float32 as columns of float64; whether all are finite."""
    sound = True
    for row in range(answer.shape[0]):
        for column in range(answer.shape[1]):
            values[column, row] = answer[row, column]
            sound &= np.isfinite(answer[row, column])
    return sound


class Numbers:
    """Columns of one schema as float32, and outputs appended to its rows."""

    def __init__(self, schema: pa.Schema, columns: Sequence[str], gives: pa.Schema) -> None:
        self.schema, self.columns, self._gives = schema, list(columns), gives
        self._rows = Extended(schema, [(name, True) for name in self.columns], [])
        self._fast = bool(self.columns) and all(self._rows.read)
        self._doubles = all(pa.types.is_float64(field.type) for field in gives)

    def take(self, rows: pa.RecordBatch) -> tuple[Floats32, bool]:
        """The matrix (rows, columns) of a Block, NaN where a number is null; whether all its numbers are finite."""
        count = rows.num_rows
        if not self._fast or count == 0:
            matrix = self._by_arrays(rows)
            return matrix, bool(np.isfinite(matrix).all())
        self._rows.take(rows)
        matrix = np.empty((count, len(self.columns)), np.float32)
        sound = _turn(self._rows.numbers.view(np.float64), matrix)
        self._rows.drop()
        return matrix, sound

    def _by_arrays(self, rows: pa.RecordBatch) -> Floats32:
        if not self.columns:
            return np.zeros((rows.num_rows, 0), np.float32)
        tensor = rows.select(self.columns).to_tensor(null_to_nan=True)
        return np.asarray(tensor.to_numpy(), dtype=np.float32)

    def give(self, rows: pa.RecordBatch, values: Floats, *, whole: bool) -> pa.RecordBatch:
        """The rows with outputs (outputs, rows) behind them; unless they are `whole`, NaN becomes null."""
        if whole and self._doubles:
            held, size = pa.py_buffer(values), values.strides[0]
            for place, field in enumerate(self._gives):
                buffers = [None, held.slice(place * size, size)]
                rows = rows.append_column(field, pa.Array.from_buffers(field.type, rows.num_rows, buffers))
            return rows
        for place, field in enumerate(self._gives):
            column = pa.array(values[place], mask=np.isnan(values[place])).cast(field.type)
            rows = rows.append_column(field, column)
        return rows

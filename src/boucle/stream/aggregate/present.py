"""Values as aggregates take them: those that are there, times in ns."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["in_kind", "present"]

Ints = NDArray[np.int64]


def present(slots: Ints, column: pa.Array) -> tuple[Ints, pa.Array]:
    """Without the rows that have no value."""
    if column.null_count:
        slots, column = slots[column.is_valid().to_numpy(zero_copy_only=False)], column.drop_null()
    return slots, column


def in_kind(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """What was held in ns as the column has it."""
    return (
        values.cast(pa.timestamp("ns", kind.tz)).cast(kind)
        if pa.types.is_timestamp(kind)
        else values.cast(kind)
    )

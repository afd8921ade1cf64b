"""The few types that expressions know, and columns as they see them."""

import pyarrow as pa

from boucle.block import in_nanos
from boucle.errors import BoucleError

__all__ = ["BOOL", "FLOAT", "INT", "NULL", "TEXT", "plain_column", "plain_type"]

INT, FLOAT, TEXT, BOOL, NULL = pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.null()


def plain_type(kind: pa.DataType) -> pa.DataType:
    """What expressions see of a column of this type."""
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return INT
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return FLOAT
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return TEXT
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    return kind


def plain_column(rows: pa.RecordBatch, name: str) -> pa.Array:
    """A column as expressions see it: int64 (times in ns), float64, string, bool; others as they are."""
    column = rows.column(name)
    kind = plain_type(column.type)
    if kind == column.type:
        return column
    try:
        return in_nanos(column).cast(kind)
    except pa.ArrowInvalid as error:
        raise BoucleError("B221", f"column {name} does not fit {kind}", why=str(error)) from error

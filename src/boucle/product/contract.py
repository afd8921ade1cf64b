"""What a stream of readings promises, compiled from an ODCS schema object.

The ODCS document stays the source; this is the small value that decoding and checking need.
"""

from typing import Any

import pyarrow as pa
from msgspec import Struct

from boucle.product.rules import Rule

__all__ = ["FieldContract", "StreamContract"]


class FieldContract(Struct, frozen=True):
    """One column's promise. For a list column, `minimum` and `maximum` bound every element."""

    name: str
    type: Any
    """The pyarrow DataType."""
    required: bool = False
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    one_of: tuple[str, ...] | None = None
    pattern: str | None = None
    min_items: int | None = None
    max_items: int | None = None
    description: str = ""


class StreamContract(Struct, frozen=True):
    """One stream's promise: its columns in order. Columns nobody declared are refused."""

    name: str
    fields: tuple[FieldContract, ...]
    time: str = "at"
    """The event-time column; empty: rows of this schema object have none, so they cannot flow."""
    rules: tuple[Rule, ...] = ()
    """Every promise about the data, those the fields carry included."""

    def schema(self) -> pa.Schema:
        """The Arrow schema of a Block that keeps the promise."""
        return pa.schema([pa.field(f.name, f.type, nullable=not f.required) for f in self.fields])

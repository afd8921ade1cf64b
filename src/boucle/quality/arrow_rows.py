"""Rows out of Arrow IPC stream payloads, cast to a contract without losing anything."""

import pyarrow as pa

from boucle.product.contract import StreamContract
from boucle.quality.arrow_sizes import check_sizes
from boucle.quality.reject import Unreadable

__all__ = ["ArrowRows"]


class ArrowRows:
    """Decodes one Arrow stream payload at a time.

    Columns may come in any order, as another width of the same kind (microseconds, float32, large
    strings; doubles are rounded to floats, integers never change), and optional ones may be absent.
    Dictionary-encoded columns are refused: a small payload could unfold to more than the memory.
    """

    def __init__(self, contract: StreamContract, max_bytes: int, max_rows: int) -> None:
        self._contract = contract
        self._schema = contract.schema()
        self._types = [field.type for field in contract.fields]
        self._max_bytes, self._max_rows = max_bytes, max_rows
        self._known: pa.Schema | None = None

    def read(self, payload: bytes) -> pa.RecordBatch:
        """The rows with exactly the contract's schema; Unreadable when there are none.

        Nulls in required columns, ranges and the rest are the Checker's affair.
        """
        rows = check_sizes(payload, self._max_bytes, self._max_rows)
        try:
            batches = self._batches(payload)
            if rows == 0 or not batches:
                raise Unreadable("empty", "the stream holds no row")
            fitted = [self._fit(batch) for batch in batches]
            return fitted[0] if len(fitted) == 1 else pa.concat_batches(fitted)
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
            # All of these are pyarrow's words for "this is not what it claims to be".
            raise Unreadable("malformed", f"{type(error).__name__}: {error}") from None

    def _batches(self, payload: bytes) -> list[pa.RecordBatch]:
        with pa.ipc.open_stream(payload) as reader:
            batches = list(reader)
        for batch in batches:
            batch.validate(full=True)
        return batches

    def _fit(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        schema = batch.schema
        if self._known is None or not schema.equals(self._known):
            if schema.names != self._schema.names or schema.types != self._types:
                return self._cast(batch)
            self._known = schema  # differs in nullability and metadata at most
        return pa.RecordBatch.from_arrays(batch.columns, schema=self._schema)

    def _cast(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        names = batch.schema.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Unreadable("malformed", f"column {twice[0]!r} comes twice")
        unknown = sorted(set(names) - set(self._schema.names))
        if unknown:
            raise Unreadable("unknown_column", f"nobody declared {', '.join(unknown)}")
        columns = []
        for field in self._contract.fields:
            if field.name in names:
                columns.append(_cast(batch.column(field.name), field.name, field.type))
            elif field.required:
                raise Unreadable("missing", f"column {field.name!r} is required")
            else:
                columns.append(pa.nulls(batch.num_rows, field.type))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _cast(column: pa.Array, name: str, wanted: pa.DataType) -> pa.Array:
    if column.type == wanted:
        return column
    if not _castable(column.type, wanted):
        raise Unreadable("wrong_type", f"{name} is {column.type}, not {wanted}")
    try:
        return column.cast(wanted, safe=True)
    except (pa.ArrowException, ValueError) as error:
        raise Unreadable("wrong_type", f"{name} is {column.type}, not {wanted}: {error}") from None


def _castable(given: pa.DataType, wanted: pa.DataType) -> bool:
    kind = pa.types
    if kind.is_list(wanted):
        inner = kind.is_list(given) or kind.is_large_list(given) or kind.is_fixed_size_list(given)
        return inner and (
            given.value_type == wanted.value_type or _castable(given.value_type, wanted.value_type)
        )
    if kind.is_timestamp(wanted):
        # A time without a zone could be anybody's; UTC is not guessed.
        allowed = kind.is_timestamp(given) and given.tz is not None
    elif kind.is_floating(wanted):
        allowed = kind.is_floating(given) or kind.is_integer(given)
    elif kind.is_integer(wanted):
        allowed = kind.is_integer(given)
    else:
        allowed = kind.is_string(wanted) and (kind.is_large_string(given) or kind.is_string_view(given))
    return bool(allowed)

"""Rows out of Arrow IPC stream payloads, cast to a contract without losing anything."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.product.contract import StreamContract
from boucle.quality.arrow_familiar import Familiar
from boucle.quality.arrow_sizes import Sizes, check_sizes
from boucle.quality.reject import Unreadable

__all__ = ["ArrowRows"]

Bytes = NDArray[np.uint8]
Offsets = NDArray[np.int32]
_ALIKE, _LOOKS = 8, 64
"""Ways of building a message that are known at a time, and messages that are looked at for them."""


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
        self._alike: list[Familiar] = []
        Familiar.prepare()
        self._looked = 0
        self._known = b""
        """The last schema message that equals the contract's; the same bytes need no second look."""

    def read(self, payload: bytes) -> pa.RecordBatch:
        """The rows with exactly the contract's schema; Unreadable when there are none.

        Nulls in required columns, ranges and the rest are the Checker's affair.
        """
        sizes = check_sizes(payload, self._max_bytes, self._max_rows)
        if sizes.rows == 0:
            raise Unreadable("empty", "the stream holds no row")
        try:
            if payload[: sizes.schema_end] == self._known:
                batches = self._familiar(payload, sizes)
                self._remember(payload, sizes)
            else:
                batches = self._foreign(payload, sizes)
            return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
            # All of these are pyarrow's words for "this is not what it claims to be".
            raise Unreadable("malformed", f"{type(error).__name__}: {error}") from None

    def read_alike(self, data: Bytes, offsets: Offsets, first: int) -> tuple[pa.RecordBatch | None, int]:
        """The rows of the messages from `first` on that are built like one read before, and how many those are.

        `data[offsets[i]:offsets[i + 1]]` is a message.
        """
        for place, known in enumerate(self._alike):
            rows, count = known.read(data, offsets, first)
            if count:
                self._alike.insert(0, self._alike.pop(place))
                return rows, count
        return None, 0

    def _remember(self, payload: bytes, sizes: Sizes) -> None:
        if sizes.batches == 1 and len(self._alike) < _ALIKE and self._looked < _LOOKS:
            self._looked += 1
            limits = (self._max_bytes, self._max_rows)
            known = Familiar.of(self._schema, payload, sizes.schema_end, *limits)
            if known is not None and known.knows(payload):
                self._alike.append(known)

    def _familiar(self, payload: bytes, sizes: Sizes) -> list[pa.RecordBatch]:
        messages = pa.BufferReader(payload)
        messages.seek(sizes.schema_end)
        batches = []
        for _ in range(sizes.batches):
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(messages), self._schema)
            batch.validate(full=True)
            batches.append(batch)
        return batches

    def _foreign(self, payload: bytes, sizes: Sizes) -> list[pa.RecordBatch]:
        with pa.ipc.open_stream(payload) as reader:
            batches = list(reader)
            names, types = reader.schema.names, reader.schema.types
        for batch in batches:
            batch.validate(full=True)
        if names == self._schema.names and types == self._types:
            self._known = payload[: sizes.schema_end]  # differs in nullability and metadata at most
            return [pa.RecordBatch.from_arrays(batch.columns, schema=self._schema) for batch in batches]
        return [self._cast(batch) for batch in batches]

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

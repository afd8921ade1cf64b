"""How rows in flight become rows at rest, and back, without losing a nanosecond.

Delta Lake knows microseconds only. A `timestamp[ns]` column `X` is therefore stored as two: `X` in
microseconds (what SQL, Spark and file pruning use) and `X_ns`, an int16 that holds the 0 to 999
nanoseconds above it. It is almost always 0 and then costs nothing in Parquet; reading back gives
the exact nanosecond, so a replay from the lake is the same as the first run.

The partition column `day` is the UTC date of the time column as text, `2026-11-21`; it exists at
rest only. Every stored column is nullable: promises are checked before, by the contract.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boucle.errors import BoucleError

__all__ = [
    "DAY",
    "check_transaction",
    "from_stored",
    "stored_schema",
    "stored_type",
    "to_stored",
    "widened",
]

DAY = "day"
"""The derived partition column."""

MICROS = pa.timestamp("us", tz="UTC")

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

_WIDER: dict[pa.DataType, pa.DataType] = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}
"""Arrow types Delta does not know → the one that holds every value of them."""


def stored_type(column: str, kind: pa.DataType) -> pa.DataType:
    """The type a column has at rest; B503 when Delta Lake has none for it."""
    if pa.types.is_dictionary(kind):
        return stored_type(column, kind.value_type)
    if pa.types.is_timestamp(kind):
        if kind.tz is None:
            raise _unstorable(column, kind, "it has no time zone", 'declare it as timestamp[ns, tz="UTC"]')
        return MICROS
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(stored_type(column, kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, stored_type(column, field.type)) for field in kind])
    if kind in _WIDER:
        return _WIDER[kind]
    plain = pa.types.is_integer(kind) and kind != pa.uint64()
    known = pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)
    text = pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_date32(kind)
    if plain or known or text:
        return kind
    raise _unstorable(column, kind, "Delta Lake has no such type", "cast it before it reaches the lake")


def _unstorable(column: str, kind: pa.DataType, why: str, fix: str) -> BoucleError:
    return BoucleError("B503", f'column "{column}" of type {kind} cannot be stored', why=why, fix=fix)


def stored_schema(schema: pa.Schema, time: str, partition_by: Iterable[str]) -> pa.Schema:
    """The schema at rest of rows of `schema`: nanoseconds split off, `day` added when partitioned by it.

    `time` names the event time; "" where rows have none.
    """
    if time and (time not in schema.names or not pa.types.is_timestamp(schema.field(time).type)):
        raise BoucleError(
            "B503",
            f'rows without a timestamp column "{time}" cannot be stored',
            why=f"columns are {', '.join(schema.names)}",
            fix="name the event-time column when the table is declared",
        )
    for name in partition_by:
        if name in schema.names and not _names_a_folder(stored_type(name, schema.field(name).type)):
            fix = "partition by text, whole numbers, dates or booleans"
            raise _unstorable(name, schema.field(name).type, "its values cannot name a partition", fix)
    split = {f"{field.name}_ns" for field in schema if _has_nanos(field)}
    taken = [name for name in schema.names if name in split or (name == DAY and DAY in partition_by and time)]
    if taken:
        raise BoucleError(
            "B503", f'the column name "{taken[0]}" is kept for the lake', fix="rename the column"
        )
    fields = [pa.field(field.name, stored_type(field.name, field.type)) for field in schema]
    fields += [pa.field(f"{field.name}_ns", pa.int16()) for field in schema if _has_nanos(field)]
    if DAY in partition_by and time:
        fields.append(pa.field(DAY, pa.string()))
    return pa.schema(fields)


def _names_a_folder(kind: pa.DataType) -> bool:
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return bool(whole or pa.types.is_string(kind) or pa.types.is_date32(kind))


def _has_nanos(field: pa.Field) -> bool:
    return bool(pa.types.is_timestamp(field.type) and field.type.unit == "ns")


_WHOLE = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_REAL = (pa.float32(), pa.float64())


def widened(table: str, now: pa.Schema, incoming: pa.Schema) -> pa.Schema:
    """The schema that holds every value of both, columns of `now` first.

    A column may be added, and a number may become wider where no value changes by it. Anything else raises B502:
    delta-rs alone would try to cast, and turn the text "5" into the number 5 without a word.
    """
    fields = list(now)
    for field in incoming:
        if field.name not in now.names:
            fields.append(field)
            continue
        place = now.get_field_index(field.name)
        kind = _wider(fields[place].type, field.type)
        if kind is None:
            raise BoucleError(
                "B502",
                f'column "{field.name}" of table "{table}" is {now.field(field.name).type}, '
                f"the new rows bring {field.type}",
                why="a table gains columns and wider numbers only, so that its history stays readable",
                fix=f'give the new meaning a new name, for example "{field.name}_2"',
            )
        fields[place] = pa.field(field.name, kind)
    return pa.schema(fields)


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds every value of both exactly; None when there is none."""
    if one == other:
        return one
    for family in (_WHOLE, _REAL):
        if one in family and other in family:
            return family[max(family.index(one), family.index(other))]
    kinds = {one, other}
    if pa.float64() in kinds and kinds & set(_WHOLE[:3]):
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        inner = _wider(one.value_type, other.value_type)
        return None if inner is None else pa.list_(inner)
    return None


def check_transaction(app: str, transaction: int | None) -> None:
    """A transaction number means nothing without the name of the app that counts it (B506)."""
    if transaction is not None and not app:
        raise BoucleError(
            "B506",
            f"the transaction number {transaction} has no app",
            fix="append(block, app=..., transaction=...)",
        )


def to_stored(batches: Iterable[pa.RecordBatch], target: pa.Schema, time: str) -> pa.Table:
    """The rows as they lie at rest, in the order of `target`; columns they do not have are null."""
    return pa.concat_tables(_one(pa.Table.from_batches([batch]), target, time) for batch in batches)


def _one(rows: pa.Table, target: pa.Schema, time: str) -> pa.Table:
    at = rows.column(time) if time else None
    if at is not None and at.null_count:
        raise BoucleError(
            "B503",
            f'{at.null_count} of {len(at)} rows have no "{time}"',
            why="the time places a row in its partition",
            fix="quarantine rows without a time before they reach the lake",
        )
    made: dict[str, pa.ChunkedArray | pa.Array] = {}
    for field in rows.schema:
        column = rows.column(field.name)
        if _has_nanos(field):
            column, made[f"{field.name}_ns"] = _split_nanos(column)
        made[field.name] = column.cast(target.field(field.name).type)
    if at is not None and DAY in target.names and DAY not in made:
        made[DAY] = _days(at)
    nothing = {
        name: pa.nulls(len(rows), target.field(name).type) for name in target.names if name not in made
    }
    made.update(nothing)
    return pa.table([made[name] for name in target.names], schema=target)


def _split_nanos(column: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """Whole microseconds, rounded down before 1970 too, and the nanoseconds above them."""
    missing = column.is_null().to_numpy() if column.null_count else None
    nanos = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    micros, rest = np.divmod(nanos, 1000)
    whole = pa.array(micros, pa.int64(), mask=missing).cast(MICROS)
    return whole, pa.array(rest.astype(np.int16), pa.int16(), mask=missing)


def _days(at: pa.ChunkedArray) -> pa.Array:
    """The UTC dates as text; rows of one commit are nearly always of one day, formatted once."""
    per_day = 86_400 * _PER_SECOND[at.type.unit]
    days, which = np.unique(at.cast(pa.int64()).to_numpy() // per_day, return_inverse=True)
    names = np.datetime_as_string(days.astype("datetime64[D]"))
    return pa.DictionaryArray.from_arrays(which.astype(np.int32), names.astype(object)).cast(pa.string())


def from_stored(rows: pa.Table, *, day: bool = True) -> pa.Table:
    """The rows as they were in flight: nanoseconds joined again, `day` gone where it is derived."""
    names = [name for name in rows.column_names if name != DAY or not day]
    split = [name for name in names if f"{name}_ns" in names and rows.schema.field(name).type == MICROS]
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name in names:
        if name.removesuffix("_ns") in split and name.endswith("_ns"):
            continue
        column = rows.column(name)
        if name in split:
            rest = pc.fill_null(rows.column(f"{name}_ns"), 0).cast(pa.int64())
            whole = pc.multiply(column.cast(pa.int64()), 1000)
            column = pc.add(whole, rest).cast(pa.timestamp("ns", tz="UTC"))
        columns[name] = column
    return pa.table(columns)

"""Arrow: everything is carried; what Arrow has no word for stands as JSON in the field's metadata."""

import json
from typing import Any

import pyarrow as pa
from msgspec import structs

from boucle.errors import BoucleError
from boucle.product.columns import Column, Kind
from boucle.product.formats.losses import Losses, facets, with_facets

__all__ = ["from_schema", "read", "to_schema", "write"]

_KEY = b"odcs"


def write(name: str, columns: tuple[Column, ...], losses: Losses) -> bytes:
    """The Arrow schema as an IPC message, its name in the metadata."""
    schema = to_schema(columns, losses).with_metadata({b"name": name.encode()})
    return bytes(schema.serialize())


def read(content: bytes, losses: Losses) -> list[tuple[str, tuple[Column, ...]]]:
    """The schema of an IPC message, stream or file."""
    reasons = []
    for opened in (_of_file, _of_stream):
        try:
            schema = opened(content)
        except (pa.ArrowInvalid, OSError, EOFError, ValueError) as error:
            reasons.append(str(error))
        else:
            name = (schema.metadata or {}).get(b"name", b"table").decode(errors="replace")
            return [(name, from_schema(schema, losses))]
    raise BoucleError(
        "B247", "this is no Arrow schema", why=reasons[-1], fix="give an Arrow IPC file or stream"
    )


def _of_file(content: bytes) -> pa.Schema:
    return pa.ipc.open_file(pa.py_buffer(content)).schema


def _of_stream(content: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(content))


def to_schema(columns: tuple[Column, ...], losses: Losses | None = None) -> pa.Schema:
    """The columns as an Arrow schema."""
    return pa.schema([_field(one, losses or Losses()) for one in columns])


def _field(one: Column, losses: Losses) -> pa.Field:
    told = facets(one)
    if one.kind.format:
        told["_format"] = one.kind.format
    metadata = {_KEY: json.dumps(told, ensure_ascii=False, default=str).encode()} if told else None
    return pa.field(one.name, _type(one, losses), nullable=not one.required, metadata=metadata)


_NUMBERS = {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}


def _type(one: Column, losses: Losses) -> pa.DataType:  # noqa: C901 - one case a family
    kind = one.kind
    match kind.family:
        case "boolean":
            return pa.bool_()
        case "integer":
            return getattr(pa, f"{'' if kind.signed else 'u'}int{kind.bits}")()
        case "number":
            return _NUMBERS[kind.bits]
        case "decimal":
            return (
                pa.decimal128(kind.precision, kind.scale)
                if kind.precision <= 38
                else pa.decimal256(min(kind.precision, 76), kind.scale)
            )
        case "date":
            return pa.date32()
        case "time":
            return pa.time32(kind.unit) if kind.unit in {"s", "ms"} else pa.time64(kind.unit)
        case "timestamp":
            return pa.timestamp(kind.unit, tz="UTC" if kind.zone else None)
        case "binary":
            return pa.binary(kind.length if kind.length is not None else -1)
        case "array":
            item = kind.item or Column("item", Kind("any"))
            return pa.list_(_field(structs.replace(item, name="item"), losses))
        case "object":
            return pa.struct([_field(field, losses) for field in kind.fields])
        case "map":
            item = kind.item or Column("value", Kind("any"))
            return pa.map_(pa.string(), _field(structs.replace(item, name="value"), losses))
        case "any":
            losses.note(one.name, "a value of any type is told as text")
    return pa.string()


def from_schema(schema: Any, losses: Losses | None = None) -> tuple[Column, ...]:
    """The columns of an Arrow schema."""
    return tuple(_column(field, losses or Losses()) for field in schema)


def _column(field: Any, losses: Losses) -> Column:
    told: Any = {}
    try:
        told = json.loads((field.metadata or {}).get(_KEY, b"{}"))
    except ValueError:
        losses.note(field.name, "its metadata cannot be read")
    if not isinstance(told, dict):
        told = {}
    spoken = told.pop("_format", "")
    kind = _kind(field.type, field.name, losses)
    if kind.family == "string" and isinstance(spoken, str):
        kind = structs.replace(kind, format=spoken)
    return with_facets(Column(field.name, kind, required=not field.nullable), told)


def _kind(found: Any, name: str, losses: Losses) -> Kind:  # noqa: C901, PLR0912 - one case a family
    kinds = pa.types
    if kinds.is_dictionary(found):
        return _kind(found.value_type, name, losses)
    if isinstance(found, pa.BaseExtensionType):
        return _kind(found.storage_type, name, losses)
    if kinds.is_integer(found):
        return Kind("integer", found.bit_width, signed=kinds.is_signed_integer(found))
    if kinds.is_floating(found):
        return Kind("number", found.bit_width)
    if kinds.is_decimal(found):
        return Kind("decimal", precision=found.precision, scale=found.scale)
    if kinds.is_timestamp(found):
        if found.tz not in {None, "UTC"}:
            losses.note(name, f"the time zone {found.tz} is told as UTC")
        return Kind("timestamp", unit=found.unit, zone=found.tz is not None)
    if kinds.is_time(found):
        return Kind("time", unit=found.unit)
    if kinds.is_fixed_size_binary(found):
        return Kind("binary", length=found.byte_width)
    if kinds.is_map(found):
        return Kind("map", item=structs.replace(_column(found.item_field, losses), name="value"))
    if kinds.is_struct(found):
        return Kind("object", fields=tuple(_column(field, losses) for field in found))
    if kinds.is_list(found) or kinds.is_large_list(found) or kinds.is_fixed_size_list(found):
        return Kind("array", item=structs.replace(_column(found.value_field, losses), name="item"))
    for family, said in (
        ("string", (kinds.is_string, kinds.is_large_string, kinds.is_string_view)),
        ("boolean", (kinds.is_boolean,)),
        ("date", (kinds.is_date,)),
        ("binary", (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view)),
    ):
        if any(one(found) for one in said):
            return Kind(family)  # type: ignore[arg-type]
    losses.note(name, f"the Arrow type {found} is told as any")
    return Kind("any")

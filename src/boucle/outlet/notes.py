"""What a contract says of a table, for those who look at it through an interface: words, keys, promises."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

__all__ = ["ColumnNote", "TableNote", "notes"]


class ColumnNote(Struct, frozen=True):
    """A column's words and promises; `type` is the contract's logicalType ("": not said)."""

    type: str = ""
    physical: str = ""
    description: str = ""
    required: bool = False
    unit: str = ""


class TableNote(Struct, frozen=True):
    """A table's words, its key in order, and its columns by name."""

    description: str = ""
    key: tuple[str, ...] = ()
    columns: dict[str, ColumnNote] = {}


def notes(contract: Mapping[str, Any]) -> dict[str, TableNote]:
    """By table name, out of an ODCS document (`schema` objects; `physicalName` also names a table)."""
    told = {}
    for item in contract.get("schema") or ():
        properties = item.get("properties") or ()
        columns = {one["name"]: _column(one) for one in properties}
        keyed = [one for one in properties if one.get("primaryKey")]
        keyed.sort(key=lambda one: one.get("primaryKeyPosition", 0))
        note = TableNote(str(item.get("description", "")), tuple(one["name"] for one in keyed), columns)
        told[item["name"]] = note
        told.setdefault(str(item.get("physicalName", item["name"])), note)
    return told


def _column(one: Mapping[str, Any]) -> ColumnNote:
    custom = {item["property"]: item["value"] for item in one.get("customProperties") or ()}
    return ColumnNote(
        type=str(one.get("logicalType", "")),
        physical=str(one.get("physicalType", "")),
        description=str(one.get("description", "")),
        required=bool(one.get("required", False)),
        unit=str(custom.get("unit", "")),
    )

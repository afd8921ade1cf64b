"""PostgreSQL's types: which one an answer's column is told as, and how SQL brings it into a form we can send.

OIDs and lengths are those of `pg_type.dat` in PostgreSQL. What DuckDB knows and PostgreSQL does not is told as the
nearest that loses nothing: structs, maps and lists of lists as json, wide integers as numeric. Its unsigned 32-bit
integer, which no table at rest has, is PostgreSQL's oid.
"""

import re

from msgspec import Struct

__all__ = ["TEXT", "TYPES", "PgType", "as_binary", "as_text", "duckdb_name", "modifier", "pg_type"]


class PgType(Struct, frozen=True):
    """A type as PostgreSQL numbers it. `size` -1: of any length; `element` 0: no array."""

    oid: int
    name: str
    size: int
    array: int
    category: str
    element: int = 0


_SCALARS = (
    PgType(16, "bool", 1, 1000, "B"),
    PgType(17, "bytea", -1, 1001, "U"),
    PgType(18, "char", 1, 1002, "Z"),
    PgType(19, "name", 64, 1003, "S"),
    PgType(20, "int8", 8, 1016, "N"),
    PgType(21, "int2", 2, 1005, "N"),
    PgType(22, "int2vector", -1, 1006, "A", 21),
    PgType(23, "int4", 4, 1007, "N"),
    PgType(24, "regproc", 4, 1008, "N"),
    PgType(25, "text", -1, 1009, "S"),
    PgType(26, "oid", 4, 1028, "N"),
    PgType(27, "tid", 6, 1010, "U"),
    PgType(28, "xid", 4, 1011, "U"),
    PgType(30, "oidvector", -1, 1013, "A", 26),
    PgType(114, "json", -1, 199, "U"),
    PgType(194, "pg_node_tree", -1, 0, "Z"),
    PgType(700, "float4", 4, 1021, "N"),
    PgType(701, "float8", 8, 1022, "N"),
    PgType(705, "unknown", -2, 0, "X"),
    PgType(1042, "bpchar", -1, 1014, "S"),
    PgType(1043, "varchar", -1, 1015, "S"),
    PgType(1082, "date", 4, 1182, "D"),
    PgType(1083, "time", 8, 1183, "D"),
    PgType(1114, "timestamp", 8, 1115, "D"),
    PgType(1184, "timestamptz", 8, 1185, "D"),
    PgType(1186, "interval", 16, 1187, "T"),
    PgType(1700, "numeric", -1, 1231, "N"),
    PgType(2205, "regclass", 4, 2210, "N"),
    PgType(2206, "regtype", 4, 2211, "N"),
    PgType(2249, "record", -1, 2287, "P"),
    PgType(2278, "void", 4, 0, "P"),
    PgType(2950, "uuid", 16, 2951, "U"),
    PgType(3802, "jsonb", -1, 3807, "U"),
)
TEXT = 25
"""The OID of text, which stands for what has no other type."""
TYPES: dict[int, PgType] = {one.oid: one for one in _SCALARS} | {
    one.array: PgType(one.array, f"_{one.name}", -1, 0, "A", one.oid) for one in _SCALARS if one.array
}
"""Every type by its OID, arrays too."""

_OIDS = {
    "BOOLEAN": 16,
    "TINYINT": 21,
    "UTINYINT": 21,
    "SMALLINT": 21,
    "USMALLINT": 23,
    "INTEGER": 23,
    "UINTEGER": 26,
    "BIGINT": 20,
    "UBIGINT": 1700,
    "HUGEINT": 1700,
    "UHUGEINT": 1700,
    "BIGNUM": 25,
    "FLOAT": 700,
    "DOUBLE": 701,
    "VARCHAR": 25,
    "BLOB": 17,
    "DATE": 1082,
    "TIME": 1083,
    "TIMESTAMP": 1114,
    "TIMESTAMP_S": 1114,
    "TIMESTAMP_MS": 1114,
    "TIMESTAMP_NS": 1114,
    "TIMESTAMP WITH TIME ZONE": 1184,
    "INTERVAL": 1186,
    "UUID": 2950,
    "JSON": 114,
}
_NAMES = {
    16: "BOOLEAN",
    17: "BLOB",
    20: "BIGINT",
    21: "SMALLINT",
    23: "INTEGER",
    25: "VARCHAR",
    26: "UINTEGER",
    700: "FLOAT",
    701: "DOUBLE",
    1082: "DATE",
    1083: "TIME",
    1114: "TIMESTAMP",
    1184: "TIMESTAMP WITH TIME ZONE",
    1186: "INTERVAL",
    1700: "DECIMAL",
    2950: "UUID",
}
_NARROW = {
    "TINYINT": "SMALLINT",
    "UTINYINT": "SMALLINT",
    "USMALLINT": "INTEGER",
    "UBIGINT": "DECIMAL(38, 0)",
    "HUGEINT": "DECIMAL(38, 0)",
    "UHUGEINT": "DECIMAL(38, 0)",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)$")
_LIST = re.compile(r"(.*)\[\d*\]$", re.DOTALL)


def pg_type(kind: str) -> PgType:
    """The type told for a DuckDB type. An unknown one is told as text.

    >>> pg_type("FLOAT[]").name
    '_float4'
    """
    if _DECIMAL.match(kind):
        return TYPES[1700]
    if found := _LIST.match(kind):
        inner = pg_type(found[1])
        return TYPES[inner.array] if inner.array and inner.oid != 114 else TYPES[114]
    if kind.startswith(("STRUCT(", "MAP(", "UNION(", "VARIANT")):
        return TYPES[114]
    return TYPES[_OIDS.get(kind, 25)]


def modifier(kind: str) -> int:
    """PostgreSQL's `atttypmod`: precision and scale of a decimal, -1 for everything else."""
    if found := _DECIMAL.match(kind):
        return (int(found[1]) << 16 | int(found[2])) + 4
    return -1


def duckdb_name(oid: int) -> str:
    """What DuckDB calls a type of PostgreSQL; "" where it has none."""
    one = TYPES.get(oid)
    if one is not None and one.element:
        inner = duckdb_name(one.element)
        return f"{inner}[]" if inner else ""
    return _NAMES.get(oid, "")


def as_text(kind: str, value: str) -> str:
    """SQL that gives `value`, an expression of type `kind`, as the text PostgreSQL would write."""
    if kind == "VARCHAR":
        return value
    if kind == "BOOLEAN":
        return f"CASE WHEN {value} THEN 't' WHEN NOT {value} THEN 'f' END"
    if kind in {"FLOAT", "DOUBLE"}:
        return (
            f"CASE WHEN isfinite({value}) THEN CAST({value} AS VARCHAR) WHEN isnan({value}) THEN 'NaN' "
            f"WHEN {value} > 0 THEN 'Infinity' WHEN {value} < 0 THEN '-Infinity' END"
        )
    if kind == "BLOB":
        return f"'\\x' || lower(hex({value}))"
    oid = pg_type(kind).oid
    if oid == 114 and kind != "JSON":
        return f"CAST(to_json({value}) AS VARCHAR)"
    if found := _LIST.match(kind):
        element = as_text(found[1], "e")
        if pg_type(found[1]).category not in {"N", "B"}:
            element = f"""'"' || replace(replace({element}, '\\', '\\\\'), '"', '\\"') || '"'"""
        return f"'{{' || array_to_string(list_transform({value}, lambda e: coalesce({element}, 'NULL')), ',') || '}}'"
    return f"CAST({value} AS VARCHAR)"


def as_binary(kind: str, value: str) -> str:
    """SQL that gives `value` in a type `boucle.outlet.columns` can write in PostgreSQL's binary format."""
    oid = pg_type(kind).oid
    if kind == "UUID":
        return f"unhex(replace(CAST({value} AS VARCHAR), '-', ''))"
    if kind in _NARROW:
        return f"CAST({value} AS {_NARROW[kind]})"
    if oid == 114 and kind != "JSON":
        return f"CAST(to_json({value}) AS VARCHAR)"
    if found := _LIST.match(kind):
        element = as_binary(found[1], "e")
        whole = value if kind.endswith("[]") else f"CAST({value} AS {found[1]}[])"
        return whole if element == "e" else f"list_transform({whole}, lambda e: {element})"
    if oid in {25, 114} and kind != "VARCHAR":
        return f"CAST({value} AS VARCHAR)"
    return value

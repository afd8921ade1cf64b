# ruff: noqa: S608 - names and texts are quoted by `quoted` and `text`
"""Tables of databases: SQLite and DuckDB files, PostgreSQL by address; what they say of their keys is kept."""

import datetime as dt
import decimal
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import duckdb
import pyarrow as pa

from boucle.errors import BoucleError, MissingExtra, Unavailable
from boucle.product.infer.opened import Opened, name_of, quoted, spilled, text

__all__ = ["open_duckdb", "open_postgresql", "open_sqlite"]

_BATCH = 10_000


def _chosen(asked: str | None, known: Sequence[str], where: str) -> str:
    if asked in known:
        return str(asked)
    if asked is None and len(known) == 1:
        return known[0]
    what = (
        f"there is no table {asked!r}"
        if asked
        else f"it holds {len(known)} tables"
        if known
        else "it holds no table"
    )
    fix = f"--table, one of: {', '.join(known[:20])}" if known else "give a database with a table"
    raise BoucleError("B249", what, where=where, fix=fix)


def open_duckdb(connection: Any, path: Path, table: str | None) -> Opened:
    """A table of a DuckDB file, read in place."""
    try:
        connection.execute(f"attach {text(str(path))} as given (read_only)")
    except duckdb.Error as error:
        why = str(error).partition("\n")[0][:200]
        raise BoucleError(
            "B249", f"{path} is no database this can read", why=why, fix="give SQLite or DuckDB"
        ) from None
    rows = connection.execute(
        "select table_schema, table_name from information_schema.tables where table_catalog = 'given' order by all"
    ).fetchall()
    known = {(name if schema == "main" else f"{schema}.{name}"): (schema, name) for schema, name in rows}
    schema, name = known[_chosen(table, list(known), str(path))]
    connection.execute(f"create temp view data as select * from given.{quoted(schema)}.{quoted(name)}")
    facts = connection.execute(
        "select constraint_type, constraint_column_names from duckdb_constraints()"
        " where database_name = 'given' and schema_name = ? and table_name = ?",
        [schema, name],
    ).fetchall()
    keys: list[str] = next((names for kind, names in facts if kind == "PRIMARY KEY"), [])
    required = [one for kind, names in facts if kind == "NOT NULL" for one in names]
    return Opened(
        connection,
        name,
        untyped=False,
        notes=["DuckDB"],
        keys=tuple(keys),
        required=tuple(required),
        address=str(path),
    )


def open_sqlite(connection: Any, path: Path, table: str | None, folder: Path) -> Opened:
    """A table of a SQLite file. Its columns hold any type, so every value is taken as text and looked at."""
    given = sqlite3.connect(f"file:{path.absolute()}?mode=ro", uri=True)
    try:
        known = [
            row[0] for row in given.execute("select name from sqlite_master where type in ('table', 'view')")
        ]
        name = _chosen(table, [one for one in known if not one.startswith("sqlite_")], str(path))
        info = given.execute(f"pragma table_info({quoted(name)})").fetchall()
        names = [row[1] for row in info]
        schema = pa.schema([(one, pa.string()) for one in names])
        rows = given.execute(f"select {', '.join(map(quoted, names))} from {quoted(name)}")
        stored = spilled(_texts(rows, schema), schema, folder)
    except sqlite3.Error as error:
        raise BoucleError(
            "B249", f"{path} cannot be read", why=str(error), fix="give a complete SQLite file"
        ) from None
    finally:
        given.close()
    connection.execute(f"create temp view data as select * from read_parquet({text(str(stored))})")
    keyed = sorted((row[5], row[1]) for row in info if row[5])
    return Opened(
        connection, name, untyped=True, notes=["SQLite"], keys=tuple(one for _, one in keyed),
        required=tuple(row[1] for row in info if row[3]), address=f"{path}?table={name}",
    )  # fmt: skip


def _texts(rows: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while kept := rows.fetchmany(_BATCH):
        columns = [[_as_text(value) for value in column] for column in zip(*kept, strict=True)]
        yield pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], schema=schema)


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    return value.hex() if isinstance(value, bytes) else str(value)


def open_postgresql(connection: Any, address: str, table: str | None, folder: Path) -> Opened:
    """A table of PostgreSQL, streamed through a cursor of the server."""
    try:
        import psycopg
        from psycopg import sql
    except ModuleNotFoundError:
        raise MissingExtra(address, "psycopg", "postgresql") from None
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query))
    table = table or options.pop("table", None)
    plain = urlunsplit(parts._replace(query=urlencode(options)))
    shown = f"postgresql://{parts.hostname or ''}{parts.path}"
    try:
        with psycopg.connect(plain, connect_timeout=10) as given:
            rows = given.execute(
                "select table_schema, table_name from information_schema.tables"
                " where table_schema not in ('pg_catalog', 'information_schema') order by 1, 2"
            ).fetchall()
            known = {
                (name if schema == "public" else f"{schema}.{name}"): (schema, name) for schema, name in rows
            }
            where = known[_chosen(table, list(known), shown)]
            keys = [row[0] for row in given.execute(_KEYS, [sql.Identifier(*where).as_string(given)])]
            columns = given.execute(_COLUMNS, where).fetchall()
            schema = pa.schema(
                [pa.field(name, _arrow(*kind), nullable=free == "YES") for name, free, *kind in columns]
            )
            asked = sql.SQL("select * from {}").format(sql.Identifier(*where))
            with given.cursor(name="boucle_infer") as cursor:
                cursor.itersize = _BATCH
                cursor.execute(asked)
                stored = spilled(_fetched(cursor, schema), schema, folder)
    except psycopg.OperationalError as error:
        why = " ".join(str(error).split())[:200]
        raise Unavailable(
            "B249", f"{shown} does not answer", why=why, fix="look at host, port, user and password"
        ) from None
    except psycopg.Error as error:
        why = " ".join(str(error).split())[:200]
        raise BoucleError(
            "B249", f"{shown} cannot be read", why=why, fix="grant select on the table"
        ) from None
    connection.execute(f"create temp view data as select * from read_parquet({text(str(stored))})")
    return Opened(
        connection, where[1], untyped=False, notes=["PostgreSQL"], keys=tuple(keys),
        required=tuple(name for name, free, *_ in columns if free == "NO"),
            address=f"{shown}?table={name_of(Path(where[1]))}",
    )  # fmt: skip


_KEYS = """
select attname from pg_index join pg_attribute on attrelid = indrelid and attnum = any(indkey)
where indrelid = %s::regclass and indisprimary order by array_position(indkey::int2[], attnum)
"""
_COLUMNS = """
select column_name, is_nullable, udt_name, numeric_precision, numeric_scale from information_schema.columns
where table_schema = %s and table_name = %s order by ordinal_position
"""
_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(), "int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "float4": pa.float32(),
    "float8": pa.float64(), "date": pa.date32(), "time": pa.time64("us"), "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"), "bytea": pa.binary(),
}  # fmt: skip


def _arrow(name: str, precision: int | None, scale: int | None) -> pa.DataType:
    if name == "numeric" and precision and precision <= 38:
        return pa.decimal128(precision, scale or 0)
    return _TYPES.get(name, pa.string())


def _fetched(cursor: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while kept := cursor.fetchmany(_BATCH):
        columns = zip(*kept, strict=True)
        arrays = [
            pa.array([_plain(value) for value in column], field.type) if not pa.types.is_string(field.type)
            else pa.array([None if value is None else str(value) for value in column], pa.string())
            for column, field in zip(columns, schema, strict=True)
        ]  # fmt: skip
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _plain(value: Any) -> Any:
    """Moments out of what Arrow can hold, such as PostgreSQL's infinity, are nothing."""
    return value if not isinstance(value, decimal.Decimal | dt.datetime) or value == value else None  # noqa: PLR0124 - NaN

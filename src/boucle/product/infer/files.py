# ruff: noqa: S608 - names and texts are quoted by `quoted` and `text`
"""Opens whatever an address names: a file by its ending, a table of a database by its scheme."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from boucle.errors import BoucleError, MissingExtra
from boucle.product.infer.database import open_duckdb, open_postgresql, open_sqlite
from boucle.product.infer.delimited import open_delimited, open_json_lines
from boucle.product.infer.opened import Opened, connect, name_of, spilled, text

__all__ = ["open_data"]

_BATCH = 10_000
_DELIMITED = {".csv", ".tsv", ".txt", ".psv", ".dat"}
_ENDINGS = "csv, tsv, txt, parquet, avro, jsonl, ndjson, xlsx, db, sqlite, duckdb, or postgresql://…"


def open_data(
    address: str,
    folder: Path,
    *,
    table: str | None = None,
    sheet: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> Opened:
    """A table called `data` of what the address names; `folder` takes what does not fit into memory."""
    if address.startswith(("postgresql://", "postgres://")):
        return open_postgresql(connect(folder), address, table, folder)
    path = Path(address.removeprefix("file://"))
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"there is no file {path}"
        raise BoucleError("B249", what, fix=f"give a file or an address: {_ENDINGS}")
    connection = connect(folder)
    ending = path.suffix.lower()
    if ending in _DELIMITED:
        return open_delimited(connection, path, delimiter, encoding)
    if ending in {".jsonl", ".ndjson"}:
        return open_json_lines(connection, path)
    if ending in {".parquet", ".pq"}:
        return _open_parquet(connection, path)
    if ending == ".avro":
        return _open_avro(connection, path, folder)
    if ending in {".xlsx", ".xlsm"}:
        from boucle.product.infer.sheet import open_sheet

        return open_sheet(connection, path, sheet)
    if ending in {".db", ".sqlite", ".sqlite3", ".duckdb"}:
        with path.open("rb") as file:
            head = file.read(16)
        if head == b"SQLite format 3\x00":
            return open_sqlite(connection, path, table, folder)
        return open_duckdb(connection, path, table)
    raise BoucleError("B249", f"nobody knows how to read {path.name}", fix=f"give one of: {_ENDINGS}")


def _open_parquet(connection: Any, path: Path) -> Opened:
    import duckdb

    try:
        connection.execute(f"create temp view data as select * from read_parquet({text(str(path))})")
        connection.execute("select count(*) from data").fetchall()[0]
    except duckdb.Error as error:
        why = str(error).partition("\n")[0][:200]
        raise BoucleError("B249", f"{path} is no Parquet file", why=why, fix="give a complete file") from None
    return Opened(connection, name_of(path), untyped=False, notes=["Parquet"], address=str(path))


def _open_avro(connection: Any, path: Path, folder: Path) -> Opened:
    try:
        import fastavro
    except ModuleNotFoundError:
        raise MissingExtra(str(path), "fastavro", "avro") from None
    from boucle.product.formats import arrow, avro
    from boucle.product.formats.losses import Losses

    losses = Losses()
    with path.open("rb") as file:
        try:
            reader: Any = fastavro.reader(file)
            ((name, columns),) = avro.from_schema(reader.writer_schema, losses)
            stored = spilled(
                _batches(reader, arrow.to_schema(columns, losses)), arrow.to_schema(columns), folder
            )
        except (ValueError, EOFError, KeyError, IndexError, TypeError, StopIteration, OSError) as error:
            why = f"{type(error).__name__}: {error}"
            raise BoucleError(
                "B249", f"{path} is no Avro file", why=why, fix="give a complete container file"
            ) from None
    opened = _open_parquet(connection, stored)
    opened.name, opened.notes, opened.address = name, ["Avro", *losses.found], str(path)
    opened.required = tuple(one.name for one in columns if one.required)
    return opened


def _batches(rows: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    kept: list[dict[str, Any]] = []
    for row in rows:
        kept.append(row)
        if len(kept) == _BATCH:
            yield pa.RecordBatch.from_pylist(kept, schema)
            kept = []
    if kept:
        yield pa.RecordBatch.from_pylist(kept, schema)

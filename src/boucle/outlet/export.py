"""Files: a table's version as Parquet or CSV in a folder of its own, with a manifest of checksums.

The folder is complete or not there: it is written under another name and then renamed. A reader who finds
`manifest.json` finds every file it names, with the SHA-256 it says.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from boucle.errors import BoucleError, Unavailable
from boucle.lake.delta import LakeTable
from boucle.lake.sql import Sql

__all__ = ["export", "verify"]

_PER_FILE = 1_000_000


def export(
    sql: Sql, table: LakeTable, folder: str | Path, form: str = "parquet", version: int | None = None
) -> dict[str, Any]:
    """Write one version (None: the newest) to `folder/<table>/<version>`; gives the manifest.

    A version that is there already is left as it is. Raises B505 for a version that cannot be read, B855 for
    another form than `parquet` and `csv`, `Unavailable` when the folder cannot be written.
    """
    if form not in {"parquet", "csv"}:
        raise BoucleError("B855", f"files cannot be {form!r}", fix="parquet or csv")
    number = table.version if version is None else version
    place = Path(folder) / table.name / str(number)
    if (place / "manifest.json").exists():
        return dict(json.loads((place / "manifest.json").read_text(encoding="utf-8")))
    aside = place.with_name(f".{number}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        manifest = {"table": table.name, "zone": table.zone, "version": number, "format": form}
        manifest |= _written(sql, table, number, aside, form)
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        aside.rename(place)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise Unavailable(
            "B856",
            f'table "{table.name}" cannot be exported now',
            where=str(place),
            why=str(error),
            fix="check space and rights",
        ) from error
    return manifest


def _written(sql: Sql, table: LakeTable, version: int, folder: Path, form: str) -> dict[str, Any]:
    session = sql.session()
    files: list[dict[str, Any]] = []
    try:
        relation = sql.at(table, version)
        answer = session.read(f"SELECT * EXCLUDE (_file, _row) FROM {relation} ORDER BY _file, _row")  # noqa: S608
        writer: Any = None
        rows = 0
        for batch in answer.rows:
            if writer is None:
                path = folder / f"part-{len(files):05d}.{form}"
                files.append({"name": path.name})
                schema = (
                    answer.schema
                    if form == "parquet"
                    else _flat(pa.Table.from_batches([], answer.schema)).schema
                )
                writer = (
                    pq.ParquetWriter(path, schema) if form == "parquet" else pa_csv.CSVWriter(path, schema)
                )
            writer.write_table(
                pa.Table.from_batches([batch]) if form == "parquet" else _flat(pa.Table.from_batches([batch]))
            )
            rows += batch.num_rows
            if rows >= _PER_FILE * len(files):
                writer.close()
                writer = None
        if writer is not None:
            writer.close()
    finally:
        session.close()
    for file in files:
        path = folder / str(file["name"])
        file |= {"bytes": path.stat().st_size, "sha256": _checksum(path)}
    columns = [{"name": field.name, "type": str(field.type)} for field in answer.schema]
    return {"rows": rows, "columns": columns, "files": files}


def _flat(rows: pa.Table) -> pa.Table:
    """Columns CSV can hold: lists and structs as JSON."""
    columns = [
        pa.array(
            [None if one is None else json.dumps(one, default=str) for one in column.to_pylist()], pa.string()
        )
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type)
        else column
        for column in rows.columns
    ]
    return pa.table(columns, names=rows.column_names)


def verify(folder: str | Path) -> list[str]:
    """What is wrong with an exported version: missing files, files that are not those that were written."""
    place = Path(folder)
    try:
        manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
        named = [(str(file["name"]), str(file["sha256"])) for file in manifest["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"manifest.json cannot be read: {error}"]
    wrong = []
    for name, checksum in named:
        path = place / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif _checksum(path) != checksum:
            wrong.append(f"{name} is not what was written")
    return wrong


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

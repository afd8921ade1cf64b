"""Rows to learn from, with the exact version they are of: a table of the lake, or a Parquet file.

A version is told by Delta's number and by the digest of the files it consists of, so that the same training can be
asked for again, and a file that was exchanged under the same name is noticed.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.sql import Sql, find_tables

__all__ = ["DataVersion", "Source"]

_CHUNK = 1 << 20


class DataVersion(Struct, frozen=True):
    """Which rows were read: `version` is Delta's, -1 for a file; `digest` is of its files."""

    table: str
    version: int
    digest: str
    rows: int


class Source:
    """Tables by the names a product.yaml gives them: of a lake's folder, or files beside it."""

    def __init__(self, folder: str | Path = ".", lake: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.lake = Path(lake) if lake else None

    def read(
        self, table: str, columns: Sequence[str], version: DataVersion | None = None
    ) -> tuple[pa.Table, DataVersion]:
        """These columns of a table, as it is now or as it was at a version.

        B625 when there is no such table or column, B626 when the version asked for is no longer what it was.
        """
        wanted = list(dict.fromkeys(columns))
        if table.endswith(".parquet"):
            rows, found = self._file(table, wanted)
        else:
            rows, found = self._delta(table, wanted, version)
        if version and (found.version, found.digest) != (version.version, version.digest):
            raise BoucleError(
                "B626",
                f"{table} is not what it was",
                why=f"its digest is {found.digest[:12]}…, the record says {version.digest[:12]}…",
                fix="restore the files of that version; vacuum and retention must leave what models were trained on",
            )
        return rows, found

    def _file(self, table: str, columns: list[str]) -> tuple[pa.Table, DataVersion]:
        path = self.folder / table
        try:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            opened = pq.ParquetFile(path)
            _check(table, columns, opened.schema_arrow.names)
            rows = opened.read(columns)
        except (OSError, pa.ArrowException) as error:
            fix = "name a Parquet file, relative to product.yaml"
            raise BoucleError("B625", f"{table} cannot be read", why=str(error), fix=fix) from error
        return rows, DataVersion(table, -1, digest.hexdigest(), rows.num_rows)

    def _delta(
        self, name: str, columns: list[str], version: DataVersion | None
    ) -> tuple[pa.Table, DataVersion]:
        table = self._table(name)
        number = table.version if version is None else version.version
        _check(name, columns, table.schema_at(number).names)
        files = sorted(f"{Path(file.path).name} {file.bytes}\n" for file in table.files(number))
        digest = hashlib.sha256("".join(files).encode()).hexdigest()
        chosen = ", ".join(f'"{column}"' for column in columns)
        sql = Sql(self.lake or "")
        try:
            rows = sql.query(f'SELECT {chosen} FROM "{table.zone}"."{table.name}" AT (VERSION => {number})')  # noqa: S608
        finally:
            sql.close()
        return rows, DataVersion(f"{table.zone}.{table.name}", number, digest, rows.num_rows)

    def _table(self, name: str) -> LakeTable:
        zone, _, short = name.rpartition(".")
        tables = find_tables(self.lake) if self.lake and self.lake.is_dir() else []
        meant = [one for one in tables if one.name == short and zone in {"", one.zone}]
        if meant:
            return meant[-1]
        raise BoucleError(
            "B625",
            f"there is no table {name!r}",
            where=str(self.lake or ""),
            why=f"tables: {', '.join(f'{one.zone}.{one.name}' for one in tables) or 'none'}",
            fix="run the product first, say where with --folder, or name a .parquet file",
        )


def _check(table: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    if missing := [one for one in wanted if one not in known]:
        raise BoucleError(
            "B625",
            f"{table} has no column {', '.join(missing)}",
            why=f"columns: {', '.join(known)}",
            fix="correct the name in product.yaml",
        )

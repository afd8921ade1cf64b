"""What can be checked as a whole: files, folders of files, Delta tables and Arrow objects, as DuckDB reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from boucle.errors import BoucleError
from boucle.quality.sql_text import literal

__all__ = ["Relation", "arrow_relation", "file_relation"]

_READERS = {
    ".parquet": "read_parquet",
    ".csv": "read_csv", ".csv.gz": "read_csv", ".tsv": "read_csv",
    ".json": "read_json", ".ndjson": "read_json", ".jsonl": "read_json", ".ndjson.gz": "read_json",
}  # fmt: skip
_ARROW = (".arrow", ".feather", ".ipc", ".arrows")


class Relation(Struct, frozen=True):
    """Where rows are read from: SQL after FROM, the files it reads, or an Arrow object registered under `sql`."""

    sql: str
    files: tuple[str, ...] = ()
    arrow: Any = None


def arrow_relation(rows: Any, name: str = "given rows") -> Relation:
    """A pyarrow Table, RecordBatch or Dataset."""
    return Relation('"' + name.replace('"', "") + '"', (), rows)


def file_relation(path: str | Path | Sequence[str | Path]) -> Relation:
    """A file, a folder of files of one kind, or a Delta table's folder; B442 when there is nothing to read."""
    if isinstance(path, str | Path):
        return _one(Path(path))
    return _of_files([Path(one) for one in path])


def _one(path: Path) -> Relation:
    if (path / "_delta_log").is_dir():
        from boucle.lake.delta import LakeTable

        table = LakeTable(path)
        files = [file.path for file in table.files()]
        if not files:
            return Relation('"no rows"', (), table.schema.empty_table())
        paths = ", ".join(literal(file) for file in files)
        return Relation(
            f"read_parquet([{paths}], union_by_name = true, hive_partitioning = true, hive_types_autocast = false)",
            tuple(files),
        )
    if path.is_dir():
        return _of_files(sorted(file for file in path.rglob("*") if _reader(file)))
    if not path.exists():
        raise BoucleError(
            "B442", f"there is no file {path}", fix="name a file, a folder of files or a Delta table"
        )
    return _of_files([path])


def _of_files(files: list[Path]) -> Relation:
    readers = {_reader(file) for file in files}
    if not files or len(readers) != 1 or "" in readers:
        known = ", ".join([*_READERS, *_ARROW])
        what = f"{files[0]} cannot be read as a table" if files else "there are no files to read"
        raise BoucleError(
            "B442",
            what,
            why="its kind is not known, or there are several",
            fix=f"give files of one kind: {known}",
        )
    (reader,) = readers
    if reader == "arrow":
        import pyarrow.dataset as ds

        return arrow_relation(ds.dataset([str(file) for file in files], format="ipc"))
    paths = ", ".join(literal(str(file.absolute())) for file in files)
    return Relation(f"{reader}([{paths}])", tuple(str(file.absolute()) for file in files))


def _reader(file: Path) -> str:
    known = next((reader for suffix, reader in _READERS.items() if file.name.endswith(suffix)), "")
    return known or ("arrow" if file.name.endswith(_ARROW) else "")

"""A table as Apache Iceberg (version 2), for tools that read that and not Delta.

The Iceberg table lies in a folder of its own, in the layout engines know without a catalogue:
`metadata/vN.metadata.json` and `metadata/version-hint.text`. Its data files are the Delta table's own where that is
possible: a table without partitions in a folder. A partitioned one has its partition values in folder names only,
which Iceberg does not read: its files are copied, with these columns, once each. Exporting again adds what is new.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from boucle.errors import BoucleError, MissingExtra
from boucle.lake.datafile import DataFile, read
from boucle.lake.delta import LakeTable
from boucle.lake.place import Local

__all__ = ["Exported", "export"]

_VERSION = "boucle.version"


class Exported(Struct, frozen=True):
    """What was written: the Delta version it shows, its rows, data files added, and where its metadata is."""

    version: int
    rows: int
    files: int
    metadata: str


def export(table: LakeTable, folder: Path) -> Exported:
    """Write the newest version of a table as Iceberg to `folder`, or bring it up to that; returns what it holds.

    MissingExtra when pyiceberg is not installed; B539 for an empty table or a folder that holds something else.
    """
    try:
        import pyiceberg.table  # noqa: F401 - is it there?
    except ModuleNotFoundError as error:
        raise MissingExtra("boucle lake export", "pyiceberg", "iceberg") from error
    version = table.version
    if version < 0:
        raise BoucleError(
            "B539", f'table "{table.name}" has no version yet', fix="export it once it has rows"
        )
    folder = folder.absolute()
    iceberg = _opened(folder, table.schema_at(version))
    files = table.files(version)
    wanted = {_shown(table, file, folder): file for file in files}
    present = {task.file.file_path for task in iceberg.scan().plan_files()}
    known = _names(iceberg.schema().as_arrow())
    if known != _names(table.schema_at(version)):
        with iceberg.update_schema() as change:
            change.union_by_name(_plain(table.schema_at(version)))
    new = [path for path in wanted if path not in present]
    for path in new:
        _copy(table, wanted[path], path)
    with iceberg.transaction() as change:
        if present - set(wanted):
            change.delete(_always())
            new = list(wanted)
        if new:
            change.add_files(new, check_duplicate_files=False)
        change.set_properties({_VERSION: str(version)})
    return Exported(version, sum(file.rows for file in files), len(new), iceberg.metadata_location)


def _always() -> Any:
    from pyiceberg.expressions import AlwaysTrue

    return AlwaysTrue()


def _names(schema: pa.Schema) -> set[str]:
    return set(schema.names)


def _plain(schema: pa.Schema) -> pa.Schema:
    """Iceberg knows no 16-bit integers: a file's own are read as 32."""
    small = (pa.int8(), pa.int16())
    return pa.schema([pa.field(f.name, pa.int32() if f.type in small else f.type) for f in schema])


def _shown(table: LakeTable, file: DataFile, folder: Path) -> str:
    if isinstance(table.place, Local) and not file.partition:
        return file.path
    return str(folder / "data" / Path(file.inside).name)


def _copy(table: LakeTable, file: DataFile, path: str) -> None:
    """The file with its partition's columns, unless it is the Delta table's own or was copied before."""
    target = Path(path)
    if path == file.path or target.exists():
        return
    rows = read(file, _plain(table.schema), table.place)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    pq.write_table(rows, part, store_schema=False)
    part.rename(target)


def _opened(folder: Path, schema: pa.Schema) -> Any:
    """The Iceberg table of a folder, made when it is not there."""
    from pyiceberg.io import load_file_io
    from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
    from pyiceberg.schema import assign_fresh_schema_ids
    from pyiceberg.serializers import FromInputFile
    from pyiceberg.table import Table
    from pyiceberg.table.metadata import new_table_metadata
    from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

    io = load_file_io({}, str(folder))
    hint = folder / "metadata" / "version-hint.text"
    if hint.exists():
        location = str(folder / "metadata" / f"v{hint.read_text(encoding='ascii').strip()}.metadata.json")
        metadata = FromInputFile.table_metadata(io.new_input(location))
    else:
        if folder.exists() and any(folder.iterdir()):
            raise BoucleError("B539", f"{folder} holds something else", fix="give an empty or a new folder")
        location = str(folder / "metadata" / "v0.metadata.json")
        fields = assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(_plain(schema)))
        metadata = new_table_metadata(
            fields,
            UNPARTITIONED_PARTITION_SPEC,
            UNSORTED_SORT_ORDER,
            str(folder),
            {"format-version": "2"},
        )
    return Table(("lake", folder.name), metadata, location, io, _catalog(folder, io))


def _catalog(folder: Path, io: Any) -> Any:
    """A folder as the only catalogue of its table: a commit is the next metadata file, then the hint."""
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.serializers import ToOutputFile
    from pyiceberg.table import CommitTableResponse
    from pyiceberg.table.update import update_table_metadata

    class Folder(NoopCatalog):  # type: ignore[misc]
        def commit_table(self, table: Any, requirements: Any, updates: Any) -> Any:
            for requirement in requirements:
                requirement.validate(table.metadata)
            metadata = update_table_metadata(table.metadata, updates)
            hint = folder / "metadata" / "version-hint.text"
            number = int(hint.read_text(encoding="ascii")) + 1 if hint.exists() else 1
            location = str(folder / "metadata" / f"v{number}.metadata.json")
            ToOutputFile.table_metadata(metadata, io.new_output(location))
            part = hint.with_suffix(".part")
            part.write_text(str(number), encoding="ascii")
            part.rename(hint)
            return CommitTableResponse(metadata=metadata, metadata_location=location)

    return Folder("lake")

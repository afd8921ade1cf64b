"""The tables a transformation reads, as DuckDB sees them: each at one version, whatever is committed meanwhile."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from boucle.lake.datafile import DataFile, read
from boucle.lake.delta import LakeTable
from boucle.lake.duck import literal, name
from boucle.lake.history import changes
from boucle.lake.place import Local
from boucle.lake.stored import DAY

__all__ = ["show", "show_changes", "shown_columns"]


def shown_columns(schema: pa.Schema) -> list[str]:
    """The columns people see: `X_ns`, the nanoseconds of `X`, stays behind."""
    return [one for one in schema.names if not (one.endswith("_ns") and one[:-3] in schema.names)]


def show(duck: Any, table: LakeTable, version: int, view: str, sample: str = "") -> None:
    """Make `view` the table at a version; with `sample` (a condition) only those of its rows."""
    schema = table.schema_at(version)
    condition = f" WHERE {sample}" if sample else ""
    files = table.files(version) if version >= 0 else []
    if isinstance(table.place, Local) and files:
        duck.execute(f"CREATE OR REPLACE VIEW {view} AS {_parquet(files, schema)}{condition}")
        return
    duck.register("rows_of_one", _shown(schema.empty_table()))
    duck.execute(f"CREATE OR REPLACE TABLE {view} AS SELECT * FROM rows_of_one")
    for file in files:  # one at a time: DuckDB spills, Arrow does not
        duck.register("rows_of_one", _shown(read(file, schema, table.place)))
        duck.execute(f"INSERT INTO {view} SELECT * FROM rows_of_one{condition}")
    duck.unregister("rows_of_one")


def show_changes(
    duck: Any, table: LakeTable, since: int, until: int, gained: str, lost: str
) -> tuple[int, int]:
    """Make `gained` and `lost` the rows that came and went between two versions; returns how many each has."""
    schema = table.schema_at(until)
    counts = [0, 0]
    for view in (gained, lost):
        duck.register("rows_of_one", _shown(schema.empty_table()))
        duck.execute(f"CREATE OR REPLACE TABLE {view} AS SELECT * FROM rows_of_one")
    for change in changes(table, since, until):
        for index, (view, rows) in enumerate(((gained, change.inserted), (lost, change.deleted))):
            if len(rows):
                duck.register("rows_of_one", _shown(rows))
                duck.execute(f"INSERT INTO {view} BY NAME SELECT * FROM rows_of_one")
                counts[index] += len(rows)
    duck.unregister("rows_of_one")
    return counts[0], counts[1]


def _shown(rows: pa.Table) -> pa.Table:
    return rows.select(shown_columns(rows.schema))


def _parquet(files: Sequence[DataFile], schema: pa.Schema) -> str:
    paths = ", ".join(literal(file.path) for file in files)
    columns = []
    for one in shown_columns(schema):
        text = one in files[0].partition and one != DAY and not pa.types.is_string(schema.field(one).type)
        columns.append(
            f"CAST({name(one)} AS {_sql_type(schema.field(one).type)}) AS {name(one)}" if text else name(one)
        )
    return (
        f"SELECT {', '.join(columns)} FROM read_parquet([{paths}], "
        "union_by_name = true, hive_partitioning = true, hive_types_autocast = false)"
    )


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_date32(kind):
        return "DATE"
    return "BOOLEAN" if pa.types.is_boolean(kind) else "BIGINT"

"""delta-rs, as far as tables use it: opening, making, and the changes that are not worth writing ourselves.

What it leaves to its caller (measured on deltalake 1.6.6), and who sees to it:

- it retries a commit that lost a race by itself, and then two that take the same files away both succeed, rows and
  all: no commit is ever retried there; who loses looks at the newest version and begins again;
- the same (app, transaction) written twice in sequence would be accepted twice: `LakeTable` asks first;
- it lists and reads the log at each commit: `boucle.lake.publish` writes those of a folder itself;
- deletion vectors are never enabled, because delta-rs itself then refuses to read the table.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, PostCommitHookProperties, RemoveAction

from boucle.lake.commit import Action, Add
from boucle.lake.place import Place

__all__ = [
    "BROKEN",
    "CHECKPOINT_EVERY",
    "CommitFailedError",
    "DeltaTable",
    "TableNotFoundError",
    "add_columns",
    "append_columns",
    "commit",
    "create",
    "merge",
    "open_table",
    "properties",
    "schema_of",
]

BROKEN = (DeltaError, OSError)
"""What a table raises that cannot be read or written now. A full disk comes as either of them."""
CHECKPOINT_EVERY = 50
"""One costs delta-rs as much as ten commits cost us; a table with fewer opens a little slower elsewhere."""
_CONFIGURATION = {
    "delta.checkpointInterval": str(CHECKPOINT_EVERY),
    # Checkpoints need not remember what was taken away: our vacuum asks the log, and they stay small.
    "delta.deletedFileRetentionDuration": "interval 0 seconds",
    "delta.logRetentionDuration": "interval 168 hours",
}
_AFTER = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
"""Looking for expired logs at each checkpoint costs as much as the log is long: `vacuum` does it now and then."""


def open_table(place: Place, version: int | None = None, below: str = "") -> DeltaTable:
    """The table as it is, or was at a version; `below` names a folder within it that has a log of its own."""
    uri = f"{place.uri}/{below}" if below else place.uri
    return DeltaTable(uri, version=version, storage_options=place.options)


def create(place: Place, schema: pa.Schema, partitions: Sequence[str], description: str) -> None:
    """Make an empty table, unless somebody else just did."""
    DeltaTable.create(
        place.uri,
        schema=schema,
        mode="ignore",
        partition_by=list(partitions),
        description=description,
        configuration=_CONFIGURATION,
        storage_options=place.options,
    )


def properties(marks: Mapping[str, int], because: Mapping[str, Any] | None) -> CommitProperties:
    """What is told with a change: transactions, why, and never to retry."""
    return CommitProperties(
        app_transactions=[Transaction(app, number) for app, number in marks.items()] or None,
        custom_metadata={"boucle": dict(because)} if because else None,
        max_commit_retries=0,
    )


def schema_of(table: DeltaTable) -> pa.Schema:
    """The columns at rest."""
    return pa.schema(
        [pa.field(field.name, field.type) for field in pa.schema(table.schema().to_arrow()).remove_metadata()]
    )


def commit(
    table: DeltaTable,
    actions: Sequence[Action],
    told: CommitProperties,
    *,
    mode: str = "append",
    schema: pa.Schema | None = None,
) -> None:
    """Commit files that are already there; CommitFailedError when somebody was faster."""
    table.create_write_transaction(
        [_native(one) for one in actions],
        mode,
        schema or schema_of(table),
        list(table.metadata().partition_columns),
        commit_properties=told,
        post_commithook_properties=_AFTER,
    )
    table.update_incremental()


def _native(action: Action) -> Any:
    path, values = unquote(action.path), action.partition_values or {}
    if isinstance(action, Add):
        return AddAction(
            path, action.size, values, action.modification_time, action.data_change, action.stats
        )
    return RemoveAction(path, action.data_change, action.deletion_timestamp or 0, action.size, values)


def append_columns(table: DeltaTable, rows: pa.Table, told: CommitProperties) -> None:
    """Rows and the columns they bring, in one commit."""
    write_deltalake(table, rows, mode="append", schema_mode="merge", commit_properties=told)


def add_columns(table: DeltaTable, columns: Sequence[pa.Field]) -> None:
    """Columns without rows."""
    added = Schema.from_arrow(pa.schema(columns))
    table.alter.add_columns(list(added.fields), commit_properties=properties({}, {"did": "add columns"}))
    table.update_incremental()


def merge(table: DeltaTable, rows: pa.Table, key: Sequence[str], told: CommitProperties) -> None:
    """Rows, each in the place of the one with its key, or added."""
    same = " AND ".join(f"have.`{one}` = new.`{one}`" for one in key)
    merger = table.merge(rows, same, source_alias="new", target_alias="have", commit_properties=told)
    merger.when_matched_update_all().when_not_matched_insert_all().execute()

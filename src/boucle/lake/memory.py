"""A table in memory: the same rules as the lake's, for notebooks and tests; it dies with the process."""

import threading
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from boucle.block import Block, Position
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.lake.stored import check_transaction, from_stored, stored_schema, to_stored, widened

__all__ = ["MemoryTable"]


class MemoryTable:
    """A table that keeps every version in memory and behaves as LakeTable does."""

    def __init__(self, name: str, *, time: str = "at", order: Sequence[str] = ("machine", "sensor")) -> None:
        self.name = name
        self.time = time
        self._order = tuple(order)
        self._versions: list[pa.Table] = []
        self._transactions: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def version(self) -> int:
        """The newest version; -1 before the first append."""
        return len(self._versions) - 1

    @property
    def rows(self) -> int:
        """Rows in the newest version."""
        return len(self._versions[-1]) if self._versions else 0

    def transaction(self, app: str) -> int | None:
        """The last transaction `app` committed; None when it never did."""
        return self._transactions.get(app)

    def append(self, block: Block | Sequence[Block], *, app: str = "", transaction: int | None = None) -> int:
        """Add rows and return the version; the same (app, transaction) again changes nothing."""
        batches = [block.rows] if isinstance(block, Block) else [one.rows for one in block]
        check_transaction(app, transaction)
        with self._lock:
            if transaction is not None and self._transactions.get(app, -1) >= transaction:
                return self.version
            if not any(batch.num_rows for batch in batches):
                return self.version
            wanted = [stored_schema(batch.schema, self.time, ()) for batch in batches]
            target = self._versions[-1].schema if self._versions else wanted[0]
            for schema in wanted:
                target = widened(self.name, target, schema)
            before = [to_null_filled(self._versions[-1], target)] if self._versions else []
            self._versions.append(pa.concat_tables([*before, to_stored(batches, target, self.time)]))
            if transaction is not None:
                self._transactions[app] = transaction
            return self.version

    def scan(
        self, since: Nanos | None = None, until: Nanos | None = None, version: int | None = None
    ) -> Iterator[Block]:
        """Rows with `since` ≤ time < `until`, in order of time, as they were at `version`."""
        if not self._versions:
            return
        if version is not None and not 0 <= version < len(self._versions):
            raise BoucleError(
                "B505",
                f'table "{self.name}" has no version {version}',
                fix=f"ask for a version from 0 to {self.version}",
            )
        rows = from_stored(self._versions[-1 if version is None else version])
        at = rows.column(self.time).cast(pa.int64())
        keep = pc.and_(
            pc.greater_equal(at, -(2**63) if since is None else since),
            pc.less(at, 2**63 - 1 if until is None else until),
        )
        order = [self.time, *(name for name in self._order if name in rows.column_names)]
        rows = rows.filter(keep).sort_by([(name, "ascending") for name in order])
        for batch in rows.combine_chunks().to_batches():
            last = batch.column(self.time)[-1].value
            yield Block(self.name, batch, last, Position(self.name, batch.num_rows))


def to_null_filled(rows: pa.Table, target: pa.Schema) -> pa.Table:
    """The same rows with the columns of `target`; those they do not have are null."""
    return pa.table(
        [
            rows.column(field.name).cast(field.type)
            if field.name in rows.column_names
            else pa.nulls(len(rows), field.type)
            for field in target
        ],
        schema=target,
    )

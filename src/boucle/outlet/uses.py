"""Tells the catalogue who reads which table, and over which interface."""

import re
from collections.abc import Iterator

import pyarrow as pa

from boucle.catalog.usage import Usage
from boucle.lake.sql import Sql

__all__ = ["Uses"]

_WORD = re.compile(r"\w+")


class Uses:
    """Counts for one product. A table is used by a statement that names it; counting never fails a question."""

    def __init__(self, usage: Usage, product: str, sql: Sql) -> None:
        self._usage, self._product, self._sql = usage, product, sql

    def statement(self, text: str, who: str, via: str, rows: int) -> None:
        """A statement was answered with so many rows."""
        words = set(_WORD.findall(text.lower()))
        for name in self._sql.known():
            if name.lower() in words:
                self.table(name, who, via, rows)

    def table(self, name: str, who: str, via: str, rows: int) -> None:
        """Rows of one table were given."""
        self._usage.count(self._product, name, who, via, rows)

    def counted(
        self, text: str, who: str, via: str, batches: Iterator[pa.RecordBatch]
    ) -> Iterator[pa.RecordBatch]:
        """The answer to a statement, counted when it was read to its end."""
        rows = 0
        for batch in batches:
            rows += batch.num_rows
            yield batch
        self.statement(text, who, via, rows)

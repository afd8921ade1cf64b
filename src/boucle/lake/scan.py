"""The rows of a version in order of time, from files that overlap, holding only those that do."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from boucle.block import Block, Position
from boucle.clock import Nanos
from boucle.lake.datafile import DataFile, cut, overlaps, read
from boucle.lake.place import Place
from boucle.lake.stored import DAY, from_stored

__all__ = ["Scan"]


class Scan:
    """One version of a table, to be read. `time` "": rows come as the files lie."""

    def __init__(
        self,
        name: str,
        place: Place,
        files: Iterable[DataFile],
        schema: pa.Schema,
        *,
        time: str,
        partition_by: Sequence[str],
    ) -> None:
        self._name, self._place, self._schema, self._time = name, place, schema, time
        self._files = list(files)
        self._order = [time, *(one for one in partition_by if one in schema.names and one != DAY)]
        self._day = bool(time) and DAY in partition_by

    def blocks(self, since: Nanos | None, until: Nanos | None) -> Iterator[Block]:
        """Rows with `since` ≤ time < `until`, in order of time, then of the partition columns."""
        if not self._time:
            yield from self._unordered()
            return
        files = sorted(
            (file for file in self._files if overlaps(file, since, until)),
            key=lambda file: (file.start or 0, file.written_ms, file.path),
        )
        held: list[pa.Table] = []
        given = 0
        for index, file in enumerate(files):
            held.append(self._between(self._read(file), since, until))
            horizon = files[index + 1].start or 0 if index + 1 < len(files) else None
            if horizon is not None and horizon <= (file.start or 0):
                continue
            ready, later = self._split(pa.concat_tables(held), horizon)
            held = [later]
            for batch in cut(ready.sort_by([(name, "ascending") for name in self._order])):
                given += batch.num_rows
                last = batch.column(self._time)[-1].value
                yield Block(self._name, batch, last, Position(self._name, given))

    def _unordered(self) -> Iterator[Block]:
        given = 0
        for file in self._files:
            for batch in cut(self._read(file)):
                given += batch.num_rows
                yield Block(self._name, batch, 0, Position(self._name, given))

    def _read(self, file: DataFile) -> pa.Table:
        return from_stored(read(file, self._schema, self._place), day=self._day)

    def _between(self, rows: pa.Table, since: Nanos | None, until: Nanos | None) -> pa.Table:
        at = rows.column(self._time)
        if since is not None:
            rows = rows.filter(pc.greater_equal(at, pa.scalar(since, pa.int64()).cast(at.type)))
            at = rows.column(self._time)
        if until is not None:
            rows = rows.filter(pc.less(at, pa.scalar(until, pa.int64()).cast(at.type)))
        return rows

    def _split(self, rows: pa.Table, horizon: Nanos | None) -> tuple[pa.Table, pa.Table]:
        if horizon is None:
            return rows, rows.slice(0, 0)
        at = rows.column(self._time)
        early = pc.less(at, pa.scalar(horizon, pa.int64()).cast(at.type))
        return rows.filter(early), rows.filter(pc.invert(early))

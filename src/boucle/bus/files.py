"""Files as sources: parquet, csv, arrow and ndjson, in file order, at any pace.

    file://data/run.csv?time=datetime&where=line:2&pace=1

`time` names the column that becomes `at` (ISO 8601 text, a timestamp, or a number with
`unit=s|ms|us|ns`; without a zone it is UTC), `where` keeps the rows whose column reads so, `pace`
is how many seconds of the file go by in one second of the clock (0: as fast as possible). A path
with `*` is read file after file, in order of name.
"""

import difflib
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from boucle.address import Address
from boucle.block import Block, Position
from boucle.clock import SECOND, Clock, Nanos, SystemClock
from boucle.errors import BoucleError, PositionLost
from boucle.ports import Facts

__all__ = ["FileSource"]

_TIME: Final = pa.timestamp("ns", tz="UTC")
_UNITS: Final = {"s": SECOND, "ms": 1_000_000, "us": 1_000, "ns": 1}


class FileSource:
    """Rows of a file, or of several, as Blocks of at most `rows`; Positions count rows of the files.

    Raises B330 when there is no such file, B331 when it cannot be read, B332 when a column that was
    asked for is not in it, B333 when the time cannot be understood.
    """

    facts = Facts(ordered=True, replayable=True, delivery="at-least-once")

    def __init__(
        self,
        address: Address,
        stream: str,
        *,
        clock: Clock | None = None,
        rows: int = 1000,
        time: str = "",
        where: str = "",
        pace: float | None = None,
    ) -> None:
        options = address.options
        self.stream = stream
        self.address = address
        self._clock = clock or SystemClock()
        self._rows = int(options.get("rows", rows))
        self._time = time or options.get("time", "")
        self._unit = _UNITS.get(options.get("unit", "ns"), 1)
        self._column, _, self._wanted = (where or options.get("where", "")).partition(":")
        self._pace = float(options.get("pace", 0.0)) if pace is None else pace
        self._blocks: Iterator[Block] | None = None
        self._next: Block | None = None
        self._finished = False
        self._origin: tuple[Nanos, Nanos] | None = None

    def open(self, resume: Position | None = None) -> None:
        """Start after row `resume` (None: with the first). PositionLost when the file is shorter."""
        files = self._files()
        self._finished = False
        self._origin = None
        self._blocks = self._read(files, 0 if resume is None else resume.offset)
        self._next = next(self._blocks, None)

    def poll(self, wait: float) -> Block | None:
        """The next Block; None at the end, or when it is not due within `wait` seconds."""
        if self._blocks is None or self._finished:
            return None
        if self._next is None:
            self._next = next(self._blocks, None)
        if self._next is None:
            self._finished = True
            return None
        if not self._due(self._next, wait):
            return None
        block, self._next = self._next, None
        return block

    def commit(self, upto: Position) -> None:
        """Nothing to do: a file stays as it is."""

    def state(self) -> str:
        """`connected`, `finished` or `closed`."""
        if self._blocks is None:
            return "closed"
        return "finished" if self._finished else "connected"

    def close(self) -> None:
        """Close the files."""
        self._blocks = self._next = None

    def _files(self) -> list[Path]:
        path = self.address.path
        found = sorted(Path(name) for name in glob(path)) if "*" in path else [Path(path)]  # noqa: PTH207
        if not found or not found[0].is_file():
            folder = Path(path).parent
            near = difflib.get_close_matches(Path(path).name, [f.name for f in folder.glob("*")], n=1)
            fix = (
                f"did you mean {folder / near[0]}?"
                if near
                else "check the path; it starts where you run boucle"
            )
            raise BoucleError("B330", "there is no such file", where=path, fix=fix)
        return found

    def _read(self, files: list[Path], skip: int) -> Iterator[Block]:
        done = 0
        for file in files:
            for batch in _sized(_batches(file), self._rows):
                done += batch.num_rows
                if done <= skip:
                    continue
                rest = batch.slice(batch.num_rows - (done - skip)) if done - skip < batch.num_rows else batch
                rows = self._shaped(file, rest)
                if rows.num_rows:
                    yield Block(self.stream, rows, 0, Position(self.stream, done))
        if done < skip:
            what = f"row {skip} is not there any more"
            fix = "start again without a position"
            raise PositionLost("B334", what, where=self.address.path, why=f"it has {done} rows", fix=fix)

    def _shaped(self, file: Path, rows: pa.RecordBatch) -> pa.RecordBatch:
        if self._column:
            column = rows.column(_index(file, rows, self._column))
            kept = pc.equal(column.cast(pa.string()), self._wanted)
            rows = rows.filter(pc.fill_null(kept, fill_value=False))
        name = self._time or ("at" if "at" in rows.schema.names else "")
        if not name:
            return rows
        index = _index(file, rows, name)
        moments = _moments(file, name, rows.column(index), self._unit)
        return rows.set_column(index, pa.field("at", _TIME), moments)

    def _due(self, block: Block, wait: float) -> bool:
        if self._pace <= 0 or "at" not in block.rows.schema.names:
            return True
        moments = block.rows.column("at").cast(pa.int64())
        first, last = moments[0].as_py(), moments[-1].as_py()
        if first is None or last is None:
            return True
        if self._origin is None:
            self._origin = (first, self._clock.now())
        began, opened = self._origin
        left = (opened + (last - began) / self._pace - self._clock.now()) / SECOND
        patience = wait * self._clock.speed
        if left > 0:
            self._clock.sleep(min(left, patience))
        return bool(left <= patience)


def _index(file: Path, rows: pa.RecordBatch, name: str) -> int:
    names = rows.schema.names
    if name in names:
        return int(names.index(name))
    near = difflib.get_close_matches(name, names, n=1)
    fix = f'did you mean "{near[0]}"?' if near else f"it has: {', '.join(names)}"
    raise BoucleError("B332", f'there is no column "{name}"', where=str(file), fix=fix)


def _moments(file: Path, name: str, column: pa.Array, unit: int) -> pa.Array:
    try:
        if pa.types.is_floating(column.type):
            column = pc.round(pc.multiply(column, float(unit))).cast(pa.int64())
        elif pa.types.is_integer(column.type):
            column = pc.multiply(column.cast(pa.int64()), unit)
        return column.cast(_TIME)
    except pa.ArrowInvalid as error:
        fix = "write times as 2026-01-31T12:00:00Z, or as numbers with unit=s, ms, us or ns"
        what = f'the times in "{name}" cannot be understood'
        raise BoucleError("B333", what, where=str(file), why=str(error), fix=fix) from error


def _sized(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `size`, whatever the file's own cut: Positions do not depend on it."""
    kept: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        at = 0
        while at < batch.num_rows:
            piece = batch.slice(at, size - count)
            kept.append(piece)
            at, count = at + piece.num_rows, count + piece.num_rows
            if count == size:
                yield _joined(kept)
                kept, count = [], 0
    if kept:
        yield _joined(kept)


def _joined(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    readers: dict[str, Callable[[Path], Iterator[pa.RecordBatch]]] = {
        ".parquet": _parquet,
        ".pq": _parquet,
        ".csv": _csv,
        ".arrow": _arrow,
        ".feather": _arrow,
        ".ipc": _arrow,
        ".ndjson": _ndjson,
        ".jsonl": _ndjson,
    }
    reader = readers.get(file.suffix.lower())
    if reader is None:
        fix = f"known: {', '.join(sorted(readers))}"
        raise BoucleError("B331", f'files ending in "{file.suffix}" are not known', where=str(file), fix=fix)
    try:
        yield from reader(file)
    except (pa.ArrowException, OSError) as error:
        fix = "check that it is whole and of the kind its name says"
        raise BoucleError(
            "B331", "the file cannot be read", where=str(file), why=str(error), fix=fix
        ) from error


def _parquet(file: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as source:
        yield from source.iter_batches()


def _csv(file: Path) -> Iterator[pa.RecordBatch]:
    from pyarrow import csv

    with file.open(encoding="utf-8", errors="replace") as source:
        head = source.readline()
    delimiter = max(",;\t|", key=head.count)
    with csv.open_csv(file, parse_options=csv.ParseOptions(delimiter=delimiter)) as reader:
        yield from reader


def _arrow(file: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(file), "rb") as source:
        try:
            reader = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            yield from pa.ipc.open_stream(source)
            return
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)


def _ndjson(file: Path) -> Iterator[pa.RecordBatch]:
    from pyarrow import json

    yield from json.read_json(file).to_batches()

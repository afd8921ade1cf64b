"""Whatever happens to its bytes, the log gives the rows that were written, or the named error."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.errors import BoucleError

QUIET = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
ROWS = 60


@pytest.fixture(scope="module")
def written() -> Iterator[Path]:
    """A small log of several segments, every row of it flushed."""
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(folder, stream="readings", segment_bytes=1500, fsync_interval=0)
        for first in range(0, ROWS, 6):
            rows = pa.record_batch({"number": range(first, first + 6), "text": [f"n{n}" for n in range(6)]})
            log.append(Block("readings", rows, first, Position("press", first)))
            log.flush()
        log.close()
        yield Path(folder)


def outcome(folder: Path, *, repair: bool) -> list[int] | str:
    log = EventLog(folder, stream="readings")
    try:
        if repair:
            log.open()
        return [n for block in log.read() for n in block.rows.column("number").to_pylist()]
    except BoucleError as error:
        return error.code
    finally:
        log.close()


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, int, int, bytes]]:
    """Flips, cuts, insertions and overwrites: (what, file number, place in per mille, bytes)."""
    one = st.tuples(
        st.sampled_from(["flip", "cut", "insert", "overwrite", "replace"]),
        st.integers(0, 9),
        st.integers(0, 999),
        st.binary(min_size=1, max_size=80),
    )
    return draw(st.lists(one, min_size=1, max_size=3))


def apply(files: list[Path], damage: tuple[str, int, int, bytes]) -> None:
    what, number, place, text = damage
    file = files[number % len(files)]
    data = bytearray(file.read_bytes())
    at = len(data) * place // 1000
    if what == "flip" and data:
        data[at] ^= text[0] or 1
    elif what == "cut":
        del data[at:]
    elif what == "insert":
        data[at:at] = text
    elif what == "overwrite":
        data[at : at + len(text)] = text
    else:
        data[:] = text
    file.write_bytes(data)


@QUIET
@given(damage=damages(), repair=st.booleans())
def test_damaged_segments_give_all_rows_or_the_error(
    written: Path, damage: list[tuple[str, int, int, bytes]], repair: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(written, Path(place) / "log"))
        files = sorted(folder.glob("*.seg"))
        for one in damage:
            apply(files, one)
        told = outcome(folder, repair=repair)
        assert told == "B311" or told == list(range(ROWS))


@QUIET
@given(damage=damages(), repair=st.booleans())
def test_without_its_mark_it_gives_the_first_rows_or_the_error(
    written: Path, damage: list[tuple[str, int, int, bytes]], repair: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(written, Path(place) / "log"))
        (folder / "durable").unlink()
        files = sorted(folder.glob("*.seg"))
        for one in damage:
            apply(files, one)
        told = outcome(folder, repair=repair)
        assert told == "B311" or told == list(range(len(told)))


@QUIET
@given(damage=damages())
def test_a_damaged_mark_changes_nothing(written: Path, damage: list[tuple[str, int, int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(written, Path(place) / "log"))
        for one in damage:
            apply([folder / "durable"], one)
        assert outcome(folder, repair=True) == list(range(ROWS))


@QUIET
@given(
    cuts=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    segment=st.integers(300, 3000),
    flushes=st.lists(st.booleans(), min_size=12, max_size=12),
    places=st.tuples(st.floats(0, 1), st.integers(0, 100)),
)
def test_the_cut_into_blocks_segments_and_flushes_changes_nothing(
    cuts: list[int], segment: int, flushes: list[bool], places: tuple[float, int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(folder, segment_bytes=segment, fsync_interval=0)
        end = 0
        for count, flush in zip(cuts, flushes, strict=False):
            rows = pa.record_batch({"number": pa.array(range(end, end + count), pa.int64())})
            end += count
            assert log.append(Block("log", rows, 0, Position("press", end))).offset == end
            if flush:
                log.flush()
        log.close()
        start, most = int(places[0] * end), places[1]
        reader = EventLog(folder)
        read = list(reader.read(Position(reader.stream, start), most))
        expected = list(range(start, min(end, start + most)))
        assert [n for block in read for n in block.rows.column("number").to_pylist()] == expected

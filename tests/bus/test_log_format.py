"""Bytes of older logs are read as they are, and of the parts that came later no bit may change."""

import base64
import contextlib
import json
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.bus.frames import HEADER, KEPT_KIND, PRODUCERS_KIND, encode, frame_at
from boucle.bus.log import EventLog, Retention
from boucle.bus.log_producers import Producers
from boucle.bus.segments import rows_in
from boucle.clock import SECOND
from boucle.errors import BoucleError
from boucle.testing.clock import ManualClock

QUIET = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
START = 1_767_225_600 * SECOND

# A folder as the first version of the log left it: 12 rows in four Blocks and two segments.
OLD = (
    "c-q}lO>e?54E-yp=V@D4w!@?yoTMMX3T@SjkJ~6LW351dP&KCg_u(`&CF)>jd}*9KKijYNw{hQKx7#^4o?Awk_5Fz306;r%"
    ")|flW$yE7dF#j~IJG8dA2<1Z$pa8<b0pLJ+2_^tO9w>mwL)7<Rm>&{(N-*va?;(%iCC8jLwI#_hsI)OM?Pf!BF&QB(2PXJa"
    "2}N@h-0rg29uo)?Sc?n)@3xCmmpu6G^^$x|M*ThdW&gaY{}|+OaPf)?a!FEzcnR2C&3foF(T~)N6-rMnKXABgL<b3}*rh0S"
    "RHGp0gOHG}R6R;BPo;7-I{Fb!C#l!XQw#A-NVO18p_(dyA^yL^RR_ssk&Ki-RU=)Y@1rzS%o#wSD%bm?|4>RVTB_bS4@?7r"
    "*2;@<(`wqar}MiuZb}uz35jd|{@t>iE7~<BJ5vKr!&4RFwaI+%dUmY_^_r42?^;&94;54!P__)*&EpmATDM+Dm83Y`wb^d-"
    "HqGbNYGo!#vaRBK^@C`T3TVDcGsGD`zd|VCLI"
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    for name, text in json.loads(zlib.decompress(base64.b85decode(OLD))).items():
        (tmp_path / name).write_bytes(base64.b64decode(text))
        os.utime(tmp_path / name, ns=(START, START))
    return tmp_path


def numbers(log: EventLog) -> list[int]:
    return [n for b in log.read() for n in b.rows.column("number").to_pylist()]


def block(first: int, count: int = 3) -> Block:
    rows = pa.record_batch({"number": pa.array(range(first, first + count), pa.int64())})
    return Block("readings", rows, first, Position("press", first + count))


def test_an_older_log_is_read_and_goes_on(old: Path) -> None:
    reader = EventLog(old, stream="readings")
    assert numbers(reader) == list(range(12))
    assert [b.watermark for b in reader.read()] == [0, 30, 60, 90]
    log = EventLog(old, stream="readings", segment_bytes=500, fsync_interval=0)
    assert log.source_position() == Position("press", 12)
    for first in range(12, 30, 3):
        log.append(block(first), producer="a", sequence=first // 3)
    log.flush()
    assert numbers(log) == numbers(reader) == list(range(30))
    assert log.compact(["number"]).rows == 0
    log.close()


def test_an_older_log_is_compacted_and_forgotten(old: Path) -> None:
    clock = ManualClock(START + 100 * SECOND)
    log = EventLog(old, stream="readings", keep=Retention(seconds=1000), clock=clock)
    assert log.retain() == 0
    assert log.compact(["number"]).rows == 0
    clock.advance(901)
    assert log.retain() == 1  # the second segment was last written at START
    assert numbers(log) == list(range(6, 12))
    log.close()


@pytest.fixture(scope="module")
def written() -> Iterator[tuple[Path, list[int]]]:
    """Segments compacted and not, producers between, a group: every byte of it durable."""
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(folder, stream="readings", segment_bytes=2500, fsync_interval=0)
        for sequence in range(16):
            first = sequence * 5
            rows = pa.record_batch({"number": range(first, first + 5), "key": [0, 1, first, 2, 3]})
            one = Block("readings", rows, first, Position("press", first))
            log.append(one, producer="ab"[sequence % 2], sequence=sequence // 2)
        log.flush()
        log.group("lake").commit(Position("readings", 12))
        log.compact(["key"])
        left = numbers(log)
        log.close()
        assert len(left) < 70
        yield Path(folder), left


def copied(folder: Path, place: str) -> Path:
    return Path(shutil.copytree(folder, Path(place) / "log"))


def outcome(folder: Path, left: list[int]) -> str | list[int]:
    log = EventLog(folder, stream="readings", fsync_interval=0)
    try:
        log.open()
        group = log.group("lake")
        assert group.position().offset == 12
        assert numbers(log) == left
        end = log.end()
        for name in "ab":
            assert log.append(block(0), producer=name, sequence=3).offset == 30 + 5 * "ab".index(name) + 5
        assert log.end() == end
        log.compact(["key"])
        return numbers(log)
    except BoucleError as error:
        return error.code
    finally:
        log.close()


def test_the_log_that_is_damaged_below_is_right_when_it_is_not(written: tuple[Path, list[int]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        assert outcome(copied(written[0], place), written[1]) == written[1]


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, 20), place=st.integers(0, 1_000_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_an_error(written: tuple[Path, list[int]], which: int, place: int, bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = copied(written[0], folder)
        files = [*sorted(log.glob("*.seg")), log / "groups" / "lake"]
        file = files[which % len(files)]
        data = bytearray(file.read_bytes())
        data[place % len(data)] ^= 1 << bit
        file.write_bytes(data)
        assert outcome(log, written[1]) == "B311"


@QUIET
@given(
    which=st.integers(0, 20),
    place=st.integers(0, 1_000_000),
    what=st.sampled_from(["cut", "insert", "replace", "overwrite", "swap"]),
    text=st.binary(min_size=1, max_size=100),
)
def test_other_damage_is_an_error_or_changes_nothing(
    written: tuple[Path, list[int]], which: int, place: int, what: str, text: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = copied(written[0], folder)
        files = [*sorted(log.glob("*.seg")), log / "groups" / "lake"]
        file = files[which % len(files)]
        data = bytearray(file.read_bytes())
        at = place % len(data)
        if what == "cut":
            del data[at:]
        elif what == "insert":
            data[at:at] = text
        elif what == "overwrite":
            data[at : at + len(text)] = text
        elif what == "swap":
            data = bytearray(files[place % len(files)].read_bytes())
        else:
            data[:] = text
        file.write_bytes(data)
        assert outcome(log, written[1]) in ("B311", written[1])


@QUIET
@given(
    name=st.sampled_from(
        ["x.compact", "00000000000000000000.compact", "groups/.lake.new", "groups.lock", "lock"]
    ),
    text=st.binary(max_size=200),
)
def test_what_lies_beside_changes_nothing(written: tuple[Path, list[int]], name: str, text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = copied(written[0], folder)
        (log / name).write_bytes(text)
        assert outcome(log, written[1]) == written[1]


@QUIET
@given(text=st.binary(max_size=60))
def test_any_bytes_as_a_group(written: tuple[Path, list[int]], text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = copied(written[0], folder)
        (log / "groups" / "other").write_bytes(text)
        with pytest.raises(BoucleError, match="B311"):
            EventLog(log, stream="readings").group("other").position()
        writer = EventLog(log, stream="readings", keep=Retention(bytes=0))
        with pytest.raises(BoucleError, match="B311"):
            writer.retain()
        writer.close()


@QUIET
@given(body=st.binary(max_size=200), name=st.text(max_size=20), sequence=st.integers(-(2**63), 2**63 - 1))
def test_any_bytes_as_producers(body: bytes, name: str, sequence: int) -> None:
    """A frame that is intact and yet was not written by us: refused with words, never a crash."""
    frame = encode(PRODUCERS_KIND, body, salt=1)
    assert len(frame.parts) == 1
    found = frame_at(memoryview(bytes(frame.parts[0])), 0, 1)
    assert found is not None
    known = Producers()
    with contextlib.suppress(ValueError):
        known.saw(found)
    with contextlib.suppress(BoucleError):
        known.stored(name, sequence, "here")


@QUIET
@given(kept=st.lists(st.integers(0, 2**32 - 1), max_size=5), rows=st.integers(0, 2**32 - 1), body=st.binary())
def test_any_numbers_as_kept_rows(kept: list[int], rows: int, body: bytes) -> None:
    extra = struct.pack(f"<{len(kept)}I", *kept)
    frame = encode(KEPT_KIND, body, salt=1, rows=rows, extra=extra)
    found = frame_at(memoryview(bytes(frame.parts[0])), 0, 1)
    assert found is not None
    assert found.end == frame.size >= HEADER.size
    schema = pa.schema([("number", pa.int64())])
    if not kept:
        assert rows_in(Path("x.seg"), found, schema) == (None, None)
        return
    with pytest.raises(BoucleError, match="B311"):
        rows_in(Path("x.seg"), found, schema)

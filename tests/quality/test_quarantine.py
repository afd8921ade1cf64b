"""What was refused is kept, counted, and can be judged again."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.errors import Unavailable
from boucle.product.contract import StreamContract
from boucle.quality.check import Checker
from boucle.quality.decode import Decoder
from boucle.quality.ledger import Ledger
from boucle.quality.quarantine import QUARANTINE, Quarantine, judge_again
from boucle.quality.reject import REASONS, Reject, reject
from tests.quality.signals import NOW, VIBRATION, StillClock, chunk, stream_of, typed, wire

Opener: TypeAlias = Callable[..., Quarantine]


@pytest.fixture
def opened() -> Iterator[Opener]:
    made: list[Quarantine] = []

    def open_quarantine(folder: Path, **limits: int) -> Quarantine:
        made.append(Quarantine(folder, **limits))
        return made[-1]

    yield open_quarantine
    for one in made:
        one.close()


def entry(number: int, payload: bytes = b"\x00\xff\n") -> Reject:
    return reject("vibration", "malformed", f"number {number}", NOW + number, payload, "t", "arrow")


def test_everything_comes_back_after_a_restart(tmp_path: Path, opened: Opener) -> None:
    kept = opened(tmp_path / "quarantine")
    kept.add([entry(1), entry(2, b"")])
    kept.flush()
    kept.add([reject("s", "future", "é" * 999, NOW, b"x")])
    kept.close()
    kept.close()
    again = opened(tmp_path / "quarantine")
    assert list(again.read())[:2] == [entry(1), entry(2, b"")]
    assert again.counts() == {"malformed": 2, "future": 1}
    assert len(list(again.read())[2].detail) <= 240


def test_a_torn_tail_is_cut_and_a_damaged_line_skipped(tmp_path: Path, opened: Opener) -> None:
    kept = opened(tmp_path)
    kept.add([entry(1), entry(2), entry(3)])
    kept.close()
    file = tmp_path / "quarantine.ndjson"
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1].replace(b"number 2", b"number 9") + lines[2] + lines[0][:40])
    again = opened(tmp_path)
    assert [one.detail for one in again.read()] == ["number 1", "number 3"]
    again.add([entry(4)])
    again.close()
    assert [one.detail for one in opened(tmp_path).read()] == ["number 1", "number 3", "number 4"]


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=6), st.data())
def test_a_cut_anywhere_loses_only_the_tail(texts: list[bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lines"
        ledger = Ledger(file)
        for text in texts:
            ledger.append(text)
        ledger.close()
        size = file.stat().st_size
        cut = data.draw(st.integers(0, size))
        with file.open("r+b") as out:
            out.truncate(cut)
        again = Ledger(file)
        survived = list(again.read())
        assert survived == texts[: len(survived)]
        again.append(b"next")
        assert list(again.read()) == [*survived, b"next"]
        assert again.damaged == 0
        again.close()


def test_long_payloads_are_cut_and_known_by_their_fingerprint(tmp_path: Path, opened: Opener) -> None:
    kept = opened(tmp_path, keep=10)
    kept.add([entry(1, b"x" * 11), entry(2, b"x" * 10)])
    long, short = kept.read()
    assert (long.payload, long.size, long.whole()) == (b"x" * 10, 11, False)
    assert len(long.sha256) == 64
    assert short.whole()


def test_a_full_quarantine_keeps_counting(tmp_path: Path, opened: Opener) -> None:
    kept = opened(tmp_path, room=1)
    kept.add([entry(1)])
    kept.add([entry(2)])
    first, second = kept.read()
    assert first.whole()
    assert (second.payload, second.size) == (b"", 3)
    assert kept.counts() == {"malformed": 2}


def test_rows_for_the_lake(tmp_path: Path, opened: Opener) -> None:
    kept = opened(tmp_path)
    kept.add(entry(number) for number in range(5))
    blocks = list(kept.blocks(size=2))
    assert [block.position.offset for block in blocks] == [2, 4, 5]
    assert all(block.rows.schema == QUARANTINE for block in blocks)
    [rest] = kept.blocks(since=4)
    assert rest.rows.column("detail").to_pylist() == ["number 4"]
    assert list(kept.blocks(since=5)) == []


def _contract(**allowed: Any) -> StreamContract:
    fields = tuple(
        msgspec.structs.replace(field, one_of=allowed[field.name]) if field.name in allowed else field
        for field in VIBRATION.fields
    )
    return StreamContract("vibration", fields)


def test_a_refused_row_is_judged_again_exactly(tmp_path: Path, opened: Opener) -> None:
    stranger = chunk(16, machine=["press-1", "press-9", "press-1"])
    _, rejects = Checker(VIBRATION, clock=StillClock()).check(typed(stranger))
    kept = opened(tmp_path)
    kept.add(rejects)
    [back] = kept.read()
    wider = _contract(machine=("press-1", "press-9"))
    block, again = judge_again(back, Decoder(wider, "json"), Checker(wider, clock=StillClock()))
    assert again == []
    assert block is not None
    assert block.rows.equals(stranger.slice(1, 1))
    block, again = judge_again(back, Decoder(VIBRATION, "arrow"), Checker(VIBRATION, clock=StillClock()))
    assert block is None
    assert [one.reason for one in again] == ["unknown_sensor"]


def test_a_refused_payload_is_judged_again_exactly() -> None:
    payload = stream_of(chunk(8).append_column("extra", chunk(8).column("seq")))
    _, [refused] = Decoder(VIBRATION, "arrow").decode(wire(payload))
    assert refused.payload == payload
    assert refused.reason in REASONS
    decoder, checker = Decoder(VIBRATION, "arrow"), Checker(VIBRATION, clock=StillClock())
    assert judge_again(refused, decoder, checker)[1][0].reason == "unknown_column"
    cut = refused.cut(10)
    assert judge_again(cut, decoder, checker) == (None, [cut])
    assert cut.cut(5) is cut


def test_a_refused_json_row_is_judged_again_alone() -> None:
    rows = [{"machine": "press-1"}, {"colour": 1}]
    _, rejects = Decoder(VIBRATION, "json").decode(wire(json.dumps(rows).encode()))
    assert [json.loads(one.payload) for one in rejects] == rows
    arrow = Decoder(VIBRATION, "arrow")
    _, again = judge_again(rejects[1], arrow, Checker(VIBRATION, clock=StillClock()))
    assert [one.reason for one in again] == ["unknown_column"]


def test_reasons_are_said_in_both_languages() -> None:
    assert all(set(says) == {"en", "fr"} for says in REASONS.values())


def test_a_folder_nobody_may_write_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="B430"):
        Quarantine(tmp_path / "file" / "below")

"""What a checkpoint's folder promises: the newest of every piece, whole whatever happens, and never silently wrong."""

import random
from pathlib import Path

import pytest

from boucle.errors import BoucleError
from boucle.loop.parts import WHOLE, PartStore

Pieces = dict[str, dict[str, bytes]]


def read(folder: Path) -> tuple[bytes, Pieces] | None:
    """The whole set, as a process that starts now finds it."""
    kept = PartStore(folder).read()
    return None if kept is None else (kept.head, {owner: dict(parts) for owner, parts in kept.parts.items()})


def on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.parts"))


def test_the_newest_of_every_piece_is_kept(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    assert store.read() is None
    store.write(b"one", {"a": {"x": b"1", "y": memoryview(b"22")}, "b": {WHOLE: b"state"}})
    store.write(b"two", {"a": {"y": b"", "z": b"3"}})
    assert read(tmp_path) == (b"two", {"a": {"x": b"1", "z": b"3"}, "b": {WHOLE: b"state"}})
    store.write(b"three", {"a": {"n": b"9"}}, whole=True)
    assert read(tmp_path) == (b"three", {"a": {"n": b"9"}})
    assert store.sizes == {"a": 1}


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    store.write(b"", {"a": {WHOLE: bytes(10_000)}, "b": {"x": bytes(10_000)}})
    store.write(b"", {"a": {WHOLE: bytes(10_000)}, "b": {}})
    assert on_disk(tmp_path) == 20_000
    store.write(b"", {"a": {WHOLE: b"new"}, "b": {}})
    assert on_disk(tmp_path) == 20_003


@pytest.mark.parametrize("seed", range(4))
def test_like_a_dictionary_whatever_is_written(tmp_path: Path, seed: int) -> None:
    """Segments end, wear out and are cleared; a new process goes on where the one before stood."""
    chance = random.Random(seed)
    store, expected = PartStore(tmp_path, segment_bytes=3000, slack_bytes=500), dict[str, dict[str, bytes]]()
    most = 0
    for number in range(120):
        changed: Pieces = {}
        for _ in range(chance.randrange(4)):
            owner, name = chance.choice("ab"), str(chance.randrange(12))
            data = b"" if chance.random() < 0.2 else chance.randbytes(chance.randrange(1, 900))
            changed.setdefault(owner, {})[name] = data
            held = expected.setdefault(owner, {})
            held.pop(name, None)
            if data:
                held[name] = data
        store.write(str(number).encode(), changed)
        live = sum(len(data) for parts in expected.values() for data in parts.values())
        most = max(most, on_disk(tmp_path) - 2 * live)
        if chance.random() < 0.1:
            store = PartStore(tmp_path, segment_bytes=3000, slack_bytes=500)
            store.read()
        assert read(tmp_path) == (str(number).encode(), expected)
    assert most <= 3000, "more than half of it is never garbage"


def test_a_torn_tail_is_cut_off(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    store.write(b"one", {"a": {"x": b"1"}})
    (segment,) = tmp_path.glob("*.parts")
    with segment.open("ab") as out:
        out.write(b"torn by a kill")
    (tmp_path / "000000000002.parts").write_bytes(b"begun and never told of")
    (tmp_path / "manifest.new").write_bytes(b"half a manif")
    store = PartStore(tmp_path)
    assert store.read() is not None
    store.write(b"two", {"a": {"y": b"2"}})
    assert read(tmp_path) == (b"two", {"a": {"x": b"1", "y": b"2"}})
    assert on_disk(tmp_path) == 2


def test_every_flipped_bit_is_told_with_its_file(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    store.write(b"head", {"a": {"x": b"some bytes"}, "b": {WHOLE: b"others"}})
    for file in (tmp_path / "manifest", tmp_path / "000000000001.parts"):
        good = file.read_bytes()
        for bit in range(8 * len(good)):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            file.write_bytes(bad)
            with pytest.raises(BoucleError, match="B601") as told:
                read(tmp_path)
            assert told.value.where == str(file)
        for size in range(len(good)):
            file.write_bytes(good[:size])
            with pytest.raises(BoucleError, match="B601"):
                read(tmp_path)
        file.unlink()
        if file.name != "manifest":
            with pytest.raises(BoucleError, match=r"B601 .*it is gone"):
                read(tmp_path)
        file.write_bytes(good)
    assert read(tmp_path) is not None


def test_a_disk_that_refuses_leaves_the_set_before(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    store.write(b"one", {"a": {"x": b"1"}})
    (tmp_path / "manifest.new").mkdir()
    with pytest.raises(IsADirectoryError):
        store.write(b"two", {"a": {"x": b"2"}})
    assert read(tmp_path) == (b"one", {"a": {"x": b"1"}})
    (tmp_path / "manifest.new").rmdir()
    store.write(b"two", {"a": {"x": b"3"}})
    assert read(tmp_path) == (b"two", {"a": {"x": b"3"}})


def test_a_piece_that_cannot_be_moved_asks_for_everything(tmp_path: Path) -> None:
    """What is damaged on disk is whole in memory: the run goes on, and writes all of it anew."""
    store = PartStore(tmp_path, slack_bytes=0)
    store.write(b"one", {"a": {"x": b"kept", "y": bytes(100)}})
    (segment,) = tmp_path.glob("*.parts")
    text = bytearray(segment.read_bytes())
    text[0] ^= 1
    segment.write_bytes(text)
    store.write(b"two", {"a": {"y": b"2"}})
    assert store.damaged
    with pytest.raises(BoucleError, match="B601"):
        read(tmp_path)
    store.write(b"three", {"a": {"x": b"kept", "y": b"2"}}, whole=True)
    assert read(tmp_path) == (b"three", {"a": {"x": b"kept", "y": b"2"}})

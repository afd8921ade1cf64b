"""Named pieces of bytes on disk, of which only those that changed are written; there is always one whole set.

Pieces are appended to segment files; the manifest says where the newest of each lies. It is replaced atomically
once what it refers to is durable, and only then are segments nobody refers to removed. So a process killed at
any moment leaves the set before or the set after, never a mixture. Every piece has a CRC-32 over its name and
its bytes, the manifest one of its own.

    <folder>/manifest              magic, CRC-32, msgpack of `_Manifest`
    <folder>/000000000001.parts    pieces, one after the other
"""

import hashlib
import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
from msgspec import Struct

from boucle.bus.log_disk import sync_folder
from boucle.errors import BoucleError
from boucle.ports import Part

__all__ = ["WHOLE", "Changed", "PartStore", "Stored", "replace_file"]

_log = logging.getLogger("boucle.loop.parts")

Changed = Mapping[str, Mapping[str, Part]]
"""Owner → name → bytes; empty bytes: the piece is gone."""

WHOLE = ""
"""The name of the only piece of an owner that has no parts; it is written only when its bytes are other ones."""

_VERSION = 2
"""1 was one file with everything in it."""
_MAGIC = b"BCLPARTS"
_CRC = struct.Struct("<I")
_SEGMENT_BYTES = 64 << 20
_SLACK_BYTES = 4 << 20


class _Place(Struct, frozen=True, array_like=True):
    segment: int
    at: int
    size: int
    crc: int


class _Manifest(Struct, frozen=True):
    version: int
    head: bytes
    sizes: dict[int, int]
    """Segment → how many of its bytes count; what a torn write left behind them does not."""
    parts: dict[str, dict[str, _Place]]


class Stored(Mapping[str, bytes]):
    """The pieces of one owner; each is read, and held against its CRC, when it is asked for (B601)."""

    def __init__(self, folder: Path, owner: str, places: Mapping[str, _Place]) -> None:
        self._folder, self._owner, self._places = folder, owner, places
        self.sizes = {name: place.size for name, place in places.items()}
        """Name → bytes, known without reading."""

    def __getitem__(self, name: str) -> bytes:
        return _read(self._folder, self._owner, name, self._places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class _Kept(NamedTuple):
    head: bytes
    parts: dict[str, Stored]


class PartStore:
    """The pieces of a folder. One thread writes at a time; `sizes` is what each owner has on disk."""

    def __init__(
        self, folder: Path, *, segment_bytes: int = _SEGMENT_BYTES, slack_bytes: int = _SLACK_BYTES
    ) -> None:
        self._folder = folder
        self._segment_bytes, self._slack_bytes = segment_bytes, slack_bytes
        self._manifest = _Manifest(_VERSION, b"", {}, {})
        self._digests: dict[str, bytes] = {}
        self._writing = threading.Lock()
        self.sizes: dict[str, int] = {}
        self.damaged = False
        """A piece could not be read when it was to be moved: everything should be written anew."""

    def read(self) -> _Kept | None:
        """The last whole set, None when there is none; later `write`s go on from it.

        B601 when the manifest, or a piece when it is asked for, is not what was written; B602 for a file of before.
        """
        manifest = _read_manifest(self._folder)
        if manifest is None:
            return None
        self._manifest = manifest
        self.sizes = _owned(manifest)
        parts = {owner: Stored(self._folder, owner, places) for owner, places in manifest.parts.items()}
        return _Kept(manifest.head, parts)

    def write(self, head: bytes, changed: Changed, *, whole: bool = False) -> None:
        """Make `head` and the changed pieces (`whole`: nothing but these) the newest set; durable when this returns.

        An OSError (disk full) leaves the set before in place: call again with these pieces and all that changed since.
        """
        with self._writing:
            self._folder.mkdir(parents=True, exist_ok=True)
            before = {} if whole else self._manifest.parts
            parts = {owner: dict(places) for owner, places in before.items()}
            digests: dict[str, bytes] = {}
            waiting = list(self._anew(parts, changed, digests))
            worn = _worn(self._manifest.sizes, parts, self._slack_bytes)
            appender = _Appender(self._folder, self._manifest.sizes, worn, self._segment_bytes)
            try:
                for owner, name, data in waiting:
                    parts[owner][name] = appender.put(owner, name, data)
                moved = self._move(parts, worn, appender)
            finally:
                appender.close()
            appender.sync()
            sizes = {number: size for number, size in appender.sizes.items() if number not in moved}
            manifest = _Manifest(_VERSION, head, sizes, parts)
            try:
                self._publish(manifest)
            except OSError:
                # It may be in place and only the folder not synced: what it refers to is not to be written over.
                self._manifest = _read_manifest(self._folder) or self._manifest
                raise
            self._manifest, self.sizes = manifest, _owned(manifest)
            self._digests |= digests
            self._remove()

    def _anew(
        self, parts: dict[str, dict[str, _Place]], changed: Changed, digests: dict[str, bytes]
    ) -> Iterator[tuple[str, str, Part]]:
        """The pieces to write, taken out of `parts`; those that are gone are taken out too."""
        for owner, pieces in changed.items():
            held = parts.setdefault(owner, {})
            for name, data in pieces.items():
                if name == WHOLE:
                    digests[owner] = hashlib.blake2b(_now(data), digest_size=16).digest()
                    if name in held and self._digests.get(owner) == digests[owner]:
                        continue
                held.pop(name, None)
                if len(data) or name == WHOLE:
                    yield owner, name, data

    def _move(
        self, parts: dict[str, dict[str, _Place]], worn: set[int], appender: "_Appender"
    ) -> frozenset[int]:
        """Bring what still counts out of the worn segments; those that are empty now."""
        left: set[int] = set()
        for owner, places in parts.items() if worn else ():
            for name, place in places.items():
                if place.segment not in worn:
                    continue
                try:
                    data = _read(self._folder, owner, name, place)
                except BoucleError as error:
                    # What is in memory is whole: it is asked for, all of it, at the next checkpoint.
                    _log.error("%s; everything is written anew at the next checkpoint", error)
                    self.damaged = True
                    left.add(place.segment)
                    continue
                places[name] = appender.put(owner, name, data)
        return frozenset(worn - left)

    def _publish(self, manifest: _Manifest) -> None:
        body = msgspec.msgpack.encode(manifest)
        replace_file(self._folder / "manifest", _MAGIC + _CRC.pack(zlib.crc32(body)) + body)

    def _remove(self) -> None:
        kept = {_segment(self._folder, number) for number in self._manifest.sizes}
        for file in self._folder.glob("*.parts"):
            if file not in kept:
                file.unlink()


def _owned(manifest: _Manifest) -> dict[str, int]:
    return {owner: sum(place.size for place in places.values()) for owner, places in manifest.parts.items()}


def _worn(sizes: Mapping[int, int], parts: Mapping[str, Mapping[str, _Place]], slack: int) -> set[int]:
    """Segments of which more than half is garbage (small ones may be)."""
    live = dict.fromkeys(sizes, 0)
    for places in parts.values():
        for place in places.values():
            live[place.segment] += place.size
    return {
        number
        for number, size in sizes.items()
        if not live[number] or (size > slack and 2 * live[number] < size)
    }


class _Appender:
    """Writes pieces behind each other, into the newest segment as long as it is small, then into new ones."""

    def __init__(self, folder: Path, sizes: Mapping[int, int], worn: set[int], segment_bytes: int) -> None:
        self.sizes = dict(sizes)
        self._folder, self._segment_bytes = folder, segment_bytes
        self._number = max(sizes, default=0)
        self._open_new = self._number in worn or self._number not in sizes
        self._out: IO[bytes] | None = None
        self._touched: list[Path] = []

    def put(self, owner: str, name: str, data: Part) -> _Place:
        """Append one piece; it is durable after `sync`."""
        data = _now(data)
        out = self._ready()
        at = self.sizes[self._number]
        _write(out, data)
        self.sizes[self._number] = at + len(data)
        return _Place(self._number, at, len(data), _crc(owner, name, data))

    def _ready(self) -> IO[bytes]:
        full = not self._open_new and self.sizes[self._number] >= self._segment_bytes
        if self._out is None or full:
            if self._open_new or full:
                self._number += 1
                self.sizes[self._number] = 0
                self._open_new = False
            self._out = self._opened()
        return self._out

    def _opened(self) -> IO[bytes]:
        self.close()
        file = _segment(self._folder, self._number)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        out = os.fdopen(handle, "r+b", buffering=0)
        self._touched.append(file)
        # What a torn write left behind is cut off, in a segment that goes on as in a number used again.
        out.truncate(self.sizes[self._number])
        out.seek(self.sizes[self._number])
        return out

    def close(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None

    def sync(self) -> None:
        for file in self._touched:
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fdatasync(handle)
            finally:
                os.close(handle)
        if self._touched:
            sync_folder(self._folder)


def _now(data: Part) -> bytes | memoryview:
    return data if isinstance(data, bytes | memoryview) else bytes(data)


def _write(out: IO[bytes], data: bytes | memoryview) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[out.write(rest) :]


def _crc(owner: str, name: str, data: bytes | memoryview) -> int:
    return zlib.crc32(data, zlib.crc32(f"{owner}\0{name}".encode()))


def _segment(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.parts"


def _read(folder: Path, owner: str, name: str, place: _Place) -> bytes:
    file = _segment(folder, place.segment)
    try:
        with file.open("rb") as source:
            source.seek(place.at)
            data = source.read(place.size)
    except FileNotFoundError as error:
        raise _damaged(file, f"it is gone, and held {name or 'the state'} of {owner}") from error
    if len(data) != place.size:
        raise _damaged(file, f"it ends within {name or 'the state'} of {owner}")
    if _crc(owner, name, data) != place.crc:
        raise _damaged(
            file, f"{name or 'the state'} of {owner}, at byte {place.at}, does not match its checksum"
        )
    return data


def _read_manifest(folder: Path) -> _Manifest | None:
    if folder.is_file():
        raise BoucleError(
            "B602",
            "the checkpoint was written by an older version",
            where=str(folder),
            why="it is one file; today's is a folder of parts",
            fix="run the old version once more to drain it, or remove the file to start afresh",
        )
    file = folder / "manifest"
    if not file.exists():
        return None
    text = file.read_bytes()
    start = len(_MAGIC) + _CRC.size
    if text[: len(_MAGIC)] != _MAGIC or len(text) < start:
        raise _damaged(file, "it does not begin as a manifest does")
    body = text[start:]
    if zlib.crc32(body) != _CRC.unpack_from(text, len(_MAGIC))[0]:
        raise _damaged(file, "it does not match its checksum")
    try:
        manifest = msgspec.msgpack.decode(body, type=_Manifest)
    except msgspec.DecodeError as error:
        raise _damaged(file, str(error)) from error
    if manifest.version != _VERSION:
        raise BoucleError(
            "B602",
            f"the checkpoint is of version {manifest.version}, this program reads {_VERSION}",
            where=str(file),
            fix="run the version that wrote it once more to drain it, or remove its folder to start afresh",
        )
    return manifest


def _damaged(file: Path, why: str) -> BoucleError:
    return BoucleError(
        "B601",
        "the checkpoint cannot be read",
        where=str(file),
        why=why,
        fix="bring the file back from a copy, or remove the checkpoint's folder to start afresh",
    )


def replace_file(file: Path, text: bytes) -> None:
    """Write beside, fsync, rename, fsync the folder: the file is the old one or the new one. Raises OSError."""
    beside = file.with_suffix(".new")
    with beside.open("wb") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)
    sync_folder(file.parent)

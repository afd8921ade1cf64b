"""A file of checked lines that only ever grows: what was synced survives a power cut.

    line = crc32 of the text, 8 hex digits, space, text (JSON, one line), newline

A torn last line is cut off when the file is opened; a damaged one in the middle is skipped and
counted, and what follows it is still read.
"""

import logging
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from boucle.bus.log_disk import sync_folder
from boucle.errors import Unavailable

__all__ = ["Ledger", "lines_of"]

_log = logging.getLogger("boucle.quality.ledger")


class Ledger:
    """Appends lines to `file`, made with its folder when absent. Safe to use from several threads.

    One process writes it at a time. A full or broken disk raises `Unavailable` B430.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.damaged = 0
        self._lock = threading.Lock()
        new = not file.exists()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._out: BinaryIO = file.open("ab")
            self._cut_tail()
            if new:
                sync_folder(file.parent)
        except OSError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> Unavailable:
        return Unavailable("B430", "the file cannot be written", where=str(self.file), why=str(error),
                           fix="make room on the disk, or let this user write there")  # fmt: skip

    def _cut_tail(self) -> None:
        size = self.file.stat().st_size
        end = _end_of_last_line(self.file, size)
        if end < size:
            _log.warning("%s: the last %d bytes were never finished and are cut off", self.file, size - end)
            self._out.truncate(end)
            os.fsync(self._out.fileno())

    def append(self, text: bytes) -> None:
        """Add one line; it may still be in memory when this returns. `text` holds no newline."""
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        with self._lock:
            try:
                self._out.write(line)
            except OSError as error:
                raise self._broken(error) from error

    def flush(self) -> None:
        """Return when every line appended so far is on disk."""
        with self._lock:
            try:
                self._out.flush()
                os.fsync(self._out.fileno())
            except OSError as error:
                raise self._broken(error) from error

    def read(self) -> Iterator[bytes]:
        """Every whole line's text, in order; `damaged` counts those skipped this time."""
        with self._lock:
            self._out.flush()
        self.damaged = 0
        for text in lines_of(self.file):
            if text is None:
                self.damaged += 1
            else:
                yield text
        if self.damaged:
            _log.warning("%s: %d damaged lines skipped", self.file, self.damaged)

    def size(self) -> int:
        """Bytes so far."""
        with self._lock:
            return self._out.tell()

    def close(self) -> None:
        """Sync and give back the file. Safe to call twice."""
        if not self._out.closed:
            self.flush()
            self._out.close()


def lines_of(file: Path) -> Iterator[bytes | None]:
    """Every line's text, in order, also of a file that another process writes; None for one that is damaged."""
    with file.open("rb") as lines:
        for line in lines:
            text = line[9:-1]
            whole = line[8:9] == b" " and line[-1:] == b"\n" and line[:8] == b"%08x" % zlib.crc32(text)
            yield text if whole else None


def _end_of_last_line(file: Path, size: int) -> int:
    with file.open("rb") as data:
        at = size
        while at > 0:
            start = max(0, at - 65536)
            data.seek(start)
            found = data.read(at - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            at = start
    return 0

"""The data files of a lake in a bucket, brought beside DuckDB when they are asked for.

DuckDB reads a bucket through an extension that must be downloaded, and its questions are confined to one folder.
A data file never changes once a version names it, so each is fetched once, whole, into a folder of the process's own;
those that nobody asked for during the last ten minutes go when others come. What a question reads must fit on the disk.
"""

import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boucle.errors import BoucleError, Unavailable
from boucle.lake.datafile import DataFile
from boucle.lake.delta import LakeTable
from boucle.lake.place import Bucket

__all__ = ["Mirror"]

_AT_ONCE = 8
_KEPT = 600.0
"""Seconds a file stays after it was last asked for: a question may still read it."""


class Mirror:
    """A folder with copies of files of tables; `close` removes it. Thread-safe."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="boucle-lake-"))
        self._gone = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._asked: dict[Path, float] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="boucle fetch")

    def of(self, table: LakeTable) -> Path:
        """Where the files of a table are, by the path they have within it."""
        return self.folder / table.zone / table.name

    def bring(self, table: LakeTable, files: Sequence[DataFile]) -> list[str]:
        """The paths of copies of these files.

        B505 for a file that is gone, B542 (try again later) when the bucket or the disk does not do it now.
        """
        now = time.monotonic()
        here = {self.of(table) / file.inside: file for file in files}
        assert isinstance(table.place, Bucket)
        bucket = table.place
        try:
            with self._lock:
                self._asked |= dict.fromkeys(here, now)
                self._tidy(now)
                missing = [(place, file) for place, file in here.items() if not place.exists()]
                list(self._pool.map(lambda one: _fetch(bucket, one[1].inside, one[0]), missing))
        except FileNotFoundError as error:
            raise BoucleError(
                "B505",
                "a file of this table version is gone",
                where=f"{table.zone}/{table.name}",
                why="it was vacuumed or deleted",
                fix="read a newer version",
            ) from error
        except OSError as error:
            raise Unavailable(
                "B542",
                f'files of table "{table.name}" cannot be fetched now',
                where=table.place.address,
                why=str(error),
                fix="check that the bucket answers, and the space for temporary files (TMPDIR)",
            ) from error
        return [str(place) for place in here]

    def _tidy(self, now: float) -> None:
        for place in [place for place, asked in self._asked.items() if asked < now - _KEPT]:
            place.unlink(missing_ok=True)
            del self._asked[place]

    def close(self) -> None:
        """Remove every copy. Safe to call twice."""
        self._pool.shutdown()
        self._gone()


def _fetch(bucket: Bucket, inside: str, target: Path) -> None:
    """Copy a file, which appears whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unnamed = target.with_suffix(".part")
    with bucket.stream(inside) as source, unnamed.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    unnamed.replace(target)

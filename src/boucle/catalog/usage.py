"""Who uses what, how often: durable counters that any endpoint may add to, from any thread or process.

One row per day, product, table, user and way (`sql`, `rest`, `flight`, `files`, `page` …). A count is on its way to
the disk when `count` returns: it survives the process, and but for the last moment a power cut (SQLite, WAL).
"""

import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from boucle.clock import SECOND, Clock, SystemClock
from boucle.errors import BoucleError

__all__ = ["Usage", "Used"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS used(
  day TEXT, product TEXT, name TEXT, who TEXT, via TEXT, times INTEGER, rows INTEGER, last TEXT,
  PRIMARY KEY(day, product, name, who, via)) WITHOUT ROWID
"""
_ADD = """
INSERT INTO used VALUES (?, ?, ?, ?, ?, 1, ?, ?) ON CONFLICT DO UPDATE
SET times = times + 1, rows = rows + excluded.rows, last = max(last, excluded.last)
"""
_LONGEST = 120


class Used(Struct, frozen=True):
    """How often somebody used a table in some way. `last`: RFC 3339, UTC."""

    name: str
    who: str
    via: str
    times: int
    rows: int
    last: str


class Usage:
    """The counters in one file. B569 when it cannot be opened; a count that fails later is left out in silence."""

    def __init__(self, file: Path, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self.lost = 0
        """Counts that could not be written: the disk is full, or another process held the file too long."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._rows = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=2)
            self._rows.execute("PRAGMA journal_mode = WAL")
            self._rows.execute("PRAGMA synchronous = NORMAL")
            self._rows.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise BoucleError(
                "B569",
                "usage cannot be counted",
                where=str(file),
                why=str(error),
                fix="make its folder writable",
            ) from error

    def count(self, product: str, table: str, who: str = "", via: str = "", rows: int = 0) -> None:
        """One more use of a table; `rows` is how many it was given. It never fails a query: see `lost`."""
        now = datetime.fromtimestamp(self._clock.now() / SECOND, UTC)
        told = [text[:_LONGEST] for text in (product, table, who, via)]
        values = (f"{now:%Y-%m-%d}", *told, max(rows, 0), f"{now:%Y-%m-%dT%H:%M:%SZ}")
        try:
            with self._lock:
                self._rows.execute(_ADD, values)
        except sqlite3.Error:
            self.lost += 1

    def used(self, product: str, table: str = "", days: int = 30) -> list[Used]:
        """Uses of a product's tables in the last days, the most frequent first."""
        since = datetime.fromtimestamp(self._clock.now() / SECOND - days * 86_400, UTC)
        query = (
            "SELECT name, who, via, sum(times), sum(rows), max(last) FROM used WHERE product = ? AND day >= ? "
            "AND (? = '' OR name = ?) GROUP BY name, who, via ORDER BY 4 DESC, 6 DESC"
        )
        values = (product, f"{since:%Y-%m-%d}", table, table)
        with self._lock:
            return [Used(*row) for row in self._rows.execute(query, values)]

    def daily(self, product: str, days: int = 30) -> list[tuple[str, int]]:
        """Uses of a product per day on which there were any, the oldest first."""
        since = datetime.fromtimestamp(self._clock.now() / SECOND - days * 86_400, UTC)
        query = "SELECT day, sum(times) FROM used WHERE product = ? AND day >= ? GROUP BY day ORDER BY day"
        with self._lock:
            return list(self._rows.execute(query, (product, f"{since:%Y-%m-%d}")))

    def close(self) -> None:
        """Give back the file."""
        with self._lock:
            self._rows.close()

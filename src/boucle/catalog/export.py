"""Lineage events to somebody else's receiver, over HTTP or into a file; while it is away the journal keeps them.

Nothing is held in memory and nothing is lost: a cursor beside the journal says up to which event the receiver has
answered, and it moves only then. So an event may come twice after a crash, and a receiver knows it by run and time.
What a receiver refuses for good (4xx but 408, 425, 429) is put into `refused.ndjson` and counted, and the next is sent.

    POST <address>                   Content-Type: application/json, one OpenLineage event
"""

import hashlib
import http.client
import logging
import os
import threading
import urllib.parse
from pathlib import Path

import msgspec
from msgspec import Struct

from boucle.errors import BoucleError, Unavailable

__all__ = ["ExportThread", "Exported", "Exporter"]

_log = logging.getLogger("boucle.catalog.export")

_TIMEOUT = 10.0
_LATER = {408, 425, 429}
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_USUAL_PATH = "/api/v1/lineage"
"""Where Marquez, and receivers made after it, listen."""


class Exported(Struct):
    """How far an export is."""

    file: str = ""
    offset: int = 0
    sent: int = 0
    refused: int = 0


class Exporter:
    """The journal of one folder on its way to one receiver: `https://…`, `http://…` or `file:PATH`.

    B565 for an address of another kind.
    """

    def __init__(self, folder: str | Path, to: str, key: str = "") -> None:
        self._folder, self._key = Path(folder), key
        self._url = urllib.parse.urlsplit(to)
        if self._url.scheme not in ("http", "https", "file") or (
            self._url.scheme != "file" and not self._url.hostname
        ):
            raise BoucleError(
                "B565",
                f"{to!r} is no receiver of lineage",
                fix="give http://host:5000, https://… or file:PATH",
            )
        # Passwords stay out of file names as out of logs.
        known = f"{self._url.scheme}://{self._url.hostname}:{self._url.port}{self._url.path}"
        self.name = known if self._url.hostname else to
        self._cursor = self._folder / f"export-{hashlib.sha256(known.encode()).hexdigest()[:12]}.json"
        self.state = self._read()

    def _read(self) -> Exported:
        try:
            return msgspec.json.decode(self._cursor.read_bytes(), type=Exported)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            # A cursor that was torn: everything is sent again rather than something never.
            return Exported()

    def step(self, most: int = 100) -> int:
        """Send up to so many events; how many were answered. `Unavailable` (B566) when the receiver is not there."""
        done = 0
        try:
            for file, after, line in self._next(most):
                self._give(line)
                self.state.file, self.state.offset = file, after
                done += 1
        finally:
            if done:
                self._keep()
        return done

    def waiting(self) -> int:
        """Events that are still to be sent."""
        return sum(1 for _ in self._next(1 << 60))

    def _next(self, most: int) -> "list[tuple[str, int, bytes]]":
        found: list[tuple[str, int, bytes]] = []
        for path in sorted(self._folder.glob("????-??-??.ndjson")):
            if path.name < self.state.file:
                continue
            with path.open("rb") as file:
                file.seek(self.state.offset if path.name == self.state.file else 0)
                while len(found) < most and (line := file.readline()).endswith(b"\n"):
                    found.append((path.name, file.tell(), line))
        return found

    def _give(self, line: bytes) -> None:
        if self._url.scheme == "file":
            self._append(Path(urllib.parse.unquote(self._url.netloc + self._url.path)), line)
            self.state.sent += 1
            return
        status, said = self._post(line)
        if status in _LATER or status >= 500:
            raise Unavailable("B566", f"{self.name} does not take lineage now", why=f"{status} {said}")
        if 200 <= status < 300:
            self.state.sent += 1
            return
        _log.warning("%s refuses an event: %s %s", self.name, status, said)
        self.state.refused += 1
        self._append(self._folder / "refused.ndjson", line)

    def _post(self, line: bytes) -> tuple[int, str]:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(str(self._url.hostname), self._url.port, timeout=_TIMEOUT)
        path = self._url.path if self._url.path.strip("/") else _USUAL_PATH
        query = f"?{self._url.query}" if self._url.query else ""
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            connection.request("POST", path + query, line, headers)
            answer = connection.getresponse()
            said = answer.read(300).decode(errors="replace")
            return answer.status, " ".join(said.split())
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
            raise Unavailable("B566", f"{self.name} does not take lineage now", why=why) from error
        finally:
            connection.close()

    @staticmethod
    def _append(path: Path, line: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _keep(self) -> None:
        beside = self._cursor.with_suffix(".new")
        beside.write_bytes(msgspec.json.encode(self.state))
        beside.replace(self._cursor)


class ExportThread:
    """Sends what the journal gets, in a thread; tries again with growing pauses while the receiver is away."""

    def __init__(self, exporter: Exporter, every: float = 1.0) -> None:
        self._exporter, self._every = exporter, every
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="boucle-lineage", daemon=True)
        self.failure = ""
        """Why the receiver does not take events now; empty when it does."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        pause = self._every
        while True:
            ending = self._ending.wait(pause)
            try:
                while self._exporter.step():
                    pass
                if self.failure:
                    _log.warning("%s takes lineage again", self._exporter.name)
                self.failure, pause = "", self._every
            except (Unavailable, OSError) as error:
                if not self.failure:
                    _log.warning("%s; the journal keeps what is not sent", error)
                self.failure = str(error)
                pause = min(max(_FIRST_PAUSE, 2 * pause), _LONGEST_PAUSE)
            if ending:
                return

    def close(self) -> None:
        """One last try, then leave the rest to the next life."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(_TIMEOUT + 1)

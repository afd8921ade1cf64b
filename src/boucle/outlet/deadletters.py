"""Dead letters: events that a receiver refused for good, looked at, and sent again when somebody asks.

    outputs/<port>/dead.ndjson     each letter: the event, and why it was refused
                   asked/*.json    which letters somebody wants sent again
                   again.ndjson    what became of each

Whoever asks writes a file and waits; who delivers the port sends the letters with the ids they had, so that a receiver
that took one knows it again. What became of a letter is durable before it is counted, and counted once: a process
killed in between counts it when it starts again, and `taken = delivered + pending + dead` stays true.
"""

import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from boucle.bus.log_disk import replace_file, sync_folder
from boucle.outlet.carriers import Carrier
from boucle.quality.ledger import Ledger, lines_of

__all__ = ["Letter", "Postman", "ask", "chosen", "letters", "ports_of", "unanswered"]


class Letter(Struct, frozen=True):
    """An event that was refused, and what became of it since: nothing, `delivered`, or `refused` once more."""

    id: str
    why: str
    at_ns: int
    event: Raw
    outcome: str = ""


class _Became(Struct, frozen=True):
    id: str
    outcome: str
    why: str
    at_ns: int


class _Asked(Struct, frozen=True):
    ids: list[str]


def letters(folder: Path) -> dict[str, Letter]:
    """Every letter of a port's folder by the id of its event, oldest first; safe beside the process that delivers.

    Lines that cannot be read are left out.
    """
    found: dict[str, Letter] = {}
    for line in _lines(folder / "dead.ndjson"):
        try:
            one = msgspec.json.decode(line, type=Letter)
        except msgspec.MsgspecError:
            continue
        found.setdefault(one.id, one)
    for became in _outcomes(folder):
        if became.id in found:
            before = found[became.id]
            found[became.id] = msgspec.structs.replace(
                before, outcome=became.outcome, why=became.why or before.why
            )
    return found


def ask(folder: Path, ids: Iterable[str]) -> Path:
    """Ask for letters to be sent again; durable when this returns. The file is gone when all were tried."""
    place = folder / "asked"
    place.mkdir(exist_ok=True)
    file = place / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.json"
    replace_file(file, msgspec.json.encode(_Asked(list(ids))))
    return file


def unanswered(folder: Path) -> list[Path]:
    """What was asked for and not yet tried, oldest first."""
    return sorted((folder / "asked").glob("*.json"))


def _lines(file: Path) -> Iterator[bytes]:
    if file.exists():
        yield from (line for line in lines_of(file) if line is not None)


def _outcomes(folder: Path) -> Iterator[_Became]:
    for line in _lines(folder / "again.ndjson"):
        try:
            yield msgspec.json.decode(line, type=_Became)
        except msgspec.MsgspecError:
            continue


class Postman:
    """Sends again what was asked for. One thread of the process that delivers the port calls `step`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._delivered = {one.id for one in _outcomes(folder) if one.outcome == "delivered"}
        self._ledger: Ledger | None = None

    @property
    def delivered(self) -> int:
        """Letters that found their receiver after all, over the whole life of the folder."""
        return len(self._delivered)

    def step(self, out: Carrier) -> bool:
        """Send the next few letters; whether there were any. `Unavailable` when the receiver is away: they wait.

        A request that nobody can read is put aside as `*.unread`.
        """
        for file in unanswered(self._folder):
            try:
                wanted = msgspec.json.decode(file.read_bytes(), type=_Asked).ids
            except msgspec.MsgspecError:
                file.rename(file.with_suffix(".unread"))
                continue
            known = letters(self._folder)
            tried = self._tried_since(file)
            left = [
                known[one]
                for one in dict.fromkeys(wanted)
                if one in known and one not in self._delivered and one not in tried
            ]
            if left:
                self._send(out, left)
                return True
            file.unlink()
            sync_folder(file.parent)
        return False

    def _tried_since(self, file: Path) -> set[str]:
        """Letters that were refused once more since they were asked for: one try each."""
        asked = int(file.name.partition("-")[0])
        return {one.id for one in _outcomes(self._folder) if one.at_ns >= asked}

    def _send(self, out: Carrier, left: list[Letter]) -> None:
        refused = out.send([(one.id, bytes(one.event)) for one in left[: out.at_once]])
        if self._ledger is None:
            self._ledger = Ledger(self._folder / "again.ndjson")
        for one, why in zip(left, refused, strict=False):
            told = _Became(one.id, "refused" if why else "delivered", why, time.time_ns())
            self._ledger.append(msgspec.json.encode(told))
        self._ledger.flush()
        self._delivered |= {one.id for one, why in zip(left, refused, strict=False) if not why}

    def close(self) -> None:
        """Give back the file. Safe to call twice."""
        if self._ledger is not None:
            self._ledger.close()


def chosen(folder: Path, names: Iterable[str]) -> list[str]:
    """The ids of letters that are still dead and begin with one of the names; all of them when none is given."""
    begin = tuple(names) or ("",)
    return [
        one.id for one in letters(folder).values() if one.outcome != "delivered" and one.id.startswith(begin)
    ]


def ports_of(run: Path) -> dict[str, Path]:
    """Port → folder of each port of a run that has dead letters."""
    return {file.parent.name: file.parent for file in sorted((run / "outputs").glob("*/dead.ndjson"))}

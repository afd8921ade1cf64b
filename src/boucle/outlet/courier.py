"""An events port at work: every row a table gains, delivered at least once, counted, and never forgotten.

What was handled is kept in `state.json` (the table's version and the row within it), written after each delivery. A
process killed between the two delivers some events again, with the ids they had. At every moment

    taken = delivered + pending + dead

What the receiver refuses for good is a dead letter: a line of `dead.ndjson` with the event and the reason. It is sent
again when somebody asks (`boucle.outlet.deadletters`).
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from boucle.bus.log_disk import replace_file
from boucle.errors import BoucleError, Unavailable
from boucle.lake.delta import LakeTable
from boucle.outlet.carriers import Busy, Carrier, Told
from boucle.outlet.cloudevents import events
from boucle.outlet.deadletters import Postman
from boucle.outlet.notes import TableNote
from boucle.outlet.ports import check_contract
from boucle.quality.ledger import Ledger

__all__ = ["Courier", "Delivered", "read_delivered"]

_log = logging.getLogger("boucle.outlet.courier")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_FORGOTTEN = {"B505", "B525"}
"""The lake keeps neither the commit nor its files any longer."""


class Delivered(Struct):
    """How far a port is. `version`: the table's, of which every row was handled; `row`: handled of the one after it."""

    version: int = -1
    row: int = 0
    opened: int = 0
    """Rows of the version after `version`, once it was looked at."""
    taken: int = 0
    delivered: int = 0
    dead: int = 0
    failure: str = ""
    """Why nothing goes out now."""
    gone: int = 0
    """Versions whose rows could not be read any more when their turn came."""
    again: int = 0
    """Of `delivered`: dead letters that were sent again."""

    @property
    def pending(self) -> int:
        """Rows taken and not handled yet."""
        return self.taken - self.delivered - self.dead


def read_delivered(folder: Path) -> Delivered | None:
    """How far the port of a folder is; None when it never ran, or its file cannot be read."""
    try:
        return msgspec.json.decode((folder / "state.json").read_bytes(), type=Delivered)
    except (OSError, msgspec.MsgspecError):
        return None


class Courier:
    """Delivers the rows of one table through one carrier. One thread calls `step`."""

    def __init__(
        self, table: LakeTable, product: str, out: Carrier, folder: Path, note: TableNote | None = None
    ) -> None:
        self._table, self._product, self._carrier, self._folder, self._note = (
            table,
            product,
            out,
            folder,
            note,
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.state = self._kept()
        self._said = msgspec.json.encode(self.state)
        self._postman = Postman(folder)
        self._count_again()
        self._letters: Ledger | None = None
        self._waiting: list[Told] = []
        self._pause, self._not_before = 0.0, 0.0
        self._opened = False

    def _kept(self) -> Delivered:
        file = self._folder / "state.json"
        if not file.exists():
            return Delivered()
        try:
            state = msgspec.json.decode(file.read_bytes(), type=Delivered)
        except msgspec.MsgspecError as error:
            raise BoucleError(
                "B857",
                "how far an output port is cannot be read",
                where=str(file),
                why=str(error),
                fix="bring the file back from a copy, or remove it: every row is then delivered again",
            ) from error
        return state

    def step(self, stop: Callable[[], bool] = bool) -> int:
        """Deliver what there is, until it is done, the receiver is away or `stop` says so; how many were handled."""
        if time.monotonic() < self._not_before:
            return 0
        done = 0
        try:
            self._ready()
            done += self._send_again(stop)
            while not stop() and self._more():
                done += self._send()
        except Unavailable as error:
            asked = error.after if isinstance(error, Busy) else 0.0
            self._pause = min(max(_FIRST_PAUSE, 2 * self._pause), _LONGEST_PAUSE)
            self._fails(error, max(asked, self._pause))
        except BoucleError as error:
            self._fails(error, _LONGEST_PAUSE if error.code == "B845" else _FIRST_PAUSE)
        return done

    def again(self) -> None:
        """Send the dead letters that were asked for, and nothing else; Unavailable when the receiver is away."""
        self._ready()
        self._send_again(bool)

    def _send_again(self, stop: Callable[[], bool]) -> int:
        before = self.state.again
        while not stop() and self._postman.step(self._carrier):
            self._count_again()
        return self.state.again - before

    def _count_again(self) -> None:
        """Letters that found their receiver are dead no more; each is counted once, whatever was killed in between."""
        more = self._postman.delivered - self.state.again
        if more > 0:
            self.state.again += more
            self.state.dead -= more
            self.state.delivered += more
            self._keep()

    def _ready(self) -> None:
        if not self._opened:
            self._carrier.open()
            self._opened = True

    def _fails(self, error: BoucleError, pause: float) -> None:
        self._not_before = time.monotonic() + pause
        if self.state.failure != str(error):
            _log.warning("%s waits: %s", self._folder.name, error)
        self.state.failure = str(error)
        self._keep()

    def _more(self) -> bool:
        """Whether there is an event to send; reads the table's next version when the one before is through."""
        state = self.state
        while not self._waiting:
            if state.version >= self._table.version:
                return False
            if self._note is not None:
                check_contract(self._table.name, self._table.schema, self._note)
            following = state.version + 1
            try:
                told = events(self._table, self._product, state.version, following)
                read = [(f"{self._product}.{self._table.name}.{name}", payload) for name, payload in told]
            except BoucleError as error:
                if error.code not in _FORGOTTEN:
                    raise
                self._skip(error)
                continue
            if not state.opened:
                state.opened = len(read)
                state.taken += len(read)
                self._keep()
            self._waiting = read[state.row :]
            if not self._waiting:
                state.version, state.row, state.opened = following, 0, 0
                self._keep()
        return True

    def _skip(self, error: BoucleError) -> None:
        """Nobody can say any more what a version added: told, counted, and gone on with the one after it."""
        state = self.state
        if not state.gone:
            _log.error("%s: rows cannot be delivered any more: %s", self._folder.name, error)
        state.gone += 1
        state.taken -= max(0, state.opened - state.row)
        state.version, state.row, state.opened = state.version + 1, 0, 0
        self._keep()

    def _send(self) -> int:
        refused = self._carrier.send(self._waiting[: self._carrier.at_once])
        some = self._waiting[: len(refused)]
        state = self.state
        for (name, payload), why in zip(some, refused, strict=True):
            if why:
                self._bury(name, payload, why)
        if any(refused):
            self._ledger().flush()
        dead = sum(map(bool, refused))
        state.row += len(some)
        state.dead += dead
        state.delivered += len(some) - dead
        state.failure, self._pause = "", 0.0
        del self._waiting[: len(some)]
        if not self._waiting:
            state.version, state.row, state.opened = state.version + 1, 0, 0
        self._keep()
        return len(some)

    def _ledger(self) -> Ledger:
        if self._letters is None:
            self._letters = Ledger(self._folder / "dead.ndjson")
        return self._letters

    def _bury(self, name: str, payload: bytes, why: str) -> None:
        _log.warning("%s: event %s is a dead letter: %s", self._folder.name, name, why)
        self._ledger().append(
            msgspec.json.encode(
                {"id": name, "why": why, "at_ns": time.time_ns(), "event": msgspec.Raw(payload)}
            )
        )

    def _keep(self) -> None:
        told = msgspec.json.encode(self.state)
        if told != self._said:
            replace_file(self._folder / "state.json", told)
            self._said = told

    def close(self) -> None:
        """Give back the carrier and the dead letters' file. Safe to call twice."""
        if self._opened:
            self._carrier.close()
            self._opened = False
        self._postman.close()
        if self._letters is not None:
            self._letters.close()
            self._letters = None

"""The journal of what was going to be done and what came of it; an intent is on disk before it is sent.

    {"kind": "held",     "at": …, "command": {…}}            waits for a person's approval
    {"kind": "intent",   "at": …, "command": {…}}            on disk before anything is sent
    {"kind": "unsent",   "at": …, "id": …}                   the try before could not reach the machine
    {"kind": "receipt",  "at": …, "receipt": {…}, "command": {…} when there was no intent}
    {"kind": "approved", "at": …, "id": …, "by": …}
    {"kind": "automatic","at": …, "allowed": …, "by": …}

Lines of a Ledger: torn tails are cut, damaged lines skipped. One process writes a journal.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from boucle.clock import Nanos
from boucle.event import Command, Receipt
from boucle.quality.ledger import Ledger

__all__ = ["Entry", "Journal", "Unresolved"]


class Entry(Struct, frozen=True, omit_defaults=True):
    """One line of the journal."""

    kind: Literal["held", "intent", "unsent", "receipt", "approved", "automatic"]
    at: Nanos
    id: str = ""
    command: Command | None = None
    receipt: Receipt | None = None
    by: str = ""
    allowed: bool = False


class Unresolved(Struct, frozen=True):
    """A Command without a receipt after a restart.

    `state` is `sent` when it may have reached the machine, `unsent` when it surely did not, `held`
    when it waits for approval.
    """

    command: Command
    state: Literal["sent", "unsent", "held"]
    at: Nanos
    approved: bool = False


class Journal:
    """Append-only; every Command id in it has at most one receipt, however often it is submitted."""

    def __init__(self, file: Path, *, remember: int = 100_000) -> None:
        self._ledger = Ledger(file)
        self._lock = threading.Lock()
        self._remember = remember
        self._ends: dict[str, Nanos] = {}
        self._receipts: dict[str, Receipt] = {}
        self._open: dict[str, Unresolved] = {}
        self.automatic = True
        """Whether automatic action was allowed when last said."""
        self.recent: list[tuple[str, Nanos]] = []
        """Target and time of every intent, oldest first, so that a restart keeps the rate limits."""
        for entry in self.read():
            self._take(entry)

    def read(self) -> Iterator[Entry]:
        """Every line, oldest first."""
        lines = msgspec.json.Decoder(Entry)
        for line in self._ledger.read():
            yield lines.decode(line)

    def _take(self, entry: Entry) -> None:
        known = self._open.get(entry.id)
        if entry.command is not None:
            self._ends[entry.command.id] = entry.command.not_after
        if entry.kind == "held" and entry.command is not None:
            self._open[entry.command.id] = Unresolved(entry.command, "held", entry.at)
        elif entry.kind == "intent" and entry.command is not None:
            before = self._open.get(entry.command.id)
            approved = before is not None and before.approved
            if before is None or before.state == "held":
                self.recent.append((entry.command.target, entry.at))
            self._open[entry.command.id] = Unresolved(entry.command, "sent", entry.at, approved)
        elif entry.kind == "unsent" and known is not None:
            self._open[entry.id] = msgspec.structs.replace(known, state="unsent")
        elif entry.kind == "approved" and known is not None:
            self._open[entry.id] = msgspec.structs.replace(known, approved=True)
        elif entry.kind == "receipt" and entry.receipt is not None:
            self._open.pop(entry.receipt.command, None)
            self._receipts[entry.receipt.command] = entry.receipt
        elif entry.kind == "automatic":
            self.automatic = entry.allowed

    def _write(self, entry: Entry, *, durable: bool) -> None:
        with self._lock:
            self._ledger.append(msgspec.json.encode(entry))
            self._take(entry)
        if durable:
            self._ledger.flush()

    def hold(self, command: Command, at: Nanos) -> None:
        """Keep a Command that waits for approval; durable when this returns."""
        self._write(Entry("held", at, command=command), durable=True)

    def intend(self, command: Command, at: Nanos) -> None:
        """Say what is about to be sent; durable when this returns, and only then it may be sent."""
        self._write(Entry("intent", at, command=command), durable=True)

    def unsent(self, command: Command, at: Nanos) -> None:
        """Say that the machine could not be reached and nothing was sent."""
        self._write(Entry("unsent", at, id=command.id), durable=False)

    def settle(self, command: Command, receipt: Receipt) -> bool:
        """Write the last word on a Command, durably; False when it already has one and nothing is written."""
        with self._lock:
            if command.id in self._receipts:
                return False
            told = None if command.id in self._open else command
            entry = Entry("receipt", receipt.at, command=told, receipt=receipt)
            self._ledger.append(msgspec.json.encode(entry))
            self._take(entry)
            self._forget(receipt.at)
        self._ledger.flush()
        return True

    def approve(self, command_id: str, by: str, at: Nanos) -> None:
        """Say who approved a held Command; durable when this returns."""
        self._write(Entry("approved", at, id=command_id, by=by), durable=True)

    def set_automatic(self, allowed: bool, by: str, at: Nanos) -> None:
        """Say who allowed or stopped automatic action; durable when this returns."""
        self._write(Entry("automatic", at, by=by, allowed=allowed), durable=True)

    def seen(self, command_id: str) -> bool:
        """Whether this Command was ever dealt with or is being dealt with."""
        return command_id in self._ends

    def receipt(self, command_id: str) -> Receipt | None:
        """The last word on a Command, if there is one."""
        return self._receipts.get(command_id)

    def unresolved(self) -> list[Unresolved]:
        """Commands without a receipt, oldest first."""
        with self._lock:
            return list(self._open.values())

    def _forget(self, now: Nanos) -> None:
        # An id may go once its command has expired: sent again, it would be refused as expired.
        del self.recent[: max(0, len(self.recent) - self._remember)]
        while len(self._ends) > self._remember:
            oldest = next(iter(self._ends))
            if self._ends[oldest] >= now or oldest in self._open:
                break
            del self._ends[oldest]
            self._receipts.pop(oldest, None)

    def close(self) -> None:
        """Sync and give back the file. Safe to call twice."""
        self._ledger.close()

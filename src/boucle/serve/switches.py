"""Which version scored which row, and which rows fell back: what makes scoring again give the same.

Rows are numbered as they come to the step, so the journal says the same whatever the Blocks are cut into. A switch of
version is on disk before the first row is scored by the new one. A fallback for lack of time is written when it
happens and synced with the next switch: a killed process loses none, a power cut at most the last moments, which are
then decided anew.
"""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from boucle.errors import BoucleError, Unavailable
from boucle.lake.place import fsync
from boucle.serve.ready import Identity

__all__ = ["Arms", "Fell", "Switch", "Switches"]

Arms = dict[str, Identity]
"""Arm (`champion`, `canary`, `previous`) → who plays it."""


class Switch(Struct, frozen=True, tag="switch", tag_field="is"):
    """From this row on these versions score."""

    row: int
    arms: Arms


class Fell(Struct, frozen=True, tag="fell", tag_field="is"):
    """Rows [row, end) of an arm were not scored by its model though they had all its numbers."""

    row: int
    end: int
    arm: str
    reason: str


class Switches:
    """The journal of one step; in memory only until it is opened."""

    def __init__(self) -> None:
        self.switches: list[Switch] = []
        self.falls: list[Fell] = []
        self._file: int | None = None
        self._folder: Path | None = None

    def open(self, folder: Path) -> None:
        """Read what was recorded, and record there from now on; B651 when it is not a journal."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "switches.jsonl"
        told = path.read_bytes() if path.exists() else b""
        whole = told[: told.rfind(b"\n") + 1]  # a process killed while it wrote leaves half a line
        read = msgspec.json.Decoder(Switch | Fell)
        try:
            found = [read.decode(line) for line in whole.splitlines()]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            fix = "remove it together with the checkpoints to start afresh"
            what = "what scored which row cannot be read"
            raise BoucleError("B651", what, where=str(path), why=str(error), fix=fix) from error
        self.switches = [one for one in found if isinstance(one, Switch)]
        self.falls = [one for one in found if isinstance(one, Fell)]
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, len(whole))
        self._folder = folder

    def forget(self, before: int) -> None:
        """Leave out what no restart will ask for: everything that ended before this row."""
        last = max((place for place, one in enumerate(self.switches) if one.row <= before), default=0)
        falls = [one for one in self.falls if one.end > before]
        if last < 64 and len(self.falls) - len(falls) < 1024:
            return
        self.switches, self.falls = self.switches[last:], falls
        if self._file is None or self._folder is None:
            return
        path = self._folder / "switches.jsonl"
        beside = path.with_suffix(".new")
        try:
            beside.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in (*self.switches, *falls)))
            fsync(beside)
            beside.replace(path)
            held = os.open(path, os.O_WRONLY | os.O_APPEND)
        except OSError:
            return  # it stays as long as it is: another time
        os.close(self._file)
        self._file = held

    def switch(self, row: int, arms: Arms) -> None:
        """From `row` on these score. Unavailable (B652) when the disk does not take it: nothing has changed then."""
        one = Switch(row, dict(arms))
        if self._file is not None:
            try:
                os.write(self._file, msgspec.json.encode(one) + b"\n")
                os.fdatasync(self._file)
            except OSError as error:
                why = f"{error.strerror}: which version scores is recorded first"
                raise Unavailable("B652", "the model is not changed", why=why, fix="free space") from error
        self.switches.append(one)

    def fell(self, row: int, end: int, arm: str, reason: str) -> None:
        """These rows fell back."""
        if self._file is None:
            return
        one = Fell(row, end, arm, reason)
        last = self.falls[-1] if self.falls else None
        if last is not None and (last.end, last.arm, last.reason) == (row, arm, reason):
            self.falls[-1] = Fell(last.row, end, arm, reason)
        else:
            self.falls.append(one)
        try:
            os.write(self._file, msgspec.json.encode(one) + b"\n")
        except OSError:
            return  # scoring goes on: a restart decides these rows anew

    def at(self, row: int) -> Switch | None:
        """The switch that holds at a row; None when nothing is recorded so far back."""
        return next((one for one in reversed(self.switches) if one.row <= row), None)

    def after(self, row: int) -> list[Switch]:
        """The switches beyond a row, the earliest first."""
        return [one for one in self.switches if one.row > row]

    def close(self) -> None:
        """Give the file back. Safe to call twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

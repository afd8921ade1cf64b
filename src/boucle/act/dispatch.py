"""Takes Commands from the loop and from outside, and sees each to exactly one Receipt."""

import threading
from collections.abc import Mapping
from typing import Any

import msgspec

from boucle.act.guard import REFUSALS, Guard, Limits
from boucle.act.journal import Journal
from boucle.act.lane import Lane, Tell, Work
from boucle.clock import Clock
from boucle.event import Command, Outcome, Receipt
from boucle.ports import Actuator

__all__ = ["Dispatcher"]

_NOWHERE = ""


class Dispatcher:
    """Guard, journal and actuators together; one lane each, so that a slow MES delays no PLC.

    `submit` never blocks and never sends. In a running loop one thread per lane calls `run`; a test
    calls `step` itself. `on_receipt` is called by the lane's thread, once for each Command (and for
    each duplicate of it, which the journal does not repeat).
    """

    def __init__(
        self,
        actuators: Mapping[str, Actuator],
        limits: Mapping[str, Limits],
        journal: Journal,
        clock: Clock,
        on_receipt: Tell,
    ) -> None:
        guard = Guard(limits)
        self._guard, self._journal, self._clock, self._tell = guard, journal, clock, on_receipt
        self.lanes = {
            name: Lane(name, actuator, guard, journal, clock, on_receipt)
            for name, actuator in actuators.items()
        }
        self.lanes[_NOWHERE] = Lane(_NOWHERE, None, guard, journal, clock, on_receipt)
        left = journal.unresolved()
        for name, lane in self.lanes.items():
            mine = [one for one in left if self._lane(one.command) is lane]
            lane.resume(mine, [one for one in journal.recent if one[0].partition("/")[0] == name])

    def _lane(self, command: Command) -> Lane:
        return self.lanes.get(command.target.partition("/")[0]) or self.lanes[_NOWHERE]

    def open(self) -> None:
        """Let every actuator start connecting; returns at once."""
        for lane in self.lanes.values():
            lane.open()

    def submit(self, command: Command, *, by: str = "", retained: bool = False) -> None:
        """Take a Command from any thread; returns at once.

        `by` names the person who asks: such a Command also goes through while automatic action is
        stopped. `retained` says that a broker repeated an old message: it is refused, with a receipt.
        """
        work = Work(
            _writable(command),
            now := self._clock.now(),
            self._guard.deadline(command, now),
            by_person=bool(by),
            retained=retained,
        )
        if not self._lane(command).submit(work):
            receipt = Receipt(
                command.id, command.target, Outcome.refused, now, REFUSALS["busy"]["en"], "busy"
            )
            self._journal.settle(work.command, receipt)
            self._tell(work.command, receipt)

    def approve(self, command_id: str, by: str) -> bool:
        """Let a held Command go on, journaled with who said so; False when none of that id is held."""
        for lane in self.lanes.values():
            if any(command.id == command_id for command in lane.held()):
                self._journal.approve(command_id, by, self._clock.now())
                return lane.approve(command_id)
        return False

    def held(self) -> list[Command]:
        """Commands that wait for a person's approval."""
        return [command for lane in self.lanes.values() for command in lane.held()]

    @property
    def automatic(self) -> bool:
        """Whether the loop may act by itself."""
        return self._journal.automatic

    def set_automatic(self, allowed: bool, by: str) -> None:
        """Allow or stop automatic action; journaled with who asked, and still so after a restart."""
        # Stopping acts first and is written second; allowing is written first.
        if not allowed:
            self._tell_lanes(allowed)
        self._journal.set_automatic(allowed, by, self._clock.now())
        if allowed:
            self._tell_lanes(allowed)

    def _tell_lanes(self, allowed: bool) -> None:
        for lane in self.lanes.values():
            lane.automatic = allowed

    def sending(self) -> bool:
        """Whether a new Command is on its way to a machine right now."""
        return any(lane.sending() for lane in self.lanes.values())

    def waiting(self) -> int:
        """Commands without a receipt; 0 when all is settled."""
        return sum(lane.waiting() for lane in self.lanes.values())

    def step(self, wait: float = 0.0) -> int:
        """Do what is due in every lane, one after the other; how many Commands came to an end."""
        ended = sum(lane.step(0.0) for lane in self.lanes.values())
        if ended or wait <= 0:
            return ended
        return sum(lane.step(wait / len(self.lanes)) for lane in self.lanes.values())

    def run(self, lane: str, stop: threading.Event) -> None:
        """Serve one lane until `stop` is set; give each lane of `lanes` its own thread."""
        while not stop.is_set():
            self.lanes[lane].step(0.1)

    def close(self) -> None:
        """Close the actuators; what is unfinished stays in the journal for the next start."""
        for lane in self.lanes.values():
            lane.close()


def _writable(command: Command) -> Command:
    # A value the journal cannot write can be no number and no order: its text is refused as such.
    value: Any = command.value
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.structs.replace(command, value=repr(value)[:200])
    return command

"""What an MES knows of job orders, without HTTP, and an actuator straight onto it.

Orders follow ISA-95 part 4 (B2MML V7 names): ID, WorkType, Description, Priority, HierarchyScope (what it
is about: `press-2`, `press-3/vib_x`), StartTime, EndTime, Parameters, and the Command of the job control
model: only `Store` is understood. A stored order is in state Released.
"""

import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from boucle.clock import Clock, SystemClock
from boucle.errors import BoucleError, Unavailable
from boucle.event import Command, Outcome, Receipt

__all__ = ["STATES", "WORK_TYPES", "FakeMes", "Mistake", "OrderBook"]

WORK_TYPES = ("Maintenance", "Calibration", "Inspection", "ModelReview")
STATES = ("Released", "Running", "Completed", "Aborted", "Closed")

_TEXTS = {"ID": 128, "Description": 2000, "HierarchyScope": 128}
_KNOWN = {*_TEXTS, "WorkType", "Priority", "StartTime", "EndTime", "Parameters", "Command"}


class Mistake(Struct, frozen=True):
    """One thing wrong with an order: which field, and why."""

    field: str
    why: str


class OrderBook:
    """The orders an MES holds, oldest first. Thread-safe."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self._orders: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def store(self, order: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Keep an order; gives the stored one, and False when its ID was already there (and stays).

        B722 lists everything that is wrong with it.
        """
        wrong = problems_of(order)
        if wrong:
            told = "; ".join(f"{problem.field}: {problem.why}" for problem in wrong)
            raise BoucleError(
                "B722", "the job order is not valid", why=told, fix="correct it and send it again"
            )
        with self._lock:
            if order["ID"] in self._orders:
                return dict(self._orders[order["ID"]]), False
            stored = {**order, "State": "Released", "TimeStamp": self.clock.now()}
            self._orders[order["ID"]] = stored
            return dict(stored), True

    def all(self) -> list[dict[str, Any]]:
        """Every order."""
        with self._lock:
            return [dict(order) for order in self._orders.values()]

    def get(self, identity: str) -> dict[str, Any] | None:
        """One order; None when there is none."""
        with self._lock:
            order = self._orders.get(identity)
            return None if order is None else dict(order)

    def move(self, identity: str, state: str) -> None:
        """What a planner does: the order goes to another state; B723 when it or the state is unknown."""
        with self._lock:
            if identity not in self._orders or state not in STATES:
                raise BoucleError(
                    "B723", f"order {identity!r} cannot become {state!r}", fix=f"states: {', '.join(STATES)}"
                )
            self._orders[identity]["State"] = state


def problems_of(order: Mapping[str, Any]) -> list[Mistake]:
    """Everything that is wrong with an order."""
    wrong = [Mistake(str(key), "no such field") for key in order if key not in _KNOWN]
    for name, longest in _TEXTS.items():
        value = order.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= longest:
            wrong.append(Mistake(name, f"a text of 1 to {longest} characters is needed"))
    if order.get("WorkType") not in WORK_TYPES:
        wrong.append(Mistake("WorkType", f"one of {', '.join(WORK_TYPES)} is needed"))
    priority = order.get("Priority", 5)
    if isinstance(priority, bool) or not isinstance(priority, int) or not 1 <= priority <= 9:
        wrong.append(Mistake("Priority", "a whole number from 1 (first) to 9 is needed"))
    if not isinstance(order.get("Parameters", {}), Mapping):
        wrong.append(Mistake("Parameters", "names and values are needed"))
    if order.get("Command", "Store") != "Store":
        wrong.append(Mistake("Command", "only Store is understood"))
    return wrong + _problems_of_times(order)


def _problems_of_times(order: Mapping[str, Any]) -> list[Mistake]:
    moments: list[datetime] = []
    wrong: list[Mistake] = []
    for name in ("StartTime", "EndTime"):
        if name not in order:
            continue
        try:
            moment = datetime.fromisoformat(str(order[name]))
        except ValueError:
            wrong.append(Mistake(name, "a time like 2026-11-21T14:00:00Z is needed"))
            continue
        if moment.tzinfo is None:
            wrong.append(Mistake(name, "the time zone is missing"))
        else:
            moments.append(moment)
    if len(moments) == 2 and moments[1] < moments[0]:
        wrong.append(Mistake("EndTime", "it lies before StartTime"))
    return wrong


class FakeMes:
    """An actuator onto an OrderBook in the same process; targets are `mes/<machine>[/…]`.

    The value of a Command is the order; without an ID it gets the Command's. Set `reachable` to False to
    pull the network cable.
    """

    def __init__(self, book: OrderBook | None = None) -> None:
        self.book = book or OrderBook()
        self.reachable = True
        self._open = False

    def open(self) -> None:
        """Get ready."""
        self._open = True

    def send(self, command: Command) -> Receipt:
        """Store the order, read it back; an order that is already there is a duplicate."""
        self._reach(command.target)
        now = self.book.clock.now
        order = command.value if isinstance(command.value, Mapping) else {}
        try:
            stored, fresh = self.book.store({"ID": command.id, **order})
        except BoucleError as error:
            return Receipt(
                command.id, command.target, Outcome.refused, now(), why=error.why, code="invalid_order"
            )
        if fresh:
            return Receipt(command.id, command.target, Outcome.applied, now(), read_back=stored)
        return Receipt(
            command.id,
            command.target,
            Outcome.duplicate,
            now(),
            why=f"order {stored['ID']} is already there",
            code="duplicate",
            read_back=stored,
        )

    def read(self, target: str) -> Any:
        """The orders about what the target names, `press-2` in `mes/press-2/job_order`; oldest first."""
        self._reach(target)
        subject = target.split("/")[1] if "/" in target else target
        return [order for order in self.book.all() if order["HierarchyScope"].split("/")[0] == subject]

    def state(self) -> str:
        """`connected`, or why not."""
        if not self._open:
            return "not open"
        return "connected" if self.reachable else "the MES does not answer"

    def close(self) -> None:
        """Nothing to give back."""
        self._open = False

    def _reach(self, target: str) -> None:
        if self.state() != "connected":
            raise Unavailable("B724", f"{target}: {self.state()}", fix="open it, or wait until it is back")

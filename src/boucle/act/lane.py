"""One actuator's queue: its Commands are tried, retried, resolved and receipted by one thread.

A Command's way: accepted → (held for approval) → intent on disk → sent → receipt on disk. When the
machine could not be reached it is tried again until it expires. When it was sent and no answer came
its outcome is in doubt: the machine is asked what it has, and the Command is sent again only where
that cannot move the machine twice.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import msgspec
from msgspec import Struct

from boucle.act.guard import REFUSALS, Guard, Limits, Refusal, Situation
from boucle.act.journal import Journal, Unresolved
from boucle.clock import SECOND, Clock, Nanos
from boucle.errors import Unavailable
from boucle.event import Command, Outcome, Receipt
from boucle.ports import Actuator

__all__ = ["IN_DOUBT", "Guarded", "Lane", "Recovers", "Tell", "Work"]

_log = logging.getLogger("boucle.act.lane")

IN_DOUBT = "unknown_outcome"
"""The code of a Receipt whose Command was sent and not answered."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_RESOLVE_FOR = 60 * SECOND
_ROOM = 10_000

Tell = Callable[[Command, Receipt], None]
_State: TypeAlias = Literal["new", "held", "ready", "doubt"]


@runtime_checkable
class Recovers(Protocol):
    """An Actuator that can say what became of a Command whose answer was lost."""

    idempotent: bool
    """Whether the machine itself refuses a second copy, so that sending again is always safe."""

    def recover(self, command: Command) -> Receipt:
        """Applied when the machine has it, else failed with code `unknown_outcome` and what it has."""
        ...


@runtime_checkable
class Guarded(Protocol):
    """An Actuator that asks the guard itself, with what the machine reads right before the write.

    The lane hands it the guard; the lane asks for all others, a little earlier.
    """

    guard: Guard | None


class Work(Struct):
    """A Command on its way."""

    command: Command
    accepted: Nanos
    deadline: Nanos
    state: _State = "new"
    by_person: bool = False
    retained: bool = False
    approved: bool = False
    going_safe: bool = False
    intended: bool = False
    due: Nanos = 0
    tries: int = 0
    trouble: str = ""
    before: object = None
    resend: bool = False
    """Whether a Command in doubt may be sent again when the machine is as it was before."""


class Lane:
    """Everything for one actuator; `submit` and `approve` from any thread, `step` from one."""

    def __init__(
        self,
        name: str,
        actuator: Actuator | None,
        guard: Guard,
        journal: Journal,
        clock: Clock,
        tell: Tell,
    ) -> None:
        self.name = name
        self.automatic = journal.automatic
        self._actuator = actuator
        self._idempotent = actuator is not None and _idempotent(actuator)
        if actuator is not None:
            _hand_over(guard, actuator)
        self._guard, self._journal, self._clock, self._tell = guard, journal, clock, tell
        self._ready = threading.Condition()
        self._inbox: deque[Work] = deque()
        self._approvals: deque[str] = deque()
        self._work: dict[str, Work] = {}
        self._sent: dict[str, deque[Nanos]] = {}

    def submit(self, work: Work) -> bool:
        """Take a Command; returns at once. False when too many are waiting."""
        with self._ready:
            if len(self._inbox) >= _ROOM:
                return False
            self._inbox.append(work)
            self._ready.notify()
        return True

    def resume(self, left: Iterable[Unresolved], recent: Iterable[tuple[str, Nanos]]) -> None:
        """Continue with what a former life of the journal left open."""
        for target, at in recent:
            self._sent.setdefault(target, deque()).append(at)
        for one in left:
            work = Work(one.command, one.at, self._guard.deadline(one.command, one.at), approved=one.approved)
            # Approvals and intents were given to it already; only what the machine says is asked anew.
            work.intended = one.state != "held"
            work.state = {"sent": "doubt", "unsent": "ready", "held": "held"}[one.state]  # type: ignore[assignment]
            if one.approved and one.state == "held":
                work.state = "new"
            self._work[one.command.id] = work

    def approve(self, command_id: str) -> bool:
        """Let a held Command go on; False when none of that id is held here."""
        with self._ready:
            work = self._work.get(command_id)
            if work is None or work.state != "held":
                return False
            self._approvals.append(command_id)
            self._ready.notify()
        return True

    def held(self) -> list[Command]:
        """Commands waiting for approval."""
        with self._ready:
            return [work.command for work in self._work.values() if work.state == "held"]

    def waiting(self) -> int:
        """Commands without a receipt."""
        with self._ready:
            return len(self._inbox) + len(self._work)

    def sending(self) -> bool:
        """Whether a new Command is being tried right now."""
        return bool(self._inbox)

    def state(self) -> str:
        """The actuator's: `connected`, or why not."""
        return "nobody declared it" if self._actuator is None else self._actuator.state()

    def open(self) -> None:
        """Start connecting; returns at once."""
        if self._actuator is not None:
            self._actuator.open()

    def close(self) -> None:
        """Give back the connection; what is unfinished stays in the journal."""
        if self._actuator is not None:
            self._actuator.close()

    def step(self, wait: float) -> int:
        """Do what is due, waiting up to `wait` seconds of the wall for something; how many came to an end."""
        with self._ready:
            if not self._inbox and not self._approvals:
                pause = self._pause(wait)
                if pause > 0:
                    self._ready.wait(pause)
            fresh = list(self._inbox)
            approved, self._approvals = self._approvals, deque()
        for command_id in approved:
            if (work := self._work.get(command_id)) is not None:
                work.approved, work.state = True, "new"
        ended = sum(self._take(work) for work in fresh)
        for work in list(self._work.values()):
            if self._work.get(work.command.id) is work and _due(work) <= self._clock.now():
                ended += self._advance(work)
        return ended

    def _pause(self, wait: float) -> float:
        soonest = min((_due(work) for work in self._work.values()), default=None)
        if soonest is None:
            return wait
        return min(wait, max(0.0, (soonest - self._clock.now()) / SECOND / self._clock.speed))

    def _take(self, work: Work) -> int:
        command = work.command
        if command.id in self._work or self._journal.seen(command.id):
            # The journal keeps one last word per id: this copy is answered, and not written down.
            code, outcome = (
                ("retained", Outcome.refused) if work.retained else ("duplicate", Outcome.duplicate)
            )
            self._tell(command, self._receipt(work, outcome, _no(code)))
            ended = 1
        else:
            with self._ready:
                self._work[command.id] = work
            ended = self._advance(work)
        with self._ready:
            self._inbox.popleft()
        return ended

    def _advance(self, work: Work) -> int:
        try:
            return self._try(work)
        except Unavailable as error:
            # The journal's disk: without a durable intent nothing is sent.
            return self._later(work, work.state, f"{error.what}: {error.why}")

    def _try(self, work: Work) -> int:
        if work.state == "doubt":
            return self._resolve(work)
        now = self._clock.now()
        refusal = self._refusal(work, now)
        if refusal is None:
            return self._send(work, now)
        if refusal.code == "not_approved" and work.state != "held":
            return self._hold(work, now)
        late = refusal.code in {"expired", "not_approved"}
        return self._end(work, self._receipt(work, Outcome.expired if late else Outcome.refused, refusal))

    def _refusal(self, work: Work, now: Nanos) -> Refusal | None:
        if work.state == "held":
            return _no("not_approved", "in time")
        refusal = self._guard.before_intent(work.command, self._situation(work, now))
        if refusal is None and self._actuator is None:
            return _no("unknown_target", self.name)
        if refusal is not None and refusal.code == "expired" and work.trouble:
            return Refusal("expired", f"{refusal.why}; {work.trouble}")
        return refusal

    def _situation(self, work: Work, now: Nanos) -> Situation:
        return Situation(
            now=now,
            deadline=work.deadline,
            automatic=self.automatic,
            by_person=work.by_person,
            approved=work.approved,
            retained=work.retained,
            going_safe=work.going_safe,
            sent=() if work.intended or work.going_safe else self._recently(work.command.target, now),
        )

    def _recently(self, target: str, now: Nanos) -> tuple[Nanos, ...]:
        limits, sent = self._guard.limits(target), self._sent.setdefault(target, deque())
        while sent and limits is not None and sent[0] <= now - int(limits.per * SECOND):
            sent.popleft()
        return tuple(sent)

    def _hold(self, work: Work, now: Nanos) -> int:
        self._journal.hold(work.command, now)
        with self._ready:
            work.state = "held"
        return 0

    def _send(self, work: Work, now: Nanos) -> int:
        assert self._actuator is not None
        command = work.command
        try:
            refusal = self._by_machine(self._actuator, work, now)
        except Unavailable as error:
            return self._later(work, work.state, error.why or error.what)
        if refusal is not None:
            return self._end(work, self._receipt(work, Outcome.refused, refusal))
        self._journal.intend(command, now)
        if not work.intended:
            work.intended = True
            self._supersede(command)
            self._sent.setdefault(command.target, deque()).append(now)
        try:
            receipt = self._actuator.send(command)
        except Unavailable as error:
            self._journal.unsent(command, self._clock.now())
            return self._later(work, "ready", error.why or error.what)
        if receipt.outcome is Outcome.failed and receipt.code == IN_DOUBT:
            work.before, work.resend, work.tries = receipt.before, receipt.before is not None, 0
            return self._later(work, "doubt", receipt.why)
        return self._end(work, receipt)

    def _by_machine(self, actuator: Actuator, work: Work, now: Nanos) -> Refusal | None:
        limits = self._guard.limits(work.command.target)
        if isinstance(actuator, Guarded) or limits is None or not limits.numeric:
            return None
        machine, _, signal = work.command.target.rpartition("/")
        present = {name: actuator.read(f"{machine}/{name}") for name in (signal, *limits.watched())}
        return self._guard.before_write(work.command, self._situation(work, now), present)

    def _supersede(self, command: Command) -> None:
        limits = self._guard.limits(command.target)
        if limits is None or not limits.numeric:
            return
        for other in list(self._work.values()):
            if other.command.target != command.target or other.command.id == command.id:
                continue
            # What a person has not yet approved may still be wanted; what is being retried is not.
            if other.state == "ready":
                self._end(other, self._receipt(other, Outcome.refused, _no("superseded", command.id)))
            other.resend = False

    def _later(self, work: Work, state: _State, trouble: str) -> int:
        pause = min(_FIRST_PAUSE * 2 ** min(work.tries, 10), _LONGEST_PAUSE)
        if not work.tries:
            _log.warning("%s: %s; trying again until it expires", work.command.target, trouble)
        work.state, work.trouble, work.tries = state, trouble, work.tries + 1
        work.due = self._clock.now() + int(pause * SECOND)
        return 0

    def _resolve(self, work: Work) -> int:
        now = self._clock.now()
        if self._actuator is None:
            return self._end(work, self._receipt(work, Outcome.failed, Refusal(IN_DOUBT, "no such actuator")))
        try:
            found = _ask(self._actuator, work.command, now)
        except Unavailable as error:
            if now <= max(work.deadline, work.accepted + _RESOLVE_FOR):
                return self._later(work, "doubt", error.why or error.what)
            why = f"it was sent, and the machine could not be asked since: {error.why or error.what}"
            return self._end(work, self._receipt(work, Outcome.failed, Refusal(IN_DOUBT, why)))
        if found.outcome is Outcome.failed and now <= work.deadline and self._may_resend(work, found):
            work.state, work.due, work.tries = "ready", now, 0
            return self._advance(work)
        return self._end(work, found)

    def _may_resend(self, work: Work, found: Receipt) -> bool:
        return self._idempotent or (work.resend and found.read_back == work.before)

    def _receipt(self, work: Work, outcome: Outcome, refusal: Refusal) -> Receipt:
        command = work.command
        return Receipt(command.id, command.target, outcome, self._clock.now(), refusal.why, refusal.code)

    def _end(self, work: Work, receipt: Receipt) -> int:
        command = work.command
        limits = self._guard.limits(command.target)
        if receipt.outcome is Outcome.applied and command.caused_at > 0:
            took = (receipt.at - command.caused_at) / 1e6 / self._clock.speed
            receipt = msgspec.structs.replace(receipt, latency_ms=took)
        safe = self._safe_state(work, receipt, limits)
        if safe is None and limits is not None and limits.numeric and receipt.code == "read_back":
            receipt = msgspec.structs.replace(receipt, why=f"{receipt.why}; left as it is")
        with self._ready:
            if self._work.get(command.id) is work:
                del self._work[command.id]
        try:
            self._journal.settle(command, receipt)
        except Unavailable as error:
            # The machine has moved: say so now; a restart reads it back from the machine.
            _log.error("%s: the receipt could not be written: %s", command.id, error)
        self._tell(command, receipt)
        return 1 if safe is None else 1 + self._go_safe(safe)

    def _safe_state(self, work: Work, receipt: Receipt, limits: Limits | None) -> Command | None:
        wrong = receipt.outcome is Outcome.failed and receipt.code == "read_back"
        if not wrong or limits is None or limits.safe == "hold" or work.command.verb == "safe":
            return None
        now, target = self._clock.now(), work.command.target
        return Command(
            id=f"{work.command.id}/safe",
            target=target,
            verb="safe",
            value=limits.safe,
            not_after=now + int((limits.expires or 10.0) * SECOND),
            because=(work.command.id,),
            issued_at=now,
            says={
                "en": f"{target} did not take its value: going to the safe state",
                "fr": f"{target} n'a pas pris sa valeur : passage à l'état sûr",
            },
        )

    def _go_safe(self, command: Command) -> int:
        now = self._clock.now()
        _log.error("%s did not take its value: going to the safe state %s", command.target, command.value)
        work = Work(command, now, command.not_after, by_person=True, approved=True, going_safe=True)
        with self._ready:
            self._work[command.id] = work
        return self._advance(work)


def _due(work: Work) -> Nanos:
    """When a Command needs looking at again."""
    if work.state == "held":
        return work.deadline + 1
    return work.due if work.state == "doubt" else min(work.due, work.deadline + 1)


def _no(code: str, detail: str = "") -> Refusal:
    said = REFUSALS[code]["en"]
    return Refusal(code, f"{said}: {detail}" if detail else said)


def _idempotent(actuator: Actuator) -> bool:
    return isinstance(actuator, Recovers) and actuator.idempotent


def _hand_over(guard: Guard, actuator: Actuator) -> None:
    if isinstance(actuator, Guarded):
        actuator.guard = guard


def _ask(actuator: Actuator, command: Command, now: Nanos) -> Receipt:
    if isinstance(actuator, Recovers):
        return actuator.recover(command)
    value = actuator.read(command.target)
    if value == command.value:
        return Receipt(
            command.id, command.target, Outcome.applied, now, "found on the machine", read_back=value
        )
    why = f"it was sent without an answer, and the machine now has {value!r}"
    return Receipt(command.id, command.target, Outcome.failed, now, why, IN_DOUBT, read_back=value)

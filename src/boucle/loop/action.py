"""From rows to action: the policy decides, the dispatcher acts, everything said is kept.

The path calls `consider` for each Block a rule watches; it never waits for a machine. Receipts come
back on the dispatcher's thread.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from boucle.act.dispatch import Dispatcher
from boucle.act.guard import reason
from boucle.act.journal import Journal
from boucle.block import Block
from boucle.clock import Clock, Nanos
from boucle.event import Command, Event, Outcome, Receipt, Severity
from boucle.loop.observe import Observer
from boucle.loop.plan import Plan
from boucle.loop.view import ActuatorView
from boucle.ports import Actuator

__all__ = ["Action"]

_TOLD = {
    Outcome.refused: ("refused", "refusée"),
    Outcome.expired: ("expired", "expirée"),
    Outcome.failed: ("failed", "échouée"),
}


class Action:
    """The policy, the dispatcher and what they said."""

    def __init__(
        self,
        plan: Plan,
        actuators: Mapping[str, Actuator],
        folder: Path,
        clock: Clock,
        observer: Observer,
        tell: Callable[[Event], None],
        told: Callable[[Command, Receipt], None],
    ) -> None:
        self.policy = plan.policy()
        self.journal = Journal(folder / "journal.ndjson")
        self.dispatcher = Dispatcher(actuators, plan.limits, self.journal, clock, self._receipt)
        self.watched = {rule.on for rule in plan.rules}
        self._plan, self._clock, self._observer = plan, clock, observer
        self._tell, self._told = tell, told
        self.answer: Callable[[Command, Receipt], None] | None = None
        """Where receipts of commands from outside are sent, when somebody wants them."""
        self._outside: set[str] = set()
        self._actuators = dict(actuators)

    def consider(self, block: Block, cause: Nanos) -> None:
        """Let the rules look at a Block; `cause` is the event time of the last sample that led to it."""
        events, commands = self.policy.decide(block, cause)
        for command in commands:
            self.submit(msgspec.structs.replace(command, caused_at=cause, issued_at=self._clock.now()))
        for event in events:
            self._tell(event)

    def submit(self, command: Command) -> None:
        """Hand a Command over; its Receipt comes later."""
        self._observer.command(command, None)
        self.dispatcher.submit(command)

    def expect(self, command: Command) -> None:
        """A Command from outside is about to be submitted."""
        self._outside.add(command.id)
        self._observer.command(command, None)

    def _receipt(self, command: Command, receipt: Receipt) -> None:
        if self.answer is not None and command.id in self._outside:
            self._outside.discard(command.id)
            self.answer(command, receipt)
        self._observer.command(command, receipt)
        self._told(command, receipt)
        if receipt.outcome in _TOLD:
            en, fr = _TOLD[receipt.outcome]
            self._tell(
                Event(
                    id=f"receipt-{command.id}",
                    product=self._plan.project.id,
                    subject=command.target,
                    kind=f"command_{receipt.outcome}",
                    at=receipt.at,
                    severity=Severity.warning,
                    says={
                        "en": f"Command to {command.target} {en}: {receipt.why}",
                        "fr": f"Commande vers {command.target} {fr} : {reason(receipt.code, receipt.why, 'fr')}",
                    },
                    evidence={"command": command.id, "code": receipt.code},
                )
            )

    def view(self) -> tuple[ActuatorView, ...]:
        """Each actuator with its state and the Commands waiting for it."""
        return tuple(
            ActuatorView(name, self._address(name), actuator.state(), self.dispatcher.lanes[name].waiting())
            for name, actuator in self._actuators.items()
        )

    def _address(self, name: str) -> str:
        spec = self._plan.project.loop.actuators[name]
        return self._plan.project.settings.fill(spec.to)

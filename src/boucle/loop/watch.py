"""Says when something the loop depends on went away, and when it came back."""

from collections.abc import Callable, Mapping

from boucle.clock import SECOND, Clock
from boucle.event import Event, Severity
from boucle.loop.intake import Intake
from boucle.loop.plan import Plan
from boucle.ports import Actuator

__all__ = ["Watch"]

_WELL = {"connected", "finished"}


class Watch:
    """Looks at the state of each source and actuator, and tells each change once."""

    def __init__(
        self,
        plan: Plan,
        intakes: Mapping[str, Intake],
        actuators: Mapping[str, Actuator],
        clock: Clock,
        tell: Callable[[Event], None],
    ) -> None:
        self._product = plan.project.id
        self._intakes, self._actuators, self._clock, self._tell = intakes, actuators, clock, tell
        self._known: dict[str, str] = {}
        self._since = clock.now()
        self._disk_full = False

    def look(self) -> None:
        """Tell what changed since the last look; a connection gets two seconds to be made at the start."""
        states = {f"source {name}": intake.source.state() for name, intake in self._intakes.items()}
        states |= {f"actuator {name}": actuator.state() for name, actuator in self._actuators.items()}
        for name, state in states.items():
            before = self._known.get(name)
            if state in _WELL:
                self._known[name] = state
                if before is not None and before not in _WELL:
                    self._say(name, "connection_back", Severity.info, f"{name}: back", f"{name} : de retour")
            elif before in _WELL or (before is None and self._clock.now() - self._since > 2 * SECOND):
                self._known[name] = state
                en = f"{name}: {state}. The loop goes on and retries by itself."
                fr = f"{name} : {state}. La boucle continue et réessaie d'elle-même."
                self._say(name, "connection_lost", Severity.warning, en, fr)

    def disk(self, durable: bool) -> None:
        """Tell when the log cannot be written, and when it can again."""
        if durable != self._disk_full:
            return
        self._disk_full = not durable
        if durable:
            self._say(
                "log",
                "log_back",
                Severity.info,
                "The log is written again.",
                "Le journal est de nouveau écrit.",
            )
        else:
            en = "The log cannot be written (disk full?). Nothing more is acknowledged; free some room."
            fr = "Le journal ne peut plus être écrit (disque plein ?). Plus rien n'est acquitté ; libérez de la place."
            self._say("log", "log_blocked", Severity.alarm, en, fr)

    def _say(self, subject: str, kind: str, severity: Severity, en: str, fr: str) -> None:
        now = self._clock.now()
        event = Event(
            f"{kind}-{subject}-{now}", self._product, subject, kind, now, severity, {"en": en, "fr": fr}
        )
        self._tell(event)

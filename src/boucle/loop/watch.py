"""Says when what the loop depends on went away, a table is in trouble or readings are shed, and when it is over."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from boucle.clock import SECOND, Clock, Nanos
from boucle.event import Event, Severity
from boucle.loop.intake import Intake
from boucle.loop.plan import Plan
from boucle.ports import Actuator

__all__ = ["Watch"]

_WELL = {"connected", "finished"}
_QUIET = 2 * SECOND
"""Shedding is over when nothing was shed for as long: a source at its limit would tell of it every moment."""


_TROUBLE = {
    "write": (
        "table_behind",
        "cannot be written, its rows wait in the log",
        "écriture impossible, ses lignes attendent",
    ),
    "upkeep": ("table_upkeep", "could not be refined or kept in order", "ni affinée ni entretenue"),
    "held": (
        "batch_held",
        "its gates hold a batch back, readers see the one before",
        "lot retenu, le précédent reste lu",
    ),
}
_OVER = {
    "write": ("table_back", "is written again", "de nouveau écrite"),
    "upkeep": ("table_upkeep_back", "is kept in order again", "de nouveau entretenue"),
    "held": ("batch_passed", "a batch passed its gates again", "un lot a de nouveau passé ses contrôles"),
}
"""What is in trouble → the event's kind, and how it is said."""


class _Shed(Struct):
    """What a source has shed: `before` this began, up to the last look, and when the last row was."""

    before: int
    counted: int
    since: Nanos
    last: Nanos


class Watch:
    """Looks at the state of each source and actuator, and tells each change once."""

    def __init__(
        self,
        plan: Plan,
        intakes: Mapping[str, Intake],
        actuators: Mapping[str, Actuator],
        clock: Clock,
        tell: Callable[[Event], None],
        troubles: Callable[[], Mapping[tuple[str, str], str]] = dict,
    ) -> None:
        self._product = plan.project.id
        self._intakes, self._actuators, self._clock, self._tell = intakes, actuators, clock, tell
        self._troubles = troubles
        self._troubled: dict[tuple[str, str], str] = {}
        self._known: dict[str, str] = {}
        self._since = clock.now()
        self._disk_full = False
        self._counted = dict.fromkeys(intakes, 0)
        self._shed: dict[str, _Shed] = {}

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
        self._look_at_tables()
        self._look_at_shed()

    def _look_at_tables(self) -> None:
        now = self._troubles()
        for (table, what), why in now.items():
            if (table, what) not in self._troubled:
                kind, en, fr = _TROUBLE[what]
                self._say(
                    f"table {table}",
                    kind,
                    Severity.warning,
                    f"{table}: {en}: {why}",
                    f"{table} : {fr} : {why}",
                )
        for table, what in self._troubled.keys() - now.keys():
            kind, en, fr = _OVER[what]
            self._say(f"table {table}", kind, Severity.info, f"{table}: {en}.", f"{table} : {fr}.")
        self._troubled = dict(now)

    def _look_at_shed(self) -> None:
        now = self._clock.now()
        for name, intake in self._intakes.items():
            shed, before = intake.counted().shed, self._counted[name]
            self._counted[name] = shed
            known = self._shed.get(name)
            if shed > before and known is None:
                self._shed[name] = _Shed(before, shed, now, now)
                en = f"{name}: readings are shed, the path cannot follow. They are counted, and gone."
                fr = f"{name} : des lectures sont délestées, le chemin ne suit pas. Elles sont comptées, et perdues."
                self._say(f"source {name}", "shedding", Severity.warning, en, fr)
            elif shed > before and known is not None:
                known.counted, known.last = shed, now
            elif known is not None and now - known.last > _QUIET:
                self._over(name, known)

    def _over(self, name: str, known: _Shed) -> None:
        del self._shed[name]
        lost, took = known.counted - known.before, (known.last - known.since) / SECOND
        en = f"{name}: {lost} readings were shed in {took:.1f} s; none since."
        fr = f"{name} : {lost} lectures délestées en {took:.1f} s ; aucune depuis."
        evidence = {"shed": lost, "seconds": round(took, 3)}
        self._say(f"source {name}", "shedding_over", Severity.info, en, fr, evidence)

    def shedding(self, source: str) -> bool:
        """Whether a source gives readings up now."""
        return source in self._shed

    def end(self) -> None:
        """The loop stops: tell how much was shed by those that shed to the last."""
        self._look_at_shed()
        for name, known in list(self._shed.items()):
            self._over(name, known)

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

    def _say(
        self,
        subject: str,
        kind: str,
        severity: Severity,
        en: str,
        fr: str,
        evidence: dict[str, Any] | None = None,
    ) -> None:
        now = self._clock.now()
        says = {"en": en, "fr": fr}
        self._tell(
            Event(
                f"{kind}-{subject}-{now}", self._product, subject, kind, now, severity, says, evidence or {}
            )
        )

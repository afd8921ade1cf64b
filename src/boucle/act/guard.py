"""The envelope of every actuator signal, and the guard that lets nothing out of it.

A Command is refused before its intent is journaled for what it says (value, rate, expiry, approval),
and once more right before the write for what the machine says (interlock, mode, present value). The
guard never changes a value: a policy may clamp its own, what is outside here is refused. Nothing a
model or a policy says can widen a limit; limits come from the product file only.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.event import Command
from boucle.product.duration import seconds

__all__ = ["REFUSALS", "Guard", "Limits", "Refusal", "Situation", "is_number", "read_limits", "reason"]

REFUSALS: dict[str, dict[str, str]] = {
    "unknown_target": {"en": "nobody declared this target", "fr": "cible que personne n'a déclarée"},
    "unknown_verb": {"en": "this target does not know this verb", "fr": "verbe inconnu de cette cible"},
    "not_a_number": {
        "en": "the value is not what the target takes",
        "fr": "la valeur n'est pas du type attendu",
    },
    "out_of_bounds": {"en": "outside the declared bounds", "fr": "hors des limites déclarées"},
    "step_too_large": {"en": "too far from the present value", "fr": "trop loin de la valeur présente"},
    "rate_limited": {"en": "too many commands in a short time", "fr": "trop de commandes en peu de temps"},
    "expired": {"en": "too late to be carried out", "fr": "trop tard pour être exécutée"},
    "duplicate": {"en": "this command was already dealt with", "fr": "commande déjà traitée"},
    "superseded": {"en": "a later command replaced it", "fr": "remplacée par une commande plus récente"},
    "interlock": {"en": "an interlock is set", "fr": "un verrouillage est actif"},
    "emergency_stop": {"en": "the emergency stop is set", "fr": "l'arrêt d'urgence est actif"},
    "mode": {
        "en": "the machine is not in the required mode",
        "fr": "la machine n'est pas dans le mode requis",
    },
    "not_approved": {"en": "nobody approved it", "fr": "personne ne l'a approuvée"},
    "retained": {
        "en": "a retained message is old news, never an order",
        "fr": "un message retenu est périmé, jamais un ordre",
    },
    "automatic_off": {
        "en": "a person stopped automatic action",
        "fr": "une personne a arrêté l'action automatique",
    },
    "busy": {"en": "too many commands are waiting", "fr": "trop de commandes sont en attente"},
    "unreadable": {"en": "the machine's state cannot be known", "fr": "l'état de la machine est inconnu"},
}
"""Every reason the guard refuses for, in words for a screen."""


def reason(code: str, why: str, language: str) -> str:
    """Why a command was refused, in the reader's language; `why` itself (English, with its values) where
    there is no translation.
    """
    known = REFUSALS.get(code, {})
    return why if language == "en" else known.get(language, why)


_EXACT = 1 << 53
"""Beyond it an integer is no longer exact as the double a machine takes."""
_VERBS = {True: ("set", "safe"), False: ("order",)}


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one signal of an actuator may be told; times in seconds, values in `unit`.

    A signal with `minimum` and `maximum` takes numbers; one without takes orders (mappings).
    """

    unit: str = ""
    minimum: float | None = msgspec.field(name="min", default=None)
    maximum: float | None = msgspec.field(name="max", default=None)
    max_step: float | None = None
    """How far a value may be from the present one."""
    count: int = 0
    """At most so many commands per target within `per`; 0: as many as there are."""
    per: float = 0.0
    expires: float | None = None
    """Seconds after which a command is not carried out any more, whatever it says itself."""
    interlock: tuple[str, ...] = ()
    """Signals of the machine that must read False."""
    require: dict[str, Any] = {}
    """Signals of the machine and what they must read."""
    tolerance: float = 0.0
    """How far a value read back may be from the one written."""
    safe: float | Literal["hold"] = "hold"
    """What to write when a write did not read back; `hold`: nothing."""
    approval: bool = False

    @property
    def numeric(self) -> bool:
        """Whether the signal takes numbers."""
        return self.minimum is not None and self.maximum is not None

    def watched(self) -> tuple[str, ...]:
        """The machine's signals that must be known before a write."""
        return tuple(dict.fromkeys((*self.interlock, *self.require)))


class Refusal(Struct, frozen=True):
    """Why not: a code of REFUSALS, and a sentence with the values."""

    code: str
    why: str


class Situation(Struct, frozen=True, kw_only=True):
    """What the guard is told about the world around a Command."""

    now: Nanos
    deadline: Nanos
    """The end of its validity: never later than its own `not_after`."""
    automatic: bool = True
    """Whether automatic action is allowed."""
    by_person: bool = False
    approved: bool = False
    retained: bool = False
    going_safe: bool = False
    """Whether this is the dispatcher's own way to the declared safe state."""
    seen: bool = False
    sent: Sequence[Nanos] = ()
    """When earlier commands went to the same target."""


class _Rate(Struct, frozen=True, forbid_unknown_fields=True):
    count: int
    per: str | float


class _Declared(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    unit: str = ""
    min: float | None = None
    max: float | None = None
    max_step: float | None = None
    rate: _Rate | None = None
    expires: str | float | None = None
    interlock: list[str] | str = []
    require: dict[str, Any] = {}
    tolerance: float | None = None
    safe: float | Literal["hold"] = "hold"
    approval: bool = False


def read_limits(declared: Mapping[str, Any]) -> Limits:
    """The limits of one signal as the product file declares them; B701 says what is wrong."""
    unknown = [name for name in declared if name not in _Declared.__struct_fields__]
    if unknown:
        near = difflib.get_close_matches(unknown[0], _Declared.__struct_fields__, n=1)
        fix = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(_Declared.__struct_fields__)}"
        raise BoucleError("B701", f"{unknown[0]!r} is no limit", fix=fix)
    try:
        told = msgspec.convert(dict(declared), _Declared)
        rate = told.rate or _Rate(0, 0.0)
        limits = Limits(
            unit=told.unit,
            minimum=told.min,
            maximum=told.max,
            max_step=told.max_step,
            count=rate.count,
            per=seconds(rate.per),
            expires=None if told.expires is None else seconds(told.expires),
            interlock=(told.interlock,) if isinstance(told.interlock, str) else tuple(told.interlock),
            require=told.require,
            tolerance=told.tolerance or 0.0,
            safe=told.safe,
            approval=told.approval,
        )
    except msgspec.ValidationError as error:
        raise BoucleError(
            "B701", "the limits cannot be read", why=str(error), fix="see the press example"
        ) from None
    _check_limits(limits, told)
    return limits


def _check_limits(limits: Limits, told: _Declared) -> None:
    numbers = [told.min, told.max, told.max_step, told.tolerance, limits.expires, limits.per]
    numbers += [] if limits.safe == "hold" else [limits.safe]
    if any(value is not None and not math.isfinite(value) for value in numbers):
        raise BoucleError("B701", "a limit that is no finite number", fix="write a number")
    speaks_of_numbers = told.max_step is not None or told.tolerance is not None or told.unit != ""
    if (told.min is None) != (told.max is None) or (
        not limits.numeric and (speaks_of_numbers or told.safe != "hold")
    ):
        raise BoucleError("B701", "a value needs both bounds", fix="declare min and max")
    if limits.minimum is not None and limits.maximum is not None:
        if limits.minimum > limits.maximum:
            raise BoucleError("B701", "min is above max", fix="swap them")
        if limits.safe != "hold" and not limits.minimum <= limits.safe <= limits.maximum:
            raise BoucleError("B701", "the safe state is outside its own bounds", fix="choose it within them")
    if any(value is not None and value < 0 for value in (told.max_step, told.tolerance, limits.expires)):
        raise BoucleError("B701", "a step, tolerance or duration below 0", fix="write a positive number")
    if told.rate is not None and (told.rate.count < 1 or limits.per <= 0):
        raise BoucleError("B701", "a rate that allows nothing", fix="rate: {count: 2, per: 60s}")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are not."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _EXACT


class Guard:
    """Decides on Commands by limits declared per `actuator/signal`. Holds no state of its own."""

    def __init__(self, limits: Mapping[str, Limits]) -> None:
        self._limits = dict(limits)

    def limits(self, target: str) -> Limits | None:
        """The limits of a target (`plc/press-2/speed_setpoint`); None when nobody declared it."""
        actuator, _, rest = target.partition("/")
        machine, _, signal = rest.rpartition("/")
        return self._limits.get(f"{actuator}/{signal}") if machine else None

    def deadline(self, command: Command, accepted: Nanos) -> Nanos:
        """When a Command ends: its own `not_after`, or the declared `expires` if that is sooner."""
        limits = self.limits(command.target)
        if limits is None or limits.expires is None:
            return command.not_after
        since = min(accepted, command.issued_at) if command.issued_at > 0 else accepted
        return min(command.not_after, since + int(limits.expires * SECOND))

    def before_intent(self, command: Command, world: Situation) -> Refusal | None:
        """Why a Command may not even be tried; None when it may."""
        if world.retained:
            return _no("retained")
        if world.seen:
            return _no("duplicate")
        limits = self.limits(command.target)
        if limits is None:
            return _no("unknown_target", command.target)
        if not world.automatic and not world.by_person:
            return _no("automatic_off")
        if command.verb == "safe" and not world.going_safe:
            return _no("unknown_verb", "only the dispatcher goes to the safe state")
        return (
            _value(command, limits)
            or _validity(command, limits, world)
            or (_rate(limits, world) if limits.count else None)
        )

    def before_write(self, command: Command, world: Situation, present: Mapping[str, Any]) -> Refusal | None:
        """Why a Command may not be written now, by what the machine reads; None when it may.

        `present` holds the target's signal and everything in `watched`; what is absent or None
        could not be read. Value and validity are looked at again: time has passed. The declared
        safe state (verb `safe`) may be further away than `max_step`, and nothing else may.
        """
        limits = self.limits(command.target)
        if limits is None:
            return _no("unknown_target", command.target)
        return (
            _value(command, limits)
            or _validity(command, limits, world)
            or _interlocks(limits, present)
            or _required(limits, present)
            or _step(command, limits, present)
        )


def _no(code: str, detail: str = "") -> Refusal:
    said = REFUSALS[code]["en"]
    return Refusal(code, f"{said}: {detail}" if detail else said)


def _value(command: Command, limits: Limits) -> Refusal | None:
    if command.verb not in _VERBS[limits.numeric]:
        return _no("unknown_verb", repr(command.verb))
    if limits.minimum is None or limits.maximum is None:
        return None if isinstance(command.value, Mapping) else _no("not_a_number", "an order is a mapping")
    if not is_number(command.value):
        return _no("not_a_number", repr(command.value)[:60])
    if not limits.minimum <= command.value <= limits.maximum:
        return _no(
            "out_of_bounds",
            f"{command.value:g} is not within {limits.minimum:g} and {limits.maximum:g} {limits.unit}".strip(),
        )
    if command.verb == "safe" and command.value != limits.safe:
        return _no("out_of_bounds", f"{command.value:g} is not the declared safe state")
    return None


def _validity(command: Command, limits: Limits, world: Situation) -> Refusal | None:
    if world.now > min(world.deadline, command.not_after):
        return _no("expired", f"by {(world.now - min(world.deadline, command.not_after)) / SECOND:.3g} s")
    if (command.needs_approval or limits.approval) and not world.approved:
        return _no("not_approved")
    return None


def _rate(limits: Limits, world: Situation) -> Refusal | None:
    since = world.now - int(limits.per * SECOND)
    recent = sum(1 for at in world.sent if at > since)
    if recent >= limits.count:
        return _no("rate_limited", f"{recent} in the last {limits.per:g} s, at most {limits.count}")
    return None


def _interlocks(limits: Limits, present: Mapping[str, Any]) -> Refusal | None:
    for name in limits.interlock:
        # Only a plain False lets a command through: None, 0 or "false" are not known to be safe.
        value = present.get(name)
        if value is True:
            return _no("emergency_stop" if "emergency_stop" in name else "interlock", name)
        if value is not False:
            return _no("unreadable", name)
    return None


def _required(limits: Limits, present: Mapping[str, Any]) -> Refusal | None:
    for name, wanted in limits.require.items():
        value = present.get(name)
        if value is None:
            return _no("unreadable", name)
        if type(value) is not type(wanted) or value != wanted:
            return _no("mode", f"{name} is {value!r}, not {wanted!r}")
    return None


def _step(command: Command, limits: Limits, present: Mapping[str, Any]) -> Refusal | None:
    if not limits.numeric:
        return None
    signal = command.target.rpartition("/")[2]
    now = present.get(signal)
    if not is_number(now):
        return _no("unreadable", signal)
    if limits.max_step is None or command.verb == "safe":
        return None
    if not abs(command.value - now) <= limits.max_step:
        return _no(
            "step_too_large", f"from {now:g} to {command.value:g}, at most {limits.max_step:g} at once"
        )
    return None

"""What the loop says (Event), wants (Command) and got (Receipt)."""

import enum
from typing import Any

from msgspec import Struct

from boucle.clock import Nanos

__all__ = ["Command", "Event", "Outcome", "Receipt", "Severity"]


class Severity(enum.StrEnum):
    """How much an Event matters, in the order of an operator's screen."""

    info = "info"
    warning = "warning"
    alarm = "alarm"


class Event(Struct, frozen=True):
    """Something worth telling a person: a verdict, an alert, a refusal, a lost connection.

    `subject` names the thing (`press-2`, `press-3/vib_x`, `source/vibration`), `kind` is a stable
    identifier for machines, `says` is one sentence a language ({"en": …, "fr": …}) for people.
    """

    id: str
    product: str
    subject: str
    kind: str
    at: Nanos
    severity: Severity
    says: dict[str, str]
    evidence: dict[str, Any] = {}


class Command(Struct, frozen=True):
    """Something the loop wants a machine or an MES to do, once, before `not_after`.

    `id` makes it idempotent: a Command sent twice moves the machine once. `target` names a
    declared actuator and its object (`plc/press-2/speed_setpoint`, `mes/press-3`); `value` is a
    number for a PLC and a job order (a mapping) for an MES; `because` holds the ids of the
    Events it follows from. `caused_at` is the event time of the last sample that decided it,
    and what latency is measured from.
    """

    id: str
    target: str
    verb: str
    value: Any
    not_after: Nanos
    because: tuple[str, ...] = ()
    needs_approval: bool = False
    issued_at: Nanos = 0
    caused_at: Nanos = 0
    says: dict[str, str] = {}


class Outcome(enum.StrEnum):
    """How a Command ended. Every Command ends in exactly one of these."""

    applied = "applied"
    refused = "refused"
    expired = "expired"
    duplicate = "duplicate"
    failed = "failed"


class Receipt(Struct, frozen=True):
    """What became of a Command: the journal's last word on it.

    `code` is the stable reason (`out_of_bounds`, `interlock`, `retained`, …; empty when applied),
    `why` the sentence, `before` and `read_back` the machine's own values around the write.
    """

    command: str
    target: str
    outcome: Outcome
    at: Nanos
    why: str = ""
    code: str = ""
    before: Any = None
    read_back: Any = None
    latency_ms: float | None = None

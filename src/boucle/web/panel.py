"""What the templates show, made from a LoopView: sorted lists, the accounting sum, evidence rows."""

import math
from typing import Any

from msgspec import Struct

from boucle.drift.picture import picture
from boucle.event import Command, Event, Outcome, Receipt, Severity
from boucle.loop.view import Accounting, LoopView, MachineView
from boucle.web.speech import Speech

__all__ = [
    "OLD_AFTER_S",
    "Entry",
    "Part",
    "by_id",
    "commands_of",
    "entries",
    "events_of",
    "evidence_rows",
    "is_order",
    "is_well",
    "parts",
    "proof_of",
    "proof_picture",
    "quality",
    "sentence",
    "unit_of",
    "units",
]

OLD_AFTER_S = 5.0
WELL = {"connected", "finished"}


class Entry(Struct, frozen=True):
    """A command with its receipt, as a row shows it; `state` is an outcome or `waiting`."""

    command: Command
    receipt: Receipt | None
    state: str

    @property
    def at(self) -> int:
        """When it was issued, or answered when the issuer did not say."""
        return self.command.issued_at or (self.receipt.at if self.receipt else 0)

    @property
    def bad(self) -> bool:
        """Whether a person should look at it."""
        return self.state in {Outcome.refused, Outcome.expired, Outcome.failed}


class Part(Struct, frozen=True):
    """One term of the accounting sum."""

    key: str
    count: int
    abnormal: bool


def is_order(command: Command) -> bool:
    """Whether a command is a work order (goes to the MES) and not a write to a machine."""
    return command.target.startswith("mes/")


def is_well(state: str) -> bool:
    """Whether a source or actuator says that nothing is wrong."""
    return state in WELL


def entries(view: LoopView, *, orders: bool) -> list[Entry]:
    """Work orders, or machine commands; the newest first."""
    rows = [
        Entry(command, receipt, receipt.outcome.value if receipt else "waiting")
        for command, receipt in view.commands
        if is_order(command) is orders
    ]
    return sorted(rows, key=lambda row: row.at, reverse=True)


def events_of(view: LoopView, machine: str = "", severity: str = "") -> list[Event]:
    """Events about a machine or one of its sensors (all when empty); the newest first."""
    rows = [
        event
        for event in view.events
        if (not machine or event.subject.partition("/")[0] == machine)
        and (not severity or event.severity == severity)
    ]
    return sorted(rows, key=lambda event: event.at, reverse=True)


def commands_of(rows: list[Entry], machine: str) -> list[Entry]:
    """The entries whose target names the machine."""
    return [row for row in rows if machine in row.command.target.split("/")]


def parts(accounting: Accounting) -> list[Part]:
    """The right-hand side of `in = stored + …`, term by term."""
    terms = {
        "stored": accounting.stored,
        "late": accounting.late,
        "duplicate": accounting.duplicate,
        "quarantined": accounting.quarantined,
        "shed": accounting.shed,
        "pending": accounting.pending,
    }
    return [Part(key, count, key == "shed" and count > 0) for key, count in terms.items()]


def quality(machine: MachineView, speed: float) -> str:
    """`none` before the first value, `old` when it is stale, else `good`; ages run at the loop's speed."""
    if not math.isfinite(machine.age_s):
        return "none"
    return "old" if machine.age_s > OLD_AFTER_S * max(1.0, speed) else "good"


def sentence(machine: MachineView, speech: Speech) -> str:
    """The one sentence why: the verdict's own, or a calm one."""
    said = speech.said(machine.says)
    if said:
        return said
    return speech("line.calm" if machine.status == "normal" else "line.waiting")


_SAID_ELSEWHERE = {"machine", "sensor", "at", "onset", "subject", "family", "cause", "pending", "slow_limit"}
"""What the view shows already, or what only a machine wants to read."""


def evidence_rows(evidence: dict[str, Any], speech: Speech, units: dict[str, str]) -> list[tuple[str, str]]:
    """Evidence as (name, value) rows, with the unit where the machine has a value of that name.

    A verdict's own numbers (`evidence` within the evidence) replace the row it was made from.
    """
    own = evidence.get("evidence")
    chosen = own if isinstance(own, dict) and own else evidence
    return [
        (speech.name("value", name), _evidence(name, value, speech, units.get(name, "")))
        for name, value in chosen.items()
        if name not in _SAID_ELSEWHERE and name != "evidence"
    ]


def proof_picture(evidence: dict[str, Any], speech: Speech) -> str:
    """The numbers of a verdict as bars, safe to show as it is; nothing for the evidence of other events."""
    own = evidence.get("evidence")
    if not isinstance(own, dict) or "shift" not in own:
        return ""
    return picture(own, speech("events.evidence"), language=speech.language)


def _evidence(name: str, value: Any, speech: Speech, unit: str) -> str:
    if isinstance(value, dict):
        return "; ".join(
            f"{_key(key, speech)}\u00a0{_evidence(key, inner, speech, '')}" for key, inner in value.items()
        )
    if isinstance(value, list):
        return "\u2002".join(_evidence(name, inner, speech, unit) for inner in value)
    if isinstance(value, float):
        return speech.value(name, value, unit) if unit else speech.number(value, 2)
    return speech.anything(value, unit)


def _key(key: str, speech: Speech) -> str:
    return key if key in {"x", "y", "z"} else speech.name("value", key)


def proof_of(events: list[Event]) -> Event | None:
    """The gravest event with evidence, the newest of those."""
    proofs = [event for event in events if event.evidence]
    return max(proofs, key=lambda event: (list(Severity).index(event.severity), event.at), default=None)


def by_id(view: LoopView) -> dict[str, Event]:
    """Event id → event, to say what a command follows from."""
    return {event.id: event for event in view.events}


def units(view: LoopView) -> dict[str, str]:
    """Value name → unit, of all machines."""
    return {name: unit for machine in view.machines for name, unit in machine.units.items()}


def unit_of(command: Command, view: LoopView) -> str:
    """The unit of what a command writes: that of `speed_setpoint`, or of the machine's `setpoint`."""
    signal = command.target.rpartition("/")[2]
    known = units(view)
    return known.get(signal) or known.get(signal.rpartition("_")[2], "")

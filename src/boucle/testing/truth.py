"""What is really wrong, so that a verdict can be held against it."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from msgspec import Struct

from boucle.clock import SECOND, Nanos
from boucle.testing.scenario import Fault

__all__ = ["HISTORY", "MachineState", "truth_of"]

HISTORY = pa.schema(
    [
        ("machine", pa.string()),
        ("at", pa.timestamp("ns", tz="UTC")),
        ("damage", pa.float64()),
        ("rul_h", pa.float64()),
        ("cause", pa.string()),
        ("speed", pa.float64()),
        ("setpoint", pa.float64()),
        ("load", pa.float64()),
    ]
)
"""The truth second by second; `cause` is the worst fault, empty for a sound machine."""


class MachineState(Struct, frozen=True):
    """What is true of a press at one moment: strokes/min, operating hours, severities 0-1, gains."""

    machine: str
    damage: float
    rul_h: float
    speed: float
    setpoint: float
    load: float
    severities: dict[str, float]
    gains: dict[str, float]


def truth_of(
    fault: Fault, start: Nanos, elapsed: float, severities: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """One fault: who, what, since when (ns), and how far it has come, 0 to 1.

    `severity` is that of the machine, or how far a sensor fault has gone towards its `to`.
    """
    machine = fault.family == "machine"
    severity = severities[fault.machine].get(fault.kind, 0.0) if machine else fault.ramp(elapsed)
    return {
        "machine": fault.machine,
        "sensor": fault.sensor,
        "subject": fault.machine if machine else f"{fault.machine}/{fault.sensor}",
        "family": fault.family,
        "cause": fault.kind,
        "onset": start + round(fault.onset * SECOND),
        "begun": elapsed >= fault.onset,
        "severity": severity,
        "to": fault.to,
    }

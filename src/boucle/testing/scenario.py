"""The script of a simulated press line: which machines, what breaks when, what bad input comes.

A scenario is a YAML file (see `examples/press/scenario.yaml`) or the same Structs built in Python.
Times are seconds after the start; in YAML they may be written `15s`, `2min`.
"""

import difflib
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Struct

from boucle.errors import BoucleError, DeclarationError, Problem
from boucle.product.duration import seconds
from boucle.product.lines import Document, Path_, read_documents

__all__ = [
    "AXES",
    "PROCESS",
    "Disturbance",
    "Fault",
    "MachineCause",
    "Operation",
    "Scenario",
    "SensorCause",
    "check_scenario",
    "load_scenario",
]

AXES = ("vib_x", "vib_y", "vib_z")
"""The fast sensors of a press: one triaxial accelerometer, in g."""

PROCESS = {
    "bearing_temperature": "°C",
    "oil_temperature": "°C",
    "hydraulic_pressure": "bar",
    "motor_current": "A",
    "stroke_count": "",
    "crank_angle": "deg",
    "speed_setpoint": "strokes/min",
    "speed_actual": "strokes/min",
}
"""The slow values of a press, read by its PLC, with their units."""

MachineCause: TypeAlias = Literal["outer_race", "inner_race", "imbalance", "lubrication"]
SensorCause: TypeAlias = Literal["gain", "offset", "stuck", "noise", "dropout", "loose", "clock"]
DisturbanceKind: TypeAlias = Literal[
    "malformed",
    "wrong_type",
    "nan",
    "inf",
    "unknown_sensor",
    "out_of_range",
    "duplicate",
    "out_of_order",
    "late",
    "future",
]

_MACHINE_CAUSES: tuple[str, ...] = get_args(MachineCause)
_DURATIONS = {"duration", "chunk", "onset", "over", "at"}
_TO_NEEDED = {"gain", "offset", "noise", "dropout", "loose", "clock"}


class Fault(Struct, frozen=True, kw_only=True):
    """Something that breaks, on the machine or on one of its sensors.

    A machine fault starts at `onset` with `severity` (0 sound, 1 failed) and then grows by the wear law
    of `boucle.testing.wear`, `growth` times as fast (0: it stays as it is, for recording training data).
    A sensor fault goes from nothing to `to` in a straight line within `over` seconds. `to` means: gain
    the final gain (1 is sound), offset and noise the shift and the r.m.s. in the sensor's unit, dropout
    the fraction missing, loose how loose (0-1), clock the error of the clock in parts per million.
    """

    machine: str
    kind: MachineCause | SensorCause
    onset: float
    severity: float = 0.05
    growth: float = 1.0
    sensor: str = ""
    """A sensor fault's sensor; `all` is the whole triaxial accelerometer."""
    over: float = 0.0
    to: float | None = None

    @property
    def family(self) -> str:
        """`machine` or `sensor`: what has to be repaired."""
        return "machine" if self.kind in _MACHINE_CAUSES else "sensor"

    @property
    def sensors(self) -> tuple[str, ...]:
        """The sensors a sensor fault falsifies; none for a machine fault."""
        if self.family == "machine":
            return ()
        return AXES if self.sensor == "all" else (self.sensor,)

    def ramp(self, at: float) -> float:
        """How far a sensor fault has developed at `at` seconds, 0 to 1."""
        if at < self.onset:
            return 0.0
        return min(1.0, (at - self.onset) / self.over) if self.over > 0 else 1.0


class Operation(Struct, frozen=True, kw_only=True):
    """A change of operating point: another speed (strokes/min), load (1 is nominal) or hall temperature.

    `ambient` is how much warmer the hall is than when the line started, °C; machine and instruments are sound.
    """

    machine: str
    at: float
    speed: float | None = None
    load: float | None = None
    ambient: float | None = None


class Disturbance(Struct, frozen=True, kw_only=True):
    """Bad input on the wire: at `times`, or `count` times, or `rate` times a second, at random moments."""

    kind: DisturbanceKind
    machine: str = ""
    """Whose topic it comes on; empty: any."""
    times: tuple[float, ...] = ()
    count: int = 0
    rate: float = 0.0


class Scenario(Struct, frozen=True, kw_only=True):
    """A whole story. `aging` is the operating hours that pass for the machine in one simulated second.

    Real bearings take months to fail; with `aging: 2` two simulated minutes are ten days of wear.
    Thermal time constants are shortened too (see `boucle.testing.process`).
    """

    title: dict[str, str] = {}
    duration: float = 120.0
    chunk: float = 0.1
    machines: tuple[str, ...] = ("press-1", "press-2", "press-3")
    """Names; in YAML a number is enough: 5 stands for press-1 to press-5."""
    speed: float = 40.0
    """Nominal speed, strokes/min."""
    load: float = 1.0
    aging: float = 2.0
    faults: tuple[Fault, ...] = ()
    operation: tuple[Operation, ...] = ()
    disturbances: tuple[Disturbance, ...] = ()


_PARTS: dict[str, type[Struct]] = {
    "faults": Fault,
    "operation": Operation,
    "disturbances": Disturbance,
}


def load_scenario(file: Path) -> Scenario:
    """Read a scenario; DeclarationError carries every problem of the file at once."""
    documents, problems = read_documents(file)
    if not documents and not problems:
        problems.append(
            Problem("B231", "the scenario is empty", file.name, 1, fix="see Scenario for its keys")
        )
    if len(documents) > 1:
        problems.append(Problem("B231", "a scenario is one YAML document", file.name, documents[1].line(())))
    if problems:
        raise DeclarationError(problems)
    document = documents[0]
    reader = _Reader(document)
    scenario = reader.struct(Scenario, document.value, ())
    problems = reader.problems + (
        check_scenario(scenario, document) if isinstance(scenario, Scenario) else []
    )
    if problems or not isinstance(scenario, Scenario):
        raise DeclarationError(sorted(problems, key=lambda problem: problem.line))
    return scenario


class _Reader:
    """Converts value by value, so that one mistake does not hide the next."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def problem(self, code: str, what: str, path: Path_, why: str = "", fix: str = "") -> None:
        self.problems.append(
            Problem(code, what, self.document.file, self.document.line(path), why=why, fix=fix)
        )

    def struct(self, kind: type[Struct], value: Any, path: Path_) -> Struct | None:
        if not isinstance(value, dict):
            found = type(value).__name__
            self.problem("B231", f"expected keys and values here, not {found}", path)
            return None
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        given: dict[str, Any] = {}
        sound = True
        for key, item in value.items():
            if key not in fields:
                near = difflib.get_close_matches(str(key), fields, n=1)
                hint = f'did you mean "{near[0]}"? ' if near else ""
                self.problem(
                    "B230",
                    f'"{key}" is not known here',
                    (*path, key),
                    fix=f"{hint}known: {', '.join(fields)}",
                )
                continue
            try:
                given[key] = self.value(key, item, fields[key].type, (*path, key))
            except (msgspec.ValidationError, BoucleError) as error:
                why = error.what if isinstance(error, BoucleError) else str(error)
                self.problem("B231", f"{key}: {item!r} does not fit", (*path, key), why=why)
                sound = False
        for name, field in fields.items():
            if field.required and name not in value:
                self.problem("B231", f'"{name}" is missing', path, fix=f"add {name}: …")
                sound = False
        return kind(**given) if sound else None

    def value(self, key: str, item: Any, wanted: Any, path: Path_) -> Any:
        if key in _PARTS and isinstance(item, list):
            read = [self.struct(_PARTS[key], part, (*path, i)) for i, part in enumerate(item)]
            return tuple(part for part in read if part is not None)
        if key == "machines" and isinstance(item, int) and not isinstance(item, bool):
            return tuple(f"press-{number}" for number in range(1, item + 1))
        if key == "times" and isinstance(item, list):
            return tuple(seconds(part) for part in item)
        if key in _DURATIONS and isinstance(item, str):
            return seconds(item)
        return msgspec.convert(item, wanted)


def check_scenario(scenario: Scenario, document: Document | None = None) -> list[Problem]:
    """Everything that makes no sense in a scenario, with its line when it was read from a file."""
    problems: list[Problem] = []

    def wrong(what: str, *path: str | int, why: str = "", fix: str = "") -> None:
        file, line = (document.file, document.line(path)) if document else ("scenario", 1)
        problems.append(Problem("B232", what, file, line, why=why, fix=fix))

    for name in ("duration", "chunk", "speed", "load", "aging"):
        if not getattr(scenario, name) > 0:
            wrong(f"{name} must be above 0", name)
    if scenario.chunk > 1:
        wrong("a chunk is at most 1 s", "chunk", fix="chunk: 100ms")
    if len(set(scenario.machines)) != len(scenario.machines) or not scenario.machines:
        wrong("machines need a name each, and at least one", "machines", fix="machines: 3")
    known = ", ".join(scenario.machines)
    for section in _PARTS:
        for index, part in enumerate(getattr(scenario, section)):
            if part.machine not in scenario.machines and not (section == "disturbances" and not part.machine):
                wrong(
                    f'there is no machine "{part.machine}"', section, index, "machine", fix=f"one of: {known}"
                )
            for what, key, fix in _ODDITIES[section](part):
                wrong(what, section, index, key, fix=fix)
    return problems


_Oddities: TypeAlias = list[tuple[str, str, str]]


def _odd_fault(fault: Fault) -> _Oddities:
    odd: _Oddities = []
    if fault.onset < 0 or fault.over < 0:
        odd.append(("time does not run backwards", "onset", "onset and over: 0s or later"))
    if fault.family == "machine":
        if not 0 < fault.severity <= 1:
            odd.append(("severity lies in (0, 1]", "severity", "severity: 0.05"))
        if fault.growth < 0:
            odd.append(("a machine does not heal by itself", "growth", "growth: 0 or more"))
        if fault.sensor or fault.to is not None:
            odd.append((f"{fault.kind} happens to the machine", "sensor", "remove sensor and to"))
        return odd
    fast = ("all", *AXES)
    # The set-point is a register of the PLC, not something that is measured.
    slow = [name for name in PROCESS if name != "speed_setpoint"]
    allowed = fast if fault.kind == "loose" else (*fast, *slow)
    if fault.sensor not in allowed:
        odd.append(
            (f'{fault.kind} of "{fault.sensor}": no such sensor', "sensor", f"one of: {', '.join(allowed)}")
        )
    if fault.to is None and fault.kind in _TO_NEEDED:
        odd.append((f"{fault.kind} does not say how far it goes", "kind", "add to: …"))
    if fault.to is not None and fault.kind in {"dropout", "loose"} and not 0 <= fault.to <= 1:
        odd.append((f"{fault.kind} goes from 0 to 1", "to", "to: 0.3"))
    if fault.to is not None and fault.kind in {"noise", "gain"} and fault.to < 0:
        odd.append((f"{fault.kind} is not negative", "to", "to: 0.5"))
    return odd


def _odd_operation(operation: Operation) -> _Oddities:
    odd: _Oddities = []
    if operation.at < 0:
        odd.append(("time does not run backwards", "at", "at: 0s or later"))
    if operation.speed is None and operation.load is None and operation.ambient is None:
        odd.append(("nothing changes", "machine", "give speed, load or ambient"))
    if (operation.speed is not None and operation.speed < 0) or (
        operation.load is not None and operation.load < 0
    ):
        odd.append(("speed and load are not negative", "at", "0 stands still"))
    return odd


def _odd_disturbance(disturbance: Disturbance) -> _Oddities:
    given = sum(map(bool, (disturbance.times, disturbance.count, disturbance.rate)))
    if given != 1:
        return [
            (f"{disturbance.kind}: how often?", "kind", "give exactly one of times, count and rate, above 0")
        ]
    if disturbance.count < 0 or disturbance.rate < 0 or any(time < 0 for time in disturbance.times):
        return [(f"{disturbance.kind}: negative", "kind", "times, count and rate are above 0")]
    return []


_ODDITIES: dict[str, Any] = {
    "faults": _odd_fault,
    "operation": _odd_operation,
    "disturbances": _odd_disturbance,
}

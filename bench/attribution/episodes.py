"""Episodes of one simulated press: what breaks when, drawn at random; the truth a verdict is held against.

Two sets with seeds of their own: `tuning`, on which limits and the scale of confidence may be chosen, and `final`,
which is judged at the end. An episode is about a minute; the first fourteen seconds or more are sound.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from msgspec import Struct

from boucle.testing.scenario import Fault, Operation, Scenario

__all__ = ["FINAL", "SETS", "TUNING", "Episode", "draw", "healthy"]

TUNING, FINAL = "tuning", "final"
SETS = {TUNING: 510_000, FINAL: 920_000}
"""Where the seeds of a set begin. Tests use smaller ones, the model's training 10 000 and up."""

MACHINE = "press"
_ONSET = (14.0, 20.0)
_AFTER = 38.0
_AXES = ("vib_x", "vib_y", "vib_z")
_SLOW = ("bearing_temperature", "oil_temperature", "hydraulic_pressure", "motor_current")
_LEAST_SEVERITY = {"outer_race": 0.05, "inner_race": 0.05, "imbalance": 0.05, "lubrication": 0.08}

Draw = np.random.Generator


class Episode(Struct, frozen=True):
    """One episode: its group says what it is about, its scenario holds the truth."""

    name: str
    group: str
    seed: int
    scenario: Scenario

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What really is wrong, in order of onset."""
        return tuple(sorted(self.scenario.faults, key=lambda fault: fault.onset))


def _log(rng: Draw, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _sign(rng: Draw) -> float:
    return float(rng.choice([-1.0, 1.0]))


def _gain(rng: Draw, least: float, most: float) -> float:
    """A factor below or above 1, by `least` to `most`."""
    size = _log(rng, least, most)
    return 1 - min(size, 0.8) if rng.uniform() < 0.5 else 1 + size


def _fast(rng: Draw, kind: str) -> float | None:
    """How far a fault of an axis goes; see `Fault.to`."""
    sizes: dict[str, Callable[[], float | None]] = {
        "gain": lambda: _gain(rng, 0.14, 0.7),
        "offset": lambda: _sign(rng) * _log(rng, 0.06, 0.5),
        "stuck": lambda: None,
        "noise": lambda: _log(rng, 0.02, 0.2),
        "dropout": lambda: _log(rng, 0.05, 0.5),
        "loose": lambda: float(rng.uniform(0.25, 0.95)),
        "clock": lambda: _sign(rng) * _log(rng, 120, 1000),
    }
    return sizes[kind]()


_SLOW_SIZES = {  # offset and noise in the unit of the value
    "bearing_temperature": ((2.0, 15.0), (0.6, 4.0)),
    "oil_temperature": ((2.0, 15.0), (0.6, 4.0)),
    "hydraulic_pressure": ((8.0, 40.0), (4.0, 20.0)),
    "motor_current": ((2.5, 15.0), (2.0, 10.0)),
}


def _slow(rng: Draw, sensor: str, kind: str) -> float | None:
    offset, noise = _SLOW_SIZES[sensor]
    sizes: dict[str, Callable[[], float | None]] = {
        "gain": lambda: _gain(rng, 0.06, 0.3),
        "offset": lambda: _sign(rng) * _log(rng, *offset),
        "stuck": lambda: None,
        "noise": lambda: _log(rng, *noise),
        "dropout": lambda: _log(rng, 0.1, 0.5),
    }
    return sizes[kind]()


def _over(rng: Draw) -> float:
    return 0.0 if rng.uniform() < 0.4 else float(rng.uniform(2, 20))


def _fast_fault(rng: Draw, kind: str, onset: float) -> Fault:
    sensor = "all" if rng.uniform() < 0.15 else str(rng.choice(_AXES))
    return Fault(machine=MACHINE, kind=kind, sensor=sensor, onset=onset, over=_over(rng), to=_fast(rng, kind))  # type: ignore[arg-type]


def _slow_fault(rng: Draw, kind: str, onset: float, sensor: str = "") -> Fault:
    sensor = sensor or str(rng.choice(_SLOW))
    size = _slow(rng, sensor, kind)
    return Fault(machine=MACHINE, kind=kind, sensor=sensor, onset=onset, over=_over(rng), to=size)  # type: ignore[arg-type]


def _machine_fault(rng: Draw, kind: str, onset: float) -> Fault:
    severity = _log(rng, _LEAST_SEVERITY[kind], 0.8)
    growth = 0.0 if rng.uniform() < 0.3 else 1.0
    return Fault(machine=MACHINE, kind=kind, onset=onset, severity=severity, growth=growth)  # type: ignore[arg-type]


def _any_sensor(rng: Draw, onset: float) -> Fault:
    if rng.uniform() < 0.25:
        return _slow_fault(rng, str(rng.choice(["gain", "offset", "stuck", "noise", "dropout"])), onset)
    kinds = ["gain", "offset", "stuck", "noise", "dropout", "loose", "clock"]
    return _fast_fault(rng, str(rng.choice(kinds)), onset)


def _any_machine(rng: Draw, onset: float) -> Fault:
    return _machine_fault(rng, str(rng.choice(list(_LEAST_SEVERITY))), onset)


def _onset(rng: Draw) -> float:
    return float(rng.uniform(*_ONSET))


def _of(group: str) -> Callable[[Draw, float], dict[str, Any]]:
    family, _, kind = group.partition("/")

    def single(rng: Draw, speed: float) -> dict[str, Any]:
        del speed
        make = {"machine": _machine_fault, "sensor": _fast_fault, "slow": _slow_fault}[family]
        return {"faults": (make(rng, kind, _onset(rng)),)}

    return single


def _none(rng: Draw, speed: float) -> dict[str, Any]:
    del rng, speed
    return {}


def _other_speed(rng: Draw, speed: float) -> dict[str, Any]:
    """Another speed, never seen before, and maybe back again."""
    there = Operation(machine=MACHINE, at=_onset(rng), speed=speed * float(rng.uniform(0.62, 0.93)))
    if rng.uniform() < 0.5:
        return {"operation": (there,)}
    return {"operation": (there, Operation(machine=MACHINE, at=40, speed=speed))}


def _other_load(rng: Draw, speed: float) -> dict[str, Any]:
    del speed
    load = float(rng.uniform(0.65, 0.9) if rng.uniform() < 0.5 else rng.uniform(1.1, 1.3))
    return {"operation": (Operation(machine=MACHINE, at=_onset(rng), load=load),)}


def _both(rng: Draw, speed: float) -> dict[str, Any]:
    load = float(rng.uniform(0.7, 1.25))
    slower = speed * float(rng.uniform(0.65, 0.95))
    return {"operation": (Operation(machine=MACHINE, at=_onset(rng), speed=slower, load=load),)}


def _hall(rng: Draw, speed: float) -> dict[str, Any]:
    """The hall gets warmer or colder by some degrees."""
    del speed
    warmer = _sign(rng) * float(rng.uniform(2, 9))
    return {"operation": (Operation(machine=MACHINE, at=_onset(rng), ambient=warmer),)}


def _sensor_and_machine(rng: Draw, speed: float) -> dict[str, Any]:
    del speed
    first = _onset(rng)
    second = first + float(rng.uniform(0, 20))
    onsets = (first, second) if rng.uniform() < 0.5 else (second, first)
    return {
        "faults": (_any_sensor(rng, onsets[0]), _any_machine(rng, onsets[1])),
        "duration": second + _AFTER,
    }


def _two_sensors(rng: Draw, speed: float) -> dict[str, Any]:
    del speed
    first = _onset(rng)
    one = _any_sensor(rng, first)
    while True:
        other = _any_sensor(rng, first + float(rng.uniform(0, 20)))
        if not set(one.sensors) & set(other.sensors):
            return {"faults": (one, other), "duration": other.onset + _AFTER}


def _after_a_change(make: Callable[[Draw, float], Fault]) -> Callable[[Draw, float], dict[str, Any]]:
    """A fault some time after a speed or load that was never seen."""

    def both(rng: Draw, speed: float) -> dict[str, Any]:
        change = _other_speed(rng, speed) if rng.uniform() < 0.6 else _other_load(rng, speed)
        change["operation"] = change["operation"][:1]
        onset = change["operation"][0].at + float(rng.uniform(20, 35))
        return {**change, "faults": (make(rng, onset),), "duration": onset + _AFTER}

    return both


GROUPS: dict[str, tuple[int, Callable[[Draw, float], dict[str, Any]]]] = {
    **{f"machine/{kind}": (32, _of(f"machine/{kind}")) for kind in _LEAST_SEVERITY},
    **{
        f"sensor/{kind}": (20, _of(f"sensor/{kind}"))
        for kind in ("gain", "offset", "stuck", "noise", "dropout", "loose", "clock")
    },
    **{f"slow/{kind}": (14, _of(f"slow/{kind}")) for kind in ("gain", "offset", "stuck", "noise", "dropout")},
    "pair/sensor+machine": (40, _sensor_and_machine),
    "pair/two sensors": (40, _two_sensors),
    "changed/machine": (20, _after_a_change(_any_machine)),
    "changed/sensor": (20, _after_a_change(_any_sensor)),
    "none": (40, _none),
    "operation/speed": (24, _other_speed),
    "operation/load": (24, _other_load),
    "operation/both": (16, _both),
    "operation/hall": (16, _hall),
}
"""Group → how many episodes, and how one is drawn."""


def draw(which: str, share: float = 1.0) -> Iterator[Episode]:
    """The episodes of a set, the same every time; a `share` of each group for a quick run."""
    for number, (group, (count, make)) in enumerate(GROUPS.items()):
        for index in range(max(1, round(count * share))):
            seed = SETS[which] + 1000 * number + index
            rng = np.random.default_rng(seed)
            speed, load = float(rng.uniform(26, 41)), float(rng.uniform(0.85, 1.15))
            told = {"duration": 20.0 + _AFTER, **make(rng, speed)}
            duration = float(np.ceil(told.pop("duration")))
            scenario = Scenario(machines=(MACHINE,), speed=speed, load=load, duration=duration, **told)
            yield Episode(f"{which}-{number:02d}-{index:03d}", group, seed, scenario)


def healthy(which: str, count: int, seconds: float) -> Iterator[Episode]:
    """Long sound runs, each of a press of its own at a point of its own."""
    for index in range(count):
        seed = SETS[which] + 90_000 + index
        rng = np.random.default_rng(seed)
        speed, load = float(rng.uniform(26, 41)), float(rng.uniform(0.85, 1.15))
        scenario = Scenario(machines=(MACHINE,), speed=speed, load=load, duration=seconds)
        yield Episode(f"{which}-sound-{index:03d}", "healthy", seed, scenario)

"""A press line that tells its story without a loop: what the page shows, at any second of it.

`python -m tests.web.sample --port 8080` serves the page on it. Everything follows from the time
alone: the same second always gives the same picture.
"""

import argparse
import math
import threading
from typing import Any, Literal, TypeAlias

import numpy as np

from boucle.clock import SECOND, Clock, Nanos, ScaledClock
from boucle.event import Command, Event, Outcome, Receipt, Severity
from boucle.loop.trace import Tracer, otlp
from boucle.loop.view import (
    Accounting,
    ActuatorView,
    Latency,
    Live,
    LiveSignal,
    LoopView,
    MachineView,
    SourceView,
    StepView,
    TablesView,
)
from boucle.web import create_app, serve

Story: TypeAlias = Literal["wear", "normal", "empty"]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

START: Nanos = 1_763_728_200 * SECOND
RATE_HZ = 10_000
WEAR_FROM, WEAR_SEEN, SLOWED = 60.0, 96.0, 97.0
GAIN_FROM, GAIN_SEEN = 110.0, 132.0
MACHINES = ("press-1", "press-2", "press-3")
UNITS = {
    "speed": "strokes/min",
    "setpoint": "strokes/min",
    "velocity": "mm/s",
    "rms_x": "g",
    "rms_y": "g",
    "rms_z": "g",
    "bearing_temperature": "°C",
    "oil_temperature": "°C",
    "hydraulic_pressure": "bar",
    "motor_current": "A",
    "health": "",
}
BANDS = {
    "velocity": (0.0, 2.8),
    "rms_x": (0.14, 0.26),
    "rms_y": (0.12, 0.24),
    "rms_z": (0.10, 0.22),
    "bearing_temperature": (20.0, 75.0),
    "oil_temperature": (20.0, 65.0),
    "health": (0.85, 1.0),
}
SLOW_DOWN = {
    "en": "press-2 is wearing: outer-race defect of the bearing, health 62 %, about 41 h left; slowed from "
    "36 to 27 strokes/min until maintenance.",
    "fr": "press-2 s'use : défaut de la bague extérieure du roulement, santé 62 %, il reste environ 41 h ; "
    "ralentie de 36 à 27 coups/min en attendant la maintenance.",
}
DRIFTED = {
    "en": "The sensor press-3/vib_x has lost gain, the machine has not changed: no slow-down, a calibration "
    "order instead.",
    "fr": "Le capteur press-3/vib_x a perdu du gain, la machine n'a pas changé : pas de ralentissement, un "
    "ordre d'étalonnage à la place.",
}
CALM = {"en": "No anomaly.", "fr": "Aucune anomalie."}


class StillClock:
    """A clock that a test sets by hand."""

    speed = 1.0

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def now(self) -> Nanos:
        return START + int(self.seconds * SECOND)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class SampleLoop:
    """An Observable that plays the wear story, a normal shift, or a loop that has seen nothing yet."""

    def __init__(self, clock: Clock, story: Story = "wear") -> None:
        self.clock, self.story = clock, story
        self.automatic = True
        self.asked: list[tuple[bool, str]] = []
        self._lock = threading.Lock()

    def seconds(self) -> float:
        return (self.clock.now() - START) / SECOND

    def wear(self, machine: str, second: float) -> float:
        """0 healthy … 1 failed."""
        if self.story != "wear" or machine != "press-2" or second < WEAR_FROM:
            return 0.0
        before = min(second, SLOWED) - WEAR_FROM
        after = max(0.0, second - SLOWED)
        return min(0.55, before / 95 + after / 9000)

    def gain(self, machine: str, sensor: str, second: float) -> float:
        """What the sensor makes of one g."""
        if self.story != "wear" or (machine, sensor) != ("press-3", "vib_x") or second < GAIN_FROM:
            return 1.0
        return max(0.45, 1 - (second - GAIN_FROM) / 40)

    def speed(self, machine: str, second: float) -> tuple[float, float]:
        """Set-point and actual speed, strokes/min."""
        usual = {"press-1": 34.0, "press-2": 36.0, "press-3": 32.0}[machine]
        if self.story != "wear" or machine != "press-2" or second < SLOWED:
            return usual, usual + 0.12 * math.sin(second / 3)
        return 27.0, 27.0 + 9.0 * math.exp(-(second - SLOWED) / 4) + 0.1 * math.sin(second / 3)

    def rms(self, machine: str, axis: str, second: float) -> float:
        """Root mean square of one axis in g, as the edge would report it for that second."""
        level = {"x": 0.20, "y": 0.18, "z": 0.16}[axis]
        share = self.speed(machine, second)[1] / 34
        ripple = 0.006 * math.sin(second * 1.7 + ord(axis)) + 0.004 * math.sin(second * 0.31 + len(machine))
        value = level * share * (1 + 2.1 * self.wear(machine, second) ** 1.3) + ripple
        return float(value * self.gain(machine, f"vib_{axis}", second))

    def features(self, machine: str, second: float) -> dict[str, float]:
        setpoint, speed = self.speed(machine, second)
        wear = self.wear(machine, second)
        return {
            "speed": speed,
            "setpoint": setpoint,
            "velocity": 1.3 * speed / 34 + 5.2 * wear**1.4,
            "rms_x": self.rms(machine, "x", second),
            "rms_y": self.rms(machine, "y", second),
            "rms_z": self.rms(machine, "z", second),
            "bearing_temperature": 52.0 + 26 * wear + 0.4 * math.sin(second / 17),
            "oil_temperature": 46.5 + 3 * wear + 0.3 * math.sin(second / 23),
            "hydraulic_pressure": 182.0 + 1.4 * math.sin(second / 2.1),
            "motor_current": 41.0 * speed / 34 + 2 * wear,
            "health": 1 - wear if machine != "press-1" else 0.97,
        }

    def waveform(self, machine: str, sensor: str, second: float) -> Floats:
        """100 ms at 10 kHz: shaft harmonics, gear mesh, bearing impulses that grow with wear."""
        count = RATE_HZ // 10
        begins = math.floor(second * 10) / 10
        t = begins + np.arange(count) / RATE_HZ
        axis = sensor[-1]
        shaft = self.speed(machine, second)[1] / 60 * 36
        noise = np.random.default_rng([int(begins * 10), ord(axis), MACHINES.index(machine)])
        wave = 0.16 * np.sin(2 * np.pi * shaft * t) + 0.06 * np.sin(2 * np.pi * 2 * shaft * t + 0.7)
        wave += 0.05 * np.sin(2 * np.pi * 23 * shaft * t) + noise.normal(0, 0.07, count)
        wear = self.wear(machine, second)
        since = np.mod(t, 1 / (3.585 * shaft))
        wave += 3.2 * wear * np.exp(-since * 900) * np.sin(2 * np.pi * 3100 * since)
        scale = {"x": 1.0, "y": 0.9, "z": 0.8}[axis] * self.gain(machine, sensor, second)
        return np.asarray(wave * scale, dtype=np.float32)

    def spectrum(self, wave: Floats) -> Floats:
        """Peak amplitude per 10 Hz bin, Hann window."""
        window = np.hanning(len(wave))
        return np.asarray(np.abs(np.fft.rfft(wave * window)) * 2 / window.sum(), dtype=np.float32)

    def live(self, machine: str) -> Live | None:
        if machine not in MACHINES:
            return None
        now = self.seconds()
        if self.story == "empty":
            return Live(machine, self.clock.now(), (), {}, {}, {})
        signals = []
        for axis in "xyz":
            wave = self.waveform(machine, f"vib_{axis}", now)
            age = now - math.floor(now * 10) / 10
            signals.append(LiveSignal(f"vib_{axis}", "g", wave, self.spectrum(wave), 10.0, age))
        last = math.floor(now)
        seconds = np.arange(max(0, last - 180), last + 1)
        ago = np.asarray(now - seconds, dtype=np.float32)
        rows = [self.features(machine, float(second)) for second in seconds]
        trends = {name: (ago, np.array([row[name] for row in rows], dtype=np.float32)) for name in UNITS}
        return Live(machine, self.clock.now(), tuple(signals), trends, dict(BANDS), dict(UNITS))

    def machine(self, machine: str, second: float) -> MachineView:
        if self.story == "empty":
            nan = math.nan
            return MachineView(
                machine, "unknown", nan, nan, nan, "", "unknown", "", machine, 0.0, {}, {}, UNITS
            )
        values = self.features(machine, math.floor(second))
        told = {"status": "normal", "family": "none", "cause": "", "subject": machine, "zone": "A"}
        says, confidence = CALM, 0.98
        if self.story == "wear" and machine == "press-2" and second >= WEAR_SEEN:
            told |= {"status": "alarm", "family": "machine", "cause": "outer_race", "zone": "C"}
            says, confidence = SLOW_DOWN, 0.94
        if self.story == "wear" and machine == "press-3" and second >= GAIN_SEEN:
            told |= {"status": "attention", "family": "sensor", "cause": "gain", "subject": "press-3/vib_x"}
            says, confidence = DRIFTED, 0.91
        health = values["health"]
        rul = 200.0 if health > 0.9 else 65.9 * health
        return MachineView(
            id=machine,
            age_s=second - math.floor(second) + 0.2,
            health=health,
            rul_h=rul,
            confidence=confidence,
            says=says,
            values=values,
            units=UNITS,
            **told,
        )

    def view(self) -> LoopView:
        now = self.seconds()
        empty = self.story == "empty"
        return LoopView(
            product="press-line",
            title={"en": "Press line", "fr": "Ligne de presses"},
            at=self.clock.now(),
            since=START,
            speed=1.0,
            automatic=self.automatic,
            machines=tuple(self.machine(machine, now) for machine in MACHINES),
            events=() if empty else self.events(now),
            commands=() if empty else self.commands(now),
            sources=sources(now, empty=empty),
            steps=steps(now, empty=empty),
            actuators=(
                ActuatorView("plc", "opc.tcp://127.0.0.1:4840", "connected", 0),
                ActuatorView("mes", "http://127.0.0.1:8090/job-orders", "connected", 0),
            ),
            tables=tables(now, empty=empty),
            accounting=accounting(now, self.story),
            decision_ms=Latency(math.nan, math.nan, 0) if empty else Latency(5.8, 11.2, int(now * 30)),
            action_ms=Latency(9.4, 17.9, 1) if self.story == "wear" and now >= SLOWED else NO_LATENCY,
        )

    def events(self, now: float) -> tuple[Event, ...]:
        told = [event for second, event in STORY_EVENTS if second <= now and self.story == "wear"]
        told.append(STARTED)
        return tuple(told)

    def commands(self, now: float) -> tuple[tuple[Command, Receipt | None], ...]:
        if self.story != "wear":
            return ()
        return tuple(pair for second, pair in STORY_COMMANDS if second <= now)

    def metrics(self) -> bytes:
        return b"# HELP boucle_rows_total Rows.\n# TYPE boucle_rows_total counter\nboucle_rows_total 42\n"

    def traces(self) -> list[dict[str, Any]]:
        tracer = Tracer(1)
        for source in ("vibration", "process"):
            trace = tracer.begin(source, 0)
            assert trace is not None
            trace.mark("source", rows=3)
            tracer.keep(trace)
        return [otlp(trace, "press-line") for trace in tracer.last()]

    def set_automatic(self, allowed: bool, by: str) -> None:
        with self._lock:
            self.automatic = allowed
            self.asked.append((allowed, by))


NO_LATENCY = Latency(math.nan, math.nan, 0)


def at(second: float) -> Nanos:
    return START + int(second * SECOND)


def sources(now: float, *, empty: bool) -> tuple[SourceView, ...]:
    if empty:
        return (
            SourceView(
                "vibration", "mqtt://127.0.0.1:1883/press/+/vibration", "connecting", math.nan, 0, 0, 0
            ),
            SourceView("process", "opc.tcp://127.0.0.1:4840", "connecting", math.nan, 0, 0.0, 0),
        )
    return (
        SourceView(
            "vibration", "mqtt://127.0.0.1:1883/press/+/vibration", "connected", 0.04, int(now * 90), 90.0, 0
        ),
        SourceView("process", "opc.tcp://127.0.0.1:4840", "connected", 0.08, int(now * 231), 231.0, 1),
    )


def steps(now: float, *, empty: bool) -> tuple[StepView, ...]:
    made: list[tuple[str, str, tuple[str, ...], float, float, float, float]] = [
        ("vibration_events", "boucle.edge.reduce:Reduce", ("vibration", "process"), 321, 9, 812, 2460),
        ("features", "operators:PressFeatures", ("vibration_events", "process"), 240, 3, 96, 310),
        ("health", "boucle.serve.score:Score", ("features",), 3, 3, 41, 118),
        ("verdicts", "boucle.drift.attribute:Attribute", ("health",), 3, 3, 204, 655),
    ]
    return tuple(
        StepView(name, use, inputs, 0, 0, 0.0, math.nan, math.nan)
        if empty
        else StepView(name, use, inputs, int(now * into), int(now * out), into, p50, p99)
        for name, use, inputs, into, out, p50, p99 in made
    )


def tables(now: float, *, empty: bool) -> tuple[TablesView, ...]:
    rows = 0 if empty else int(now)
    return (
        TablesView("vibration_raw", "raw", rows * 90, rows // 5, 2.1),
        TablesView("process_raw", "raw", rows * 231, rows // 5, 2.1),
        TablesView("vibration_events", "silver", rows * 9, rows // 5, 3.4),
        TablesView("maintenance_summary", "gold", rows * 3, rows // 5, 3.4),
    )


def accounting(now: float, story: Story) -> Accounting:
    if story == "empty":
        return Accounting()
    received = int(now * 321)
    reasons = {} if story == "normal" else {"not_finite": 12, "unknown_sensor": 3, "future": 2}
    quarantined = sum(reasons.values())
    late, duplicate = (0, 0) if story == "normal" else (7, 24)
    stored = received - late - duplicate - quarantined - 33
    return Accounting(
        received=received,
        stored=stored,
        late=late,
        duplicate=duplicate,
        quarantined=quarantined,
        pending=33,
        reasons=reasons,
    )


def told(
    number: str,
    subject: str,
    kind: str,
    second: float,
    severity: Severity,
    says: dict[str, str],
    **evidence: Any,
) -> Event:
    return Event(number, "press-line", subject, kind, at(second), severity, says, evidence)


STARTED = told(
    "e-1",
    "press-line",
    "loop_started",
    0.0,
    Severity.info,
    {
        "en": "The loop runs: 2 sources, 4 steps, 4 tables.",
        "fr": "La boucle tourne : 2 sources, 4 étapes, 4 tables.",
    },
)
ALERTED = told(
    "e-2",
    "press-2/vib_x",
    "vibration_alert",
    88.0,
    Severity.warning,
    {
        "en": "press-2 vib_x: vibration is 6.4 standard deviations from its healthy level.",
        "fr": "press-2 vib_x : la vibration est à 6,4 écarts-types de son niveau sain.",
    },
    z=6.4,
)
WORN = told(
    "e-3",
    "press-2",
    "machine_wear",
    WEAR_SEEN,
    Severity.alarm,
    SLOW_DOWN,
    env_bpfo=8.7,
    env_bpfi=1.2,
    health=0.62,
    axes=["vib_x", "vib_y", "vib_z"],
    bearing_temperature=62.1,
    zone="C",
)
GAIN_LOST = told(
    "e-4",
    "press-3/vib_x",
    "sensor_drift",
    GAIN_SEEN,
    Severity.warning,
    DRIFTED,
    gain=0.52,
    residual_without={"vib_x": 0.8, "vib_y": 7.9, "vib_z": 8.1},
    env_bpfo=1.1,
)
STORY_EVENTS: list[tuple[float, Event]] = [(GAIN_SEEN, GAIN_LOST), (WEAR_SEEN, WORN), (88.0, ALERTED)]

SLOWER = Command(
    id="c-1",
    target="plc/press-2/speed_setpoint",
    verb="set",
    value=27.0,
    not_after=at(SLOWED + 5),
    because=("e-3",),
    issued_at=at(WEAR_SEEN + 0.01),
    caused_at=at(WEAR_SEEN),
    says={"en": "Slow press-2 down", "fr": "Ralentir press-2"},
)
MAINTAIN = Command(
    id="c-2",
    target="mes/press-2/job_order",
    verb="order",
    value={
        "WorkType": "Maintenance",
        "Priority": 2,
        "HierarchyScope": "press-2",
        "Description": SLOW_DOWN["en"],
        "Parameters": {"Cause": "outer_race", "Health": "0.62", "RemainingHours": "41"},
    },
    not_after=at(SLOWED + 3600),
    because=("e-3",),
    issued_at=at(WEAR_SEEN + 0.02),
    caused_at=at(WEAR_SEEN),
    says={"en": "Maintenance order for press-2", "fr": "Ordre de maintenance pour press-2"},
)
CALIBRATE = Command(
    id="c-3",
    target="mes/press-3/job_order",
    verb="order",
    value={
        "WorkType": "Calibration",
        "Priority": 4,
        "HierarchyScope": "press-3/vib_x",
        "Description": DRIFTED["en"],
        "Parameters": {"Cause": "gain"},
    },
    not_after=at(GAIN_SEEN + 3600),
    because=("e-4",),
    issued_at=at(GAIN_SEEN + 0.02),
    caused_at=at(GAIN_SEEN),
    says={"en": "Calibration order for press-3/vib_x", "fr": "Ordre d'étalonnage pour press-3/vib_x"},
)
TOO_FAST = Command(
    id="c-4",
    target="plc/press-2/speed_setpoint",
    verb="set",
    value=46.0,
    not_after=at(SLOWED + 20),
    issued_at=at(SLOWED + 12),
    says={"en": "Speed press-2 up", "fr": "Accélérer press-2"},
)
STORY_COMMANDS: list[tuple[float, tuple[Command, Receipt | None]]] = [
    (
        GAIN_SEEN,
        (
            CALIBRATE,
            Receipt("c-3", CALIBRATE.target, Outcome.applied, at(GAIN_SEEN + 0.1), read_back="JO-0002"),
        ),
    ),
    (
        SLOWED + 12,
        (
            TOO_FAST,
            Receipt(
                "c-4",
                TOO_FAST.target,
                Outcome.refused,
                at(SLOWED + 12.01),
                why="46 strokes/min is outside 24 to 40",
                code="out_of_bounds",
                before=27.0,
                read_back=27.0,
            ),
        ),
    ),
    (
        WEAR_SEEN,
        (
            MAINTAIN,
            Receipt("c-2", MAINTAIN.target, Outcome.applied, at(WEAR_SEEN + 0.1), read_back="JO-0001"),
        ),
    ),
    (
        WEAR_SEEN,
        (
            SLOWER,
            Receipt(
                "c-1",
                SLOWER.target,
                Outcome.applied,
                at(WEAR_SEEN + 0.02),
                before=36.0,
                read_back=27.0,
                latency_ms=9.4,
            ),
        ),
    ),
]


def main() -> None:
    """Serve the page on the sample until Ctrl-C."""
    asked = argparse.ArgumentParser(description="the page on a sample press line")
    asked.add_argument("--port", type=int, default=8080)
    asked.add_argument("--story", choices=["wear", "normal", "empty"], default="wear")
    asked.add_argument("--second", type=float, default=80.0, help="where in the story to begin")
    options = asked.parse_args()
    clock = ScaledClock(1.0, START + int(options.second * SECOND))
    with serve(create_app(SampleLoop(clock, options.story)), port=options.port) as server:
        print(f"the page is at {server.url}")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("closing")


if __name__ == "__main__":
    main()

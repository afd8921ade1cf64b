"""One mechanical press: what its bearing housing feels, in g, and what its PLC reads.

The motor and flywheel shaft turns 36 times a stroke; at n = 40 strokes/min that is f = 24 Hz. With θ the
shaft angle, ψ the crank angle, d the severities (`boucle.testing.wear`), s = n/n0 the relative speed:

    shaft      s² [ (1 + 7·d_imbalance)·A1 cos θ + A2 cos 2θ + A3 cos 3θ ] · (1 + 3.5·d_bearing²)
    gear       s·(0.4 + 0.6 load)·(1 + 0.2 cos ψ)·[ G1 cos 31θ + G2 cos 62θ ]       31 teeth
    stroke     a blow of load·s at bottom dead centre on the frame's mode, 450 Hz
    bearing    blows of d^1.2·s^1.5 at BPFO = 3.585 f or BPFI = 5.415 f (6205 geometry) on the housing's mode,
               3.1 kHz, and weaker on the frame; inner-race blows are modulated at f, as the defect passes
               through the load zone (McFadden & Smith 1984, *Model for the vibration produced by a single
               point defect in a rolling element bearing*, JSV 96)
    friction   broadband noise on the housing's mode, ∝ d_lubrication: the film no longer parts the surfaces
    floor      white noise

Each term reaches the axes x, y, z by its own transmission factors, which differ a little from press to
press. Healthy presses stay in zones A and B of ISO 20816-3 group 2 rigid (velocity 10-1000 Hz below
2.8 mm/s r.m.s.); a failed bearing or a heavy imbalance ends in C or D. The amplitudes are chosen for that;
the frequencies are the physics. Sources: Randall & Antoni (2011), MSSP 25; ISO 20816-3:2022.

Speed follows its set-point with a lag of 1.5 s and wanders by 0.3 % r.m.s.
"""

import math

import numpy as np
from msgspec import Struct

from boucle.testing.process import Process
from boucle.testing.resonance import Array, ImpulseTrain, Resonance, Wide
from boucle.testing.scenario import Fault, Scenario
from boucle.testing.wear import grow, hours_left, wear_rate

__all__ = ["BPFI", "BPFO", "GEAR_TEETH", "RATE", "SHAFT_PER_STROKE", "Machine", "Motion"]

RATE = 10_000.0
"""Samples a second and axis."""
SHAFT_PER_STROKE = 36
"""Shaft turns per stroke."""
GEAR_TEETH = 31
BPFO = 3.585
"""Ball passes of the outer race per shaft turn; 9 balls, geometry of a 6205."""
BPFI = 5.415
RESONANCE = (3100.0, 0.03)
"""Mode of the bearing housing: Hz, damping ratio."""
FRAME = (450.0, 0.03)
"""Mode of the press frame: Hz, damping ratio."""

_SPEED_LAG = 1.5  # s
_WANDER = 0.003  # r.m.s. of the relative speed
_WANDER_TIME = 2.0  # s
_SHAFT = (0.024, 0.012, 0.008)  # g at 1, 2, 3 × shaft, nominal speed
_GEAR = (0.13, 0.05)  # g
_STROKE = 1.4  # g
_DEFECT = 4.2  # g, at severity 1
_DEFECT_ON_FRAME = 0.3
_FRICTION = 0.2  # g into the housing's mode at severity 1
_FLOOR = 0.018  # g r.m.s.
# Rows x, y, z; columns shaft, gear, frame, housing.
_TRANSMISSION = np.array([[1.0, 1.0, 0.55, 1.0], [0.8, 0.7, 0.45, 0.75], [0.45, 0.8, 1.0, 0.55]])


class Motion(Struct, frozen=True):
    """The angles of one chunk: per sample, and where the next chunk begins, in turns."""

    crank: Wide
    crank_end: float
    start: float
    """Crank angle of the first sample, in [0, 1) turns; 0 is top, 0.5 bottom dead centre."""
    relative_speed: float


class Machine:
    """One press. `step` gives its next chunk; the same seed and index give the same bytes.

    Nothing is shared with other machines, so the order they are stepped in does not matter.
    """

    def __init__(self, name: str, index: int, scenario: Scenario, seed: int) -> None:
        self.name = name
        self.nominal = scenario.speed
        self.setpoint = scenario.speed
        self.load = scenario.load
        self.warmer = 0.0
        """How much warmer the hall is than at the start, °C."""
        self.time = 0.0
        """Simulated seconds since the start."""
        self._aging = scenario.aging
        self._faults = [f for f in scenario.faults if f.machine == name and f.family == "machine"]
        self.severities: dict[str, float] = {}
        """Fault of the machine → severity, once it has begun."""
        streams = [np.random.default_rng(s) for s in np.random.SeedSequence([seed, index]).spawn(5)]
        build, self._noise, self._wander_noise, slip, slow = streams
        self._transmission = _TRANSMISSION * build.uniform(0.92, 1.08, _TRANSMISSION.shape)
        self._phases = build.uniform(0, 2 * math.pi, (3, 3))
        self._speed = self.setpoint
        self._wander = 0.0
        self._crank = float(build.uniform(0, 1))
        self.strokes = 0
        self._trains = {"outer_race": ImpulseTrain(BPFO, slip), "inner_race": ImpulseTrain(BPFI, slip)}
        self._housing = Resonance(*RESONANCE, RATE)
        self._frame = Resonance(*FRAME, RATE)
        self._process = Process(slow, self.load)
        self._wear(0.0)

    @property
    def speed(self) -> float:
        """Actual speed, strokes/min."""
        return self._speed * (1 + self._wander)

    @property
    def damage(self) -> float:
        """Severity of the worst fault: 0 sound, 1 failed."""
        return max(self.severities.values(), default=0.0)

    @property
    def rul_h(self) -> float:
        """True remaining useful life in operating hours, if speed and load stay as they are."""
        growths = {str(fault.kind): fault.growth for fault in self._faults}
        faults = {kind: (severity, growths[kind]) for kind, severity in self.severities.items()}
        return hours_left(faults, wear_rate(self._speed / self.nominal, self.load))

    def step(self, count: int) -> tuple[Array, dict[str, float]]:
        """The next `count` samples of x, y, z in g (3 × count), and the slow values at their end."""
        seconds = count / RATE
        motion = self._move(count, seconds)
        vibration = self._vibration(motion, count)
        self._wear(seconds)
        values = self._process.step(
            seconds,
            relative_speed=self.speed / self.nominal,
            load=self.load,
            crank=self._crank,
            severities=self.severities,
            warmer=self.warmer,
        )
        values["stroke_count"] = float(self.strokes)
        values["crank_angle"] = self._crank * 360
        values["speed_setpoint"] = self.setpoint
        values["speed_actual"] = self.speed
        self.time += seconds
        return vibration, values

    def _move(self, count: int, seconds: float) -> Motion:
        before = self.speed
        self._speed = self.setpoint + (self._speed - self.setpoint) * math.exp(-seconds / _SPEED_LAG)
        keep = math.exp(-seconds / _WANDER_TIME)
        step = _WANDER * math.sqrt(1 - keep**2) * float(self._wander_noise.standard_normal())
        self._wander = self._wander * keep + step
        after = self.speed
        t = np.arange(count) / RATE
        start = self._crank
        crank = start + (before * t + (after - before) / (2 * seconds) * t * t) / 60
        end = start + (before + after) / 2 * seconds / 60
        self.strokes += math.floor(end - 0.5) - math.floor(start - 0.5)
        self._crank = end - math.floor(end)
        return Motion(crank, end, start, (before + after) / 2 / self.nominal)

    def _vibration(self, motion: Motion, count: int) -> Array:
        speed, bearing = motion.relative_speed, self._bearing()
        basis = np.empty((10, count), dtype=np.float32)
        turns = SHAFT_PER_STROKE * (motion.crank - motion.start)
        self._rotation(basis, motion)
        blows_frame, blows_housing = self._blows(motion, turns, speed)
        basis[8] = self._frame.ring(blows_frame)
        basis[9] = self._housing.ring(blows_housing)
        mix = np.empty((3, 10))
        shaft, gear, frame, housing = self._transmission.T
        looseness = speed**2 * (1 + 3.5 * bearing**2)
        for harmonic, amplitude in enumerate(_SHAFT):
            unbalanced = 1 + 7 * self.severities.get("imbalance", 0.0) if harmonic == 0 else 1.0
            strength = shaft * (looseness * amplitude * unbalanced)
            mix[:, 2 * harmonic] = strength * np.cos(self._phases[:, harmonic])
            mix[:, 2 * harmonic + 1] = strength * np.sin(self._phases[:, harmonic])
        mix[:, 6] = gear * _GEAR[0]
        mix[:, 7] = gear * _GEAR[1]
        mix[:, 8] = frame
        mix[:, 9] = housing
        vibration: Array = mix.astype(np.float32) @ basis
        noise = self._noise.standard_normal((3, count), dtype=np.float32)
        noise *= np.float32(_FLOOR * (0.4 + 0.6 * speed))
        vibration += noise
        return vibration

    def _rotation(self, basis: Array, motion: Motion) -> None:
        """Shaft harmonics in rows 0-5 (cos, sin), gear mesh and its harmonic in 6 and 7."""
        shaft = SHAFT_PER_STROKE * motion.crank
        theta = (2 * math.pi * (shaft - math.floor(shaft[0]))).astype(np.float32)
        cos, sin = np.cos(theta), np.sin(theta)
        basis[0], basis[1] = cos, sin
        np.subtract(cos * cos, sin * sin, out=basis[2])
        np.multiply(2 * cos, sin, out=basis[3])
        np.subtract(basis[2] * cos, basis[3] * sin, out=basis[4])
        np.add(basis[3] * cos, basis[2] * sin, out=basis[5])
        mesh = np.cos(
            (2 * math.pi * (GEAR_TEETH * shaft - math.floor(GEAR_TEETH * shaft[0]))).astype(np.float32)
        )
        strength = motion.relative_speed * (0.4 + 0.6 * self.load)
        modulation = np.cos((2 * math.pi * motion.crank).astype(np.float32))
        modulation *= np.float32(0.2 * strength)
        modulation += np.float32(strength)
        np.multiply(mesh, modulation, out=basis[6])
        np.multiply(2 * mesh * mesh - 1, modulation, out=basis[7])

    def _blows(self, motion: Motion, turns: Wide, speed: float) -> tuple[Array, Array]:
        """The blows on the frame and on the housing, one value a sample."""
        count = len(turns)
        frame, housing = np.zeros(count, np.float32), np.zeros(count, np.float32)
        bottom = math.ceil(motion.start - 0.5) + 0.5
        if bottom < motion.crank_end:
            height = 1 + 0.04 * float(self._noise.standard_normal())
            struck = min(int(np.searchsorted(motion.crank, bottom)), count - 1)
            frame[struck] += _STROKE * self.load * speed * height
        end = SHAFT_PER_STROKE * (motion.crank_end - motion.start)
        for kind, train in self._trains.items():
            severity = self.severities.get(kind, 0.0)
            if severity <= 0:
                continue
            index, heights, at = train.blows(turns, end)
            if kind == "inner_race":
                angle = 2 * math.pi * (at + SHAFT_PER_STROKE * motion.start)
                heights = heights * (1 + 0.8 * np.cos(angle))
            strength = _DEFECT * severity**1.2 * speed**1.5 * (0.5 + 0.5 * self.load)
            np.add.at(housing, index, (strength * heights).astype(np.float32))
            np.add.at(frame, index, (_DEFECT_ON_FRAME * strength * heights).astype(np.float32))
        dry = self.severities.get("lubrication", 0.0)
        if dry > 0:
            # Differentiated: asperities touch fast, so friction is loud at high frequencies only.
            white = self._noise.standard_normal(count + 1, dtype=np.float32)
            housing += np.float32(_FRICTION * dry * speed) * (white[1:] - white[:-1])
        return frame, housing

    def _bearing(self) -> float:
        return max(self.severities.get("outer_race", 0.0), self.severities.get("inner_race", 0.0))

    def _wear(self, seconds: float) -> None:
        hours = seconds * self._aging
        rate = wear_rate(self._speed / self.nominal, self.load)
        for fault in self._faults:
            self.severities.update(self._grown(fault, hours, rate, seconds))

    def _grown(self, fault: Fault, hours: float, rate: float, seconds: float) -> dict[str, float]:
        if fault.kind in self.severities:
            return {fault.kind: grow(self.severities[fault.kind], fault.kind, fault.growth, hours, rate)}
        # The fault begins with the chunk that holds its onset, never before it.
        begins = self.time + seconds >= fault.onset - 1e-9
        return {fault.kind: fault.severity} if begins else {}

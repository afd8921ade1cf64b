"""The slow values of a press, as its PLC reads them ten times a second.

    bearing temperature   first order, 12 s, towards ambient + 24·s·(0.5 + 0.5 load) + excess,
                          with an excess of s·(17·d_bearing + 30·d_lubrication)
    oil temperature       first order, 25 s, towards ambient + 17·s + 0.3·excess
    hydraulic pressure    150·(0.6 + 0.4 load) bar, and 30·load bar more around bottom dead centre
    motor current         62·(0.35 + 0.65·load·s) A, and s·(7·d_bearing + 14·d_lubrication) for friction

with s the speed relative to nominal and d the severities. A real housing takes 20 to 30 min to warm up;
the time constants are shortened about a hundredfold, as `aging` shortens wear, so that a story of two
minutes shows heat too. Frictional heat ∝ speed · friction moment: Harris & Kotzalas, *Rolling Bearing
Analysis*, ch. 10. Noise is that of an industrial transmitter: 0.1 °C, 0.6 bar, 0.4 A r.m.s.
"""

import math
from collections.abc import Mapping

import numpy as np

__all__ = ["AMBIENT", "Process"]

AMBIENT = 22.0
"""°C in the hall."""

_BEARING_LAG, _OIL_LAG = 12.0, 25.0  # s


class Process:
    """Temperatures, pressure and current of one press; it starts warm, at its nominal point."""

    def __init__(self, rng: np.random.Generator, load: float) -> None:
        self._rng = rng
        self._ambient = AMBIENT + float(rng.uniform(-1, 1))
        self._bearing, self._oil = self._targets(1.0, load, {})

    def step(
        self,
        seconds: float,
        *,
        relative_speed: float,
        load: float,
        crank: float,
        severities: Mapping[str, float],
        warmer: float = 0.0,
    ) -> dict[str, float]:
        """The readings after `seconds` at this operating point, in a hall `warmer` by so many °C.

        `crank` in turns, 0.5 bottom dead centre.
        """
        bearing, oil = (warmer + target for target in self._targets(relative_speed, load, severities))
        self._bearing = bearing + (self._bearing - bearing) * math.exp(-seconds / _BEARING_LAG)
        self._oil = oil + (self._oil - oil) * math.exp(-seconds / _OIL_LAG)
        stroke = math.exp(-(((crank - 0.5) / 0.06) ** 2)) if relative_speed > 0 else 0.0
        worn = max(severities.get("outer_race", 0.0), severities.get("inner_race", 0.0))
        friction = 7 * worn + 14 * severities.get("lubrication", 0.0)
        noise = self._rng.standard_normal(4).tolist()
        running = min(1.0, relative_speed * 10)
        current = 62 * (0.35 * running + 0.65 * load * relative_speed) + friction * relative_speed
        return {
            "bearing_temperature": self._bearing + 0.1 * noise[0],
            "oil_temperature": self._oil + 0.1 * noise[1],
            "hydraulic_pressure": 150 * (0.6 + 0.4 * load) + 30 * load * stroke + 0.6 * noise[2],
            "motor_current": current + 0.4 * noise[3],
        }

    def _targets(self, speed: float, load: float, severities: Mapping[str, float]) -> tuple[float, float]:
        worn = max(severities.get("outer_race", 0.0), severities.get("inner_race", 0.0))
        excess = (17 * worn + 30 * severities.get("lubrication", 0.0)) * speed
        bearing = self._ambient + 24 * speed * (0.5 + 0.5 * load) + excess
        return bearing, self._ambient + 17 * speed + 0.3 * excess

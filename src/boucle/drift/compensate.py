"""Rows as a calibrated sensor would have given them: gain and zero set right by what the verdict measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, as_dicts, as_rows
from boucle.drift.reading import BANDS, SLOW
from boucle.errors import BoucleError
from boucle.ports import Traced
from boucle.stream.origin import Inputs, carried, made_of

__all__ = ["Compensate", "Correction"]

_VERSION = 1
_LINEAR = ("mean", "rms", "velocity")
"""Values of an axis that go with its gain; band energies go with its square, ratios and shapes not at all."""


class Correction(Struct, frozen=True):
    """How far a sensor is off: a reading is `gain` times the truth, plus `offset` in the sensor's unit."""

    gain: float = 1.0
    offset: float = 0.0


class _State(Struct, frozen=True):
    version: int
    corrections: dict[str, dict[str, Correction]]


class Compensate:
    """Passes feature rows on, with the gain or zero of a sensor corrected while a verdict says it has drifted.

    It reads three streams: feature rows (any Block that is none of the others), verdicts (`cause`, `confidence`), and,
    when declared, calibrations (rows of machine and sensor, written by whoever calibrated).

    - A correction is taken from a verdict of a sensor's gain or offset whose confidence is at least `least`.
    - It is bounded: gains outside 1/`most_gain` to `most_gain`, and offsets beyond `most_offset` of the sensor
      (its unit; sensors not named are not corrected for offset), are left alone: such a sensor is broken.
    - It ends when the sensor is calibrated, or when the verdict of the machine is `none` again.
    - It touches nothing else: no limit of an actuator, no alert and no verdict reads what comes out unless it is
      declared so, and what came in stays as it was. The column `corrected` says of every row which sensors were set
      right and by how much (JSON), so that the table is its own journal.
    """

    def __init__(
        self,
        stream: str,
        *,
        least: float = 0.9,
        most_gain: float = 2.0,
        most_offset: Mapping[str, float] | None = None,
        prefix: str = "vib_",
    ) -> None:
        limits = {"vib_x": 0.5, "vib_y": 0.5, "vib_z": 0.5, **dict.fromkeys(SLOW, 15.0)}
        self._offsets = dict(limits if most_offset is None else most_offset)
        if (
            not 0 < least <= 1
            or not most_gain >= 1
            or any(not limit >= 0 for limit in self._offsets.values())
        ):
            raise BoucleError(
                "B690",
                f"{stream}: least {least}, most_gain {most_gain}, most_offset {self._offsets} bound nothing",
                fix="least: above 0 up to 1; most_gain: 1 or more; most_offset: 0 or more per sensor",
            )
        self._stream, self._least, self._most_gain, self._prefix = stream, least, most_gain, prefix
        self._corrections: dict[str, dict[str, Correction]] = {}

    @classmethod
    def trace(cls, inputs: Inputs, **declared: Any) -> Traced:
        """Columns of the features, corrected by the verdicts."""
        del declared
        features = {name: columns for name, columns in inputs.items() if _kind(columns) == "features"}
        verdicts = next((name for name, columns in inputs.items() if _kind(columns) == "verdicts"), "")
        told = made_of(
            verdicts,
            ("family", "cause", "subject", "confidence", "evidence"),
            "TRANSFORMATION",
            "by the verdict",
        )
        return Traced({**carried(features), "corrected": told})

    def step(self, block: Block) -> Sequence[Block]:
        """Learn from verdicts and calibrations; correct feature rows."""
        kind = _kind(block.rows.schema.names)
        rows = as_dicts(block.rows)
        if kind == "verdicts":
            for row in rows:
                self._learn(row)
            return ()
        if kind == "calibrations":
            for row in rows:
                self._corrections.get(row["machine"], {}).pop(row["sensor"], None)
            return ()
        schema = block.rows.schema.append(pa.field("corrected", pa.string()))
        corrected = as_rows([self._corrected(row) for row in rows], schema)
        return (Block(self._stream, corrected, block.watermark, block.position),)

    def snapshot(self) -> bytes:
        """The corrections in force."""
        return msgspec.msgpack.encode(_State(_VERSION, self._corrections))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when it was taken by another version."""
        try:
            held = msgspec.msgpack.decode(state, type=_State)
        except msgspec.DecodeError as error:
            raise self._refused(str(error)) from error
        if held.version != _VERSION:
            raise self._refused(f"version {held.version}, this code reads {_VERSION}")
        self._corrections = held.corrections

    def _refused(self, why: str) -> BoucleError:
        what = f"the state of {self._stream} was written by another version"
        return BoucleError("B602", what, why=why, fix="remove the checkpoint to start afresh")

    def _learn(self, row: Mapping[str, Any]) -> None:
        machine = row["machine"]
        if row["family"] == "none":
            self._corrections.pop(machine, None)
            return
        if (
            row["family"] != "sensor"
            or row["cause"] not in ("gain", "offset")
            or row["confidence"] < self._least
        ):
            return
        size = _size(row["evidence"])
        if size is None:
            return
        for sensor in self._sensors(row["sensor"]):
            found = Correction(gain=size) if row["cause"] == "gain" else Correction(offset=size)
            if self._within(sensor, found):
                self._corrections.setdefault(machine, {})[sensor] = found
            else:
                self._corrections.get(machine, {}).pop(sensor, None)

    def _sensors(self, sensor: str) -> tuple[str, ...]:
        return tuple(f"{self._prefix}{axis}" for axis in "xyz") if sensor == "all" else (sensor,)

    def _within(self, sensor: str, found: Correction) -> bool:
        gain_fits = 1 / self._most_gain <= found.gain <= self._most_gain
        return gain_fits and abs(found.offset) <= self._offsets.get(sensor, 0.0)

    def _corrected(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with every known sensor set right; a value that is missing stays missing."""
        known = self._corrections.get(row["machine"], {})
        for sensor, by in known.items():
            if sensor.startswith(self._prefix):
                axis = sensor.removeprefix(self._prefix)
                powers = {f"{axis}_{name}": 1 for name in _LINEAR} | {
                    f"{axis}_band_{i}": 2 for i in range(BANDS)
                }
                offsets = {f"{axis}_mean": by.offset}
            else:
                powers, offsets = {sensor: 1}, {sensor: by.offset}
            for name, power in powers.items():
                if row.get(name) is not None:
                    row[name] = (row[name] - offsets.get(name, 0.0)) / by.gain**power
        told = {
            sensor: {"gain": round(by.gain, 4), "offset": round(by.offset, 4)} for sensor, by in known.items()
        }
        return row | {"corrected": msgspec.json.encode(told).decode() if told else None}


def _kind(columns: Sequence[str]) -> str:
    if "cause" in columns and "confidence" in columns:
        return "verdicts"
    return "calibrations" if "sensor" in columns and "speed" not in columns else "features"


def _size(evidence: str) -> float | None:
    """How far off the sensor is, from the verdict's evidence; None when it does not say."""
    try:
        size = msgspec.json.decode(evidence, type=dict[str, Any]).get("size")
    except msgspec.DecodeError:
        return None
    return float(size) if isinstance(size, int | float) and not isinstance(size, bool) else None

"""The verdict per machine and second: the sensor, the machine, how it is run, or nothing at all."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, as_dicts, as_rows
from boucle.clock import SECOND
from boucle.drift.charts import chart
from boucle.drift.confidence import confidence
from boucle.drift.course import Course
from boucle.drift.evidence import Evidence
from boucle.drift.fleet import Shown
from boucle.drift.judge import Judge
from boucle.drift.reading import BANDS, SLOW, Reading
from boucle.drift.sentences import say
from boucle.drift.shares import UNKNOWN, declared
from boucle.edge.zone import GROUP_2_RIGID, check_zones, zone
from boucle.errors import BoucleError
from boucle.ports import From, Traced
from boucle.product.duration import seconds
from boucle.stream.origin import Inputs, made_of, one_of

__all__ = ["VERDICT", "Attribute"]

_VERSION = 2
DAY = 24 * 3600 * SECOND
_TIME = pa.timestamp("ns", tz="UTC")

WHOLE_MACHINE = "machine"
"""The `sensor` of a verdict that is about no single one."""

VERDICT = pa.schema(
    [
        pa.field("machine", pa.string(), nullable=False),
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("at", _TIME, nullable=False),
        pa.field("health", pa.float64()),
        pa.field("rul_h", pa.float64()),
        pa.field("speed", pa.float64()),
        pa.field("setpoint", pa.float64()),
        pa.field("zone", pa.string()),
        pa.field("family", pa.string(), nullable=False),
        pa.field("cause", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("onset", _TIME),
        pa.field("says_en", pa.string(), nullable=False),
        pa.field("says_fr", pa.string(), nullable=False),
        pa.field("evidence", pa.string(), nullable=False),
    ]
)
"""`family` is none, machine, sensor, operation or unknown; `cause` is empty for none and unknown, and says for
operation why levels cannot be compared (new_regime, known_point, calibrated, hall, common);
`subject` is the machine, or machine/sensor (machine/all: every axis of the accelerometer), and `sensor` its
second half (`machine` when there is none), by which the table is partitioned; `onset` is
when the evidence began, null for none; `evidence` is JSON."""


_say_calmly = lru_cache(maxsize=1024)(say)
"""What is said of most seconds: the same of each machine, over and over."""


class _State(Struct, frozen=True):
    version: int
    courses: dict[str, Course]


class Attribute:
    """Tells wear of the machine from a fault of a sensor, and waits until the evidence has held.

    Per machine: the first `baseline` seconds with all axes say what is normal. After that the shift of
    every band and axis, the envelope lines, the means, the sample counts and the slow values are held
    against one rule per cause (`boucle.drift.hypothesis`). A cause becomes the verdict after `hold`
    seconds, and is dropped after `clear` seconds without it. Temperatures need `thermal` seconds to follow
    a new operating point; until then they are no witness by themselves.

    When the operating point moves, levels cannot be compared: the family is `operation` until the new
    normal is known, a verdict that stood goes on standing, and what needs no comparison (envelope lines,
    means, counts) is still judged. Two faults of one machine at once give one verdict, the machine's
    before a sensor's. A slow value that moves is held against the values that would have to follow it
    (`boucle.drift.slow`): contradicted it is a sensor's fault, and where no witness can tell it is `unknown`.

    How pressure, current and gear mesh follow the load is learned whenever the load changes; who knows it beforehand
    may say so in `load_shares` (relative change per unit of load), and smaller drifts are told apart from the start.

    `fleet` says that the machines of the stream are of one kind, in one hall and on one supply: then each is a witness
    for the others (`boucle.drift.fleet`), and what moves on all of them is `operation`.

    `calibrate_every` says per sensor how long a calibration is good for (`180d`). Where the witnesses cannot tell two
    sensors apart, one that is overdue or was found off before is named first.

    Rows with `machine`, `sensor` and `at` but no `speed` are calibrations: the verdict about that sensor ends, and
    what is normal is learned again, unless the machine itself is worn.
    """

    def __init__(
        self,
        stream: str,
        *,
        baseline: int = 12,
        hold: int = 4,
        clear: int = 10,
        thermal: int = 60,
        axes: Sequence[str] = ("x", "y", "z"),
        prefix: str = "vib_",
        zones: Sequence[float] = GROUP_2_RIGID,
        load_shares: Mapping[str, float] | None = None,
        fleet: bool = False,
        calibrate_every: Mapping[str, str | float] | None = None,
    ) -> None:
        if baseline < 6 or min(hold, clear, thermal) < 1:
            raise BoucleError(
                "B220",
                f"baseline {baseline}, hold {hold}, clear {clear}, thermal {thermal} cannot work",
                fix="baseline: 6 or more seconds, the others 1 or more",
            )
        self._stream = stream
        if load_shares is not None and (
            set(load_shares) != set(UNKNOWN) or not all(share > 0 for share in load_shares.values())
        ):
            raise BoucleError(
                "B691",
                f"{stream}: load_shares {dict(load_shares)} does not say how each witness follows the load",
                fix=f"give {', '.join(UNKNOWN)}, each the relative change per unit of load, above 0; or none at all",
            )
        shares = UNKNOWN if load_shares is None else declared(load_shares)
        every = {name: round(seconds(each) * SECOND) for name, each in (calibrate_every or {}).items()}
        self._judge = Judge(baseline, hold, clear, thermal, dict(shares), every)
        self._fleet = fleet
        self._axes, self._prefix = tuple(axes), prefix
        self._zones = check_zones(zones)
        self._courses: dict[str, Course] = {}

    @classmethod
    def trace(cls, inputs: Inputs, *, axes: Sequence[str] = ("x", "y", "z"), **declared: Any) -> Traced:
        """What is passed on, and the verdict from everything that is a witness (`Reading`)."""
        del declared
        stream = one_of(inputs)
        heard = ["speed", "setpoint", *SLOW]
        heard += [
            name
            for slow in SLOW
            for name in (f"{slow}_noise", f"{slow}_count")
            if name in inputs.get(stream, ())
        ]
        for axis in axes:
            heard += [f"{axis}_band_{band}" for band in range(BANDS)]
            heard += [f"{axis}_{name}" for name in ("bpfo", "bpfi", "mean", "count")]
        columns: dict[str, tuple[From, ...]] = {name: (From(stream, name),) for name in ("machine", "at")}
        columns |= {name: (From(stream, name),) for name in ("health", "rul_h", "speed", "setpoint")}
        velocities = [f"{axis}_velocity" for axis in axes]
        columns["zone"] = made_of(stream, velocities, "TRANSFORMATION", "ISO 20816 zone of the worst axis")
        verdict = made_of(stream, heard, "TRANSFORMATION", "held against one rule per cause")
        columns |= {name: verdict for name in VERDICT.names if name not in columns}
        return Traced({name: columns[name] for name in VERDICT.names})

    def step(self, block: Block) -> Sequence[Block]:
        """One verdict per row of features with health; none for rows of calibrations."""
        if {"sensor", "machine", "at"} <= set(
            block.rows.schema.names
        ) and "speed" not in block.rows.schema.names:
            self._calibrated(block)
            return ()
        rows = [self._verdict(row["at"], row) for row in as_dicts(block.rows)]
        if not rows:
            return ()
        batch = as_rows(rows, VERDICT)
        return (Block(self._stream, batch, block.watermark, block.position),)

    def _calibrated(self, block: Block) -> None:
        """Somebody calibrated sensors: what was normal for their machine has to be learned again."""
        for row in as_dicts(block.rows):
            course = self._courses.get(row["machine"])
            if course is not None:
                self._judge.calibrated(course, row["sensor"], row["at"])

    def snapshot(self) -> bytes:
        """What is remembered of every machine."""
        return msgspec.msgpack.encode(_State(_VERSION, self._courses))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when it was taken by another version."""
        try:
            held = msgspec.msgpack.decode(state, type=_State)
        except msgspec.DecodeError as error:
            raise self._refused(str(error)) from error
        if held.version != _VERSION:
            raise self._refused(f"version {held.version}, this code reads {_VERSION}")
        self._courses = held.courses

    def _refused(self, why: str) -> BoucleError:
        what = f"the state of {self._stream} was written by another version"
        return BoucleError("B602", what, why=why, fix="remove the checkpoint to start afresh")

    def _verdict(self, at: int, row: Mapping[str, Any]) -> dict[str, Any]:
        machine = row["machine"]
        course = self._courses.setdefault(machine, Course([], [], []))
        evidence = self._judge.hear(course, Reading.of(at, row, self._axes), self._peers(machine))
        velocities = [row.get(f"{axis}_velocity") for axis in self._axes]
        known = [velocity for velocity in velocities if velocity is not None]
        told = self._told(machine, at, course, evidence)
        return {
            "machine": machine,
            "sensor": told["subject"].partition("/")[2] or WHOLE_MACHINE,
            "at": at,
            **{name: row.get(name) for name in ("health", "rul_h", "speed", "setpoint")},
            "zone": zone(max(known), self._zones) if known else None,
            **told,
        }

    def _peers(self, machine: str) -> list[Shown] | None:
        """What the other machines show; None when they are not of one kind."""
        if not self._fleet:
            return None
        others = (course.shown for name, course in self._courses.items() if name != machine)
        return [other for other in others if other is not None]

    def _told(self, machine: str, at: int, course: Course, evidence: Evidence | None) -> dict[str, Any]:
        family = self._judge.family(course)
        numbers = evidence.numbers(self._axes) if evidence is not None else {}
        standing = course.verdict
        sensors = [self._prefix + axis for axis in self._axes]
        left = None
        if evidence is not None and (standing is not None or family == "unknown" or course.pending):
            left = chart(evidence, course.shares, sensors)
            numbers["left"] = left.numbers()
        if standing is None:
            cause = self._judge.operation(course) if family == "operation" else ""
            kind = "learning" if evidence is None and family == "none" else cause or family
            alone = course.alone if family == "unknown" else ""
            if family == "unknown" and left is not None and len(left.suspects) == 1:
                alone = left.suspects[0]
            says = _say_calmly(kind, machine, alone=alone)
            told = {
                "cause": cause,
                "subject": f"{machine}/{alone}" if alone else machine,
                "confidence": self._calm(course, evidence, family),
                "onset": None if family == "none" else course.onset,
            }
        else:
            fault = standing.hypothesis
            sensor = fault.sensor if fault.axis is None else self._prefix + self._axes[fault.axis]
            every = fault.family == "sensor" and not sensor
            others = [name for name in fault.candidates if name != sensor]
            says = say(
                fault.cause,
                machine,
                sensor=sensor,
                size=fault.size,
                every=every,
                others=others,
                either=fault.either,
            )
            told = {
                "cause": fault.cause,
                "subject": machine if fault.family == "machine" else f"{machine}/{sensor or 'all'}",
                "confidence": confidence(fault, standing.held),
                "onset": standing.onset,
            }
            if fault.family == "sensor":
                if overdue := self._judge.overdue(course, sensor):
                    numbers["calibration_overdue_days"] = round(overdue / DAY, 2)
                if sensor in course.drifted:
                    numbers["drifted_before"] = course.drifted[sensor]
                if sensor in course.calibrated:
                    numbers["calibrated_days_ago"] = round((at - course.calibrated[sensor]) / DAY, 2)
                numbers["candidates"] = list(fault.candidates or (sensor or "all",))
            if fault.either:
                numbers["causes"] = ["offset", "gain"]
            numbers |= {"held_s": standing.held, "strength": round(fault.strength, 2)}
            numbers |= {"size": round(fault.size, 4) if math.isfinite(fault.size) else None}
        if course.pending:
            numbers["pending"] = [
                {
                    "cause": item.hypothesis.cause,
                    "held_s": item.held,
                    "axis": item.hypothesis.axis,
                    "sensor": item.hypothesis.sensor,
                }
                for item in course.pending
            ]
        shown = {
            "says_en": says["en"],
            "says_fr": says["fr"],
            "evidence": msgspec.json.encode(numbers).decode(),
        }
        return {"family": family, **told, **shown}

    def _calm(self, course: Course, evidence: Evidence | None, family: str) -> float:
        """How sure a verdict without a cause is: 0 while learning, less when something begins to show."""
        if evidence is None:
            return 0.0
        if family == "unknown":
            return 0.5
        return 0.6 if course.pending or course.unexplained else 0.95

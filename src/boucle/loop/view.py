"""What a running loop shows of itself: the values behind the page, `--json` and `/metrics`.

A LoopView is a frozen picture taken at one moment. Screens never reach into the running loop.
"""

import math
from typing import Any, Protocol

import numpy as np
from msgspec import Struct, field

from boucle.clock import Nanos
from boucle.event import Command, Event, Receipt
from boucle.loop.view_models import ArmView, ChangeView, DriftView, FigureView, ReasonView, TrialView

__all__ = [
    "Accounting",
    "ActuatorView",
    "BacklogView",
    "BurnView",
    "Latency",
    "Live",
    "LiveSignal",
    "LoopView",
    "MachineView",
    "ObjectiveView",
    "Observable",
    "QualityView",
    "ScoreView",
    "SourceView",
    "StepView",
    "TablesView",
    "VersionView",
]


class Accounting(Struct, kw_only=True):
    """Where every reading went: `in = stored + late + duplicate + quarantined + shed`.

    A reading is one row of a source: one sensor's chunk of waveform, or one slow value; a payload
    that cannot be decoded counts as one reading. `pending` readings were accepted and are not yet
    durable; it is 0 once the loop has drained.
    """

    received: int = field(default=0, name="in")
    stored: int = 0
    late: int = 0
    duplicate: int = 0
    quarantined: int = 0
    shed: int = 0
    pending: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Quarantine reason → readings."""

    def add(self, other: "Accounting") -> None:
        """Count what `other` counted as well."""
        for name in ("received", "stored", "late", "duplicate", "quarantined", "shed", "pending"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, count in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count

    def balanced(self) -> bool:
        """Whether every reading is accounted for."""
        gone = self.stored + self.late + self.duplicate + self.quarantined + self.shed
        return self.received == gone + self.pending


class Latency(Struct, frozen=True):
    """Percentiles in milliseconds over the last `count` measurements; NaN when there are none."""

    p50: float
    p99: float
    count: int


class SourceView(Struct, frozen=True):
    """A source: `state` is `connected`, or why not; `age_s` is since its last reading (NaN: none yet)."""

    id: str
    address: str
    state: str
    age_s: float
    rows: int
    rows_per_s: float
    lag: int
    """Blocks accepted and not yet processed."""
    watermark_delay_s: float = math.nan
    """How far the watermark of what was worked through is behind the clock; NaN before the first."""
    shed: int = 0
    """Readings given up because the path could not follow (or, for OPC UA, because nobody took them)."""
    shedding: bool = False
    """Whether it gives readings up now."""
    log_rows: int = 0
    """Rows its logs keep, accepted and late, measured every half minute."""
    log_bytes: int = 0
    log_removed: int = 0
    """Segments of its logs that retention removed since the loop was started."""


class BacklogView(Struct, frozen=True):
    """What was accepted and waits for the path, beside the most that may wait."""

    blocks: int = 0
    bytes: int = 0
    lag_s: float = 0.0
    """Since the oldest Block not yet worked through was accepted."""
    most_blocks: int = 0
    most_bytes: int = 0


class StepView(Struct, frozen=True):
    """One step of the path, in path order: rows in and out, and time per Block in microseconds."""

    id: str
    use: str
    inputs: tuple[str, ...]
    rows_in: int
    rows_out: int
    rows_per_s: float
    p50_us: float
    p99_us: float
    title: dict[str, str] = {}
    p95_us: float = math.nan
    state_bytes: int = 0
    """Size of its state at the last checkpoint."""
    late_rows: int = 0
    """Rows that came after their turn."""
    counts: dict[str, int] = {}
    """What else became of its rows (`ports.Counts`)."""


class ActuatorView(Struct, frozen=True):
    """An actuator: `state` is `connected`, or why not; `waiting` Commands are being retried."""

    id: str
    address: str
    state: str
    waiting: int


class TablesView(Struct, frozen=True):
    """A table of the lake."""

    name: str
    zone: str
    rows: int
    version: int
    behind_s: float
    """Age of the oldest row that is durable in the log but not yet committed to the table."""


class MachineView(Struct, frozen=True):
    """A machine on the overview. `values` are the latest features by name, units in `units`.

    `status` is one of normal, attention, alarm, unknown; `family` of the last drift verdict is one
    of none, machine, sensor, operation, unknown.
    """

    id: str
    status: str
    age_s: float
    health: float
    rul_h: float
    zone: str
    family: str
    cause: str
    subject: str
    confidence: float
    says: dict[str, str]
    values: dict[str, float]
    units: dict[str, str]


class BurnView(Struct, frozen=True):
    """How many times too fast an error budget burns over two windows, and whether that is told as an alert."""

    name: str
    """`fast`, `slow` or `lasting`."""
    limit: float
    long: float
    short: float
    long_s: float
    short_s: float
    fires: bool


class ObjectiveView(Struct, frozen=True):
    """A promise about the service, over its window: how much was good, and what is left of the error budget."""

    id: str
    measure: str
    element: str
    """The table or stream, or its column; empty: the whole product."""
    bound: float
    """Seconds, or rows per second for throughput; 0 where the target says it all."""
    target: float
    window_s: float
    by_time: bool
    """Whether `good` and `total` are ms of time; rows (or commands, or minutes for throughput) else."""
    good: int
    total: int
    compliance: float
    """NaN while nothing was counted."""
    left: float
    """Share of the error budget; below 0: overspent."""
    burns: tuple[BurnView, ...]
    exhausts_s: float
    """Until the budget is spent at the present rate; infinite where that is no faster than allowed."""
    history: tuple[tuple[float, float], ...] = ()
    """(seconds before now, share that was good), the oldest first."""
    driver: str = ""
    description: str = ""
    why: str = ""
    """Why it cannot be measured now."""


class QualityView(Struct, frozen=True):
    """A rule of the contract: `refuses` readings one by one, or is `kept`, `broken` or `unknown` so far."""

    table: str
    """The schema object; for a rule that refuses readings, the source."""
    rule: str
    severity: str
    state: str
    checked: int
    """Rows looked at."""
    failed: int
    why: str = ""
    measured: float | None = None
    wanted: str = ""


class VersionView(Struct, frozen=True):
    """A version of a model in one arm (`champion`, `canary`, `fallback`, `shadow`) since the step was first started."""

    name: str
    version: str
    arm: str
    rows: int
    blocks: int
    cpu_s: float
    wall_s: float
    cost: float
    """Processor time × tariff; NaN where none is declared."""
    spread: tuple[int, ...]
    """Blocks by how long they took; the bounds are the ScoreView's."""


class ScoreView(Struct, frozen=True):
    """A step that scores: in = scored + fallback + unscored, each with its reason."""

    step: str
    rows: int
    scored: int
    fallback: dict[str, int]
    unscored: dict[str, int]
    late: int
    """Rows whose scores came after their deadline, and were thrown away."""
    switches: int
    playing: dict[str, str]
    """Arm → `name version`."""
    troubles: tuple[str, ...]
    currency: str
    versions: tuple[VersionView, ...]
    bounds: tuple[float, ...]
    """Upper bounds of the classes of time, in seconds; there is one class more."""
    shadow: dict[str, Any] = {}
    title: dict[str, str] = {}
    deadline_s: float = 0.0
    """Within which a model must answer; 0: the path waits."""
    arms: tuple[ArmView, ...] = ()
    changes: tuple[ChangeView, ...] = ()
    """The last changes of roles, newest first."""
    service: dict[str, float] = {}
    """Of the last window watched: `latency` (p95, ms), `volume` (rows), `cost` (of 1000 predictions)."""
    figures: tuple[FigureView, ...] = ()
    """Per version and group: the newest window with labels, and the newest estimate."""
    trial: TrialView | None = None
    drift: tuple[DriftView, ...] = ()
    drift_watched: bool = False
    """Whether a step looks for drift at all."""
    reasons: tuple[ReasonView, ...] = ()


class LoopView(Struct, frozen=True):
    """One picture of the whole loop."""

    product: str
    title: dict[str, str]
    at: Nanos
    since: Nanos
    speed: float
    automatic: bool
    """Whether the loop may act by itself; False when a person stopped automatic action."""
    machines: tuple[MachineView, ...]
    events: tuple[Event, ...]
    commands: tuple[tuple[Command, Receipt | None], ...]
    sources: tuple[SourceView, ...]
    steps: tuple[StepView, ...]
    actuators: tuple[ActuatorView, ...]
    tables: tuple[TablesView, ...]
    accounting: Accounting
    decision_ms: Latency
    """Last sample of the deciding Block → decision."""
    action_ms: Latency
    """Last sample of the deciding Block → value on the PLC, read back."""
    backlog: BacklogView = BacklogView()
    objectives: tuple[ObjectiveView, ...] = ()
    quality: tuple[QualityView, ...] = ()
    scores: tuple[ScoreView, ...] = ()
    troubles: dict[tuple[str, str], str] = {}
    """(table, `write`, `upkeep` or `held`) → why."""


class LiveSignal(Struct, frozen=True):
    """The latest of one fast sensor: float32 arrays, ready to be drawn."""

    sensor: str
    unit: str
    waveform: np.ndarray[Any, np.dtype[np.float32]]
    """The last chunk of samples, in `unit`."""
    spectrum: np.ndarray[Any, np.dtype[np.float32]]
    """Amplitude per `bin_hz`, in `unit` (peak), from 0 Hz; empty before the first window."""
    bin_hz: float
    age_s: float


class Live(Struct, frozen=True):
    """The live picture of one machine: its fast signals, and its trends over the last minutes.

    `trends` maps a value's name to (seconds before now, value), both float32, oldest first;
    `bands` to its normal range (low, high) where one is declared.
    """

    machine: str
    at: Nanos
    signals: tuple[LiveSignal, ...]
    trends: dict[str, tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.float32]]]]
    bands: dict[str, tuple[float, float]]
    units: dict[str, str]


class Observable(Protocol):
    """What the page needs of a running loop; every method is safe to call from another thread."""

    def view(self) -> LoopView:
        """The picture now; built at most ten times a second, however many ask."""
        ...

    def live(self, machine: str) -> Live | None:
        """The live signals of one machine; None for a machine nobody knows."""
        ...

    def metrics(self) -> bytes:
        """The Prometheus text exposition."""
        ...

    def traces(self) -> list[dict[str, Any]]:
        """The last traces, oldest first, each a `TracesData` of OTLP/JSON."""
        ...

    def set_automatic(self, allowed: bool, by: str) -> None:
        """Allow or stop automatic action; journaled with who asked."""
        ...

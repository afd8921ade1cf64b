"""The Loop document: what flows from where, through which steps, to which tables and machines."""

from typing import Any, Literal

from msgspec import Struct, field

from boucle.product.training import FeatureViewSpec, ModelSpec
from boucle.product.transforms import TransformSpec, UpkeepSpec

__all__ = [
    "ActuatorSpec",
    "CommandsSpec",
    "KeepSpec",
    "LabelsSpec",
    "LoopDocument",
    "ShedSpec",
    "SourceSpec",
    "StepSpec",
    "TableSpec",
    "ValueSpec",
    "ViewSpec",
    "kept",
]


class ShedSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """That a source may give readings up when the path cannot follow; without it a source waits."""

    after: str
    """How far behind the path must be. What waits by then is worked through, what comes meanwhile is shed."""


class KeepSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How long a log keeps its rows; what a restart or a table needs stays longer."""

    age: str = ""
    """Since they were taken; empty: for ever."""
    bytes: str = ""
    """All its segments together; empty: any size."""


def kept(keep: str | KeepSpec) -> KeepSpec:
    """`7d` and `{age: 7d}` are the same."""
    return KeepSpec(age=keep) if isinstance(keep, str) else keep


class SourceSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Where readings come from, and what is known about their time and identity."""

    from_: str = field(name="from")
    """An address; `{name}` is replaced by `[addresses] name` of boucle.toml."""
    schema: str
    """The schema object of the DataContract that every row must keep."""
    format: Literal["json", "arrow"] | None = None
    """How payloads are decoded; absent where the source already gives typed rows."""
    partition: list[str] = []
    """Columns that make a partition of event time (each has its own watermark)."""
    dedupe: list[str] = []
    """Columns that identify a reading; the same identity within `horizon` is a duplicate."""
    horizon: str = "60s"
    lateness: str = "500ms"
    """How far out of order a partition may be before a row is late."""
    idle: str = "3s"
    """A partition this far behind the leading one no longer holds the watermark back."""
    future: str = "5s"
    """How far ahead of the clock a timestamp may be before it is quarantined."""
    shed: ShedSpec | None = None
    """When readings may be given up; never, when absent."""
    keep: str | KeepSpec = KeepSpec()
    """How long accepted and late rows stay in their logs: `7d`, or an age and a size."""
    with_: dict[str, Any] = field(name="with", default_factory=dict)
    """Arguments of the adapter."""


class StepSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One operator of the path."""

    id: str
    use: str
    """`module:Class`; a module beside product.yaml or any installed one."""
    from_: list[str] = field(name="from")
    with_: dict[str, Any] = field(name="with", default_factory=dict)
    title: dict[str, str] = {}
    by: list[str] = []
    """Columns whose values may be worked on apart from each other: the step is then spread over `run.workers`."""
    groups: int = 16
    """Into how many groups those values fall; fixed for the life of the step's state."""
    keep: str | KeepSpec = KeepSpec()
    """How long its rows stay in the log that stands between the step and its tables: `7d`, or an age and a size."""


class TableSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A table fed by a stream: of the lake, or elsewhere when it says where `to`."""

    from_: str = field(name="from")
    zone: Literal["raw", "silver", "gold"]
    partition: list[str] = field(default_factory=lambda: ["machine", "sensor", "day"])
    key: list[str] = []
    """Columns that identify a row, so that a replay after a crash adds none twice."""
    columns: list[str] = []
    """The columns to keep, in order; all when empty."""
    to: str = ""
    """The address of another place than the lake, `postgresql://…`; `{name}` as in a source's `from`."""


class ActuatorSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Something that can be told to act, and the envelope no policy or model can widen."""

    to: str
    limits: dict[str, dict[str, Any]]
    with_: dict[str, Any] = field(name="with", default_factory=dict)


class CommandsSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Where commands from outside come in, and where their receipts go."""

    from_: str = field(name="from")
    receipts: str = ""


class ValueSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A value the page shows per machine."""

    of: str
    """`stream.column`."""
    unit: str = ""
    trend: bool = False
    band: tuple[float, float] | None = None
    """The normal range, drawn behind the trend."""


class LabelsSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the truth about recorded input stands, so that `replay` lists alerts beside it."""

    stream: str
    """A stream with the columns `at`, `alert` and `label`."""
    label: str
    """True or 1 where something is wrong."""
    by: str = ""
    """The column that separates recordings."""


class ViewSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What the page shows of this loop."""

    title: dict[str, str] = {}
    machines: str = ""
    """The stream with one row per machine and moment (health, family, cause, says_en, …)."""
    live: str = ""
    """The step whose `latest(machine)` gives waveforms and spectra."""
    values: dict[str, ValueSpec] = {}
    labels: LabelsSpec | None = None


class LoopDocument(Struct, frozen=True, forbid_unknown_fields=True):
    """`kind: Loop` of product.yaml."""

    kind: Literal["Loop"]
    apiVersion: Literal["boucle/v1"]  # noqa: N815 - the spelling of the standards beside it
    id: str
    product: str
    contract: str
    sources: dict[str, SourceSpec]
    steps: list[StepSpec] = []
    tables: dict[str, TableSpec] = {}
    transforms: dict[str, TransformSpec] = {}
    """Tables made from tables."""
    features: dict[str, FeatureViewSpec] = {}
    models: dict[str, ModelSpec] = {}
    """Models trained from feature views: `boucle train`."""
    lake: UpkeepSpec = UpkeepSpec()
    actuators: dict[str, ActuatorSpec] = {}
    rules: list[dict[str, Any]] = []
    commands: CommandsSpec | None = None
    view: ViewSpec = ViewSpec()

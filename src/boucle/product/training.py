"""What the Loop document says of models that are trained: feature views, labels, splits, searches and gates."""

from typing import Any, Literal

from msgspec import Struct, field

__all__ = [
    "FeatureViewSpec",
    "LabelSpec",
    "ModelGateSpec",
    "ModelSpec",
    "RuleSpec",
    "SearchSpec",
    "SplitSpec",
]


class FeatureViewSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A definition of features: which columns of which table, of whom, known when."""

    from_: str = field(name="from")
    """A table of the lake (`name` or `zone.name`), or a Parquet file beside product.yaml."""
    entity: list[str]
    """The columns that say whose features a row holds."""
    columns: list[str]
    """The features, all of them numbers or booleans."""
    time: str = "at"
    """When the row became true; it is never used for a moment before."""
    ttl: str = ""
    """How old a row may be to count still; empty: any age."""


class LabelSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The truth a model learns: one row per decision, with the entity's columns, the moment and the answer."""

    from_: str = field(name="from")
    column: str
    """0/1 or a boolean for a classification, a number for a regression."""
    time: str = "at"
    """The moment of the decision: features are those known then."""
    known: str = ""
    """The column that says when the label became known."""
    delay: str = "0s"
    """How old a decision must be before its answer is final, whatever `known` says; also between train and test."""


class SplitSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How time is divided: train, gap, test; and folds of the same kind within the training part."""

    test: float = 0.2
    """The share of the rows, the newest, that only measure."""
    gap: str = "0s"
    """Left out between training and test: at least the label's delay, which is added by itself."""
    folds: int = 3


class SearchSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A search for good parameters; it ends with the first bound reached."""

    trials: int = 20
    seconds: float | None = None
    space: dict[str, list[Any]] = {}
    """Parameter → the values to choose from; the algorithm's own space when empty."""


class RuleSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What people did before there was a model: yes above a bound, or a column taken as the answer."""

    column: str
    above: float | None = None
    """A classification answers yes above it; a regression takes the column itself."""


class ModelGateSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One condition of a promotion; exactly one of metric, latency_ms, fairness, drift and approval."""

    metric: str = ""
    """A figure on the held-out rows, within bounds or better than the champion's on the same rows."""
    at_least: float | None = None
    at_most: float | None = None
    beats: Literal["", "champion"] = ""
    by: float = 0.0
    """The least difference to the champion."""
    latency_ms: float | None = None
    """p99 of one row on the machine that promotes, measured then."""
    fairness: str = ""
    """A column of groups; `metric` (default: true_positive_rate) may differ by `within` between any two."""
    within: float = 0.1
    drift: float | None = None
    """The population stability index of every feature between training and held-out rows is at most this."""
    approval: Literal[False] | str = False
    """Whose approval (a person or a role) a promotion needs: `boucle promote --approve NAME`."""


class ModelSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One model: what it learns from, how, and what it must prove before it is champion."""

    view: str | list[str]
    """Feature views, joined as of the label's moment."""
    label: LabelSpec
    algorithm: str = "lightgbm"
    task: Literal["classification", "regression"] = "classification"
    metric: str = ""
    """What the search and the baselines compare; auc or mae when empty."""
    parameters: dict[str, Any] = {}
    """Fixed, never searched."""
    split: SplitSpec = SplitSpec()
    search: SearchSpec | None = None
    rule: RuleSpec | None = None
    gates: list[ModelGateSpec] = []
    slices: list[str] = []
    """Columns of the label's table by whose values the card shows the figures."""
    seed: int = 0
    output: str = ""
    """The column a score is written to; `score` or `prediction` when empty."""
    owner: str = ""
    purpose: str = ""
    limits: str = ""
    allow_personal: list[str] = []
    """Personal columns that may be features all the same."""
    keep: int = 0
    """How many versions stay beside those with a role; 0: all."""

    @property
    def views(self) -> list[str]:
        """The views' names."""
        return [self.view] if isinstance(self.view, str) else list(self.view)

    @property
    def measured_by(self) -> str:
        """The metric that decides."""
        return self.metric or ("auc" if self.task == "classification" else "mae")

    @property
    def gives(self) -> str:
        """The column that scoring appends."""
        return self.output or ("score" if self.task == "classification" else "prediction")

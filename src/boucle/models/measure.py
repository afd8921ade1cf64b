"""Figures of a model beside those of what it must beat: by all rows, by slices, and how calibrated it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boucle.product.training import ModelSpec
from boucle.product.training_rules import HIGHER_IS_BETTER

__all__ = ["baselines", "better", "by_slice", "metrics", "psi"]

Floats = NDArray[np.float64]


def metrics(task: str, truth: Floats, found: Floats) -> dict[str, float]:
    """Every figure of the task; one that needs both answers is left out where there is only one."""
    if task == "regression":
        error = found - truth
        spread = float(((truth - truth.mean()) ** 2).sum())
        told = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}
        if spread > 0:
            told["r2"] = 1 - float((error**2).sum()) / spread
        return {name: round(value, 9) for name, value in told.items()}
    from sklearn import metrics as measured

    yes, said = truth > 0.5, found >= 0.5
    told = {
        "log_loss": float(measured.log_loss(yes, np.clip(found, 1e-7, 1 - 1e-7), labels=[False, True])),
        "brier": float(((found - truth) ** 2).mean()),
        "accuracy": float((yes == said).mean()),
        "f1": float(measured.f1_score(yes, said, zero_division=0.0)),
    }
    if yes.any():
        told["true_positive_rate"] = float(said[yes].mean())
    if yes.any() and not yes.all():
        told["auc"] = float(measured.roc_auc_score(yes, found))
        told["average_precision"] = float(measured.average_precision_score(yes, found))
    return {name: round(value, 9) for name, value in told.items()}


def better(metric: str, one: float, other: float) -> float:
    """By how much `one` is better than `other`; negative when it is worse."""
    return one - other if metric in HIGHER_IS_BETTER else other - one


def baselines(
    spec: ModelSpec,
    names: Sequence[str],
    past: Floats,
    groups: Sequence[Any],
    truth: Floats,
    inputs: NDArray[np.float32],
    past_groups: Sequence[Any],
) -> dict[str, Floats]:
    """What anybody could answer: the mean, the entity's last known answer, the declared rule.

    The last answer is of the training rows: those of the test were not known yet.
    """
    mean = float(past.mean())
    last: dict[Any, float] = dict(zip(past_groups, past.tolist(), strict=True))
    found = {
        "mean": np.full(len(truth), mean),
        "last value": np.array([last.get(group, mean) for group in groups], dtype=np.float64),
    }
    if spec.rule:
        column = inputs[:, names.index(spec.rule.column)].astype(np.float64)
        found["rule"] = column if spec.rule.above is None else (column > spec.rule.above).astype(np.float64)
    return found


def by_slice(
    task: str, truth: Floats, found: Floats, slices: Mapping[str, Sequence[Any]], most: int = 20
) -> dict[str, dict[str, dict[str, float]]]:
    """Column → value → figures, for the `most` frequent values of each column."""
    told: dict[str, dict[str, dict[str, float]]] = {}
    for column, values in slices.items():
        texts = np.array([str(value) for value in values])
        names, counts = np.unique(texts, return_counts=True)
        told[column] = {}
        for index in np.argsort(-counts, kind="stable")[:most]:
            these = texts == names[index]
            told[column][str(names[index])] = {
                "rows": int(counts[index]),
                **metrics(task, truth[these], found[these]),
            }
    return told


def psi(before: NDArray[np.float32], after: NDArray[np.float32], parts: int = 10) -> float:
    """The population stability index of one feature, by deciles of `before` (Siddiqi 2006; 0.2 is a shift)."""
    edges = np.unique(np.quantile(before, np.linspace(0, 1, parts + 1)[1:-1]))
    shares = []
    for rows in (before, after):
        counts = np.bincount(np.searchsorted(edges, rows, side="left"), minlength=len(edges) + 1)
        shares.append(np.clip(counts / max(1, len(rows)), 1e-4, None))
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())

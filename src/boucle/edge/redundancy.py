"""What many slow signals of one process say about each other, and when they stop agreeing.

Two models of the normal process, both ridge regressions: every signal from the others in the same row, and every signal
from all of them in the two rows before. What they leave over is charted three ways:

    level        EWMA (Roberts 1959) of the residuals within the row, 0.1: slow shifts that a control loop hides
    surprise     EWMA of the errors one row ahead, 0.3: changes while they happen
    restless     EWMA of the squared errors one row ahead less 1, 0.03: sticking valves, random variation

Each chart has two statistics: all signals weighed together (Hotelling's T²) and the largest alone. A limit learned from
the rows a model was fitted to is far too low (with 52 signals and 500 rows half of all good rows would be called), so
the limits come from rows unseen: five times a fifth of the training rows, judged by a model of the rest.
"""

import itertools

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["Course", "Model", "follow", "learn", "scores"]

Wide = NDArray[np.float64]

_SMOOTH = (0.1, 0.3, 0.03)
"""Of the three charts: level, surprise, restless."""
_LAGS = 2
_WITHIN = 0.05
"""Ridge of the residuals within a row, on correlations."""
_AHEAD = 0.04
"""Ridge of the errors one row ahead, per training row."""
_TOGETHER = 0.2
"""Ridge of T²: without it, signals that hardly ever differ would decide alone."""
_FOLDS = 5
_LIMIT = 0.99
_MOST = 25.0
"""Largest square of an error: one wild row is not restlessness."""
_FARTHEST = 1e6
"""Deviations; what is farther counts as that far."""
_TINY = 1e-9


class Chart(Struct, frozen=True):
    """What a smoothed vector is like on normal rows."""

    centre: Wide
    spread: Wide
    inverse: Wide

    def of(self, smoothed: Wide) -> tuple[float, float]:
        """T² of all signals, and the largest deviation of one."""
        apart = (smoothed - self.centre) / self.spread
        return float(apart @ self.inverse @ apart), float(np.abs(apart).max())


class Model(Struct, frozen=True):
    """A normal process of p signals."""

    mean: Wide
    deviation: Wide
    within: Wide
    """(p, p): residuals from a standardised row."""
    within_spread: Wide
    ahead: Wide
    """(lags · p, p): a standardised row from those before it, the newest first."""
    ahead_spread: Wide
    charts: tuple[Chart, ...] = ()
    limits: Wide = np.empty(0)
    """Of two statistics a chart."""


class Course(Struct):
    """Where a running process is: its last rows, standardised, and the three smoothed vectors."""

    before: list[Wide]
    smoothed: list[Wide]


def follow(model: Model, course: Course, row: Wide) -> None:
    """One row further; `row` (p,) in the units of the training rows."""
    standard = np.clip((row - model.mean) / model.deviation, -_FARTHEST, _FARTHEST)
    earlier = course.before or [standard] * _LAGS
    residual = (model.within @ standard) / model.within_spread
    error = (standard - np.concatenate(earlier) @ model.ahead) / model.ahead_spread
    news = (residual, error, np.minimum(error * error, _MOST) - 1)
    if not course.smoothed:
        course.smoothed = [np.zeros(len(row)) for _ in news]
    course.smoothed = [
        old + share * (new - old) for old, new, share in zip(course.smoothed, news, _SMOOTH, strict=True)
    ]
    course.before = [standard, *earlier[:-1]]


def learn(rows: Wide) -> Model:
    """The model of normal rows (n, p), with its limits; n well above p."""
    model = _fitted(rows)
    # The rows before a fold are gone through too, so that the charts do not start from rest in each.
    edges = np.linspace(0, len(rows), _FOLDS + 1).astype(int).tolist()
    unseen = [
        _statistics(_fitted(np.vstack([rows[:low], rows[high:]])), rows[:high])[low:]
        for low, high in itertools.pairwise(edges)
    ]
    # Several statistics share the one per cent.
    whole = np.vstack(unseen)
    limits = np.quantile(whole, 1 - (1 - _LIMIT) / whole.shape[1], axis=0)
    return Model(
        model.mean,
        model.deviation,
        model.within,
        model.within_spread,
        model.ahead,
        model.ahead_spread,
        model.charts,
        np.maximum(limits, _TINY),
    )


def scores(model: Model, rows: Wide) -> Wide:
    """Per row (n, p) of a run from its first: the largest statistic over its limit; above 1 is not normal."""
    found: Wide = (_statistics(model, rows) / model.limits).max(axis=1)
    return found


def _statistics(model: Model, rows: Wide) -> Wide:
    """Two per chart, of each row of a run."""
    course, found = Course([], []), []
    for row in rows:
        follow(model, course, row)
        found.append(statistics(model, course))
    return np.array(found)


def statistics(model: Model, course: Course) -> Wide:
    """Two per chart where the process is now."""
    return np.array(
        [one for chart, now in zip(model.charts, course.smoothed, strict=True) for one in chart.of(now)]
    )


def _fitted(rows: Wide) -> Model:
    """The model without limits."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[deviation == 0] = 1.0
    standard = (rows - mean) / deviation
    count, signals = standard.shape
    # The regression of each on all others is read off the inverse covariance: a row over its diagonal.
    precision = np.linalg.inv(np.cov(standard, rowvar=False) + _WITHIN * np.eye(signals))
    within = precision / np.diag(precision)[:, None]
    past = np.hstack(
        [np.vstack([standard[:1]] * lag + [standard[: count - lag]]) for lag in range(1, _LAGS + 1)]
    )
    gram = past.T @ past + _AHEAD * count * np.eye(past.shape[1])
    ahead = np.linalg.solve(gram, past.T @ standard)
    bare = Model(
        mean,
        deviation,
        within,
        (standard @ within.T).std(axis=0) + _TINY,
        ahead,
        (standard - past @ ahead).std(axis=0) + _TINY,
    )
    course, smoothed = Course([], []), []
    for row in rows:
        follow(bare, course, row)
        smoothed.append(course.smoothed)
    charts = tuple(_chart(np.array([one[place] for one in smoothed])) for place in range(len(_SMOOTH)))
    return Model(mean, deviation, within, bare.within_spread, ahead, bare.ahead_spread, charts)


def _chart(smoothed: Wide) -> Chart:
    centre: Wide = smoothed.mean(axis=0)
    spread: Wide = smoothed.std(axis=0) + _TINY
    together: Wide = np.cov((smoothed - centre) / spread, rowvar=False) + _TOGETHER * np.eye(
        smoothed.shape[1]
    )
    return Chart(centre, spread, np.asarray(np.linalg.inv(together), np.float64))

"""What a step that scores gives as a service: latency, volume and cost, held to the usual and to limits."""

import math
from collections.abc import Iterator, Sequence

from msgspec import Struct

from boucle.clock import SECOND, Nanos
from boucle.serve.alerts import Alerts
from boucle.serve.declared import Cost, WatchSpec
from boucle.serve.ledger import BOUNDS, Ledger
from boucle.serve.monitor.figures import Figure
from boucle.serve.monitor.usual import Usual

__all__ = ["Service", "quantile_of"]

_LEAST_BLOCKS = 20
"""Blocks of a window before its p95 says anything."""


class _Counted(Struct, frozen=True):
    """A ledger at one moment."""

    at: Nanos
    rows: int
    cpu_ns: int
    spread: tuple[int, ...]

    @classmethod
    def of(cls, ledger: Ledger, at: Nanos) -> "_Counted":
        tallies = list(ledger.versions.copy().values())
        spread = tuple(map(sum, zip(*(one.spread for one in tallies), strict=True))) or (0,) * (
            len(BOUNDS) + 1
        )
        return cls(at, ledger.rows, sum(one.cpu_ns for one in tallies), spread)


class Service:
    """Looked at now and then, from beside the path; tells once what is out, and when it is well again.

    A window is what was counted between two looks that are at least `every` apart. What is usual is learnt from the
    windows of this process; five are needed before anything is out of it. A window that nothing came in is a volume
    of 0, and says nothing about latency and cost.
    """

    def __init__(self, alerts: Alerts, spec: WatchSpec, tariff: Cost | None) -> None:
        self._alerts, self._spec, self._tariff = alerts, spec, tariff
        self._before: _Counted | None = None
        self._usual = {
            reason: Usual(history=spec.history, sigmas=spec.sigmas, effect=0.0, share=spec.share)
            for reason in ("latency", "volume", "cost")
        }
        self.last: dict[str, float] = {}
        """Of the last window: `latency` (p95 in ms), `volume` (rows), `cost` (of 1000 predictions)."""

    def look(self, now: Nanos, ledger: Ledger) -> None:
        """Judge the window that has ended, if one has."""
        counted = _Counted.of(ledger, now)
        before = self._before
        if before is None or counted.rows < before.rows:
            self._before = counted
            return
        seconds = (now - before.at) / SECOND
        if seconds < self._spec.every:
            return
        self._before = counted
        self.last = {}
        for reason, figure, low, high in self._figures(before, counted, seconds):
            self.last[reason] = figure.value
            self._judge(reason, figure, low, high)

    def _figures(
        self, before: _Counted, now: _Counted, seconds: float
    ) -> Iterator[tuple[str, Figure, float, float]]:
        """(what, its value, declared least, declared most); a limit that is not declared is infinite."""
        spec, rows = self._spec, now.rows - before.rows
        low, high = spec.rows or (-math.inf, math.inf)
        per_window = spec.every / seconds
        yield "volume", Figure(rows * per_window, math.sqrt(rows + 1) * per_window), low, high
        spread = [one - other for one, other in zip(now.spread, before.spread, strict=True)]
        if sum(spread) >= _LEAST_BLOCKS:
            yield "latency", Figure(1000 * quantile_of(spread, 0.95)), -math.inf, 1000 * spec.p95 or math.inf
        if self._tariff is not None and rows:
            cost = (now.cpu_ns - before.cpu_ns) / 3.6e12 * self._tariff.per_cpu_hour * 1000 / rows
            yield "cost", Figure(cost), -math.inf, spec.cost or math.inf

    def _judge(self, reason: str, figure: Figure, low: float, high: float) -> None:
        usual = self._usual[reason]
        limits = usual.limits(figure) if self._spec.usual else None
        usual.learn(figure)
        because = "declared"
        if limits is not None and low <= figure.value <= high:
            because = "usual"
            low = max(low, limits.low, 0.0) if reason == "volume" else low
            high = min(high, limits.high)
        if low <= figure.value <= high:
            self._alerts.well(reason)
            return
        evidence = {"value": float(figure.value), "low": float(max(low, 0.0)), "high": float(high)}
        self._alerts.trouble(
            reason,
            **evidence,
            because=because,
            window=self._spec.every,
            currency=self._tariff.currency if self._tariff else "",
        )


def quantile_of(spread: Sequence[int], share: float) -> float:
    """Seconds that `share` of the Blocks did not exceed, interpolated within its class; NaN without Blocks.

    `spread` counts Blocks by `ledger.BOUNDS`. What lies beyond the last bound is told as that bound.
    """
    left = share * sum(spread)
    if not left:
        return math.nan
    edges = (0.0, *BOUNDS, BOUNDS[-1])
    for place, count in enumerate(spread):
        if count and left <= count:
            return edges[place] + (edges[place + 1] - edges[place]) * left / count
        left -= count
    return BOUNDS[-1]

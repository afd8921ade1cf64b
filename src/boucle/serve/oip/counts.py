"""What the server counts of each version: requests, rows, refusals, how long they took, processor time."""

import threading
from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from boucle.serve.oip.shelf import Shelf
from boucle.serve.oip.sidecar import Sidecar

__all__ = ["Counts"]

_BOUNDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class _Line:
    """The counts of one version over one wire."""

    __slots__ = ("buckets", "cpu_s", "requests", "rows", "seconds", "unscored")

    def __init__(self) -> None:
        self.requests = self.rows = self.unscored = 0
        self.seconds = self.cpu_s = 0.0
        self.buckets = [0] * (len(_BOUNDS) + 1)


class Counts:
    """Counted by the thread that answers, read by whoever scrapes."""

    def __init__(self) -> None:
        self.waiting = 0
        """Requests that are being answered."""
        self._lines: dict[tuple[str, str, str], _Line] = {}
        self._refused: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def answered(
        self, model: str, version: str, wire: str, rows: int, unscored: int, seconds: float, cpu_s: float
    ) -> None:
        """One request; `unscored` of its rows lacked a number."""
        key = (model, version, wire)
        line = self._lines.get(key)
        if line is None:
            with self._lock:
                line = self._lines.setdefault(key, _Line())
        line.requests += 1
        line.rows += rows
        line.unscored += unscored
        line.seconds += seconds
        line.cpu_s += cpu_s
        line.buckets[bisect_left(_BOUNDS, seconds)] += 1

    def refused(self, code: str, wire: str) -> None:
        """A request that got an error."""
        with self._lock:
            self._refused[code, wire] = self._refused.get((code, wire), 0) + 1

    def exposition(self, shelf: Shelf, sidecar: Sidecar | None) -> bytes:
        """The page a Prometheus server reads."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Snapshot(self, shelf, sidecar))
        return generate_latest(registry)

    def lines(self) -> Iterator[Metric]:
        """Requests, rows and times."""
        labels = ["model", "version", "wire"]
        requests = CounterMetricFamily("boucle_infer_requests", "Answered requests", labels=labels)
        rows = CounterMetricFamily("boucle_infer_rows", "Rows in answered requests", labels=labels)
        unscored = CounterMetricFamily("boucle_infer_unscored_rows", "Rows lacking a number", labels=labels)
        cpu = CounterMetricFamily("boucle_infer_cpu_seconds", "Processor time of answers", labels=labels)
        took = HistogramMetricFamily("boucle_infer_seconds", "From request to answer", labels=labels)
        refused = CounterMetricFamily("boucle_infer_refused", "Refused, by code", labels=["code", "wire"])
        with self._lock:
            lines, refusals = dict(self._lines), dict(self._refused)
        for key, line in lines.items():
            requests.add_metric(list(key), line.requests)
            rows.add_metric(list(key), line.rows)
            unscored.add_metric(list(key), line.unscored)
            cpu.add_metric(list(key), line.cpu_s)
            total, buckets = 0, []
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), line.buckets, strict=True):
                total += count
                buckets.append((bound, float(total)))
            took.add_metric(list(key), buckets=buckets, sum_value=line.seconds)
        for told, count in refusals.items():
            refused.add_metric(list(told), count)
        yield from (requests, rows, unscored, cpu, took, refused)
        yield GaugeMetricFamily("boucle_infer_waiting", "Requests being answered", self.waiting)


class _Snapshot(Collector):
    def __init__(self, counts: Counts, shelf: Shelf, sidecar: Sidecar | None) -> None:
        self._counts, self._shelf, self._sidecar = counts, shelf, sidecar

    def collect(self) -> Iterator[Metric]:
        yield from self._counts.lines()
        ready = GaugeMetricFamily("boucle_model_ready", "1 while it can answer", labels=["model", "version"])
        stale = GaugeMetricFamily(
            "boucle_model_stale", "1 while its newest state cannot be loaded", labels=["model"]
        )
        for name, offer in self._shelf.offers().items():
            version = "" if offer.default is None else offer.default.version
            ready.add_metric([name, version], float(offer.default is not None))
            stale.add_metric([name], float(bool(offer.problem)))
        yield from (ready, stale)
        if self._sidecar is not None:
            yield from _beside(self._sidecar)


def _beside(sidecar: Sidecar) -> Iterator[Metric]:
    status = sidecar.status
    labels = ["model", "version", "shadow", "output"]
    rows = CounterMetricFamily("boucle_shadow_rows", "Rows scored beside the answer", labels=labels)
    agreed = CounterMetricFamily("boucle_shadow_agreed_rows", "Rows with the same score", labels=labels)
    apart = GaugeMetricFamily("boucle_shadow_difference", "|difference|", labels=[*labels, "quantile"])
    for key, one in status.compared:
        rows.add_metric(list(key), one.rows)
        agreed.add_metric(list(key), one.agreed)
        for share in (0.5, 0.99, 1.0):
            if one.rows:
                apart.add_metric([*key, f"{share:g}"], one.quantile(share))
    yield from (rows, agreed, apart)
    noted = CounterMetricFamily(
        "boucle_noted_rows", "Answered rows for shadow and prediction log", labels=["outcome"]
    )
    told = {"settled": status.settled, "shed": sidecar.shed, "lost": sidecar.lost}
    for outcome, count in told.items():
        noted.add_metric([outcome], count)
    yield noted
    yield GaugeMetricFamily("boucle_noted_waiting_rows", "Answered rows on their way", sidecar.waiting)
    if sidecar.keeps:
        kept = CounterMetricFamily(
            "boucle_predictions", "Rows of the prediction log, those of shadows too", labels=["outcome"]
        )
        for outcome, count in {"stored": status.stored, "failed": status.failed}.items():
            kept.add_metric([outcome], count)
        yield kept

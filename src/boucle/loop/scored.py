"""What the steps that score show: for the view, and for `/metrics`."""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from boucle.loop.path import Path
from boucle.loop.view import ScoreView, VersionView
from boucle.serve.ledger import BOUNDS, Tally
from boucle.serve.score import Score

__all__ = ["exposed", "scored"]


def scored(path: Path) -> tuple[ScoreView, ...]:
    """The steps that score, in path order."""
    return tuple(_view(step.id, step.operator) for step in path.steps if isinstance(step.operator, Score))


def _view(step: str, score: Score) -> ScoreView:
    ledger, tariff = score.ledger, score.declared.cost

    def version(one: Tally) -> VersionView:
        cost = one.cost(tariff) if tariff else math.nan
        return VersionView(
            one.name, one.version, one.arm, one.rows, one.blocks, one.cpu_ns / 1e9, one.wall_ns / 1e9, cost,
            tuple(one.spread),
        )  # fmt: skip

    tallies = list(ledger.versions.copy().values())
    if score.shadow is not None and score.shadow.tally.rows:
        tallies.append(score.shadow.tally)
    return ScoreView(
        step=step,
        rows=ledger.rows,
        scored=ledger.scored,
        fallback=dict(ledger.fallback),
        unscored=dict(ledger.unscored),
        late=score.late_rows,
        switches=ledger.switches,
        playing={arm: f"{one.name} {one.version}" for arm, one in score.playing.items()},
        troubles=tuple(score.alerts.on),
        currency=tariff.currency if tariff else "",
        versions=tuple(version(one) for one in tallies),
        bounds=BOUNDS,
        shadow=score.shadow.told() if score.shadow is not None else {},
    )


def exposed(views: Sequence[ScoreView]) -> Iterator[Metric]:
    """Counts by outcome and reason, times, processor time and cost per version, and the shadow's agreement."""
    rows = CounterMetricFamily(
        "boucle_score_rows",
        "Rows by outcome; in = the sum of the others",
        labels=["step", "outcome", "reason"],
    )
    late = CounterMetricFamily("boucle_score_late_rows", "Scored after their deadline", labels=["step"])
    trouble = GaugeMetricFamily("boucle_score_trouble", "1 while it lasts", labels=["step", "reason"])
    labels = ["step", "model", "version", "arm"]
    times = HistogramMetricFamily("boucle_score_seconds", "Time a Block took to score", labels=labels)
    cpu = CounterMetricFamily("boucle_score_cpu_seconds", "Processor time spent on scoring", labels=labels)
    cost = CounterMetricFamily(
        "boucle_score_cost", "Processor time at the declared tariff", labels=[*labels, "currency"]
    )
    by_version = CounterMetricFamily("boucle_score_version_rows", "Rows a version scored", labels=labels)
    agree = GaugeMetricFamily(
        "boucle_shadow_agreement", "Share of rows whose outputs agree", labels=["step", "output"]
    )
    flips = CounterMetricFamily(
        "boucle_shadow_flips", "Rows on the other side of the threshold", labels=["step", "output", "to"]
    )
    shed = CounterMetricFamily("boucle_shadow_shed", "Rows that were not compared", labels=["step"])
    for one in views:
        rows.add_metric([one.step, "in", ""], one.rows)
        rows.add_metric([one.step, "scored", ""], one.scored)
        for outcome, counts in (("fallback", one.fallback), ("unscored", one.unscored)):
            for reason, count in counts.items():
                rows.add_metric([one.step, outcome, reason], count)
        late.add_metric([one.step], one.late)
        for reason in one.troubles:
            trouble.add_metric([one.step, reason], 1.0)
        for version in one.versions:
            at = [one.step, version.name, version.version, version.arm]
            bounds = [*(f"{bound:g}" for bound in one.bounds), "+Inf"]
            classes = list(zip(bounds, accumulate(version.spread), strict=True))
            times.add_metric(at, classes, version.wall_s)
            cpu.add_metric(at, version.cpu_s)
            by_version.add_metric(at, version.rows)
            if not math.isnan(version.cost):
                cost.add_metric([*at, one.currency], version.cost)
        if one.shadow:
            shed.add_metric([one.step], one.shadow["shed"])
            for output, told in one.shadow["outputs"].items():
                if told["rows"]:
                    agree.add_metric([one.step, output], told["agreement"])
                    flips.add_metric([one.step, output, "above"], told["raised"])
                    flips.add_metric([one.step, output, "below"], told["lowered"])
    yield from (rows, late, trouble, times, by_version, cpu, cost, agree, flips, shed)

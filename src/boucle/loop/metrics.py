"""The Prometheus text exposition of a running loop, built from its view when somebody scrapes."""

import math
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from boucle.loop.scored import exposed
from boucle.loop.view import LoopView

__all__ = ["exposition"]


def exposition(view: LoopView) -> bytes:
    """The page a Prometheus server reads at `/metrics`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(view))
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, view: LoopView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        yield from self._readings()
        yield from self._path()
        yield from self._objectives()
        yield from self._quality()
        yield from self._machines()
        yield from self._action()
        yield from exposed(self._view.scores)

    def _readings(self) -> Iterator[Metric]:
        accounting = self._view.accounting
        readings = CounterMetricFamily(
            "boucle_readings",
            "Readings by what became of them; in = the sum of the others",
            labels=["outcome"],
        )
        readings.add_metric(["in"], accounting.received)
        for outcome in ("stored", "late", "duplicate", "quarantined", "shed"):
            readings.add_metric([outcome], getattr(accounting, outcome))
        yield readings
        yield GaugeMetricFamily("boucle_readings_pending", "Accepted, not yet durable", accounting.pending)
        reasons = CounterMetricFamily(
            "boucle_quarantined", "Quarantined readings by reason", labels=["reason"]
        )
        for reason, count in accounting.reasons.items():
            reasons.add_metric([reason], count)
        yield reasons

    def _path(self) -> Iterator[Metric]:
        view = self._view
        up = GaugeMetricFamily("boucle_source_up", "1 while the source is connected", labels=["source"])
        age = GaugeMetricFamily("boucle_source_age_seconds", "Since the last reading", labels=["source"])
        delay = GaugeMetricFamily(
            "boucle_watermark_delay_seconds", "From the watermark worked through to now", labels=["source"]
        )
        shed = CounterMetricFamily("boucle_shed", "Readings given up, as declared", labels=["source"])
        shedding = GaugeMetricFamily("boucle_shedding", "1 while readings are given up", labels=["source"])
        log_bytes = GaugeMetricFamily("boucle_log_bytes", "Kept by a source's logs", labels=["source"])
        log_rows = GaugeMetricFamily("boucle_log_rows", "Kept by a source's logs", labels=["source"])
        removed = CounterMetricFamily(
            "boucle_log_removed_segments", "By retention, as declared", labels=["source"]
        )
        for source in view.sources:
            if not math.isnan(source.watermark_delay_s):
                delay.add_metric([source.id], source.watermark_delay_s)
            up.add_metric([source.id], float(source.state == "connected"))
            shed.add_metric([source.id], source.shed)
            log_bytes.add_metric([source.id], source.log_bytes)
            log_rows.add_metric([source.id], source.log_rows)
            removed.add_metric([source.id], source.log_removed)
            shedding.add_metric([source.id], float(source.shedding))
            if not math.isnan(source.age_s):
                age.add_metric([source.id], source.age_s)
        rows = CounterMetricFamily("boucle_step_rows", "Rows into and out of a step", labels=["step", "side"])
        took = GaugeMetricFamily("boucle_step_seconds", "Time per Block", labels=["step", "quantile"])
        state = GaugeMetricFamily("boucle_step_state_bytes", "At the last checkpoint", labels=["step"])
        late = CounterMetricFamily("boucle_step_late_rows", "Rows after their turn", labels=["step"])
        became = CounterMetricFamily(
            "boucle_step_became", "What else became of a step's rows", labels=["step", "what"]
        )
        for step in view.steps:
            for what, count in step.counts.items():
                became.add_metric([step.id, what], count)
            rows.add_metric([step.id, "in"], step.rows_in)
            rows.add_metric([step.id, "out"], step.rows_out)
            _quantiles(took, step.id, step.p50_us / 1e6, step.p99_us / 1e6)
            if not math.isnan(step.p95_us):
                took.add_metric([step.id, "0.95"], step.p95_us / 1e6)
            state.add_metric([step.id], step.state_bytes)
            late.add_metric([step.id], step.late_rows)
        trouble = GaugeMetricFamily(
            "boucle_table_trouble",
            "1 while it cannot be written or kept in order, or its gates hold a batch",
            labels=["table", "what"],
        )
        for table_name, what in view.troubles:
            trouble.add_metric([table_name, what], 1.0)
        behind = GaugeMetricFamily("boucle_table_behind_seconds", "Log to lake", labels=["table"])
        for table in view.tables:
            behind.add_metric([table.name], table.behind_s)
        yield from (
            up,
            age,
            delay,
            shed,
            shedding,
            log_bytes,
            log_rows,
            removed,
            rows,
            took,
            state,
            late,
            became,
            trouble,
            behind,
        )
        waiting = view.backlog
        yield GaugeMetricFamily("boucle_queue_blocks", "Accepted, not yet worked through", waiting.blocks)
        yield GaugeMetricFamily("boucle_queue_bytes", "Rows accepted, not yet worked through", waiting.bytes)
        yield GaugeMetricFamily(
            "boucle_lag_seconds", "Since the oldest Block not worked through was accepted", waiting.lag_s
        )

    def _objectives(self) -> Iterator[Metric]:
        share = GaugeMetricFamily(
            "boucle_slo_compliance", "Share of the window that was good", labels=["slo"]
        )
        target = GaugeMetricFamily("boucle_slo_target", "Share that must be good", labels=["slo"])
        left = GaugeMetricFamily("boucle_slo_budget_left", "Share of the error budget", labels=["slo"])
        burn = GaugeMetricFamily(
            "boucle_slo_burn_rate",
            "Times too fast that the error budget burns",
            labels=["slo", "alert", "window"],
        )
        fires = GaugeMetricFamily("boucle_slo_alert", "1 while the alert is on", labels=["slo", "alert"])
        for one in self._view.objectives:
            target.add_metric([one.id], one.target)
            left.add_metric([one.id], one.left)
            if not math.isnan(one.compliance):
                share.add_metric([one.id], one.compliance)
            for rate in one.burns:
                burn.add_metric([one.id, rate.name, "long"], rate.long)
                burn.add_metric([one.id, rate.name, "short"], rate.short)
                fires.add_metric([one.id, rate.name], float(rate.fires))
        yield from (share, target, left, burn, fires)

    def _quality(self) -> Iterator[Metric]:
        labels = ["table", "rule", "severity"]
        checked = CounterMetricFamily("boucle_quality_checked", "Rows held against a rule", labels=labels)
        failed = CounterMetricFamily("boucle_quality_failed", "Rows that broke it", labels=labels)
        broken = GaugeMetricFamily("boucle_quality_broken", "1 while a rule is broken", labels=labels)
        for one in self._view.quality:
            at = [one.table, one.rule, one.severity]
            checked.add_metric(at, one.checked)
            failed.add_metric(at, one.failed)
            if one.state in {"kept", "broken"}:
                broken.add_metric(at, float(one.state == "broken"))
        yield from (checked, failed, broken)

    def _machines(self) -> Iterator[Metric]:
        health = GaugeMetricFamily("boucle_machine_health", "1 new, 0 failed", labels=["machine"])
        life = GaugeMetricFamily("boucle_machine_rul_hours", "Remaining useful life", labels=["machine"])
        for machine in self._view.machines:
            if not math.isnan(machine.health):
                health.add_metric([machine.id], machine.health)
                life.add_metric([machine.id], machine.rul_h)
        yield from (health, life)

    def _action(self) -> Iterator[Metric]:
        view = self._view
        outcomes: dict[str, int] = {}
        for _, receipt in view.commands:
            outcome = receipt.outcome.value if receipt else "waiting"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        commands = GaugeMetricFamily("boucle_commands", "Recent commands by outcome", labels=["outcome"])
        for outcome, count in outcomes.items():
            commands.add_metric([outcome], count)
        latency = GaugeMetricFamily(
            "boucle_latency_seconds", "From the last sample of the deciding Block", labels=["to", "quantile"]
        )
        for name, measured in (("decision", view.decision_ms), ("read_back", view.action_ms)):
            _quantiles(latency, name, measured.p50 / 1e3, measured.p99 / 1e3)
        yield from (commands, latency)
        yield GaugeMetricFamily(
            "boucle_automatic", "1 while automatic action is allowed", float(view.automatic)
        )


def _quantiles(metric: Any, name: str, p50: float, p99: float) -> None:
    if not math.isnan(p50):
        metric.add_metric([name, "0.5"], p50)
        metric.add_metric([name, "0.99"], p99)

"""Puts the LoopView together; what screens, `--json` and `/metrics` get of a running loop."""

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from boucle.clock import SECOND
from boucle.loop.metrics import exposition
from boucle.loop.trace import otlp
from boucle.loop.view import Accounting, BacklogView, Live, LoopView, SourceView, StepView
from boucle.ports import Counts

if TYPE_CHECKING:
    from boucle.loop.run import Loop

__all__ = ["Picture"]


class Picture:
    """The `Observable` of a running loop."""

    def __init__(self, loop: "Loop") -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._last: tuple[float, LoopView] | None = None
        self._frozen = False

    def view(self) -> LoopView:
        """The picture now; built at most ten times a second, however many ask."""
        with self._lock:
            now = time.monotonic()
            if self._last is None or (not self._frozen and now - self._last[0] > 0.1):
                self._last = (now, self._build())
            return self._last[1]

    def fresh(self) -> LoopView:
        """The picture now, built anew."""
        with self._lock:
            if self._last is None or not self._frozen:
                self._last = (time.monotonic(), self._build())
            return self._last[1]

    def freeze(self) -> None:
        """Take the last picture; whoever asks from now on gets this one."""
        self.fresh()
        self._frozen = True

    def accounting(self) -> Accounting:
        """Where every reading of every source went."""
        total = Accounting()
        for intake in self._loop.intakes.values():
            total.add(intake.counted())
        return total

    def _build(self) -> LoopView:
        loop = self._loop
        project = loop.plan.project
        return LoopView(
            product=project.id,
            title=project.loop.view.title or {"en": str(project.product.value.get("name", project.id))},
            at=loop.clock.now(),
            since=loop.started_at,
            speed=loop.clock.speed,
            automatic=loop.action.dispatcher.automatic,
            machines=loop.observer.machines(),
            events=loop.observer.events(),
            commands=loop.observer.commands(),
            sources=tuple(self._source(name) for name in loop.intakes),
            steps=self._steps(),
            actuators=loop.action.view(),
            tables=loop.tables.view(),
            troubles=loop.tables.troubles,
            accounting=self.accounting(),
            backlog=self._backlog(),
            decision_ms=loop.observer.decision_ms.latency(),
            action_ms=loop.observer.action_ms.latency(),
            objectives=loop.objectives.view(),
            quality=loop.quality.view(),
            scores=loop.models.views(),
        )

    def _backlog(self) -> BacklogView:
        kept = self._loop.backlog
        return BacklogView(kept.blocks, kept.bytes, kept.lag(), kept.most_blocks, kept.most_bytes)

    def _source(self, name: str) -> SourceView:
        loop = self._loop
        intake = loop.intakes[name]
        age = (loop.clock.now() - intake.last_seen) / SECOND if intake.last_seen else math.nan
        address = loop.plan.project.settings.fill(intake.spec.from_)
        accepted, kept = intake.accounting.received, loop.retention.sizes[name]
        return SourceView(
            name,
            address,
            intake.source.state(),
            age,
            accepted,
            intake.meter.rate(),
            loop.backlog.blocks,
            loop.watermark_delay(name),
            intake.counted().shed,
            loop.watch.shedding(name),
            kept.rows,
            kept.bytes,
            kept.removed,
        )

    def _steps(self) -> tuple[StepView, ...]:
        views = []
        for step in self._loop.path.steps:
            meter = self._loop.path.meters[step.id]
            p50, p95, p99 = meter.micros.at(50, 95, 99)
            views.append(
                StepView(
                    step.id,
                    step.use,
                    step.inputs,
                    meter.rows_in,
                    meter.rows_out,
                    meter.rate(),
                    p50,
                    p99,
                    step.title,
                    p95,
                    self._loop.checkpoints.store.sizes.get(step.id, 0),
                    int(getattr(step.operator, "late_rows", 0)),
                    step.operator.counts if isinstance(step.operator, Counts) else {},
                )
            )
        return tuple(views)

    def live(self, machine: str) -> Live | None:
        """The live signals of one machine; None for a machine nobody knows."""
        return self._loop.observer.live(machine)

    def metrics(self) -> bytes:
        """The Prometheus text exposition."""
        return exposition(self.view())

    def traces(self) -> list[dict[str, Any]]:
        """The last traces, oldest first, each a `TracesData` of OTLP/JSON."""
        return [otlp(trace, self._loop.plan.project.id) for trace in self._loop.tracer.last()]

    def set_automatic(self, allowed: bool, by: str) -> None:
        """Allow or stop automatic action; journaled with who asked."""
        self._loop.action.dispatcher.set_automatic(allowed, by)

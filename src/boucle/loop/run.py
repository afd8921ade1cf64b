"""Runs a plan: sources in, path through, actions out, tables beside.

Threads of a running loop (`start`): one per source (decode, contract, log), one that syncs the logs, one
for the path, one per actuator, one keeper (lake, checkpoints on disk, watching connections). Between the sources
and the path lies one bounded queue (`boucle.loop.backlog`): when the path is slower the source waits, and the
broker keeps the rest. `pump` does the same work inline, in the caller's thread, for the manual clock and replay.
"""

import gc
import inspect
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path as Folder
from typing import Any

from boucle.address import adapter, parse_address
from boucle.block import Block, Position
from boucle.clock import SECOND, Clock, Nanos
from boucle.errors import Unavailable
from boucle.event import Command, Event, Receipt, Severity
from boucle.loop.action import Action
from boucle.loop.again import Again
from boucle.loop.backlog import Backlog, Shedding
from boucle.loop.checkpoint import Checkpoint, Checkpoints
from boucle.loop.inlet import CommandInlet
from boucle.loop.intake import Intake, newest_sample, open_source
from boucle.loop.lineage import LoopLineage
from boucle.loop.modelwatch import ModelWatch
from boucle.loop.observe import Observer
from boucle.loop.outputs import declared_outputs
from boucle.loop.path import Path, StepTell, pieces
from boucle.loop.picture import Picture
from boucle.loop.plan import Plan
from boucle.loop.quality import QualityWatch
from boucle.loop.retention import LogRetention, kept_log
from boucle.loop.slo import Objectives, sla_of
from boucle.loop.tables import EVENTS, Tables, event_block
from boucle.loop.trace import Trace, Tracer
from boucle.loop.watch import Watch
from boucle.ports import Actuator, Source
from boucle.product.duration import seconds
from boucle.product.size import size
from boucle.product.sla import Sla
from boucle.quality.quarantine import Quarantine

__all__ = ["Listener", "Loop"]

_log = logging.getLogger("boucle.loop.run")

_TABLES_WAIT = 0.05
"""Seconds that tables and screens wait for decisions and commands at most."""
_FULL_COLLECTIONS = 1000
"""Collections of the middle generation per full one: about one full collection an hour at 90 000 samples/s."""

Listener = Callable[[Event | tuple[Command, Receipt]], None]


class Loop:
    """A product, running."""

    def __init__(
        self,
        plan: Plan,
        clock: Clock,
        *,
        sources: Mapping[str, Source] | None = None,
        actuators: Mapping[str, Actuator] | None = None,
        folder: Folder | None = None,
        listener: Listener | None = None,
        inlet: bool = True,
        promises: bool = True,
    ) -> None:
        self.plan, self.clock = plan, clock
        self.folder = folder or plan.project.path("run.folder")
        self.started_at = clock.now()
        self.failure: BaseException | None = None
        self._listeners = [listener] if listener else []
        settings = plan.project.settings
        self.tracer = Tracer(int(settings.get("run.trace_every").value))
        self.quarantine = Quarantine(self.folder / "quarantine")
        self.intakes = self._intakes(sources or {})
        live = next((step for step in plan.steps if step.id == plan.project.loop.view.live), None)
        self.observer = Observer(plan.project.loop.view, live, clock, self.tracer)
        self.actuators = dict(actuators) if actuators is not None else self._open_actuators()
        self.action = Action(plan, self.actuators, self.folder, clock, self.observer, self._tell, self._told)
        self.tables = Tables(
            plan.project.loop,
            self.folder,
            {name: intake.log for name, intake in self.intakes.items()},
            {name: intake.late for name, intake in self.intakes.items()},
            self.quarantine,
            clock,
            seconds(settings.get("run.lake_every").value),
            settings.fill,
            str(settings.get("run.lake").value),
        )
        self.retention = LogRetention(self.intakes, self.tables, self.folder / "checkpoint", clock)
        self._promises = promises
        # A replay serves nobody: how fresh history is says nothing.
        sla = sla_of(plan.project) if promises else Sla()
        self.objectives = Objectives(sla, plan.project, self.folder, self.intakes, clock, self._tell)
        logs = {log.stream: log for log in (*self.tables.logs(), *(one.log for one in self.intakes.values()))}
        watched = logs if promises else {}
        self.quality = QualityWatch(
            plan.project, watched, self.folder, clock, self._tell, self.intakes, self.tables.lake
        )
        self.again = Again(plan.project, self.folder, self.intakes, clock)
        self.path = Path(plan.steps, self._deciding(), self._beside())
        self.inlet = CommandInlet.declared(plan, clock, self.action, self.quarantine) if inlet else None
        self.watch = Watch(
            plan, self.intakes, self.actuators, clock, self._tell, lambda: self.tables.troubles
        )
        self.models = ModelWatch(self.path, plan.project.folder, clock.now)
        self.picture = Picture(self)
        self.lineage = LoopLineage(plan, self.intakes, self.tables, self.folder, clock)
        self._fsync_every = seconds(settings.get("run.fsync_every").value)
        self.checkpoints = Checkpoints(self.folder / "checkpoint")
        self._checkpoint_every = seconds(settings.get("run.checkpoint_every").value)
        most_blocks, most_bytes = (
            settings.get("run.queue_blocks").value,
            settings.get("run.queue_bytes").value,
        )
        self.backlog = Backlog(clock, int(most_blocks), size(most_bytes))
        self._done: dict[str, Position] = {}
        self._watermarks: dict[str, Nanos] = {}
        self._cause = 0
        self._checkpoint_due = time.monotonic() + self._checkpoint_every
        self._keeping = True
        self._stopping = threading.Event()
        self._closed = False
        self._within = False
        """In the middle of a Block; still so when a step failed."""
        self._busy: list[str] = []
        """Threads that did not end when they were told to."""
        self._threads: list[threading.Thread] = []
        self._switched = 0.0
        self._collecting = gc.get_threshold()

    # ── assembling ────────────────────────────────────────────────────────────────────────────

    def _intakes(self, given: Mapping[str, Source]) -> dict[str, Intake]:
        project = self.plan.project
        intakes = {}
        for name, spec in project.loop.sources.items():
            source = given.get(name)
            if source is None:
                address = parse_address(project.settings.fill(spec.from_), "source")
                source = open_source(address, name, self.clock, project.id, spec.with_)
            intakes[name] = Intake(
                name,
                spec,
                project.contracts[spec.schema],
                source,
                kept_log(self.folder / "log" / name, spec, self.clock),
                kept_log(self.folder / "log" / f"{name}.late", spec, self.clock),
                self.quarantine,
                self.clock,
                self.tracer,
            )
        return intakes

    def _open_actuators(self) -> dict[str, Actuator]:
        project = self.plan.project
        opened = {}
        for name, spec in project.loop.actuators.items():
            address = parse_address(project.settings.fill(spec.to), "actuator")
            factory = adapter(address, "actuator")
            takes = inspect.signature(factory).parameters
            here = {"folder": project.folder, "run": self.folder, "tell": self._teller(name, "actuator")}
            asked = {which: value for which, value in here.items() if which in takes}
            opened[name] = factory(address, clock=self.clock, **{**asked, **spec.with_})
        return opened

    def _deciding(self) -> dict[str, list[Callable[[Block], None]]]:
        taps: dict[str, list[Callable[[Block], None]]] = {
            stream: [self._consider] for stream in self.action.watched
        }
        if decided := self.plan.project.loop.view.machines:
            taps.setdefault(decided, []).append(self._decided)
        return taps

    def _beside(self) -> dict[str, list[Callable[[Block], None]]]:
        taps: dict[str, list[Callable[[Block], None]]] = {
            stream: [self.tables.write] for stream in self.tables.derived - {EVENTS}
        }
        for stream in self.observer.streams:
            taps.setdefault(stream, []).append(self.observer.see)
        for stream in self.objectives.streams:
            taps.setdefault(stream, []).append(self.objectives.see)
        return taps

    def _consider(self, block: Block) -> None:
        started, trace = time.perf_counter_ns(), self.path.trace
        self.tracer.deciding = trace
        self.action.consider(block, self._cause)
        self.tracer.deciding = None
        if trace is not None:
            trace.add("decision", started, time.perf_counter_ns(), {"on": block.stream})

    def _decided(self, block: Block) -> None:
        del block
        self.observer.decision_ms.add((self.clock.now() - self._cause) / 1e6 / self.clock.speed)

    def _tell(self, event: Event) -> None:
        self.observer.event(event)
        self.tables.write(event_block(event))
        for listener in self._listeners:
            listener(event)

    def _teller(self, which: str, of: str = "step") -> StepTell:
        def tell(kind: str, severity: str, says: dict[str, str], evidence: dict[str, Any]) -> None:
            now, product = self.clock.now(), self.plan.project.id
            name = f"{kind}-{which}-{now}"
            self._tell(Event(name, product, f"{of} {which}", kind, now, Severity(severity), says, evidence))

        return tell

    def _told(self, command: Command, receipt: Receipt) -> None:
        self.objectives.receipt(receipt)
        for listener in self._listeners:
            listener((command, receipt))

    # ── running ───────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Restore the last checkpoint, work through what the log holds beyond it, open the sources."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = self.checkpoints.load(self.plan.fingerprint, self.plan.declared)
        checkpoint = None if kept is None else kept.checkpoint
        self.tables.open({} if checkpoint is None else checkpoint.derived)
        self.path.attach(self.folder / "steps", self._teller)
        if kept is not None:
            self.path.restore(kept.state)
            self.action.policy.restore(kept.checkpoint.policy)
            self._done = dict(kept.checkpoint.positions)
        self.action.dispatcher.open()
        for name, intake in self.intakes.items():
            intake.open(checkpoint.resume.get(name) if checkpoint else None)
        self.again.open()
        self.retention.open()
        self.objectives.open()
        self.quality.open()
        self.lineage.start()
        self._catch_up()
        if self._promises:
            self.path.live()
        if self.inlet is not None:
            self.inlet.open()

    def _catch_up(self) -> None:
        """What was durable when we stopped but not yet worked through, in event-time order."""
        waiting: list[Block] = []
        for name, intake in self.intakes.items():
            missed = intake.log.read(self._done.get(name))
            waiting += [Block(name, block.rows, block.watermark, block.position) for block in missed]
        for block in sorted(waiting, key=lambda b: (b.watermark, b.stream, b.position.offset)):
            self._work(block)
            self.path.settle()

    def _work(self, block: Block, trace: Trace | None = None) -> None:
        intake = self.intakes[block.stream]
        self.path.trace = trace
        self._within = True
        for piece in pieces(block, intake.spec.partition, self._watermarks.get(block.stream, 0)):
            self._cause = newest_sample(piece, intake.contract.time)
            self._give_way()
            self.path.push(piece)
        self._within = False
        self._watermarks[block.stream] = block.watermark
        self._done[block.stream] = block.position
        if trace is not None:
            self.path.trace = None
            self.tracer.keep(trace)

    def advance(self, source: str) -> int:
        """Take one Block of one source all the way, in this thread; the rows it gave, 0 when there was none."""
        block = self.intakes[source].take(0)
        if block is None:
            return 0
        self._work(block, self.intakes[source].trace)
        self.path.settle()
        self.action.dispatcher.step(0)
        return len(block)

    def settle(self) -> None:
        """Make everything taken so far durable, and the lake follow when it is due."""
        for intake in self.intakes.values():
            intake.flush()
        self.again.step()
        if self.inlet is not None:
            self.inlet.take(0)
        self.action.dispatcher.step(0)
        self.tables.flush()
        self.tables.commit()
        self._look()
        self.objectives.look()
        self.quality.step()

    def pump(self) -> int:
        """Do everything there is to do, source after source, in this thread; the rows worked through."""
        rows = 0
        for name in self.intakes:
            while (taken := self.advance(name)) > 0:
                rows += taken
        self.settle()
        return rows

    def start(self) -> None:
        """Run in threads of its own until `stop`."""
        # Without this a thread that computes makes the others wait 5 ms for the interpreter.
        self._switched = sys.getswitchinterval()
        sys.setswitchinterval(0.0001)
        gc.collect()
        gc.freeze()
        # A full collection stops every thread for 70 ms; young objects are still collected as ever.
        self._collecting = gc.get_threshold()
        gc.set_threshold(self._collecting[0], self._collecting[1], _FULL_COLLECTIONS)
        for name, intake in self.intakes.items():
            self._thread(f"source {name}", partial(self._source, intake))
        self._thread("path", self._walk)
        for lane in self.action.dispatcher.lanes:
            self._thread(f"actuator {lane}", partial(self.action.dispatcher.run, lane, self._stopping))
        project = self.plan.project
        self.tables.start_keeper(project.folder, declared_outputs(project, self.folder))
        self._thread("sync", self._sync)
        self._thread("again", partial(self.again.run, self._stopping))
        self._thread("keeper", self._keep)
        if self.quality.watched:
            self._thread("quality", self._count)
        if self.inlet is not None:
            self._thread("commands", self._listen)

    def _thread(self, name: str, target: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                target()
            except Exception as error:  # noqa: BLE001 - the thread boundary: told, then the loop stops
                _log.exception("the %s thread stopped", name)
                self.failure = self.failure or error
                self._stopping.set()

        thread = threading.Thread(target=guarded, name=f"boucle {name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _source(self, intake: Intake) -> None:
        declared = intake.spec.shed
        shed = (Shedding(seconds(declared.after), self.backlog),) if declared else ()
        while not self._stopping.is_set():
            block = intake.take(0.05, *shed)
            if block is not None:
                self.backlog.put(block, self._stopping, intake.trace)

    def _sync(self) -> None:
        # Apart from the sources' threads: a reading that comes while the disk is busy must not wait for it.
        while not self._stopping.wait(self._fsync_every):
            self.watch.disk(self._flush_all())

    def _flush_all(self) -> bool:
        durable = [intake.flush() for intake in self.intakes.values()]
        return all(durable)

    def _walk(self) -> None:
        while (waited := self.backlog.get(self._rest())) is not None or not self._stopping.is_set():
            if waited is not None:
                self._work(waited.block, waited.trace)
            if not self._hurry():
                self.path.settle()
            late = time.monotonic() - self._checkpoint_due
            # Between two bursts rather than within one; but a path that never rests is checkpointed too.
            waits = self.checkpoints.waiting or late < 0
            if not waits and (waited is None or late > self._checkpoint_every):
                self._take_checkpoint()

    def _give_way(self) -> None:
        """Leave the interpreter to a command on its way to a machine, for a moment: it is nearer its end."""
        until = time.monotonic() + 0.01
        while self._threads and self.action.dispatcher.sending() and time.monotonic() < until:
            time.sleep(0.0005)

    def _hurry(self) -> bool:
        """Whether tables and screens should wait: other decisions are due, or a command is on its way to a machine."""
        since = self.path.passed_since
        if since is None or time.monotonic() - since > _TABLES_WAIT:
            return False
        return not self.backlog.empty or self.action.dispatcher.sending()

    def _rest(self) -> float:
        return 0.02 if self.path.passed_since is None else 0.001

    def watermark_delay(self, source: str) -> float:
        """Seconds from the watermark of what was worked through of a source to now; NaN before the first."""
        mark = self._watermarks.get(source, 0)
        return (self.clock.now() - mark) / SECOND if mark > 0 else math.nan

    def _take_checkpoint(self) -> None:
        self.path.settle()
        resume = {name: intake.committed for name, intake in self.intakes.items() if intake.committed}
        everything = self.checkpoints.everything
        taken = Checkpoint(
            plan=self.plan.fingerprint,
            positions=dict(self._done),
            resume=resume,
            policy=self.action.policy.snapshot(),
            derived=self.tables.ends(),
            taken_at=self.clock.now(),
            steps=self.plan.declared,
        )
        self.checkpoints.hold(taken, self.path.snapshot(everything=everything), everything=everything)

    def _keep(self) -> None:
        while not self._stopping.wait(0.25):
            kept = self._try_to_keep()
            if kept and not self._keeping:
                _log.warning("the disk takes tables and checkpoints again")
            self._keeping = kept

    def _try_to_keep(self) -> bool:
        """Tables, lineage and checkpoint; False when the disk takes nothing now: it is tried again."""
        self._look()
        try:
            self.retention.look()  # first: what it removes may be the room the others wait for
            self.tables.flush()
            self.tables.commit()
            self.lineage.step()
            self.objectives.look()
            if self.checkpoints.waiting:
                self._save()
                self._checkpoint_due = time.monotonic() + self._checkpoint_every
        except (Unavailable, OSError) as error:
            if self._keeping:
                _log.warning("tables and checkpoints wait for the disk: %s", error)
            return False
        return True

    def _look(self) -> None:
        self.watch.look()
        if self._promises:
            self.models.look()

    def _save(self) -> None:
        # The logs first: a checkpoint must never be ahead of what a restart can read.
        if not self._flush_all():
            why = "its log could not be made durable first"
            raise Unavailable(
                "B315", "the checkpoint waits", where=str(self.folder), why=why, fix="free space"
            )
        self.tables.flush()
        self.checkpoints.write()

    def _count(self) -> None:
        while not self._stopping.wait(0.25):
            while self.quality.step() and not self._stopping.is_set():
                pass

    def _listen(self) -> None:
        assert self.inlet is not None
        while not self._stopping.is_set():
            self.inlet.take(0.1)

    def stop(self) -> None:
        """Stop taking, finish what was taken, make it durable, commit it to the lake."""
        self._stopping.set()
        for patience in (10, 50):
            for thread in self._threads:
                thread.join(timeout=patience)
            self._busy = [thread.name for thread in self._threads if thread.is_alive()]
            if not self._busy:
                break
            _log.warning("stopping: still at work: %s", ", ".join(self._busy))
        if self._threads:
            # A program or a notebook that goes on after the loop gets its interpreter back as it was.
            sys.setswitchinterval(self._switched)
            gc.unfreeze()
            gc.set_threshold(*self._collecting)
        self._threads.clear()
        self.close()

    def close(self) -> None:
        """Drain and close everything; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._busy or self._within:
            # Some steps have seen the Block and some have not, or two threads would be in one step: the next
            # start works through the log from the checkpoint before.
            why = f"{', '.join(self._busy)} did not end" if self._busy else "a step failed within a Block"
            _log.error("stopped without a last checkpoint: %s", why)
            self._flush_all()
        else:
            self._finish()
        self.lineage.end(self.failure)
        self._close_objectives()
        self.quality.close()
        self.picture.freeze()
        if self.inlet is not None:
            self.inlet.close()
        for intake in self.intakes.values():
            intake.close()
        self.again.close()
        self.action.dispatcher.close()
        self.action.journal.close()
        self.path.close()
        self.tables.close()
        self.quarantine.close()

    def _finish(self) -> None:
        while (waited := self.backlog.get(0)) is not None:
            self._work(waited.block, waited.trace)
        self.path.settle()
        self.action.dispatcher.step(0)
        self.watch.end()
        self.objectives.look()
        self._flush_all()
        try:
            self.tables.flush()
            self.quality.close()  # what it says is a row of the events
            self._take_checkpoint()
            self._save()
            self.tables.commit(force=True)
        except (Unavailable, OSError) as error:
            # What is durable stays; the next start works through the log from the checkpoint before.
            _log.error("stopped without a last checkpoint: %s", error)

    def _close_objectives(self) -> None:
        try:
            self.objectives.close()
        except (Unavailable, OSError) as error:
            _log.error("the last counts of the objectives were not kept: %s", error)

    def drain(self, patience: float = 5.0) -> None:
        """Wait until everything accepted so far is worked through and durable (at most `patience` seconds)."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            pending = sum(intake.accounting.pending for intake in self.intakes.values())
            if self.backlog.idle and pending == 0:
                return
            time.sleep(0.02)

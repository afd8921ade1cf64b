"""A trained model as a step of the path: features in, the same rows with its outputs appended out."""

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from boucle.block import Block
from boucle.errors import BoucleError, SignatureMismatch, Unavailable
from boucle.models.registry import open_model
from boucle.ports import Traced
from boucle.serve.alerts import Alerts, Tell
from boucle.serve.declared import Declared
from boucle.serve.fallback import Fallbacks
from boucle.serve.follow import CHAMPION, SHADOW, Follower
from boucle.serve.ledger import Ledger
from boucle.serve.ready import Identity, Ready
from boucle.serve.scoring import Scoring
from boucle.serve.shadow import Shadow
from boucle.serve.switches import Arms, Switch, Switches
from boucle.serve.worker import Worker
from boucle.stream.origin import Inputs, carried, made_of, one_of

__all__ = ["Score"]

_VERSION = 2
_RETRY = 1.0
"""Seconds until a change of version that the disk did not take is tried again."""


class Score:
    """Appends a model's outputs to every row.

    `model` is a model folder, relative to the product's, or `models:NAME@champion` of its registry; then a promotion
    takes effect between two Blocks. A row that lacks a number the model needs is answered for by `fallback`, or
    passed on with null outputs; nothing is dropped and nothing is guessed: `ledger` says what became of every row.

    Which version scored which row is recorded (see `Switches`): rows that are scored again after a crash are scored
    by the same version, and fall back where they fell back.
    """

    def __init__(
        self,
        stream: str,
        *,
        model: str | Path,
        folder: str | Path = ".",
        shadow: Any = None,
        canary: Any = None,
        deadline: Any = None,
        fallback: Any = None,
        queue: Any = 1,
        memory: Any = None,
        marks: Any = None,
        cost: Any = None,
        watch: Any = None,
        pyfunc: Any = None,
    ) -> None:
        told = {
            "shadow": shadow, "canary": canary, "deadline": deadline, "fallback": fallback, "queue": queue,
            "memory": memory, "marks": marks, "cost": cost, "watch": watch, "pyfunc": pyfunc,
        }  # fmt: skip
        self._stream = stream
        self.declared = Declared.read(stream, model, told)
        self.ledger = Ledger()
        self.alerts = Alerts(stream)
        self.switches = Switches()
        self.shadow = Shadow(self.declared.shadow, self.alerts) if self.declared.shadow else None
        self._follower = Follower(stream, self.declared, Path(folder), self.alerts)
        self._news: dict[str, Ready | None] | None = None
        self._news_lock = threading.Lock()
        self._retry = 0.0
        self._due: list[Switch] = []
        """Recorded changes of version that lie before the rows to come: those are scored again."""
        self._live = True
        self._workers: dict[str, Worker] = {}
        self._late_rows = 0
        self._scoring: Scoring | None = None
        self._arms: dict[str, Ready] = {}
        self._beside: Ready | None = None
        self._unfound: BoucleError | None = None
        self._found: dict[str, Ready] = {}
        self._resumed = True
        self._kept = (0, 0)
        """Rows at the last two checkpoints: the newest may not have come to the disk."""
        self._find()
        Fallbacks(stream, self.declared.fallback, self._outputs())

    def _find(self) -> None:
        try:
            found = self._follower.find()
        except (BoucleError, OSError) as error:
            told = error if isinstance(error, BoucleError) else Unavailable("B656", str(error))
            if not (self.declared.fallback or told.retryable):
                raise
            self._unfound = told
            return
        self._beside = found.pop(SHADOW, None)
        self._arms = self._found = found

    @classmethod
    def trace(cls, inputs: Inputs, *, model: str | Path, folder: str | Path = ".", **declared: Any) -> Traced:
        """Columns as they are, every output of the model from every input of its signature, and the marks."""
        manifest = open_model(model, folder).manifest
        says = f"scored by the model {manifest.name}"
        made = made_of(one_of(inputs), [one.name for one in manifest.inputs], "TRANSFORMATION", says)
        told = Declared.read("", model, {name: declared.get(name) for name in ("marks", "pyfunc")})
        outputs = told.pyfunc.outputs if manifest.flavour == "pyfunc" else ()
        outputs = outputs or tuple(one.name for one in manifest.outputs)
        names = [*outputs, *(column for _, column in told.marks.columns())]
        return Traced(carried(inputs) | dict.fromkeys(names, made))

    # ── the loop around it ────────────────────────────────────────────────────────────────────

    def attach(self, folder: Path, tell: Tell) -> None:
        """Keep the record of versions, and copies of them, in `folder`; `tell` hears of trouble. Before `restore`.

        The rows that come until `live` may have been scored before. Raises when no version can be had at all and
        no fallback is declared.
        """
        self.alerts.tell = tell
        self._live = False
        self.switches.open(folder)
        self._follower.shelve(folder / "models")
        if self.shadow is not None:
            self.shadow.keep(folder)
        if self._unfound is not None:
            self.alerts.trouble("registry", why=str(self._unfound))
            last = self.switches.at(2**62)
            if last is not None and CHAMPION in last.arms:
                self._arms = self._by(last.arms)
                self._follower.outputs = self._arms[CHAMPION].outputs
            elif not self.declared.fallback:
                raise self._unfound
        self._resumed = False

    def live(self) -> None:
        """What was scored before is scored again: from now on promotions are followed and deadlines hold."""
        if not self._resumed:
            self._resume(self.ledger.rows, _identities(self._arms))
        self._live = True
        self._deliver(self._found)  # a model folder may hold another model than before the restart
        self._follower.start(self._deliver)

    def _deliver(self, news: Mapping[str, Ready | None]) -> None:
        with self._news_lock:
            self._news = {**(self._news or {}), **news}

    def close(self) -> None:
        """Stop following, end the threads. Safe to call twice."""
        self._follower.close()
        if self.shadow is not None:
            self.shadow.close()
        for worker in self._workers.values():
            worker.close()
        for ready in (*self._arms.values(), *((self._beside,) if self._beside else ())):
            ready.close()
        self.switches.close()

    # ── scoring ───────────────────────────────────────────────────────────────────────────────

    def step(self, block: Block) -> Sequence[Block]:
        """The Block with the outputs; SignatureMismatch when it has other columns and no fallback is declared."""
        if not self._resumed:
            self._resume(self.ledger.rows, _identities(self._arms))
        if self._news is not None and self._live and not self._due:
            self._change()
        first, end = self.ledger.rows, self.ledger.rows + block.rows.num_rows
        if self._due and self._due[0].row < end:
            rows = self._in_pieces(block.rows, first, end)
        else:
            rows = self._score(block.rows)
        if self.alerts and self._live:
            self.alerts.quiet()
        return (Block(self._stream, rows, block.watermark, block.position),)

    def _in_pieces(self, rows: pa.RecordBatch, first: int, end: int) -> pa.RecordBatch:
        """Rows that several versions scored when they first came."""
        pieces, at = [], first
        while self._due and self._due[0].row < end:
            due = self._due.pop(0)
            if due.row > at:
                pieces.append(self._score(rows.slice(at - first, due.row - at)))
                at = due.row
            self._play(self._by(due.arms))
        pieces.append(self._score(rows.slice(at - first)))
        if len(pieces) == 1:
            return pieces[0]
        return pa.Table.from_batches(pieces).combine_chunks().to_batches()[0]

    def _score(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        scoring = self._scoring
        if scoring is None or (scoring.schema is not rows.schema and not scoring.schema.equals(rows.schema)):
            scoring = self._bind(rows.schema)
        first = self.ledger.rows
        falls = self.switches.falls
        recorded = [] if self._live or not falls else [
            one for one in falls if one.end > first and one.row < first + rows.num_rows
        ]  # fmt: skip
        scored = scoring.score(rows, first, recorded, patient=not self._live)
        if self.shadow is not None and self._beside is not None and rows.num_rows and self._live:
            offered = scoring.for_shadow()
            if offered is not None and CHAMPION in self._arms:
                who = self._arms[CHAMPION].identity
                acting = f"{who.name} {who.version}"
                self.shadow.offer(self._beside, acting, offered, scoring.values, self._outputs())
        return scored

    def _outputs(self) -> list[str]:
        return self._follower.outputs or self.declared.outputs()

    def _bind(self, schema: pa.Schema) -> Scoring:
        scoring = Scoring(
            self._stream, schema, self.declared, self._arms, self._outputs(), self.ledger, self.alerts,
            self._beside,
        )  # fmt: skip
        if scoring.wrong and not self.declared.fallback:
            raise SignatureMismatch(
                "B612",
                f"the model {self._arms[CHAMPION].identity.name} was trained on other columns",
                where=self._stream,
                why="; ".join(scoring.wrong),
                fix="give it the columns of its manifest, or train it on these",
            )
        scoring.workers, scoring.record = self._workers, self.switches.fell
        if not scoring.wrong:
            self._follower.schema = schema
        self._scoring = scoring
        return scoring

    # ── changing versions ─────────────────────────────────────────────────────────────────────

    def _change(self) -> None:
        """Let the versions that came play their arms from the next row on, once that is recorded."""
        if time.monotonic() < self._retry:
            return
        with self._news_lock:
            news, self._news = self._news or {}, None
        if SHADOW in news:
            self._beside, self._scoring = news.pop(SHADOW), None
        self._hold(news)
        arms = {arm: one for arm, one in {**self._arms, **news}.items() if one is not None}
        if _identities(arms) == _identities(self._arms):
            return
        if not self._follower.outputs and CHAMPION in arms:
            self._follower.outputs = arms[CHAMPION].outputs
        try:
            self.switches.switch(self.ledger.rows, _identities(arms))
        except Unavailable as error:
            self._retry = time.monotonic() + _RETRY
            self._deliver({key: one for key, one in news.items() if key not in (self._news or {})})
            self.alerts.trouble("disk", why=str(error))
            return
        before = self._arms.get(CHAMPION)
        self._play(arms)
        self.alerts.well("unavailable", "disk")
        self._tell_change(before, arms.get(CHAMPION))

    def _hold(self, news: dict[str, Ready | None]) -> None:
        """Take out a champion to be, against which its comparison in the shadow speaks."""
        acting, ready = self._arms.get(CHAMPION), news.get(CHAMPION)
        if self.shadow is None or acting is None or ready is None:
            return
        names = [f"{one.identity.name} {one.identity.version}" for one in (acting, ready)]
        if why := self.shadow.objects(*names):
            del news[CHAMPION]
            self.alerts.trouble("held", version=names[1], why=why)
        else:
            self.alerts.well("held")

    def _tell_change(self, before: Ready | None, after: Ready | None) -> None:
        self.ledger.switches += 1
        if self.alerts.tell is None or after is None or (before and before.identity == after.identity):
            return
        was = before.identity.version if before else "-"
        now = f"{after.identity.name} {after.identity.version}"
        says = {
            "en": f"{self._stream}: {now} scores from now on (before: {was}).",
            "fr": f"{self._stream} : {now} évalue désormais (avant : {was}).",
        }
        evidence = {"row": self.ledger.rows, "before": was, "after": after.identity.version}
        self.alerts.tell("model_changed", "info", says, evidence)

    def _play(self, arms: dict[str, Ready]) -> None:
        self._arms, self._scoring = arms, None
        playing = {one.identity.sha256 for one in arms.values()}
        for sha256 in [one for one in self._workers if one not in playing]:
            worker = self._workers.pop(sha256)
            self._late_rows += worker.late_rows
            worker.close()

    def _by(self, arms: Arms) -> dict[str, Ready]:
        return {arm: self._follower.by(identity) for arm, identity in arms.items()}

    # ── state ─────────────────────────────────────────────────────────────────────────────────

    @property
    def unscored(self) -> int:
        """Rows that went on with null outputs."""
        return sum(self.ledger.unscored.values())

    @property
    def playing(self) -> Arms:
        """Who plays which arm now."""
        return _identities(self._arms)

    @property
    def late_rows(self) -> int:
        """Rows whose scores came after their deadline, and were thrown away."""
        return self._late_rows + sum(worker.late_rows for worker in list(self._workers.values()))

    def snapshot(self) -> bytes:
        """Counts and versions; the models themselves are found again by their names and digests."""
        self.switches.forget(self._kept[0])
        self._kept = (self._kept[1], self.ledger.rows)
        return msgspec.msgpack.encode((_VERSION, self.ledger, _identities(self._arms)))

    def restore(self, state: bytes) -> None:
        """Continue; B602 when the state is of another version of this step, B655 when a model is gone."""
        try:
            version = msgspec.msgpack.decode(state)[0]
            if version == 1:  # before versions were recorded: a count of rows without all numbers
                _, _, unscored = msgspec.msgpack.decode(state, type=tuple[int, str, int])
                self.ledger = Ledger(rows=unscored, unscored={"null_features": unscored})
                return
            if version != _VERSION:
                raise self._refused(f"version {version}, this code reads {_VERSION}")
            _, self.ledger, arms = msgspec.msgpack.decode(state, type=tuple[int, Ledger, Arms])
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError, IndexError, KeyError) as error:
            raise self._refused(str(error)) from error
        self._scoring = None
        self._resume(self.ledger.rows, arms)

    def _resume(self, row: int, arms: Arms) -> None:
        """Continue at a row: with the versions recorded for it, or `arms` where nothing is recorded."""
        self._resumed = True
        held, later = self.switches.at(row), self.switches.after(row)
        if held is not None:
            arms = held.arms
        elif arms and not later:
            self.switches.switch(row, arms)
        self._due = [] if self._live else later
        if arms != _identities(self._arms):
            self._play(self._by(arms))

    def _refused(self, why: str) -> BoucleError:
        what = f"the state of {self._stream} was written by another version"
        return BoucleError("B602", what, why=why, fix="remove the checkpoint to start afresh")


def _identities(arms: Mapping[str, Ready]) -> dict[str, Identity]:
    return {arm: one.identity for arm, one in arms.items()}

"""One Block scored: by whom each row is to be scored, how it went, and who answered where it did not go well."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.quality.key_hash import keys_of
from boucle.serve.alerts import Alerts
from boucle.serve.declared import Canary, Declared
from boucle.serve.fallback import Fallbacks
from boucle.serve.follow import CANARY, CHAMPION, PREVIOUS, SHADOW
from boucle.serve.ledger import Ledger, Tally, count
from boucle.serve.numbers import Numbers, missing, put
from boucle.serve.ready import Identity, Ready, failures
from boucle.serve.switches import Fell
from boucle.serve.worker import Late, Worker

__all__ = ["Said", "Scoring", "canaries"]

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Rows = NDArray[np.int64]

_OF_TIME = frozenset({"deadline", "queue", "failed", "unavailable"})
"""Reasons that another run of the same rows may not meet: they are recorded."""
_PATIENCE = 5.0
"""Seconds to wait for a model while rows from before a restart are worked through, where a deadline is declared."""


class Said:
    """What is told of the rows of a Block, row by row."""

    def __init__(self, rows: int) -> None:
        self.columns = {name: np.full(rows, None, object) for name in ("model", "version", "arm", "fallback")}

    def by(self, index: Rows, name: str, version: str, arm: str, reason: str | None) -> None:
        """These rows were answered for like this."""
        told = (name or None, version or None, arm, reason)
        for column, value in zip(self.columns.values(), told, strict=True):
            column[index] = value


def canaries(rows: pa.RecordBatch, canary: Canary) -> NDArray[np.bool_]:
    """Which rows are the canary's: those whose key's hash is below its share. A null key is the champion's."""
    column = rows.column(rows.schema.get_field_index(canary.key))
    below = canary.threshold()
    if below == 0:
        return np.zeros(len(column), bool)
    chosen = keys_of([column])[0] <= np.uint64(below - 1)
    if column.null_count:
        chosen = chosen & column.is_valid().to_numpy(zero_copy_only=False)
    return np.asarray(chosen, bool)


class _Work(Struct):
    """A Block at work: `first` is the number of its first row, `recorded` what fell back when it was first scored."""

    rows: pa.RecordBatch
    given: Any
    values: Any
    said: Said
    first: int
    recorded: Sequence[Fell]
    wait: float


class Scoring:
    """Scores Blocks of one schema with the versions that play the arms now."""

    def __init__(
        self,
        stream: str,
        schema: pa.Schema,
        declared: Declared,
        arms: Mapping[str, Ready],
        outputs: Sequence[str],
        ledger: Ledger,
        alerts: Alerts,
        shadow: Ready | None,
    ) -> None:
        self.schema, self.arms = schema, dict(arms)
        self._declared, self._ledger, self._alerts = declared, ledger, alerts
        self._outputs = list(outputs)
        self._fallbacks = Fallbacks(stream, declared.fallback, self._outputs)
        usable = {arm: one for arm, one in arms.items() if not missing(schema, one.signature)}
        if shadow is not None and not missing(schema, shadow.signature):
            usable[SHADOW] = shadow
        self._usable = usable
        by_matrix = {arm: one for arm, one in usable.items() if not one.by_rows}
        self.columns = list(dict.fromkeys(name for one in by_matrix.values() for name in one.inputs))
        self._taken = {
            arm: None if one.inputs == self.columns else [self.columns.index(name) for name in one.inputs]
            for arm, one in by_matrix.items()
        }
        """Arm → which columns of the matrix its model takes; None: all of them, in order."""
        self.wrong = [] if CHAMPION not in arms else missing(schema, arms[CHAMPION].signature)
        """What the champion's signature asks for and the rows do not have."""
        for arm in arms.keys() - usable.keys() if not self.wrong else ():
            alerts.trouble("refused", arm=arm, why="; ".join(missing(schema, arms[arm].signature)))
        champion = arms.get(CHAMPION)
        gives = (
            champion.file.manifest.gives()
            if champion
            else pa.schema([pa.field(name, pa.float64()) for name in self._outputs])
        )
        self._numbers = Numbers(schema, self.columns, gives)
        has_key = declared.canary is not None and schema.get_field_index(declared.canary.key) >= 0
        self._canary = declared.canary if has_key and CANARY in usable else None
        self._marks = declared.marks.columns()
        self._simple = (
            CHAMPION in self._taken and self._canary is None and not self._marks and not declared.deadline
        )
        self._usual = ledger.tally(champion.identity, CHAMPION) if champion else Tally()
        self.workers: dict[str, Worker] = {}
        """SHA-256 → the worker of that version, where a deadline is declared."""
        self.given: Floats32 = np.zeros((0, 0), np.float32)
        """What models were given of the last Block: (rows, columns)."""
        self._rows = schema.empty_table()
        self.values: Floats = np.zeros((0, 0))
        """What came out of it: (outputs, rows)."""
        self.record: Callable[[int, int, str, str], None] = lambda *_: None
        """Told (first row, row after the last, arm, reason) of what fell back for lack of time."""

    def score(
        self, rows: pa.RecordBatch, first: int, recorded: Sequence[Fell] = (), *, patient: bool = False
    ) -> pa.RecordBatch:
        """The rows with outputs and marks behind them; `first` is the number of the first of them.

        `patient`: these rows are from before a restart, when the models answered in time.
        """
        given, sound = self._numbers.take(rows)
        values = np.empty((len(self._outputs), len(given)))
        self._ledger.rows += len(given)
        self.given, self.values, self._rows = given, values, rows
        said = None
        if not (self._simple and sound and not recorded and self._whole(given, values)):
            values[:] = np.nan
            said = Said(len(given))
            wait = max(self._declared.deadline, _PATIENCE) if patient else self._declared.deadline
            self._by_arms(_Work(rows, given, values, said, first, recorded, wait))
        scored = self._numbers.give(rows, values, whole=said is None)
        return scored if said is None or not self._marks else self._marked(scored, said)

    def for_shadow(self) -> Any:
        """What the shadow takes of the last Block; None when the rows do not have it."""
        if SHADOW not in self._usable:
            return None
        return self._cut(SHADOW, self._rows, self.given)

    def _cut(self, arm: str, rows: Any, given: Floats32) -> Any:
        """What an arm's model takes of these rows: columns as they are, or its part of the matrix."""
        if arm not in self._taken:
            return rows.select(self._usable[arm].inputs)
        taken = self._taken[arm]
        return given if taken is None else given[:, taken]

    def _whole(self, given: Floats32, values: Floats) -> bool:
        """Try the usual: one model, every number there. False when a closer look is needed."""
        taken = self._taken[CHAMPION]
        matrix = given if taken is None else given[:, taken]
        if len(given) == 0:
            return True
        ready = self.arms[CHAMPION]
        started, cpu = time.perf_counter_ns(), time.thread_time_ns()
        try:
            answer = ready.run(matrix)
        except failures():
            return False
        if not put(answer, values):
            return False
        cpu = time.thread_time_ns() - cpu
        self._ledger.add(self._usual, len(given), time.perf_counter_ns() - started, cpu)
        self._ledger.scored += len(given)
        return True

    def _by_arms(self, work: _Work) -> None:
        every = np.arange(len(work.given), dtype=np.int64)
        if self._canary is None:
            self._by_arm(work, every, CHAMPION)
            return
        chosen = canaries(work.rows, self._canary)
        self._by_arm(work, every[~chosen], CHAMPION)
        self._by_arm(work, every[chosen], CANARY)

    def _by_arm(self, work: _Work, index: Rows, arm: str) -> None:
        """Rows of one arm: what lacks numbers, what fell back when it was first scored, and the rest."""
        if len(index) == 0:
            return
        if arm not in self._usable:
            self._fell(work, index, arm, "signature" if arm in self.arms else "unavailable")
            return
        able = self._able(work, arm, index)
        self._fall(work, index[~able], arm, "null_features")
        index = index[able]
        for one in work.recorded:
            if one.arm == arm:
                again = (index + work.first >= one.row) & (index + work.first < one.end)
                self._fall(work, index[again], arm, one.reason)
                index = index[~again]
        if len(index) == 0:
            return
        ready = self.arms[arm]
        answer = self._ask(work, arm, index, arm)
        if isinstance(answer, str):
            self._fell(work, index, arm, answer)
            return
        sound = self._put(work, index, answer)
        self._ledger.scored += len(sound)
        work.said.by(sound, ready.identity.name, ready.identity.version, arm, None)
        if len(sound) < len(index):
            self._fall(work, np.setdiff1d(index, sound, assume_unique=True), arm, "not_finite")

    def _able(self, work: _Work, arm: str, index: Rows) -> NDArray[np.bool_]:
        """Which of these rows have everything the arm's model takes."""
        return self._usable[arm].sound(self._given(work, arm, index))

    def _given(self, work: _Work, arm: str, index: Rows) -> Any:
        """What the arm's model takes of some rows."""
        whole = self._cut(arm, work.rows, work.given)
        return whole if len(index) == len(work.given) else self._usable[arm].some(whole, index)

    def _ask(self, work: _Work, arm: str, index: Rows, counted: str) -> NDArray[Any] | str:
        """The answer of an arm's model, or why there is none."""
        ready, given = self.arms[arm], self._given(work, arm, index)
        started = time.perf_counter_ns()
        try:
            if work.wait:
                job = self._worker(ready).ask(given, work.wait)
                assert job.answer is not None
                answer, cpu = job.answer, job.cpu_ns
            else:
                cpu = ready.cpu_ns()
                answer = ready.run(given)
                cpu = ready.cpu_ns() - cpu
        except Late as late:
            return str(late)
        except failures() as error:
            why = f"{type(error).__name__}: {error}"[:300]
            self._alerts.trouble("failed", arm=arm, version=ready.identity.version, why=why)
            return "failed"
        self._ledger.add(
            self._ledger.tally(ready.identity, counted), len(index), time.perf_counter_ns() - started, cpu
        )
        return answer

    def _put(self, work: _Work, index: Rows, answer: NDArray[Any]) -> Rows:
        """Write the answers that are numbers; the rows they are of."""
        sound: NDArray[np.bool_] = np.isfinite(answer).all(axis=1)
        work.values[:, index[sound]] = answer[sound].T
        return index[sound]

    def _worker(self, ready: Ready) -> Worker:
        found = self.workers.get(ready.identity.sha256)
        if found is None:
            found = self.workers[ready.identity.sha256] = Worker(ready, self._declared.queue)
        return found

    def _fell(self, work: _Work, index: Rows, arm: str, reason: str) -> None:
        """These rows fall back for a reason that another run may not meet."""
        if reason in _OF_TIME:
            self.record(work.first + int(index[0]), work.first + int(index[-1]) + 1, arm, reason)
        self._fall(work, index, arm, reason)

    def _fall(self, work: _Work, index: Rows, arm: str, reason: str) -> None:
        """Let others answer for these rows: for a canary the champion, then the declared fallbacks."""
        if len(index) == 0:
            return
        told, left = [], index
        if arm == CANARY and (found := self._instead(work, left, CHAMPION)) is not None:
            told.append((found[0], found[1].name, found[1].version))
            left = np.setdiff1d(left, found[0], assume_unique=True)
        told += self._fallbacks.answer(
            work.rows, left, work.values, lambda wanted: self._instead(work, wanted, PREVIOUS)
        )
        left = index
        for done, name, version in told:
            work.said.by(done, name, version, arm, reason)
            left = np.setdiff1d(left, done, assume_unique=True)
        work.said.by(left, "", "", arm, reason)
        count(self._ledger.fallback, reason, len(index) - len(left))
        count(self._ledger.unscored, reason, len(left))
        if reason != "null_features" or self._fallbacks:
            by = told[0][1] if told else "nothing"
            version = self.arms[arm].identity.version if arm in self.arms else ""
            self._alerts.trouble(reason, arm=arm, version=version, fallback=by)

    def _instead(self, work: _Work, index: Rows, arm: str) -> tuple[Rows, Identity] | None:
        """Let another version answer, within the deadline that every model has."""
        if arm not in self._usable:
            return None
        index = index[self._able(work, arm, index)]
        for one in work.recorded:
            if one.arm == f"{arm}/instead":
                again = (index + work.first >= one.row) & (index + work.first < one.end)
                index = index[~again]
        if len(index) == 0:
            return None
        answer = self._ask(work, arm, index, "fallback")
        if isinstance(answer, str):
            first, last = int(index[0]), int(index[-1])
            self.record(work.first + first, work.first + last + 1, f"{arm}/instead", answer)
            return None
        return self._put(work, index, answer), self.arms[arm].identity

    def _marked(self, rows: pa.RecordBatch, said: Said) -> pa.RecordBatch:
        columns = [pa.array(said.columns[name], pa.string()) for name, _ in self._marks]
        fields = [pa.field(column, pa.string()) for _, column in self._marks]
        return pa.RecordBatch.from_arrays(
            [*rows.columns, *columns], schema=pa.schema([*rows.schema, *fields], rows.schema.metadata)
        )

"""Scores and the labels that come later, joined by event id: what a model does, per window of its predictions."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import Block, as_rows
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.ports import Traced
from boucle.product.duration import seconds
from boucle.serve.alerts import Tell
from boucle.serve.monitor.figures import Figure, calibration, estimated, measured
from boucle.serve.monitor.past import Past
from boucle.serve.monitor.tally import Binary, Bins, Errors, Tally
from boucle.serve.monitor.usual import Usual
from boucle.serve.monitor.waiting import Waiting
from boucle.stream.origin import Inputs, made_of
from boucle.stream.rows import late_blocks, require
from boucle.stream.sequence import Ready, Sequencer, state_of

__all__ = ["Performance"]

_VERSION = 2
_NEVER: Nanos = 2**63 - 1
_LEAST_LABELS = 30
"""Of either class, before scores are taken for chances."""

_Key = tuple[Nanos, str, str]
"""Start of the window, version of the model, group."""


class _Counted(Struct, array_like=True):
    """What became of the rows; they add up (see `Performance.counts`)."""

    predictions: int = 0
    unscored: int = 0
    twice: int = 0
    labels: int = 0
    refused: int = 0
    same: int = 0
    corrected: int = 0
    matched: int = 0
    too_late: int = 0
    unlabelled: int = 0
    unknown: int = 0
    matched_late: int = 0
    """Of the matched: found among the predictions on disk."""


class Performance:
    """A row per figure, window, model version and group: measured, estimated before labels come, held to the usual.

    `predictions` and `labels` are streams; `id` names the event in both, or in each (`{payment: reference}`). A
    label may come up to `wait` after its prediction, and again, corrected; windows of `window` of *prediction*
    time are told whenever the watermark passes a multiple of `every` and their counts have changed, with the
    `revision`. With `absent: negative` a prediction that found no label within `wait` was negative (a payment
    nobody complained of). `version` and `group` name columns of the predictions.

    With `upto`, longer than `wait`, predictions are kept on disk beside the checkpoints once they have waited in
    memory: a label that comes within `upto` is joined to its prediction there (the newest one of its id), the window
    of that prediction is told anew, with the next `revision`, and stays `complete`. Memory: rows of `wait`, counts of
    the windows of `upto`, at most 65 536 rows on their way to disk.

    Output: at, window_start (ns), version, group, figure, value, error (standard error by sampling), low, high
    (what is usual; null while that is not known), unusual, estimated, complete (no label can come any more),
    rows, labelled, revision. Figures of `kind: binary` (label 0 or 1, score a chance): rows, unscored, base_rate,
    auc, precision, recall, f1, brier, calibration_error; of `regression`: rows, unscored, mae, rmse, bias.
    """

    def __init__(
        self,
        stream: str,
        *,
        predictions: str,
        labels: str,
        id: str | Mapping[str, str],  # noqa: A002 - the word of the product file
        score: str,
        label: str,
        window: str | float,
        wait: str | float,
        upto: str | float | None = None,
        every: str | float | None = None,
        kind: Literal["binary", "regression"] = "binary",
        threshold: float = 0.5,
        absent: Literal["unknown", "negative"] = "unknown",
        version: str = "",
        group: str = "",
        history: int = 30,
        sigmas: float = 4.0,
        effect: float = 0.02,
        time: str = "at",
        idle: str | float | None = None,
    ) -> None:
        if (
            predictions == labels
            or kind not in ("binary", "regression")
            or absent not in ("unknown", "negative")
        ):
            raise BoucleError(
                "B750",
                f"{stream}: predictions {predictions}, labels {labels}, kind {kind}, absent {absent}",
                fix="name two streams; kind is binary or regression; absent is unknown or negative",
            )
        if kind == "binary" and not 0 < threshold < 1:
            raise BoucleError("B750", f"{stream}: threshold {threshold}", fix="give one between 0 and 1")
        self._stream, self._names, self._time = stream, (predictions, labels), time
        self._ids = tuple(*id.items()) if isinstance(id, Mapping) else (id, id)
        self._score, self._label, self._version, self._group = score, label, version, group
        self._window, self._wait = _nanos(stream, "window", window), _nanos(stream, "wait", wait)
        self._upto = self._wait if upto is None else _nanos(stream, "upto", upto)
        if self._upto < self._wait:
            raise BoucleError("B750", f"{stream}: upto {upto}, wait {wait}", fix="upto is wait or longer")
        self._every = self._window if every is None else _nanos(stream, "every", every)
        self._binary, self._negative = kind == "binary", absent == "negative" and kind == "binary"
        self._bins = Bins(threshold if self._binary else 0.5)
        self._room = {"history": history, "sigmas": sigmas, "effect": effect}
        self._sequencer = Sequencer(self._names, time=time, idle=None if idle is None else seconds(idle))
        self._waiting = Waiting()
        self._past = Past()
        self._early: dict[Any, tuple[Nanos, float]] = {}
        """Labels whose prediction has not come: the order of both within an instant does not matter."""
        self._keys: dict[int, _Key] = {}
        self._next_place = 0
        self._place: dict[_Key, int] = {}
        self._tallies: dict[int, Tally] = {}
        self._unscored: dict[int, int] = {}
        self._revision: dict[int, int] = {}
        self._changed: set[int] = set()
        self._closed: dict[int, tuple[bytes, int, int]] = {}
        """Windows that are complete and that a label may still change: counts (packed), unscored, revision."""
        self._again: dict[int, Any] = {}
        """Of those, the ones that changed: their counts as they were settled."""
        self._settled: dict[str, Binary] = {}
        """Per version: all complete windows together, from which scores are calibrated."""
        self._usual: dict[tuple[str, str, str], Usual] = {}
        self._tick: Nanos = 0
        self._due: Nanos = _NEVER
        """The next tick at which a window is told."""
        self._told: Nanos = 0
        self._zone: str | None = "UTC"
        self._counted = _Counted()

    @classmethod
    def trace(
        cls, inputs: Inputs, *, predictions: str, labels: str, score: str, label: str, **declared: Any
    ) -> Traced:
        """Every figure from the score and the label; ids and times decide which meet."""
        del inputs
        one = declared["id"]
        ours, theirs = tuple(*one.items()) if isinstance(one, Mapping) else (one, one)
        time = declared.get("time", "at")
        made = (
            *made_of(predictions, [score], "AGGREGATION", "how well the model does"),
            *made_of(labels, [label], "AGGREGATION", "how well the model does"),
        )
        columns = dict.fromkeys(_SCHEMA.names, made)
        rows = (*made_of(predictions, [ours, time], "JOIN"), *made_of(labels, [theirs, time], "JOIN"))
        return Traced(columns, rows)

    @property
    def late_rows(self) -> int:
        """Rows that came after their turn."""
        return self._sequencer.late_rows

    @property
    def counts(self) -> dict[str, int]:
        """Predictions = unscored + twice + taken.

        Labels = refused + same + corrected + matched + too_late + unknown + early. `taken` rows are waiting, unlabelled
        (no label within `wait`, nor later) or labelled. `same` labels say again what was known, `early` ones wait for
        their prediction, `matched_late` are those of the matched that were found on disk, where `kept` rows lie.
        """
        return msgspec.structs.asdict(self._counted) | {
            "waiting": len(self._waiting),
            "early": len(self._early),
            "kept": len(self._past),
        }

    def attach(self, folder: Path, tell: Tell) -> None:
        """Keep predictions that may still get a label in `folder`. Before `restore`."""
        del tell
        if self._upto > self._wait:
            self._past.open(folder / "past")

    def live(self) -> None:
        """Nothing is followed outside of the streams."""

    def step(self, block: Block) -> Sequence[Block]:
        """Take a Block of either input; give the figures of the ticks its watermark passed."""
        wanted = self._wanted(block.stream)
        require(self._stream, [name for name in wanted if name], block.rows.schema)
        kind = block.rows.schema.field(self._time).type
        self._zone = kind.tz if pa.types.is_timestamp(kind) else self._zone
        ready = self._sequencer.take(block)
        given: list[dict[str, Any]] = []
        done = [0, 0]
        while (tick := self._next(ready.at, done)) <= ready.watermark:
            self._feed(ready, done, tick)
            if self._due <= tick:
                given += self._tell(tick)
        self._feed(ready, done, ready.watermark)
        out = late_blocks(self._stream, ready, block.position)
        if given or ready.watermark > self._told:
            self._told = max(self._told, ready.watermark)
            out.append(Block(self._stream, as_rows(given, self._schema()), self._told, block.position))
        return out

    def _next(self, at: Sequence[NDArray[np.int64]], done: Sequence[int]) -> Nanos:
        """The next tick at which something is due, or before which rows lie."""
        ahead = [
            _after(int(times[start]), self._every)
            for times, start in zip(at, done, strict=True)
            if start < len(times)
        ]
        return min([self._due, *ahead])

    def _feed(self, ready: Ready, done: list[int], upto: Nanos) -> None:
        """The rows before `upto`: predictions, then labels; which of them comes first within a tick does not matter."""
        for side, (rows, at) in enumerate(zip(ready.rows, ready.at, strict=True)):
            start, end = done[side], int(np.searchsorted(at, upto))
            if rows is not None and end > start:
                # What these rows change is told at the tick after them, however long nothing was told before.
                self._tick = max(self._tick, int(at[start]) // self._every * self._every)
                (self._predict, self._learn)[side](rows.slice(start, end - start), at[start:end])
                done[side] = end

    def _change(self, place: int) -> None:
        """A window whose counts are others than those last told: due at the next tick after its end."""
        if place not in self._changed:
            self._changed.add(place)
            self._due = min(self._due, self._when(place))

    def _when(self, place: int) -> Nanos:
        end = self._keys[place][0] + self._window
        told = _upto(end, self._every) if end > self._tick else _after(self._tick, self._every)
        return told if place in self._changed else _upto(end + self._wait, self._every)

    def _wanted(self, stream: str) -> tuple[str, ...]:
        if stream not in self._names:
            fix = f"this step reads {' and '.join(self._names)}"
            raise BoucleError("B221", f"{stream} is no input of {self._stream}", fix=fix)
        if stream == self._names[0]:
            return (self._ids[0], self._score, self._version, self._group, self._time)
        return (self._ids[1], self._label, self._time)

    def _schema(self) -> pa.Schema:
        when = pa.timestamp("ns", self._zone)
        return pa.schema(
            [(one.name, when if one.name in ("at", "window_start") else one.type) for one in _SCHEMA]
        )

    def _predict(self, rows: pa.RecordBatch, at: NDArray[np.int64]) -> None:
        scores = _numbers(rows, self._score)
        usable = np.isfinite(scores)
        if self._binary:
            usable &= (scores >= 0) & (scores <= 1)
        self._counted.predictions += len(at)
        places = self._places(rows, at)
        for place in places[~usable].tolist():
            self._unscored[place] = self._unscored.get(place, 0) + 1
            self._change(place)
        self._counted.unscored += int((~usable).sum())
        ids = np.array(rows.column(self._ids[0]).to_pylist(), object)[usable]
        at, scores, places = at[usable], scores[usable], places[usable]
        new = self._waiting.put(ids.tolist(), at, scores, places)
        self._counted.twice += int((~new).sum())
        ids, scores, places = ids[new], scores[new], places[new]
        for place in np.unique(places).tolist():
            self._tallies[place].score(self._bins.of(scores[places == place]))
            self._change(place)
        known = [one for one in ids.tolist() if one in self._early] if self._early else []
        if known:
            told = [self._early.pop(one) for one in known]
            self._match(
                self._waiting.find(known),
                np.array([when for when, _ in told]),
                np.array([label for _, label in told]),
            )

    def _places(self, rows: pa.RecordBatch, at: NDArray[np.int64]) -> NDArray[np.int64]:
        starts = at // self._window * self._window
        said = [
            [str(one) if one is not None else "" for one in rows.column(name).to_pylist()]
            if name
            else [""] * len(at)
            for name in (self._version, self._group)
        ]
        return np.array([self._at(key) for key in zip(starts.tolist(), *said, strict=True)], np.int64)

    def _at(self, key: _Key) -> int:
        place = self._place.get(key)
        if place is None:
            place = self._place[key] = self._next_place
            self._next_place += 1
            self._keys[place] = key
            self._tallies[place] = Binary.empty(self._bins.count) if self._binary else Errors()
            self._revision[place] = 0
            self._due = min(self._due, self._when(place))
        return place

    def _learn(self, rows: pa.RecordBatch, at: NDArray[np.int64]) -> None:
        labels = _numbers(rows, self._label)
        usable = np.isfinite(labels)
        if self._binary:
            usable &= (labels == 0) | (labels == 1)
        ids = np.array(rows.column(self._ids[1]).to_pylist(), object)
        usable &= np.array([one is not None for one in ids], bool)
        self._counted.labels += len(at)
        self._counted.refused += int((~usable).sum())
        ids, labels, at = ids[usable].tolist(), labels[usable], at[usable]
        where = self._waiting.find(ids)
        absent = where < 0
        if len(self._past) and absent.any():
            absent[absent] = ~self._late(
                [ids[index] for index in np.flatnonzero(absent)], at[absent], labels[absent]
            )
        for index in np.flatnonzero(absent).tolist():
            self._counted.same += ids[index] in self._early
            self._early[ids[index]] = (int(at[index]), float(labels[index]))
        here = np.flatnonzero(where >= 0)
        # A correction follows the label it corrects: one at a time where an id is there twice.
        apart = len(np.unique(where[here])) == len(here)
        for some in [here] if apart else here.reshape(-1, 1):
            self._match(where[some], at[some], labels[some])

    def _match(self, where: NDArray[np.int64], at: NDArray[np.int64], labels: NDArray[np.float64]) -> None:
        """Labels of the predictions at these places; one after `upto` is refused, whenever it is looked at."""
        rows = self._waiting.rows
        in_time = at <= rows["at"][where] + self._upto
        self._counted.too_late += int((~in_time).sum())
        where, labels = where[in_time], labels[in_time]
        before, scores, places = rows["label"][where], rows["score"][where], rows["tally"][where]
        first, same = np.isnan(before), before == labels
        self._counted.matched += int(first.sum())
        self._counted.same += int(same.sum())
        self._counted.corrected += int((~first & ~same).sum())
        self._count(places, scores, before, ~first & ~same, -1)
        self._count(places, scores, labels, ~same, 1)
        rows["label"][where] = labels

    def _late(
        self, ids: Sequence[Any], at: NDArray[np.int64], labels: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Labels of predictions that have waited in vain; says which were found, in time or not."""
        keys = self._past.keys(ids)
        found = np.zeros(len(keys), bool)
        # A correction follows the label it corrects: one round for each time an id is there.
        for some in _rounds(keys):
            known, rows = self._past.find(keys[some])
            found[some] = known
            self._match_late(keys[some][known], rows[:, known], at[some][known], labels[some][known])
        return found

    def _match_late(self, keys: Any, rows: Any, at: NDArray[np.int64], labels: NDArray[np.float64]) -> None:
        predicted, scores, places, before = self._past.columns(rows)
        in_time = at <= predicted + self._upto
        self._counted.too_late += int((~in_time).sum())
        keys, predicted, scores, places = keys[in_time], predicted[in_time], scores[in_time], places[in_time]
        labels, before = labels[in_time], before[in_time]
        first, same = np.isnan(before), before == labels
        self._counted.matched += int(first.sum())
        self._counted.matched_late += int(first.sum())
        self._counted.unlabelled -= int(first.sum())
        self._counted.same += int(same.sum())
        self._counted.corrected += int((~first & ~same).sum())
        assumed = np.where(first & self._negative, 0.0, before)
        moved = assumed != labels
        for place in np.unique(places[moved]).tolist():
            self._reopen(place)
        self._count(places, scores, assumed, moved & ~np.isnan(assumed), -1)
        self._count(places, scores, labels, moved, 1)
        self._past.put(keys[~same], predicted[~same], scores[~same], places[~same], labels[~same])

    def _reopen(self, place: int) -> None:
        """The counts of a window that was complete, to be changed and told anew."""
        packed = self._closed.pop(place, None)
        if packed is not None:
            told, self._unscored[place], self._revision[place] = packed
            saved = msgspec.msgpack.decode(zlib.decompress(told))
            self._tallies[place] = Binary.load(saved) if self._binary else Errors.load(saved)
            self._again[place] = saved

    def _count(
        self, places: Any, scores: Any, labels: NDArray[np.float64], which: NDArray[np.bool_], sign: int
    ) -> None:
        places, scores, labels = places[which], scores[which], labels[which]
        bins = self._bins.of(scores) if self._binary else places
        for place in np.unique(places).tolist():
            own = places == place
            self._tallies[place].label(bins[own], scores[own], labels[own], sign)
            self._change(place)

    def _tell(self, tick: Nanos) -> list[dict[str, Any]]:
        """The figures of the windows that have changed, or that no label can change any more."""
        self._tick = tick
        self._forget(tick)
        given: list[dict[str, Any]] = []
        for place in sorted(self._tallies, key=lambda one: self._keys[one]):
            start = self._keys[place][0]
            if start + self._window > tick:
                continue  # it is still being filled
            complete = start + self._window + self._wait <= tick
            if place in self._changed or (complete and place not in self._again):
                self._changed.discard(place)
                self._revision[place] += 1
                given += self._figures(tick, place, complete=complete)
            if complete:
                self._close(place)
        self._due = min((self._when(place) for place in self._tallies), default=_NEVER)
        return given

    def _forget(self, tick: Nanos) -> None:
        gone, ids = self._waiting.forget(tick - self._wait)
        unknown = np.isnan(gone["label"])
        if self._negative:
            self._count(gone["tally"], gone["score"], np.zeros(len(gone)), unknown, 1)
        self._counted.unlabelled += int(unknown.sum())
        if self._upto > self._wait:
            self._keep(gone, ids, tick)
        early = [one for one, (at, _) in self._early.items() if at < tick - self._wait]
        for one in early:
            del self._early[one]
        self._counted.unknown += len(early)

    def _keep(self, gone: Any, ids: list[Any], tick: Nanos) -> None:
        """On disk what a label may still be about, and no longer what none can be about any more."""
        named = np.array([one is not None for one in ids], bool)
        if named.any():
            kept = (np.ascontiguousarray(gone[name][named]) for name in ("at", "score", "tally", "label"))
            self._past.put(self._past.keys([one for one in ids if one is not None]), *kept)
        self._past.forget(tick - self._upto)
        for place in [one for one in self._closed if self._keys[one][0] + self._window + self._upto <= tick]:
            del self._closed[place], self._keys[place]

    def _figures(self, tick: Nanos, place: int, *, complete: bool) -> list[dict[str, Any]]:
        start, version, group = self._keys[place]
        tally = self._tallies[place]
        settled = self._settled.get(version)
        rates = None if settled is None else calibration(settled, _LEAST_LABELS)
        sure = measured(tally, self._bins)
        expected = {} if complete else estimated(tally, self._bins, rates)
        unscored = self._unscored.get(place, 0)
        counts = {"rows": Figure(float(tally.rows)), "unscored": Figure(float(unscored))}
        rows = []
        for figures, guessed in ((counts, False), (sure, False), (expected, True)):
            for name, figure in figures.items():
                usual = self._usual_of(version, group, name)
                # Windows whose labels are still coming are no fair sample: what comes first differs from the rest.
                held = complete or guessed or figures is counts
                limits = usual.limits(figure) if held and name != "rows" else None
                rows.append(
                    {
                        "at": tick,
                        "window_start": start,
                        "version": version,
                        "group": group,
                        "figure": name,
                        "value": _or_null(figure.value),
                        "error": _or_null(figure.error),
                        "low": None if limits is None else limits.low,
                        "high": None if limits is None else limits.high,
                        "unusual": limits is not None and limits.broken(figure.value),
                        "estimated": guessed,
                        "complete": complete,
                        "rows": tally.rows,
                        "labelled": tally.known,
                        "revision": self._revision[place],
                    }
                )
                if complete and place not in self._again:
                    usual.learn(figure)
        return rows

    def _usual_of(self, version: str, group: str, figure: str) -> Usual:
        key = (version, group, figure)
        if key not in self._usual:
            self._usual[key] = Usual(**self._room)  # type: ignore[arg-type]
        return self._usual[key]

    def _close(self, place: int) -> None:
        """A window that is complete: its counts settle, in the place of what they were before."""
        tally = self._tallies.pop(place)
        key, unscored, revision = self._keys[place], self._unscored.pop(place, 0), self._revision.pop(place)
        self._place.pop(key, None)
        saved, before = tally.save(), self._again.pop(place, None)
        if isinstance(tally, Binary):
            settled = self._settled.setdefault(key[1], Binary.empty(self._bins.count))
            settled.add(tally)
            if before is not None:
                settled.add(Binary.load(before), -1)
        if self._upto > self._wait:
            self._closed[place] = (zlib.compress(msgspec.msgpack.encode(saved)), unscored, revision)
        else:
            del self._keys[place]

    def snapshot(self) -> bytes:
        """Rows whose turn has not come, predictions that wait, counts of open windows, what is usual."""
        own = (
            self._waiting.save(),
            list(self._early.items()),
            [(place, self._keys[place], one.save(), self._unscored.get(place, 0), self._revision[place],
              place in self._changed) for place, one in self._tallies.items()],
            [(name, one.save()) for name, one in self._settled.items()],
            [(key, one.save()) for key, one in self._usual.items()],
            self._tick,
            self._zone,
            self._counted,
            self._past.save(),
            [(place, self._keys[place], *one) for place, one in self._closed.items()],
            list(self._again.items()),
        )  # fmt: skip
        told = (
            _VERSION,
            self._told,
            self._sequencer.snapshot(),
            self._next_place,
            msgspec.msgpack.encode(own),
        )
        return msgspec.msgpack.encode(told)

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when another version of it wrote it."""
        kind = tuple[int, int, bytes, int, bytes]
        _, self._told, sequencer, self._next_place, own = state_of(kind, state, _VERSION, self._stream)
        self._sequencer.restore(sequencer)
        waiting, early, open_, settled, usual, self._tick, self._zone, counted, past, closed, again = (
            msgspec.msgpack.decode(own)
        )
        self._waiting.load(waiting)
        self._past.load(past)
        self._closed = {place: (told, unscored, revision) for place, _, told, unscored, revision in closed}
        self._again = dict(again)
        self._early = {one: (at, label) for one, (at, label) in early}
        self._keys = {place: tuple(key) for place, key, *_ in closed}
        for place, key, saved, unscored, revision, changed in open_:
            self._keys[place] = tuple(key)
            self._place[tuple(key)] = place
            self._tallies[place] = Binary.load(saved) if self._binary else Errors.load(saved)
            self._revision[place] = revision
            if unscored:
                self._unscored[place] = unscored
            if changed:
                self._changed.add(place)
        self._due = min((self._when(place) for place in self._tallies), default=_NEVER)
        self._settled = {name: Binary.load(saved) for name, saved in settled}
        for key, saved in usual:
            self._usual_of(*key).load(saved)
        self._counted = _Counted(*counted)


_SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("ns", "UTC")),
        ("window_start", pa.timestamp("ns", "UTC")),
        ("version", pa.string()),
        ("group", pa.string()),
        ("figure", pa.string()),
        ("value", pa.float64()),
        ("error", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("unusual", pa.bool_()),
        ("estimated", pa.bool_()),
        ("complete", pa.bool_()),
        ("rows", pa.int64()),
        ("labelled", pa.int64()),
        ("revision", pa.int64()),
    ]
)


def _nanos(stream: str, name: str, told: str | float) -> Nanos:
    length = round(seconds(told) * SECOND)
    if length <= 0:
        raise BoucleError("B750", f"{stream}: {name} {told}", fix="give a duration above zero")
    return length


def _upto(at: Nanos, every: Nanos) -> Nanos:
    """The first multiple that is not before `at`."""
    return -(-at // every) * every


def _after(at: Nanos, every: Nanos) -> Nanos:
    """The first multiple after `at`."""
    return (at // every + 1) * every


def _rounds(keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Indices in their order such that no key is twice in a round, and earlier ones come in earlier rounds."""
    order = np.argsort(keys, kind="stable")
    begins = np.flatnonzero(np.concatenate([[True], np.diff(keys[order]) != 0]))
    nth = np.empty(len(keys), np.int64)
    nth[order] = np.arange(len(keys)) - np.repeat(begins, np.diff([*begins, len(keys)]))
    for turn in range(int(nth.max()) + 1):
        yield np.flatnonzero(nth == turn)


def _numbers(rows: pa.RecordBatch, name: str) -> NDArray[np.float64]:
    """A column as numbers; NaN where it is null."""
    column = rows.column(name)
    found: NDArray[np.float64] = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy(
        zero_copy_only=False
    )
    return found


def _or_null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

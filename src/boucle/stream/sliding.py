"""Features per key over sliding windows of event time, told for every event the moment it comes.

    use: boucle.stream.sliding:Sliding
    from: [payments]
    with:
      features:
        card_count_10m:   {of: count,          by: card,     over: 10min}
        card_sum_24h:     {of: sum(amount),    by: card,     over: 24h}
        terminal_risk_7d: {of: mean(is_fraud), by: terminal, over: 7d, delay: 7d}

A window is (t - delay - over, t - delay]: with no delay the event itself counts.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.memory import Page, Under, below
from boucle.ports import Traced
from boucle.product.duration import seconds
from boucle.stream import tracks
from boucle.stream.answers import Answers
from boucle.stream.appended import Extended
from boucle.stream.keys import KeyIndex
from boucle.stream.origin import Inputs, carried, of_feature, one_of
from boucle.stream.rows import late_blocks, require_of
from boucle.stream.sequence import Order, Sequencer, state_of
from boucle.stream.texts import TextIndex
from boucle.stream.tracks import Span, Tell, Track

__all__ = ["Sliding"]

_VERSION = 2
_LOOK_EVERY = 16
"""Blocks between two looks whether names of keys can be forgotten."""
_T = TypeVar("_T")
_OF = re.compile(r"\s*(?P<kind>[a-z_]+)\s*(\(\s*(?P<column>\w+)\s*(,\s*(?P<number>[0-9.]+[a-z]*)\s*)?\))?\s*")
_FIELD = {
    "count": tracks.COUNT,
    "sum": tracks.SUM,
    "mean": tracks.MEAN,
    "std": tracks.STD,
    "zscore": tracks.ZSCORE,
    "min": tracks.LOW,
    "max": tracks.HIGH,
    "distinct": tracks.DISTINCT,
    "quantile": tracks.QUANTILE,
    "previous": tracks.PREVIOUS,
    "age": tracks.AGE,
    "ewma": tracks.EWMA,
}
_WHOLE = {"count", "distinct"}


class Feature(Struct, frozen=True):
    """One output column, as declared."""

    name: str
    kind: str
    column: str
    by: tuple[str, ...]
    span: Span
    number: float = 0.0
    """The quantile, or the half-life of `ewma` in ns."""


class _Group:
    """The features that share a key, a value and a memory."""

    def __init__(self, features: Sequence[tuple[int, Feature]], lock: threading.Lock) -> None:
        first = features[0][1]
        self.column = first.column
        self.index, self.texts = KeyIndex(first.by), TextIndex(lock)
        tells = [Tell(_FIELD[f.kind], f.span, place, f.number) for place, f in features]
        half_life = next((int(f.number) for _, f in features if f.kind == "ewma"), 0)
        self.places = [place for place, _ in features]
        self.track = Track(tells, half_life, lock)
        self._numbered = 1024

    def forget(self) -> None:
        for index in (self.index, self.texts):
            if len(index) > self._numbered:
                index.forget(lambda keys: self.track.newest(keys) > -(2**61))
                self._numbered = max(1024, 2 * len(index))

    def number(self, said: Sequence[str]) -> int | None:
        """The number of the key that reads like this."""
        return self.texts.find(said[0]) if len(self.texts) else self.index.find(said)

    def snapshot(self) -> dict[str, bytes]:
        return _merged(self.track.snapshot(), self.texts.snapshot())

    def parts(self, *, everything: bool) -> dict[str, bytes | Page]:
        return _merged(self.track.parts(everything=everything), self.texts.parts(everything=everything))

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        self.track.restore_parts(Under(parts, "track/"))
        self.texts.restore_parts(Under(parts, "texts/"))


def _merged(track: Mapping[str, _T], texts: Mapping[str, _T]) -> dict[str, _T]:
    return below("track", track) | below("texts", texts)


class Sliding:
    """Appends features over sliding windows to every row.

    `of`: count, count(x), sum(x), mean(x), std(x), min(x), max(x), distinct(x), quantile(x, 0.95),
    zscore(x), previous(x), age(x) (seconds since the value before), ewma(x, 30min) (weight halves every 30 min).
    min, max, distinct and quantile look at every event of the window; the others cost the same however long
    it is. A null or non-finite value is told of but not counted, a row without a key gets nulls; mean of
    nothing is null, the sum of nothing 0. A key is forgotten once the
    watermark has passed its last event by its longest window.

    `order: arrival` answers a row at once and trusts that each key's rows come in order; one that does not goes
    to `<step>/late`. `order: time` waits for the watermark.
    """

    def __init__(
        self,
        stream: str,
        *,
        features: Mapping[str, Mapping[str, Any]],
        time: str = "at",
        order: Order = "time",
    ) -> None:
        self._stream, self._time = stream, time
        self.features = tuple(_feature(name, dict(told)) for name, told in features.items())
        if not self.features:
            raise BoucleError(
                "B221", f"{stream}: no features", fix="features: {n: {of: count, by: card, over: 10min}}"
            )
        grouped: dict[Any, list[tuple[int, Feature]]] = {}
        for place, feature in enumerate(self.features):
            half_life = feature.number if feature.kind == "ewma" else 0.0
            grouped.setdefault((feature.by, feature.column, half_life), []).append((place, feature))
        self._lock = threading.Lock()
        """Held while the state changes: a checkpoint's pages are read by another thread."""
        self._groups = [_Group(members, self._lock) for members in grouped.values()]
        Extended.prepare()
        TextIndex.prepare()
        self._order: Order = order
        self._input = ""
        self._sequencer: Sequencer | None = None
        self._schema: pa.Schema | None = None
        self._answers: Answers | None = None
        self._seen = 0
        self._watermark: Nanos = 0
        self._newest: Nanos = -(2**62)
        self.late_rows = 0

    @classmethod
    def trace(
        cls, inputs: Inputs, *, features: Mapping[str, Mapping[str, Any]], time: str = "at", **declared: Any
    ) -> Traced:
        """Columns as they are, and each feature from its value, its keys and the time."""
        del declared
        read = {name: _feature(name, dict(told)) for name, told in features.items()}
        made = {
            name: of_feature(one_of(inputs), time, features[name], one.column, one.by)
            for name, one in read.items()
        }
        return Traced(carried(inputs) | made)

    def step(self, block: Block) -> Sequence[Block]:
        """The rows whose turn it is, with the features appended; late rows apart."""
        self._input = self._input or block.stream
        out: list[Block] = []
        rows: pa.RecordBatch | None = block.rows
        if self._order == "time":
            if self._sequencer is None:
                self._sequencer = Sequencer([block.stream], time=self._time)
            ready = self._sequencer.take(block)
            self.late_rows += sum(late.num_rows for late in ready.late)
            out = late_blocks(self._stream, ready, block.position)
            rows, self._watermark = ready.rows[0], ready.watermark
        else:
            self._watermark = max(self._watermark, block.watermark)
        if rows is None or rows.num_rows == 0:
            return out
        # Rows that waited may be of an earlier schema than the Block that released them.
        answers = self._for(rows.schema)
        with self._lock:
            answers.take(rows)
            if self._order == "arrival":
                rows, late_ones = self._in_order(answers, rows)
                if late_ones is not None:
                    out.append(Block(f"{self._stream}/late", late_ones, self._watermark, block.position))
            if rows.num_rows:
                told = answers.give(rows, self._watermark)
                out.append(Block(self._stream, told, self._watermark, block.position))
        self._seen += 1
        if self._seen % _LOOK_EVERY == 0:
            for group in self._groups:
                group.forget()
        return out

    def _for(self, schema: pa.Schema) -> Answers:
        if self._answers is not None and self._schema is not None and self._schema.equals(schema):
            return self._answers
        self._require(schema)
        added = [pa.field(f.name, pa.int64() if f.kind in _WHOLE else pa.float64()) for f in self.features]
        self._schema, self._answers = schema, Answers(schema, self._time, self._groups, added)
        return self._answers

    def _require(self, schema: pa.Schema) -> None:
        needed = {
            self._time,
            *(name for f in self.features for name in (*f.by, *([f.column] if f.column else []))),
        }
        require_of(self._stream, self._input, needed, schema)

    def _in_order(
        self, answers: Answers, rows: pa.RecordBatch
    ) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
        """Rows that keep the promise of their key's order (taken), and those that do not."""
        calm = answers.rows.rises and answers.rows.first >= self._newest
        self._newest = max(self._newest, answers.rows.largest)
        if calm:
            return rows, None
        at = answers.at
        behind = np.zeros(len(at), np.int64)
        for place, group in enumerate(self._groups):
            keys, there = answers.keys(place)
            newest: dict[int, int] = {}
            known = group.track.newest(keys)
            for row, key in enumerate(keys.tolist()):
                if not there[row]:
                    continue
                before = max(newest.get(key, -(2**62)), int(known[row]))
                behind[row] = max(behind[row], before - int(at[row]))
                newest[key] = max(before, int(at[row]))
        late = behind > 0
        if not late.any():
            return rows, None
        self.late_rows += int(late.sum())
        told = rows.append_column("late_by_ns", pa.array(behind, pa.int64())).filter(pa.array(late))
        rows = rows.filter(pa.array(~late))
        answers.take(rows)
        return rows, told

    @property
    def keys(self) -> int:
        """Keys something is remembered of, over all groups."""
        return sum(group.track.keys for group in self._groups)

    def describe(self, key: Mapping[str, str] | None = None) -> dict[str, Any]:
        """How many keys are known and how many rows wait; of a key when its last event was, per value looked at."""
        waiting = self._sequencer.waiting if self._sequencer is not None else 0
        told: dict[str, Any] = {"keys": self.keys, "waiting_rows": waiting}
        if key is None:
            return told
        found = []
        for group in self._groups:
            by = group.index.columns
            number = group.number([key[name] for name in by]) if set(by) <= set(key) else None
            newest = -(2**62) if number is None else int(group.track.newest(np.array([number]))[0])
            if newest > -(2**61):
                found.append({**{name: key[name] for name in by}, "of": group.column, "newest": newest})
        return {**told, "remembered": found}

    def snapshot(self) -> bytes:
        """Everything remembered, bit for bit."""
        groups = [group.snapshot() for group in self._groups]
        return msgspec.msgpack.encode((_VERSION, self._rest(), groups))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when another version of this step took it."""
        kind = tuple[int, bytes, list[dict[str, bytes]]]
        _, rest, groups = state_of(kind, state, _VERSION, self._stream)
        self._go_on(rest)
        for group, held in zip(self._groups, groups, strict=True):
            group.restore_parts(held)

    def parts(self, *, everything: bool) -> dict[str, bytes | Page]:
        """The state by part: what changed since the last call, or everything; pages are copied when they are read."""
        found: dict[str, bytes | Page] = {"rest": self._rest()}
        with self._lock:
            for place, group in enumerate(self._groups):
                found |= below(str(place), group.parts(everything=everything))
        return found

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Continue from parts; B602 when another version of this step took them."""
        self._go_on(parts["rest"])
        for place, group in enumerate(self._groups):
            group.restore_parts(Under(parts, f"{place}/"))

    def _rest(self) -> bytes:
        waiting = self._sequencer.snapshot() if self._sequencer is not None else b""
        indexes = [group.index.snapshot() for group in self._groups]
        state = (_VERSION, self._input, waiting, self._newest, self._watermark, self.late_rows, indexes)
        return msgspec.msgpack.encode(state)

    def _go_on(self, state: bytes) -> None:
        kind = tuple[int, str, bytes, int, int, int, list[Any]]
        _, self._input, waiting, self._newest, self._watermark, self.late_rows, indexes = state_of(
            kind, state, _VERSION, self._stream
        )
        if waiting:
            self._sequencer = Sequencer([self._input], time=self._time)
            self._sequencer.restore(waiting)
        for group, index in zip(self._groups, indexes, strict=True):
            group.index.restore(index)


def _feature(name: str, told: dict[str, Any]) -> Feature:
    where = f"feature {name}"
    unknown = sorted(set(told) - {"of", "by", "over", "delay"})
    if unknown or not {"of", "by", "over"} <= set(told):
        why = f"{', '.join(unknown)} is unknown" if unknown else "of, by and over are needed"
        raise BoucleError(
            "B221", f"{where} is not understood", why=why, fix="{of: sum(amount), by: card, over: 10min}"
        )
    match = _OF.fullmatch(str(told["of"]))
    kind = match["kind"] if match else ""
    if match is None or kind not in _FIELD or (kind != "count" and not match["column"]):
        fix = f"of: one of {', '.join(_FIELD)}, with its column: sum(amount)"
        raise BoucleError("B221", f"{where}: {told['of']!r} is not understood", fix=fix)
    number = match["number"]
    if (kind in {"quantile", "ewma"}) != (number is not None):
        raise BoucleError(
            "B221", f"{where}: {told['of']!r}", fix="quantile(x, 0.95) or ewma(x, 30min); others take none"
        )
    value = 0.0
    if kind == "quantile":
        value = float(number)
        if not 0 <= value <= 1:
            raise BoucleError(
                "B221", f"{where}: there is no quantile {value:g}", fix="give one between 0 and 1"
            )
    elif kind == "ewma":
        value = float(round(seconds(number) * SECOND))
    by = [told["by"]] if isinstance(told["by"], str) else list(told["by"])
    span = Span(round(seconds(told["over"]) * SECOND), round(seconds(told.get("delay", 0)) * SECOND))
    if span.size <= 0 or span.delay < 0:
        raise BoucleError("B221", f"{where}: a window over {told['over']}", fix="over must be longer than 0")
    if span.delay and kind in {"ewma", "previous", "age"}:
        what = f"{where}: {kind} looks at the newest events, which a delay would hide"
        raise BoucleError("B221", what, fix="leave out the delay, or use mean with it")
    return Feature(name, kind, match["column"] or "", tuple(by), span, value)

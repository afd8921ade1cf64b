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
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import Block
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.product.duration import seconds
from boucle.stream import tracks
from boucle.stream.keys import KeyIndex
from boucle.stream.rows import late_blocks, require_of
from boucle.stream.sequence import Order, Sequencer, state_of
from boucle.stream.tracks import Span, Tell, Track

__all__ = ["Sliding"]

_VERSION = 1
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

    def __init__(self, features: Sequence[tuple[int, Feature]]) -> None:
        first = features[0][1]
        self.column = first.column
        self.index = KeyIndex(first.by)
        tells = [Tell(_FIELD[f.kind], f.span, place, f.number) for place, f in features]
        half_life = next((int(f.number) for _, f in features if f.kind == "ewma"), 0)
        self.places = [place for place, _ in features]
        self.track = Track(tells, half_life)
        self._numbered = 1024

    def values(self, rows: pa.RecordBatch) -> NDArray[np.float64]:
        """The value column, NaN where there is none."""
        if not self.column:
            return np.zeros(rows.num_rows)
        column = rows.column(self.column)
        if pa.types.is_decimal(column.type) or pa.types.is_boolean(column.type):
            column = column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column.cast(pa.int8())
        values: NDArray[np.float64] = column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
        return values

    def forget(self) -> None:
        if len(self.index) > self._numbered:
            self.index.forget(lambda keys: self.track.newest(keys) > -(2**61))
            self._numbered = max(1024, 2 * len(self.index))


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
        self._groups = [_Group(members) for members in grouped.values()]
        self._order: Order = order
        self._input = ""
        self._sequencer: Sequencer | None = None
        self._schema: tuple[pa.Schema, list[pa.Field], pa.Schema] | None = None
        self._newest: Nanos = -(2**62)
        self.late_rows = 0

    def step(self, block: Block) -> Sequence[Block]:
        """The rows whose turn it is, with the features appended; late rows apart."""
        if self._sequencer is None:
            self._input = block.stream
            self._sequencer = Sequencer([block.stream], time=self._time, order=self._order)
        self._check(block.rows.schema)
        ready = self._sequencer.take(block)
        self.late_rows += sum(rows.num_rows for rows in ready.late)
        out = late_blocks(self._stream, ready, block.position)
        rows, at = ready.rows[0], ready.at[0]
        if rows is not None and rows.num_rows:
            if self._order == "arrival":
                rows, at, late = self._in_order(rows, at)
                if late is not None:
                    out.append(Block(f"{self._stream}/late", late, ready.watermark, block.position))
            if rows.num_rows:
                out.append(
                    Block(
                        self._stream, self._told(rows, at, ready.watermark), ready.watermark, block.position
                    )
                )
        return out

    def _check(self, schema: pa.Schema) -> None:
        if self._schema is not None and self._schema[0] is schema:
            return
        needed = {
            self._time,
            *(name for f in self.features for name in (*f.by, *([f.column] if f.column else []))),
        }
        require_of(self._stream, self._input, needed, schema)
        added = [pa.field(f.name, pa.int64() if f.kind in _WHOLE else pa.float64()) for f in self.features]
        self._schema = (schema, added, pa.schema([*schema, *added], schema.metadata))

    def _told(self, rows: pa.RecordBatch, at: NDArray[np.int64], watermark: Nanos) -> pa.RecordBatch:
        assert self._schema is not None
        out = np.empty((len(self.features), rows.num_rows))
        missing: list[NDArray[np.bool_] | None] = [None] * len(self.features)
        for group in self._groups:
            keys, there = group.index.of(rows)
            values = group.values(rows)
            if there is None:
                holes = group.track.fold(keys, at, values, out, watermark)
            else:
                part = np.empty((len(out), int(there.sum())))
                holes = group.track.fold(keys[there], at[there], values[there], part, watermark)
                for place in group.places:
                    out[place, there] = part[place]
                    missing[place] = ~there
            if holes:
                for place in group.places:
                    if self.features[place].kind not in _WHOLE:
                        nowhere = np.isnan(out[place])
                        missing[place] = nowhere if there is None else nowhere | ~there
            group.forget()
        buffer, size = pa.py_buffer(out), rows.num_rows
        columns = list(rows.columns)
        for place, field in enumerate(self._schema[1]):
            absent = missing[place]
            bits = None
            if absent is not None and absent.any():
                bits = pa.py_buffer(np.packbits(~absent, bitorder="little"))
            # Straight from the buffer: pa.array spends ten times as long on finding out what it was given.
            told = buffer.slice(place * size * 8, size * 8)
            columns.append(pa.Array.from_buffers(field.type, size, [bits, told]))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema[2])

    def _in_order(
        self, rows: pa.RecordBatch, at: NDArray[np.int64]
    ) -> tuple[pa.RecordBatch, NDArray[np.int64], pa.RecordBatch | None]:
        """Rows that keep the promise of their key's order, and those that do not."""
        sorted_ = bool((at[1:] >= at[:-1]).all())
        first, last = int(at[0]), int(at.max() if not sorted_ else at[-1])
        calm = sorted_ and first >= self._newest
        self._newest = max(self._newest, last)
        if calm:
            return rows, at, None
        behind = np.zeros(len(at), np.int64)
        for group in self._groups:
            keys, there = group.index.of(rows)
            newest: dict[int, int] = {}
            known = group.track.newest(keys)
            for row, key in enumerate(keys.tolist()):
                if there is not None and not there[row]:
                    continue
                before = max(newest.get(key, -(2**62)), int(known[row]))
                behind[row] = max(behind[row], before - int(at[row]))
                newest[key] = max(before, int(at[row]))
        late = behind > 0
        if not late.any():
            return rows, at, None
        self.late_rows += int(late.sum())
        told = rows.append_column("late_by_ns", pa.array(behind, pa.int64())).filter(pa.array(late))
        return rows.filter(pa.array(~late)), at[~late], told

    @property
    def keys(self) -> int:
        """Keys something is remembered of, over all groups."""
        return sum(group.track.keys for group in self._groups)

    def snapshot(self) -> bytes:
        """Everything remembered, bit for bit."""
        groups = [(group.track.snapshot(), group.index.snapshot()) for group in self._groups]
        waiting = self._sequencer.snapshot() if self._sequencer is not None else b""
        return msgspec.msgpack.encode((_VERSION, self._input, waiting, self._newest, self.late_rows, groups))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when another version of this step took it."""
        kind = tuple[int, str, bytes, int, int, list[tuple[bytes, Any]]]
        _, self._input, waiting, self._newest, self.late_rows, groups = state_of(
            kind, state, _VERSION, self._stream
        )
        if waiting:
            self._sequencer = Sequencer([self._input], time=self._time, order=self._order)
            self._sequencer.restore(waiting)
        for group, (track, index) in zip(self._groups, groups, strict=True):
            group.track.restore(track)
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
    return Feature(name, kind, match["column"] or "", tuple(by), span, value)

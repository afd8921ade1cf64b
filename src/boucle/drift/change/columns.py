"""Data drift: windows of many columns held against how the same key was at first, or a model's training data."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow as pa
from msgspec import Struct, structs

from boucle.block import Block
from boucle.drift.change.compare import Found, compare, discoveries, missing
from boucle.drift.change.reading import nanos, need, other_state
from boucle.drift.change.sentences import say_data
from boucle.drift.change.trained import Trained
from boucle.errors import BoucleError
from boucle.features.sketch import Reference, Tally, add, is_number, learn, tally
from boucle.ports import From, Traced
from boucle.stream.origin import Inputs, made_of, one_of
from boucle.stream.sequence import state_of

__all__ = ["DataDrift"]

_VERSION = 1
_TIME = pa.timestamp("ns", tz="UTC")
_NEVER = -(2**63)
_PARTS = 64
"""Blocks learned from before they are joined: one of a single row is mostly its schema."""

_VERDICT = [
    pa.field("at", _TIME, nullable=False),
    pa.field("column", pa.string(), nullable=False),
    pa.field("kind", pa.string(), nullable=False),
    pa.field("effect", pa.float64(), nullable=False),
    pa.field("p", pa.float64(), nullable=False),
    pa.field("q", pa.float64(), nullable=False),
    pa.field("drifted", pa.bool_(), nullable=False),
    pa.field("since", _TIME),
    pa.field("shift", pa.float64()),
    pa.field("psi", pa.float64()),
    pa.field("wasserstein", pa.float64()),
    pa.field("rows", pa.int64(), nullable=False),
    pa.field("says_en", pa.string(), nullable=False),
    pa.field("says_fr", pa.string(), nullable=False),
]
"""One row a window, column and kind (`compare`): `at` is the window's last row, `since` the first row of the first
window in which it was seen to drift; `shift` in the column's unit, `wasserstein` in reference deviations."""


class _Since(Struct):
    """How long one kind of one column has been off."""

    held: int = 0
    began: int = 0


class _Key(Struct):
    """One key: first the rows it learns from, as Arrow bytes; then a reference and the open window a column."""

    learning: list[bytes]
    learned: int
    references: list[Reference]
    window: list[Tally]
    rows: int
    began: int
    ended: int
    since: dict[str, _Since]
    of: str = ""
    """The version of a model whose training data the references are; they are not kept with the key then."""


class DataDrift:
    """Windows of `window` rows of each key against its first `reference` rows, column by column.

    A column has drifted when its q-value (all columns of the window together) is at most `rate`, its effect is at
    least `least`, and that held for `hold` windows in a row: with enough rows every difference is significant, so the
    effect says whether it matters. `test` for numbers is ks or psi, `effect` ks, psi or wasserstein; words and flags
    are compared by chi2, every column by its missing values too. `control` is by (whatever the dependence between
    columns) or bh.

    `reference: models:NAME@champion` holds the inputs of a model against its training data instead, from the first
    row on: every key against the same. Who is champion is looked up when a window begins; with `version`, a column
    that says which version scored a row (the marks of Score), each row is held against the training data of that
    version, whatever the roles are by now; rows without a version are passed over. The output then tells `model`.
    What the model takes as float32 is compared as float32.

    Memory: the reference rows while learning, then counts in at most 64 bins a column and key; no more than `keys`
    keys, of which the one unheard of for longest is forgotten and learns anew. Raises B761 for settings that cannot
    work, B760 for a column that is neither numbers, words nor flags, B762 for one that is not there, B754 for a model
    without a record of its training data.
    """

    def __init__(
        self,
        stream: str,
        *,
        columns: Sequence[str],
        by: Sequence[str] = (),
        time: str = "at",
        reference: int | str = 2000,
        window: int = 500,
        rate: float = 0.01,
        least: float = 0.1,
        least_missing: float = 0.05,
        hold: int = 1,
        test: Literal["ks", "psi"] = "ks",
        effect: Literal["ks", "psi", "wasserstein"] = "ks",
        control: Literal["by", "bh"] = "by",
        keys: int = 10_000,
        version: str = "",
        folder: str | Path = ".",
    ) -> None:
        columns, by = tuple(columns), tuple(by)
        trained = isinstance(reference, str)
        if not columns or len(set(columns)) < len(columns):
            raise BoucleError("B761", "columns are missing or named twice", fix="name each column once")
        if version and not trained:
            what = f"{stream}: version {version} without a model"
            raise BoucleError("B761", what, fix="reference: models:NAME@champion")
        first = 50 if isinstance(reference, str) else reference
        if not 50 <= first <= 1_000_000 or not 20 <= window <= 1_000_000 or hold < 1 or keys < 1:
            what = f"reference {reference}, window {window}, hold {hold}, keys {keys} cannot work"
            fix = "reference: 50 to a million rows, window: 20 to a million, hold and keys: 1 or more"
            raise BoucleError("B761", what, fix=fix)
        if not 0 < rate < 1 or least < 0 or not 0 <= least_missing <= 1:
            what = f"rate {rate}, least {least}, least_missing {least_missing} cannot work"
            raise BoucleError("B761", what, fix="rate lies between 0 and 1, an effect is 0 or more")
        for name, chosen, known in (
            ("test", test, ("ks", "psi")),
            ("effect", effect, ("ks", "psi", "wasserstein")),
            ("control", control, ("by", "bh")),
        ):
            if chosen not in known:
                raise BoucleError("B761", f"{name} {chosen!r} is not known", fix=f"one of {', '.join(known)}")
        self._stream, self._columns, self._by, self._time = stream, columns, by, time
        self._reference, self._window, self._hold, self._most = first, window, hold, keys
        self._version = version
        self._trained = Trained(reference, Path(folder), columns) if isinstance(reference, str) else None
        if self._trained is not None:
            self._trained.now()
        self._rate, self._least, self._least_missing = rate, least, least_missing
        self._test, self._effect, self._control = test, effect, control
        self._keys: dict[tuple[str, ...], _Key] = {}
        self.schema = pa.schema([*(pa.field(name, pa.string(), nullable=False) for name in by), *_VERDICT])
        if self._trained is not None:
            self.schema = self.schema.append(pa.field("model", pa.string(), nullable=False))

    @classmethod
    def trace(
        cls,
        inputs: Inputs,
        *,
        columns: Sequence[str],
        by: Sequence[str] = (),
        time: str = "at",
        **declared: Any,
    ) -> Traced:
        """Keys and time as they are; the verdict from the columns compared."""
        stream = one_of(inputs)
        found: dict[str, tuple[From, ...]] = {name: (From(stream, name),) for name in by}
        found["at"] = (From(stream, time),)
        verdict = made_of(stream, columns, "AGGREGATION", "distribution against the reference of the key")
        found |= {field.name: verdict for field in _VERDICT if field.name not in found}
        found["since"] = (*verdict, From(stream, time, "TRANSFORMATION"))
        said = [declared["version"]] if declared.get("version") else []
        if isinstance(declared.get("reference"), str):
            found["model"] = made_of(
                stream, said or columns, "TRANSFORMATION", "whose training data it is held against"
            )
        return Traced(found, made_of(stream, [*by, *said], "GROUP_BY", "each key has its own reference"))

    def step(self, block: Block) -> Sequence[Block]:
        """The verdicts of the windows that this Block completes; no Block when there are none."""
        rows = block.rows
        marked = [self._version] if self._version else []
        need(rows, (*self._columns, *self._by, self._time, *marked), self._stream)
        verdicts: list[dict[str, Any]] = []
        for key, mine in self._groups(rows):
            verdicts += self._follow(key, mine)
        if not verdicts:
            return ()
        batch = pa.RecordBatch.from_pylist(verdicts, schema=self.schema)
        return (Block(self._stream, batch, block.watermark, block.position),)

    def _groups(self, rows: pa.RecordBatch) -> Iterator[tuple[tuple[str, ...], pa.RecordBatch]]:
        """Rows of one key at a time, in their order; keys in the order of their last row, oldest first."""
        by = [*self._by, *([self._version] if self._version else [])]
        if self._version and rows.column(self._version).null_count:
            rows = rows.filter(rows.column(self._version).is_valid())
        wanted = rows.select([*self._columns, self._time])
        if not rows.num_rows:
            return
        if not by:
            yield (), wanted
            return
        words = [[str(value) for value in rows.column(name).to_pylist()] for name in by]
        places: dict[tuple[str, ...], list[int]] = {}
        for place, key in enumerate(zip(*words, strict=True)):
            places.setdefault(key, []).append(place)
        for key, mine in sorted(places.items(), key=lambda one: one[1][-1]):
            yield key, wanted if len(mine) == len(wanted) else wanted.take(pa.array(mine))

    def _follow(self, key: tuple[str, ...], rows: pa.RecordBatch) -> Iterator[dict[str, Any]]:
        state = self._keys.pop(key, None) or _Key([], 0, [], [], 0, _NEVER, _NEVER, {})
        self._keys[key] = state  # the last is the one heard of last
        if len(self._keys) > self._most:
            del self._keys[next(iter(self._keys))]
        if self._trained is not None:
            rows = _as_taken(rows, self._columns, self._stream)
        elif not state.references:
            rows = self._learn(state, rows)
        times = nanos(rows, self._time, self._stream)
        start = 0
        while start < len(rows):
            end = min(start + self._window - state.rows, len(rows))
            if not state.rows:
                state.began = times[start]
                self._begin(key, state)
            for name, reference, open_ in zip(self._columns, state.references, state.window, strict=True):
                add(open_, tally(rows.column(name).slice(start, end - start), reference))
            state.rows += end - start
            state.ended, start = times[end - 1], end
            if state.rows == self._window:
                yield from self._judge(key, state)
                state.rows, state.window = 0, [_empty(one) for one in state.references]

    def _begin(self, key: tuple[str, ...], state: _Key) -> None:
        """A window begins: it is held against the version that is meant now, or that scored its rows."""
        if self._trained is None:
            return
        of = self._trained.named(key[-1]) if self._version else self._trained.now()
        if of != state.of:
            state.of, state.references, state.since = of, self._trained.of(of), {}
            state.window = [_empty(one) for one in state.references]

    def _learn(self, state: _Key, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Keep rows to learn from; those that are left over once enough came."""
        taken = rows.slice(0, self._reference - state.learned)
        state.learning.append(_bytes([taken.select(list(self._columns))]))
        state.learned += len(taken)
        if state.learned == self._reference or len(state.learning) > _PARTS:
            parts = [batch for part in state.learning for batch in pa.ipc.open_stream(part)]
            try:
                whole = pa.Table.from_batches(parts).combine_chunks()
            except pa.ArrowInvalid as error:
                fix = "give the columns one type, as the contract says"
                raise BoucleError(
                    "B762", "a column changed its type", where=self._stream, why=str(error), fix=fix
                ) from error
            state.learning = [_bytes(whole.to_batches())]
            if state.learned == self._reference:
                state.references = [learn(whole.column(name).combine_chunks()) for name in self._columns]
                state.window, state.learning = [_empty(one) for one in state.references], []
        return rows.slice(len(taken))

    def _judge(self, key: tuple[str, ...], state: _Key) -> Iterator[dict[str, Any]]:
        found: list[tuple[str, Found]] = []
        for name, reference, window in zip(self._columns, state.references, state.window, strict=True):
            found.append((name, compare(reference, window, self._test, self._effect)))
            found.append((name, missing(reference, window)))
        for (name, one), q in zip(
            found, discoveries([one.p for _, one in found], self._control), strict=True
        ):
            least = self._least_missing if one.kind == "missing" else self._least
            off = q <= self._rate and one.effect >= least
            since = state.since.setdefault(f"{one.kind}/{name}", _Since())
            if off and not since.held:
                since.began = state.began
            since.held = since.held + 1 if off else 0
            drifted = since.held >= self._hold
            says = say_data(name, one, key=key, drifted=drifted)
            yield {
                **dict(zip(self._by, key, strict=False)),
                **({"model": state.of} if state.of else {}),
                "at": state.ended,
                "column": name,
                **{
                    field: getattr(one, field)
                    for field in ("kind", "effect", "p", "shift", "psi", "wasserstein")
                },
                "q": q,
                "drifted": drifted,
                "since": since.began if drifted else None,
                "rows": state.rows,
                "says_en": says["en"],
                "says_fr": says["fr"],
            }

    def describe(self, key: Mapping[str, str] | None = None) -> dict[str, Any]:
        """How many keys are known, how many windows are open; of one key, how far it has come."""
        told: dict[str, Any] = {
            "keys": len(self._keys),
            "open_windows": sum(1 for state in self._keys.values() if state.rows),
            "waiting_rows": sum(
                state.rows or state.learned % self._reference for state in self._keys.values()
            ),
        }
        if key is not None:
            by = (*self._by, *([self._version] if self._version else []))
            state = self._keys.get(tuple(key.get(name, "") for name in by))
            rows = (
                []
                if state is None
                else [{"learned": state.learned, "rows": state.rows, "since": state.since}]
            )
            told["remembered"] = msgspec.to_builtins(rows)
        return told

    def snapshot(self) -> bytes:
        """What is remembered of every key."""
        keys = [
            (key, structs.replace(one, references=[]) if one.of else one) for key, one in self._keys.items()
        ]
        return msgspec.msgpack.encode((_VERSION, self._columns, keys))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; B602 when another version wrote it, B763 when it is of other columns."""
        kind = tuple[int, tuple[str, ...], list[tuple[tuple[str, ...], _Key]]]
        _, columns, keys = state_of(kind, state, _VERSION, self._stream)
        if columns != self._columns:
            raise other_state(self._stream, f"it is of columns {', '.join(columns)}")
        self._keys = dict(keys)
        for one in self._keys.values():
            if bool(one.of) != (self._trained is not None):
                raise other_state(self._stream, "its reference was another kind")
            if self._trained is not None:
                one.references = self._trained.of(one.of)


def _as_taken(rows: pa.RecordBatch, columns: Sequence[str], stream: str) -> pa.RecordBatch:
    """The columns as a model takes them: float32, flags as 0 and 1; B760 for what it cannot take."""
    for name in columns:
        place = rows.schema.get_field_index(name)
        column = rows.column(place)
        kind = column.type
        if not (pa.types.is_boolean(kind) or is_number(kind)):
            what = f"column {name!r} holds {kind}, which no model was trained on"
            raise BoucleError("B760", what, where=stream, fix="name columns of numbers or flags")
        rows = rows.set_column(place, name, column.cast(pa.float32(), safe=False))
    return rows


def _empty(reference: Reference) -> Tally:
    return Tally([0] * len(reference.tally.counts), [0.0] * len(reference.tally.sums))


def _bytes(batches: Sequence[pa.RecordBatch]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    written: bytes = sink.getvalue().to_pybytes()
    return written

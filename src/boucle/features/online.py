"""Features served while rows pass: those of an entity as of the row's own moment, as training joined them.

The rows of a feature view are kept in a store, the newest of each key; rows of the other inputs get the view's
columns appended. The rule is that of `as_of`: of the rows of the entity that were true by then the newest, unless it
is older than the view's `ttl`.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import Block
from boucle.errors import BoucleError, Unavailable
from boucle.features.asof import nanos, number
from boucle.features.records import WORD, decoded, encoded, keys_of_rows, merged, moments, numbers
from boucle.features.store import MemoryStore, OnlineStore, open_store
from boucle.features.view import FeatureView
from boucle.ports import Traced
from boucle.product.duration import seconds
from boucle.product.project import Settings, read_project
from boucle.product.training import FeatureViewSpec
from boucle.stream.origin import Inputs, carried, made_of
from boucle.stream.rows import require
from boucle.stream.sequence import state_of

__all__ = ["STATES", "FeatureReader", "Online"]

STATES = ("found", "missing", "stale", "ahead", "unreachable")
"""What became of a row: its features were found; nothing was known by then; it was older than `ttl`; only rows that
became true later are still kept (more `depth` would help); the store did not answer."""
_FOUND, _MISSING, _STALE, _AHEAD, _UNREACHABLE = range(5)
_VERSION = 1
_AGAIN = 1.0
"""Seconds until a store that did not answer is asked again: no row waits for it meanwhile."""
_LONGEST = 2**61
"""Nanoseconds, 73 years."""
_GRACE = 3_600.0
"""Seconds that Redis keeps a key beyond twice its `ttl`: event time may run behind the clock."""

Tell = Callable[[str, str, dict[str, str], dict[str, Any]], None]
Floats = NDArray[np.float64]


class FeatureReader:
    """A view in a store: what is kept of it, and read from it by key."""

    def __init__(self, view: FeatureView, store: OnlineStore, *, depth: int = 4) -> None:
        self.view, self.store, self.depth = view, store, depth
        self.size = WORD * (1 + len(view.columns))
        self.ttl = None if view.ttl is None else min(view.ttl, _LONGEST)
        self.expire = 0.0 if self.ttl is None else 2 * self.ttl / 1e9 + _GRACE
        # Other columns are other records: they are never read as these.
        told = msgspec.json.encode((view.entity, view.columns))
        self._prefix = f"boucle:features:{view.name}:{hashlib.sha256(told).hexdigest()[:12]}:".encode()

    def records(self, rows: pa.RecordBatch) -> dict[bytes, bytes]:
        """What of these rows is to be kept: key → its newest records. Rows without a moment or an entity are not.

        B221 when a column is missing, B625 when a feature is no number.
        """
        view = self.view
        require(view.name, [*view.entity, view.time, *view.columns], rows.schema)
        at, known = _moments(rows.column(view.time), view.table, view.time)
        columns = [number(rows.column(name), view.table, name) for name in view.columns]
        keys = keys_of_rows(rows, view.entity)
        found: dict[bytes, bytes] = {}
        made = encoded(at, columns)
        there = [True] * len(keys) if known is None else known.tolist()
        for key, record, valid in zip(keys, made, there, strict=True):
            if key is not None and valid:
                whole = self._prefix + key
                found[whole] = merged(found.get(whole, b""), record, self.size, self.depth)
        return found

    def read(
        self, keys: Sequence[bytes | None], at: NDArray[np.int64]
    ) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int8]]:
        """The features of keys as of moments: numbers and nulls (rows, columns), and the state of each row.

        One round trip; Unavailable (B695) when the store does not answer.
        """
        asked = [self._prefix + key for key in keys if key is not None]
        answers = self.store.get(asked)
        if len(asked) < len(keys):
            given = iter(answers)
            answers = [None if key is None else next(given) for key in keys]
        codes = decoded(answers, self.depth, len(self.view.columns))
        there = codes[:, :, 0] != 0
        known = there & (moments(codes[:, :, 0]) <= at[:, None])
        found = known.any(axis=1)
        chosen = codes[np.arange(len(codes)), known.argmax(axis=1)]
        states = np.where(found, _FOUND, np.where(there.all(axis=1), _AHEAD, _MISSING)).astype(np.int8)
        if self.ttl is not None:
            states[found & (at - moments(chosen[:, 0]) > self.ttl)] = _STALE
        values, null = numbers(chosen[:, 1:])
        null[states != _FOUND] = True
        return values, null, states


class Online:
    """Keeps the rows of the input `keep`, and appends the view's columns to the rows of all others.

    `view` is a name under `features:` of the product, or what is written there. `time` is the column with a row's own
    moment. `default` are the numbers of rows whose features were not found (null otherwise); a null that was kept
    stays null. `state` is a column that says what became of each row (`STATES`). `depth` is how many rows are kept of
    each key: rows that come late, or are looked up for an earlier moment, find theirs among them.

    Where the store is, `[features] store` of boucle.toml says (`memory:` by default). When it does not answer within
    `timeout`, rows take their defaults and what is to be written waits; one event says so, one more when it is well.
    """

    def __init__(
        self,
        stream: str,
        *,
        view: Any,
        keep: str = "",
        time: str = "at",
        default: Mapping[str, float] | None = None,
        depth: int = 4,
        timeout: Any = "50ms",
        state: str = "",
        folder: str | Path = ".",
        store: str = "",
    ) -> None:
        self._stream, self._keep, self._time, self._state = stream, keep, time, state
        meant = _view(stream, view, Path(folder))
        address = store or str(Settings(Path(folder)).get("features.store").value)
        self._default = {name: float(value) for name, value in (default or {}).items()}
        patience = seconds(timeout)
        if unknown := [name for name in self._default if name not in meant.columns]:
            why = f"{meant.name} has no column {', '.join(unknown)}"
            raise BoucleError("B696", f"{stream}: a default is for nothing", why=why, fix="name its columns")
        if not 1 <= depth <= 64 or patience <= 0:
            why, fix = f"depth {depth}, timeout {timeout}", "depth: 1 to 64; timeout: 50ms"
            raise BoucleError("B696", f"{stream}: this cannot be kept", why=why, fix=fix)
        self.reader = FeatureReader(meant, open_store(address, patience), depth=depth)
        self._waiting: dict[bytes, bytes] = {}
        """What the store did not take yet."""
        self._again = 0.0
        self._away = False
        self._newest = 0
        self._counted = dict.fromkeys((*STATES, "kept"), 0)
        self._schemas: tuple[pa.Schema | None, pa.Schema] = (None, pa.schema([]))
        """The schema of the last rows, and the one they are given on with."""
        self.tell: Tell | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Rows by what became of them, rows kept, and keys that wait for the store."""
        return {**self._counted, "waiting": len(self._waiting)}

    @classmethod
    def trace(
        cls,
        inputs: Inputs,
        *,
        view: Any,
        keep: str = "",
        state: str = "",
        folder: str | Path = ".",
        **declared: Any,
    ) -> Traced:
        """Columns as they are; the view's from the input that is kept, found by its entity."""
        del declared
        meant = _view("", view, Path(folder))
        others = {name: columns for name, columns in inputs.items() if name != keep}
        says = f"the newest of {', '.join(meant.entity)}"
        made = {one: made_of(keep, [one], "IDENTITY") if keep else () for one in meant.columns}
        if keep and state:
            made[state] = made_of(keep, meant.entity, "JOIN", says)
        elif state:
            made[state] = ()
        return Traced(carried(others) | made, made_of(keep, meant.entity, "JOIN", says) if keep else ())

    def attach(self, folder: Path, tell: Tell) -> None:
        """`tell` hears when the store is away, and when it is back."""
        del folder
        self.tell = tell

    def live(self) -> None:
        """Rows are new from now on: what waited for the store when the process ended is written."""
        self._flush()

    def close(self) -> None:
        """Write what waits, if the store answers, and give back the connection. Safe to call twice."""
        self._again = 0.0
        self._flush()
        self.reader.store.close()

    def step(self, block: Block) -> Sequence[Block]:
        """Keep the rows of a view, or append its columns; B221 when a column is missing, B697 when one is there."""
        if block.stream == self._keep:
            for key, new in self.reader.records(block.rows).items():
                self._waiting[key] = merged(
                    self._waiting.get(key, b""), new, self.reader.size, self.reader.depth
                )
            self._counted["kept"] += len(block)
            self._newest = max(self._newest, block.watermark)
            self._flush()
            return ()
        self._flush()
        return (Block(self._stream, self._enriched(block.rows), block.watermark, block.position),)

    def _enriched(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        view = self.reader.view
        schema = self._schema(rows.schema)
        keys = keys_of_rows(rows, view.entity)
        at, known = _moments(rows.column(self._time), self._stream, self._time)
        if known is not None:
            keys = [key if there else None for key, there in zip(keys, known.tolist(), strict=True)]
        values, null, states = self._read(keys, at)
        for state, count in enumerate(np.bincount(states, minlength=len(STATES)).tolist()):
            self._counted[STATES[state]] += count
        lost, some = states != _FOUND, bool(null.any())
        columns = list(rows.columns)
        for place, name in enumerate(view.columns):
            if some and name in self._default:
                values[lost, place] = self._default[name]
                null[lost, place] = False
            columns.append(pa.array(values[:, place], mask=null[:, place] if some else None))
        if self._state:
            columns.append(pa.array(np.array(STATES, object)[states], pa.string()))
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _schema(self, given: pa.Schema) -> pa.Schema:
        """The rows' schema with the view's columns behind it; B221 and B697 as in `step`."""
        if self._schemas[0] is not None and self._schemas[0].equals(given, check_metadata=True):
            return self._schemas[1]
        view = self.reader.view
        require(self._stream, [*view.entity, self._time], given)
        made = [pa.field(name, pa.float64()) for name in view.columns]
        made += [pa.field(self._state, pa.string())] if self._state else []
        if taken := [one.name for one in made if one.name in given.names]:
            what, fix = f"{self._stream}: {', '.join(taken)} is there already", "rename it, or leave it out"
            raise BoucleError("B697", what, fix=fix)
        self._schemas = (given, pa.schema([*given, *made], given.metadata))
        return self._schemas[1]

    def _read(
        self, keys: Sequence[bytes | None], at: NDArray[np.int64]
    ) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int8]]:
        if time.monotonic() >= self._again:
            try:
                answer = self.reader.read(keys, at)
            except Unavailable as error:
                self._lost(error)
            else:
                self._well()
                return answer
        shape = (len(keys), len(self.reader.view.columns))
        return np.full(shape, np.nan), np.ones(shape, bool), np.full(len(keys), _UNREACHABLE, np.int8)

    def _flush(self) -> None:
        """Write what waits, unless the store was away a moment ago."""
        if not self._waiting or time.monotonic() < self._again:
            return
        reader = self.reader
        try:
            reader.store.put(self._waiting, reader.size, reader.depth, reader.expire)
        except Unavailable as error:
            self._lost(error)
            return
        self._waiting = {}
        self._well()

    def _lost(self, error: Unavailable) -> None:
        self._again = time.monotonic() + _AGAIN
        if not self._away and self.tell is not None:
            says = {
                "en": f"Features of {self._stream}: the store does not answer; rows take their defaults.",
                "fr": f"Variables de {self._stream} : le magasin ne répond pas ; les lignes prennent leurs défauts.",
            }
            self.tell("features_trouble", "warning", says, {"store": error.where, "why": error.why})
        self._away = True

    def _well(self) -> None:
        if self._away and self.tell is not None:
            says = {
                "en": f"Features of {self._stream}: the store answers again.",
                "fr": f"Variables de {self._stream} : le magasin répond de nouveau.",
            }
            self.tell("features_well", "info", says, {"waiting": len(self._waiting)})
        self._away = False

    def snapshot(self) -> bytes:
        """Counts, what waits for the store, and all that is kept where that is only in memory."""
        store, ttl = self.reader.store, self.reader.ttl
        held: dict[bytes, bytes] = {}
        if isinstance(store, MemoryStore):
            if ttl is not None and self._newest > 0:
                # Rows may still come that are late by as much as a row may be old.
                store.forget(encoded(np.array([self._newest - 2 * ttl]), [])[0])
            held = store.held
        return msgspec.msgpack.encode((_VERSION, self._counted, self._newest, self._waiting, held))

    def restore(self, state: bytes) -> None:
        """Continue; B602 when another version of this step wrote the state."""
        kind = tuple[int, dict[str, int], int, dict[bytes, bytes], dict[bytes, bytes]]
        _, self._counted, self._newest, self._waiting, held = state_of(kind, state, _VERSION, self._stream)
        if isinstance(self.reader.store, MemoryStore):
            self.reader.store.held = held
        elif held:  # kept in memory before: the store gets it
            self._waiting = {**held, **self._waiting}


def _moments(column: pa.Array, table: str, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Moments in nanoseconds, and which are known where not all are; B625 when the column holds none."""
    at = (
        column.view(pa.int64())
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns"
        else (nanos(column, table, name))
    )
    if not at.null_count:
        return at.to_numpy(), None
    return at.fill_null(0).to_numpy(), at.is_valid().to_numpy(zero_copy_only=False)


def _view(stream: str, told: Any, folder: Path) -> FeatureView:
    """A view by its name in the product, or as it is declared; B696 when there is none."""
    if isinstance(told, str):
        project, problems = read_project(folder)
        known = {} if project is None else project.loop.features
        if told not in known:
            why = str(problems[0]) if project is None and problems else f"views: {', '.join(known) or 'none'}"
            what, fix = f"{stream}: there is no view {told!r}", "declare it under features: of product.yaml"
            raise BoucleError("B696", what, why=why, fix=fix)
        return FeatureView.declared(told, known[told])
    try:
        given = {"from": stream, **told}
        return FeatureView.declared(str(given.pop("name", stream)), msgspec.convert(given, FeatureViewSpec))
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        fix = "view: card_features, or {entity: [card], columns: [count_1h], time: at, ttl: 1h}"
        raise BoucleError("B696", f"{stream}: this is no view", why=str(error), fix=fix) from error

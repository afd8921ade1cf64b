"""One step over several processes: its keys in groups, its groups in workers, its answers in one order.

A row's key decides its group (CRC-32 of the key, so that every machine and version agrees), and each group is
an operator of its own. Which worker holds a group changes nothing in what it computes: the same tables with
one process or eight, and a checkpoint taken on two restarts on three (key groups, after Carbone et al., "State
management in Apache Flink", VLDB 2017). State is taken in parts, group by group, and only what changed.
"""

import multiprocessing
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import Block, Position
from boucle.errors import BoucleError, Unavailable
from boucle.loop.path import restore_parts
from boucle.ports import Describes, Operator, Part, Partial
from boucle.stream.sequence import canonical, load_rows, save_rows, state_of

__all__ = ["Make", "Sharded", "group_of", "stored_groups"]

_VERSION = 1
_LAYOUT = "groups"
"""The part that says how many groups there are."""
_MARKS = "marks"
"""The part that says how far every input had come: a group where nothing happened is not stored for that alone."""
_ENDING = 5.0

Make = Callable[[], Operator]
"""Builds the operator of one group; must be picklable when there are workers."""


def group_of(rows: pa.RecordBatch, by: Sequence[str], groups: int) -> NDArray[np.int64]:
    """The group of each row."""
    keys, which = _keys(rows, by)
    return _hashed(keys, groups)[which]


def _keys(rows: pa.RecordBatch, by: Sequence[str]) -> tuple[list[tuple[Any, ...]], NDArray[np.int64]]:
    """The different keys, and which of them each row has."""
    codes = np.zeros(rows.num_rows, np.int64)
    for column in (rows.column(name).dictionary_encode() for name in by):
        codes = codes * (len(column.dictionary) + 1) + column.indices.fill_null(-1).to_numpy() + 1
    _, first, which = np.unique(codes, return_index=True, return_inverse=True)
    named = [rows.column(name).take(pa.array(first)).to_pylist() for name in by]
    return list(zip(*named, strict=True)), which


def _hashed(keys: Sequence[tuple[Any, ...]], groups: int) -> NDArray[np.int64]:
    return np.array([zlib.crc32(repr(key).encode()) % groups for key in keys], np.int64)


def stored_groups(sizes: Mapping[str, int]) -> dict[int, int]:
    """The bytes of each key group, from the sizes of the parts of a Sharded step."""
    found: Counter[int] = Counter()
    for name, size in sizes.items():
        if name not in {_LAYOUT, _MARKS}:
            found[_group_in(name)] += size
    return dict(sorted(found.items()))


def _group_in(name: str) -> int:
    return int(name.partition("/")[0])


def _added(mine: Any, theirs: Any) -> Any:
    return mine + theirs


_JOINED: dict[str, Callable[[Any, Any], Any]] = {"oldest": min, "newest": max}
"""How what two groups say becomes one; all else is added."""


class _Groups:
    """The operators of some groups, in this process."""

    def __init__(self, make: Make, mine: Sequence[int]) -> None:
        self._operators = {group: make() for group in mine}
        self._fresh = dict.fromkeys(mine, True)

    def step(
        self, stream: str, watermark: int, parts: Mapping[int, pa.RecordBatch], empty: pa.RecordBatch
    ) -> list[Block]:
        given: list[Block] = []
        for group, operator in self._operators.items():
            rows = parts.get(group, empty)
            self._fresh[group] = self._fresh[group] or rows.num_rows > 0
            out = operator.step(Block(stream, rows, watermark, Position(stream, 0)))
            # A watermark can close windows of a group that saw no row.
            self._fresh[group] = self._fresh[group] or any(len(block) for block in out)
            given += out
        return given

    def parts(self, everything: bool) -> dict[str, Part]:
        given: dict[str, Part] = {}
        for group, operator in self._operators.items():
            if isinstance(operator, Partial):
                told = operator.parts(everything=everything)
                given |= {f"{group}/{name}": part for name, part in told.items()}
            elif everything or self._fresh[group]:
                given[f"{group}/"] = operator.snapshot()
            self._fresh[group] = False
        return given

    def restore_parts(self, group: int, parts: Mapping[str, bytes]) -> None:
        restore_parts(f"key group {group}", self._operators[group], parts)
        self._fresh[group] = False

    def describe(self, key: Mapping[str, str] | None) -> dict[int, dict[str, Any]]:
        return {
            group: operator.describe(key)
            for group, operator in self._operators.items()
            if isinstance(operator, Describes)
        }

    def snapshot(self) -> dict[int, bytes]:
        return {group: operator.snapshot() for group, operator in self._operators.items()}

    def restore(self, states: Mapping[int, bytes]) -> None:
        for group, operator in self._operators.items():
            if group in states:
                operator.restore(states[group])


class Sharded:
    """An operator whose keys are spread over `workers` processes; with 1 it works in this one.

    `groups` is fixed for the life of the state, `workers` is not. Rows that come out together stand in
    canonical order. `load` says how many rows each group saw, `heavy` which keys saw most.
    """

    def __init__(
        self, stream: str, make: Make, *, by: Sequence[str], groups: int = 16, workers: int = 1
    ) -> None:
        if groups < 1 or not 1 <= workers <= groups:
            fix = "workers: from 1 to the number of groups"
            raise BoucleError("B221", f"{stream}: {groups} groups on {workers} workers", fix=fix)
        self._stream, self._by, self._groups = stream, tuple(by), groups
        self.load: Counter[int] = Counter()
        self.heavy: Counter[tuple[Any, ...]] = Counter()
        self._make, self._count = make, workers
        self._told = False
        self._marks: dict[str, tuple[int, pa.RecordBatch]] = {}
        self._here: _Groups | None = None
        self._workers: list[_Worker] = []

    def _start(self) -> None:
        """Operators and processes are made when they are first needed: a plan that is only looked at has none."""
        if self._here is not None or self._workers:
            return
        if self._count == 1:
            self._here = _Groups(self._make, range(self._groups))
            return
        shares = [range(worker, self._groups, self._count) for worker in range(self._count)]
        self._workers = [_Worker(self._stream, self._make, share) for share in shares]

    def step(self, block: Block) -> Sequence[Block]:
        """Every group takes its rows, and the watermark; what they give, in one order."""
        self._start()
        empty = block.rows.slice(0, 0)
        parts = self._split(block.rows) if block.rows.num_rows else {}
        self._marks[block.stream] = (block.watermark, empty)
        return self._together(self._pass(block.stream, block.watermark, parts, empty), block.position)

    def _pass(
        self, stream: str, watermark: int, parts: Mapping[int, pa.RecordBatch], empty: pa.RecordBatch
    ) -> list[Block]:
        if self._here is not None:
            return self._here.step(stream, watermark, parts, empty)
        for worker in self._workers:
            mine = {group: save_rows(rows) for group, rows in parts.items() if group in worker.groups}
            worker.ask("step", (stream, watermark, mine, save_rows(empty)))
        return [one for worker in self._workers for one in worker.blocks()]

    def _split(self, rows: pa.RecordBatch) -> dict[int, pa.RecordBatch]:
        keys, which = _keys(rows, self._by)
        hashed = _hashed(keys, self._groups)
        self._weigh(keys, hashed, np.bincount(which))
        groups, present = hashed[which], np.unique(hashed)
        if len(present) == 1:
            return {int(present[0]): rows}
        return {int(group): rows.filter(pa.array(groups == group)) for group in present}

    def _weigh(
        self, keys: Sequence[tuple[Any, ...]], hashed: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> None:
        for key, group, number in zip(keys, hashed.tolist(), rows.tolist(), strict=True):
            self.load[group] += number
            self.heavy[key] += number
        if len(self.heavy) > 10_000:
            self.heavy = Counter(dict(self.heavy.most_common(1_000)))

    def _together(self, given: Sequence[Block], position: Position) -> list[Block]:
        streams: dict[str, list[Block]] = {}
        for block in given:
            streams.setdefault(block.stream, []).append(block)
        out = []
        for stream, blocks in streams.items():
            full = [block.rows for block in blocks if len(block)]
            rows = canonical(pa.concat_batches(full)) if full else blocks[0].rows
            # The least: every group has given what it has before it.
            out.append(Block(stream, rows, min(block.watermark for block in blocks), position))
        return out

    def parts(self, *, everything: bool) -> dict[str, Part]:
        """The parts of every group that changed, `3/…` of group 3."""
        given: dict[str, Part] = {}
        if everything or not self._told:
            given[_LAYOUT] = msgspec.msgpack.encode((_VERSION, self._groups))
            self._told = True
        marks = {stream: (mark, save_rows(empty)) for stream, (mark, empty) in self._marks.items()}
        given[_MARKS] = msgspec.msgpack.encode(marks)
        return given | self._asked("parts", everything, dict[str, bytes])

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Continue on however many workers; B602 when the number of groups was another."""
        _, groups = state_of(tuple[int, int], parts.get(_LAYOUT, b""), _VERSION, self._stream)
        self._same(groups)
        self._start()
        named: dict[int, dict[str, str]] = {}
        for name in parts:
            if name not in {_LAYOUT, _MARKS}:
                named.setdefault(_group_in(name), {})[name.partition("/")[2]] = name
        # Group by group: the state is not held twice.
        for group, names in named.items():
            mine = {inner: parts[name] for inner, name in names.items()}
            if self._here is not None:
                self._here.restore_parts(group, mine)
            else:
                worker = self._workers[group % self._count]
                worker.ask("restore_parts", (group, mine))
                worker.answer(None)
        self._told = True
        self._go_up_to(msgspec.msgpack.decode(parts[_MARKS], type=dict[str, tuple[int, bytes]]))

    def _go_up_to(self, marks: Mapping[str, tuple[int, bytes]]) -> None:
        """Groups that were stored earlier than the others come as far: they had given nothing on the way."""
        for stream, (mark, stored) in marks.items():
            empty = load_rows(stored)
            self._marks[stream] = (mark, empty)
            given = self._pass(stream, mark, {}, empty)
            assert not any(len(block) for block in given)

    def snapshot(self) -> bytes:
        """The state of every group, as one."""
        states = self._asked("snapshot", None, dict[int, bytes])
        return msgspec.msgpack.encode((_VERSION, self._groups, states))

    def restore(self, state: bytes) -> None:
        """Continue on however many workers; B602 when the number of groups was another."""
        _, groups, states = state_of(tuple[int, int, dict[int, bytes]], state, _VERSION, self._stream)
        self._same(groups)
        self._start()
        if self._here is not None:
            self._here.restore(states)
        for worker in self._workers:
            worker.ask("restore", {group: one for group, one in states.items() if group in worker.groups})
            worker.answer(None)

    def _same(self, groups: int) -> None:
        if groups != self._groups:
            what = f"{self._stream}: its state is of {groups} key groups, {self._groups} are declared"
            raise BoucleError("B602", what, fix=f"declare groups: {groups}, or start afresh")

    def _asked(self, verb: str, what: Any, kind: Any) -> dict[Any, Any]:
        """What all groups answer, wherever they are."""
        self._start()
        if self._here is not None:
            here: dict[Any, Any] = _do(self._here, verb, what)
            return here
        for worker in self._workers:
            worker.ask(verb, what)
        answers = [worker.answer(kind) for worker in self._workers]
        return {name: one for answer in answers for name, one in answer.items()}

    def describe(self, key: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What the operators of all groups say, together."""
        said = self._asked("describe", None if key is None else dict(key), dict[int, dict[str, Any]])
        told: dict[str, Any] = {}
        for one in said.values():
            for name, value in one.items():
                told[name] = _JOINED.get(name, _added)(told[name], value) if name in told else value
        return told

    def close(self) -> None:
        """End the workers. Safe to call twice."""
        for worker in self._workers:
            worker.close()
        self._workers = []


class _Worker:
    """A process that holds some groups, seen from here."""

    def __init__(self, stream: str, make: Make, groups: Sequence[int]) -> None:
        self.groups = frozenset(groups)
        self._stream = stream
        # A fork of this process would carry half of every lock and thread along: it is forked from a clean one,
        # which has imported what takes long.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["boucle.loop.shards", "boucle.stream.sliding", "boucle.stream.window"]
        )
        self._line, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, make, list(groups)), name=f"boucle {stream}", daemon=True
        )
        self._process.start()
        theirs.close()

    def ask(self, verb: str, what: Any) -> None:
        try:
            self._line.send_bytes(msgspec.msgpack.encode((verb, what)))
        except OSError as error:
            raise self._gone(str(error)) from error

    def answer(self, kind: Any) -> Any:
        try:
            failed, told = msgspec.msgpack.decode(self._line.recv_bytes(), type=tuple[str, Any])
        except (EOFError, OSError) as error:
            raise self._gone(str(error)) from error
        if failed:
            raise BoucleError(
                "B221", f"{self._stream}: a worker could not go on", why=failed, fix="see its input"
            )
        return msgspec.convert(told, kind)

    def blocks(self) -> list[Block]:
        told = self.answer(list[tuple[str, int, bytes]])
        return [Block(stream, load_rows(rows), mark, Position(stream, 0)) for stream, mark, rows in told]

    def _gone(self, why: str) -> Unavailable:
        code = self._process.exitcode
        why = why or f"it ended with code {code}"
        return Unavailable(
            "B316",
            f"a worker of {self._stream} is gone",
            why=why,
            fix="start again: it goes on from its checkpoint",
        )

    def close(self) -> None:
        self._line.close()  # it ends when there is nobody to ask it
        self._process.join(_ENDING)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


def _serve(line: Connection, make: Make, mine: Sequence[int]) -> None:
    """The worker: answers until its line is closed, or its parent is gone."""
    groups = _Groups(make, mine)
    while True:
        try:
            verb, what = msgspec.msgpack.decode(line.recv_bytes())
        except (EOFError, OSError, KeyboardInterrupt):
            return
        failed, told = "", None
        try:
            told = _do(groups, verb, what)
        except BoucleError as error:
            failed = str(error)
        line.send_bytes(msgspec.msgpack.encode((failed, told)))


def _do(groups: _Groups, verb: str, what: Any) -> Any:
    match verb:
        case "parts":
            return {name: bytes(part) for name, part in groups.parts(what).items()}
        case "restore_parts":
            return groups.restore_parts(*what)
        case "describe":
            return groups.describe(what)
        case "snapshot":
            return groups.snapshot()
        case "restore":
            return groups.restore(what)
    stream, watermark, parts, empty = what
    split = {group: load_rows(rows) for group, rows in parts.items()}
    given = groups.step(stream, watermark, split, load_rows(empty))
    return [(block.stream, block.watermark, save_rows(block.rows)) for block in given]

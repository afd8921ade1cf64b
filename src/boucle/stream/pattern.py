"""Patterns over the rows of a key: "hot for 30 s, then the pressure drops by 5, and no stop in between".

After row pattern recognition, ISO/IEC 9075-2:2016 (MATCH_RECOGNIZE). Covered: PARTITION BY (`by`), ORDER BY
the event time, DEFINE (`where`, with references to other steps, FIRST and LAST, running aggregates, PREV),
PATTERN with concatenation, alternation (`any`), groups (`steps`), the quantifiers `? * + {n} {n,} {n,m}`, each
reluctant with a `?` behind; leftmost start first and the standard's order of preference; MEASURES with FINAL
semantics, ONE ROW PER MATCH; AFTER MATCH SKIP past last row, to next row, to first or last of a step. Beyond it,
as in SASE+ (Agrawal et al., SIGMOD 2008): rows that fit no step may be skipped (`contiguity: relaxed`),
`not` steps, `for` (a condition that holds), `within`. Not covered: ALL ROWS PER MATCH, SUBSET, PERMUTE,
exclusion `{- -}`, anchors, offsets in PREV, and NEXT (a row is never judged by a later one).

What the words mean here, where the standard is silent:

- `within` is half open: a row `within` after the first one is outside. Absence (a `not` step at the end) is
  complete at that instant, or when its own `for` has passed since the last row.
- relaxed: a row is skipped when no step that could come next takes it. A `not` step ends the way through it
  when a skipped row fits it; the row that completes the next step is not in between.
- `for: 30s`: from the first row that fits, no row says otherwise for 30 s of event time (unknown does not
  say otherwise); complete by the watermark, no further row is needed. As the first step it starts where the
  condition becomes true, so it is told once.
- a match is told at `at`, the time at which it was decided: of the last row if nothing better can come.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct, msgpack

from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.product.duration import seconds
from boucle.stream.expression import Expression, Typed, column_of, plain_column, scalar_of
from boucle.stream.rows import require
from boucle.stream.sequence import Order
from boucle.stream.stateful import KeyedFold

__all__ = ["Pattern", "PatternStep"]

_ACCEPT, _START = -1, -1
_MOST = 500
_WORD = 60
_NEVER: Nanos = 2**62
_REPEAT = re.compile(r"(?:([?*+])|\{(\d+)(,)?(\d+)?\})(\??)")
_KINDS = (pa.int64(), pa.float64(), pa.string(), pa.bool_())
Row: TypeAlias = tuple[Any, ...]
Verdict: TypeAlias = bool | None


class PatternStep(Struct, forbid_unknown_fields=True, rename={"for_": "for", "not_": "not"}):
    """A named step with a condition; or a group of `steps`; or alternatives, `any` of several."""

    name: str = ""
    where: str = ""
    repeat: str = ""
    """`?`, `*`, `+`, `{n}`, `{n,}`, `{n,m}`; a `?` behind it makes it take as few rows as it can."""
    for_: str | float | None = None
    not_: bool = False
    contiguity: Literal["strict", "relaxed"] | None = None
    steps: "list[PatternStep]" = []
    any: "list[PatternStep]" = []


class Record(Struct, array_like=True, frozen=True):
    """The rows that a step took, as far as anything refers to them."""

    count: int
    first: int
    """Number of its first row within the key."""
    last: int
    first_at: Nanos
    last_at: Nanos
    first_row: tuple[Any, ...]
    last_row: tuple[Any, ...]
    sums: tuple[Any, ...]


Records: TypeAlias = dict[str, Record]


class _Run(Struct, array_like=True, frozen=True):
    """One way through the pattern, so far."""

    place: int
    records: Records
    since: Nanos
    gap: bool = False
    hit: int = 0
    hold: Nanos = 0
    options: int = -1
    """How many of the place's options are still wanted; -1: all."""


class _Start(Struct, array_like=True):
    """All ways through the pattern from one first row, the preferred first; the best that is complete."""

    number: int
    at: Nanos
    runs: list[_Run]
    best: Records | None = None
    due: Nanos = 0
    listens: int = -1
    """Mask of the steps that could change anything here; -1: any row does."""


class _Key(Struct, array_like=True):
    number: int = 0
    starts: list[_Start] = []
    previous: tuple[Any, ...] | None = None
    held: list[str] = []
    """Steps with `for` whose condition was true at the last row."""
    due: Nanos = 0


class _Now(Struct):
    """A row being looked at, and what conditions may refer to."""

    row: Row
    at: Nanos
    index: int
    number: int
    previous: Row | None
    records: Records
    held: Sequence[str] = ()


class _Program:
    """The pattern as a list of instructions (Thompson, CACM 1968; priorities as in Pike's machine).

    `options[p]`: what may follow the step at p, the preferred first: (place of the step or ACCEPT, mask of
    the `not` steps on the way).
    """

    def __init__(self, stream: str, steps: Sequence[PatternStep]) -> None:
        self._stream = stream
        self.code: list[tuple[str, Any, Any]] = []
        self.steps: dict[str, PatternStep] = {}
        self.nots: list[PatternStep] = []
        self._sequence(steps)
        self._add("accept")
        takes = [place for place, (op, _, _) in enumerate(self.code) if op == "take"]
        self.options = {_START: self._after(0)} | {place: self._after(place + 1) for place in takes}
        if any(target == _ACCEPT for target, _ in self.options[_START]):
            self.refuse("the pattern matches without any row", "let at least one step be needed")

    def refuse(self, what: str, fix: str) -> None:
        raise BoucleError("B220", f"{self._stream}: {what}", fix=fix)

    def _add(self, op: str, one: Any = None, two: Any = None) -> int:
        if len(self.code) >= _MOST:
            self.refuse(f"more than {_MOST} steps when written out", "count rows with `count(step)` instead")
        self.code.append((op, one, two))
        return len(self.code) - 1

    def _sequence(self, steps: Sequence[PatternStep]) -> None:
        for step in steps:
            self._repeated(step)

    def _repeated(self, step: PatternStep) -> None:
        least, most, greedy = self._bounds(step)
        for _ in range(least):
            self._once(step)
        if most is None:
            split = self._add("split")
            self._once(step)
            self._add("jump", split)
            self._branch(split, greedy=greedy)
        else:
            splits = []
            for _ in range(most - least):
                splits.append(self._add("split"))
                self._once(step)
            for split in splits:
                self._branch(split, greedy=greedy)

    def _branch(self, split: int, *, greedy: bool) -> None:
        inside, behind = split + 1, len(self.code)
        self.code[split] = ("split", inside, behind) if greedy else ("split", behind, inside)

    def _bounds(self, step: PatternStep) -> tuple[int, int | None, bool]:
        if not step.repeat:
            return 1, 1, True
        match = _REPEAT.fullmatch(step.repeat.replace(" ", ""))
        if match is None:
            self.refuse(f"repeat: {step.repeat!r}", "write ?, *, +, {n}, {n,} or {n,m}, a ? behind for few")
        assert match is not None
        sign, least, comma, most, few = match.groups()
        if sign:
            low, high = {"?": (0, 1), "*": (0, None), "+": (1, None)}[sign]
        else:
            low, high = int(least), int(most) if most else None if comma else int(least)
        if high is not None and (high < low or high == 0):
            self.refuse(f"repeat: {step.repeat!r} allows nothing", "write the smaller number first")
        if step.for_ is not None or step.not_:
            self.refuse(f"{step.name} has `for` or `not`, and repeat", "it stands once by its nature")
        return low, high, not few

    def _once(self, step: PatternStep) -> None:
        if step.any:
            jumps = []
            for index, one in enumerate(step.any):
                split = self._add("split") if index < len(step.any) - 1 else None
                self._repeated(one)
                if split is not None:
                    jumps.append(self._add("jump"))
                    self._branch(split, greedy=True)
            for jump in jumps:
                self.code[jump] = ("jump", len(self.code), None)
        elif step.steps:
            self._sequence(step.steps)
        else:
            self._named(step)

    def _named(self, step: PatternStep) -> None:
        if not step.name.isidentifier() or not step.where:
            self.refuse(f"step {step.name!r} wants a name and a condition", "write {name: hot, where: …}")
        if self.steps.setdefault(step.name, step) is not step:
            self.refuse(f"two steps are called {step.name}", "give each its own name")
        if step.not_:
            if step not in self.nots:
                self.nots.append(step)
            self._add("not", self.nots.index(step))
        else:
            self._add("take", step.name)

    def _after(self, place: int) -> tuple[tuple[int, int], ...]:
        found: list[tuple[int, int]] = []
        seen: set[tuple[int, int]] = set()
        left = [(place, 0)]
        while left:
            place, nots = left.pop()
            if (place, nots) in seen:
                continue
            seen.add((place, nots))
            op, one, two = self.code[place]
            if op == "take":
                found.append((place, nots))
            elif op == "accept":
                found.append((_ACCEPT, nots))
                if not nots:
                    # Complete as soon as we are here: what would come after is never preferred.
                    break
            elif op == "not":
                left.append((place + 1, nots | 1 << one))
            else:
                left += [(way, nots) for way in (two, one) if way is not None]
        return tuple(found)


class Pattern(KeyedFold):
    """One row per match: `at`, the keys, `first_at` and `last_at` of its rows, and the measures.

    `steps` as `PatternStep` says, as values or as YAML. Conditions and measures are expressions; a bare column
    is that of the row in hand (in a measure: the last of the match), `hot.pressure` that of the last row which
    step `hot` took, `avg(hot.pressure)` over all of them, `prev(pressure)` of the row before in the key.
    `after`: `past last row`, `to next row`, `to first <step>`, `to last <step>` (past the last row when the
    step took none, or would start the same match again).

    A key keeps at most `limit` runs; beyond, `on_limit: error` raises B221, `on_limit: drop` gives up the
    oldest start and counts it in `dropped_runs`.
    """

    def __init__(
        self,
        stream: str,
        *,
        by: Sequence[str] | str,
        steps: Sequence[PatternStep | Mapping[str, Any]],
        measures: Mapping[str, str] | None = None,
        within: str | float | None = None,
        contiguity: Literal["relaxed", "strict"] = "relaxed",
        after: str = "past last row",
        limit: int = 10_000,
        on_limit: Literal["error", "drop"] = "error",
        time: str = "at",
        order: Order = "time",
    ) -> None:
        super().__init__(stream, by=by, time=time, order=order)
        try:
            told = msgspec.convert([msgspec.to_builtins(step) for step in steps], list[PatternStep])
        except msgspec.ValidationError as error:
            raise BoucleError("B220", f"{stream}: steps", why=str(error), fix="see PatternStep") from error
        self._program = program = _Program(stream, told)
        if contiguity not in ("strict", "relaxed") or on_limit not in ("error", "drop"):
            program.refuse(
                f"contiguity: {contiguity}, on_limit: {on_limit}", "strict or relaxed; error or drop"
            )
        self._within = None if within is None else round(seconds(within) * SECOND)
        self._strict = {n: (s.contiguity or contiguity) == "strict" for n, s in program.steps.items()}
        self._hold = {
            n: round(seconds(s.for_) * SECOND) for n, s in program.steps.items() if s.for_ is not None
        }
        self._where = {n: Expression(s.where, steps=program.steps) for n, s in program.steps.items()}
        self._measures = {n: Expression(text, steps=program.steps) for n, text in (measures or {}).items()}
        self._after_match = self._read_after(after)
        self._limit, self._on_limit = limit, on_limit
        self._check()
        self.dropped_runs = 0
        self._states: dict[bytes, _Key] = {}
        self._edges = [n for n in self._hold if not program.steps[n].not_]
        self._bit = {name: bit for bit, name in enumerate(program.steps)}
        self._listens = {place: self._heard(place) for place in program.options}
        # Runs at one place with one past are one when nothing they took can be asked for again.
        self._merge = not self._hold and all(map(self._looks_at_row, program.steps))

    def _check(self) -> None:
        program = self._program
        takes = [place for place in program.options if place != _START]
        waits = [
            place
            for place in takes
            if any(not self._strict[program.code[t][1]] for t, _ in self._next(place))
        ]
        if self._within is None and waits:
            what = "rows may be skipped without end"
            program.refuse(what, "give within: a duration, or contiguity: strict")
        for place, options in program.options.items():
            nots = [program.nots[i] for t, mask in options if t == _ACCEPT for i in _bits(mask)]
            if place != _START and self._within is None and any(step.for_ is None for step in nots):
                program.refuse("absence at the end has no end", "give within, or the `not` step a `for`")
        clash = {"at", "first_at", "last_at", *self._by} & set(self._measures)
        if clash:
            program.refuse(f"measure {min(clash)} is a column already", "give it another name")
        if program.code[0][0] == "not":
            program.refuse("nothing comes before the first step", "let another step come before the `not`")
        for name, text in self._measures.items():
            if any(node.op == "prev" for node in text.leaves()):
                program.refuse(f"measure {name} asks for a row outside the match", "prev is for conditions")

    def _heard(self, place: int) -> int:
        """Mask of the steps, and of the `not` steps before them, that may come next."""
        heard = 0
        for target, nots in self._program.options[place]:
            heard |= 0 if target == _ACCEPT else 1 << self._bit[self._program.code[target][1]]
            for bit in _bits(nots):
                heard |= 1 << self._bit[self._program.nots[bit].name]
        return heard

    def _next(self, place: int) -> Iterator[tuple[int, int]]:
        return ((target, nots) for target, nots in self._program.options[place] if target != _ACCEPT)

    def _read_after(self, after: str) -> tuple[str, str]:
        words = after.split()
        if words in (["past", "last", "row"], ["to", "next", "row"]):
            return words[1], ""
        if (
            len(words) == 3
            and words[:2] in (["to", "first"], ["to", "last"])
            and words[2] in self._program.steps
        ):
            return "to " + words[1], words[2]
        self._program.refuse(
            f"after: {after!r}", "past last row, to next row, to first <step>, to last <step>"
        )
        raise AssertionError

    def _looks_at_row(self, name: str) -> bool:
        return all(
            node.op == "column" or (node.op == "step" and node.value[0] == name)
            for node in self._where[name].leaves()
        )

    def bind(self, schema: pa.Schema) -> pa.Schema:
        """Conditions and measures over these columns; B221 for one that is not there."""
        told = [*self._where.values(), *self._measures.values()]
        leaves = [node for text in told for node in text.leaves()]
        names = (node.value if node.op in ("column", "prev") else node.value[-1] for node in leaves)
        self._columns = sorted({name for name in names if name})
        self._asks = any(node.op == "prev" for node in leaves)
        aggregates = {node.value for node in leaves if node.op == "aggregate"}
        self._sums: dict[str, list[tuple[str, int]]] = {}
        typed = {name: text.bind(schema) for name, text in self._measures.items()}
        where = {name: text.bind(schema) for name, text in self._where.items()}
        require(self._stream, self._columns, schema)
        for what, step, column in sorted(aggregates):
            for part in ("sum", "n") if what == "avg" else (what,):
                if what in ("min", "max", "sum", "avg"):
                    self._sums.setdefault(step, []).append((part, self._columns.index(column)))
        self._by_row = {name: _own(one, name) for name, one in where.items() if self._looks_at_row(name)}
        self._by_past = {
            name: scalar_of(one, self._leaf) for name, one in where.items() if name not in self._by_row
        }
        self._told_measures = {name: scalar_of(one, self._leaf) for name, one in typed.items()}
        for name, one in where.items():
            if one.type != pa.bool_():
                raise BoucleError("B221", f"{self._stream}: {name} gives {one.type}", fix="give a condition")
        head = self.heads(schema)
        ends = [pa.field(name, head[0].type) for name in ("first_at", "last_at")]
        return pa.schema([*head, *ends, *(pa.field(name, _told(one, schema)) for name, one in typed.items())])

    def _leaf(self, node: Typed) -> Callable[[_Now], Any]:
        if node.type not in _KINDS:
            what = f"{self._stream}: a pattern cannot remember {node.type}"
            raise BoucleError("B221", what, fix="use numbers, texts, times or booleans")
        what, step, column = (
            ("", "", node.value) if isinstance(node.value, str) else (("last", *node.value)[-3:])
        )
        index = self._columns.index(column) if column else 0
        if node.op == "column":
            return lambda now: now.row[index]
        if node.op == "prev":
            return lambda now: None if now.previous is None else now.previous[index]
        if what == "count":
            return lambda now: record.count if (record := now.records.get(step)) else 0
        if what == "last":
            return lambda now: record.last_row[index] if (record := now.records.get(step)) else None
        if what == "first":
            return lambda now: record.first_row[index] if (record := now.records.get(step)) else None
        place = self._sums[step].index(("sum" if what == "avg" else what, index))
        if what != "avg":
            return lambda now: record.sums[place] if (record := now.records.get(step)) else None
        count = self._sums[step].index(("n", index))

        def mean(now: _Now) -> float | None:
            record = now.records.get(step)
            return float(record.sums[place] / record.sums[count]) if record and record.sums[count] else None

        return mean

    def take(self, rows: pa.RecordBatch) -> None:
        """The columns that are asked for, and what can be judged for all rows at once."""
        columns = [plain_column(rows, name).to_pylist() for name in self._columns]
        self._rows: list[Row] = list(zip(*columns, strict=True)) if columns else [()] * rows.num_rows
        masks = {name: column_of(one, rows) for name, one in self._by_row.items()}
        # What cannot be judged from the row alone may always fit.
        always = sum(1 << self._bit[name] for name in self._by_past)
        fits = np.full(rows.num_rows, always, dtype=object if len(self._bit) > _WORD else np.int64)
        for name, mask in masks.items():
            fits[pc.fill_null(mask, fill_value=False).to_numpy(zero_copy_only=False)] |= 1 << self._bit[name]
        self._fits: list[int] = fits.tolist()
        self._masks = {name: mask.to_pylist() for name, mask in masks.items()}

    def on_row(self, index: int, key: bytes, at: Nanos) -> None:
        """Take the row on every way through the pattern, and begin one with it."""
        fits = self._fits[index]
        begins = fits & self._listens[_START]
        state = self._states.get(key)
        if state is None:
            if not begins and not self._asks and not self._edges:
                return
            state = _Key()
        now = _Now(self._rows[index], at, index, state.number, state.previous, {}, state.held)
        changed = False
        for start in state.starts:
            if start.listens >= 0 and not fits & start.listens:
                continue
            changed = True
            runs, start.runs = start.runs, []
            seen: set[tuple[int, ...]] = set()
            for run in runs:
                if self._advance(start, run, now, seen):
                    break
            self._note(start)
        if begins:
            begun = _Start(state.number, at, [])
            self._advance(begun, _Run(_START, {}, at), now, set())
            if begun.runs or begun.best is not None:
                self._note(begun)
                state.starts.append(begun)
                changed = True
        self._remember(state, now)
        if changed or self._asks or self._edges:
            self._keep(key, state, at)

    def _note(self, start: _Start) -> None:
        """What the start waits for, so that it need not be looked at before."""
        start.due = self._due(start)
        start.listens = 0
        for run in start.runs:
            if run.hold or not run.gap:
                start.listens = -1
                return
            start.listens |= self._listens[run.place]

    def _remember(self, state: _Key, now: _Now) -> None:
        state.number += 1
        state.previous = now.row if self._asks else None
        now.records = {}
        for name in self._edges:
            held = self._judge(name, now, {})[0]
            if held is not None:
                state.held = [*(n for n in state.held if n != name), *([name] if held else [])]

    def _keep(self, key: bytes, state: _Key, at: Nanos) -> None:
        self._settle(key, state, at)
        runs = sum(len(start.runs) for start in state.starts)
        if runs > self._limit:
            if self._on_limit == "error":
                what = f"{self._stream}: {runs} runs of {self.named(key)} at once, the limit is {self._limit}"
                fix = "a narrower first step, a shorter within, a higher limit, or on_limit: drop"
                raise BoucleError("B221", what, why="every row may begin a match", fix=fix)
            while runs > self._limit:
                given_up = len(state.starts[0].runs)
                self.dropped_runs += given_up
                runs -= given_up
                state.starts[0].runs = []
                self._settle(key, state, at)
        due = min([start.due for start in state.starts if start.runs], default=0)
        if due != state.due:
            self.unset(key, state.due)
            state.due = due
            if 0 < due < _NEVER:
                self.set(key, due)
        if state.starts or state.held or state.previous is not None:
            self._states[key] = state
        else:
            self._states.pop(key, None)

    def _judge(self, name: str, now: _Now, records: Records) -> tuple[Verdict, Records | None]:
        """Whether the row fits a step; what is remembered if it does."""
        if name in self._by_row:
            return self._masks[name][now.index], None
        now.records = self._taken(records, name, now)
        verdict: Verdict = self._by_past[name](now)
        return verdict, now.records

    def _taken(self, records: Records, name: str, now: _Now) -> Records:
        return {
            **records,
            name: self._record(records.get(name), name, now),
            "": self._record(records.get(""), "", now),
        }

    def _record(self, old: Record | None, name: str, now: _Now) -> Record:
        wanted = self._sums.get(name, ())
        sums = old.sums if old else tuple(0 if what == "n" else None for what, _ in wanted)
        new = tuple(_fold(what, past, now.row[i]) for past, (what, i) in zip(sums, wanted, strict=True))
        if old is None:
            return Record(1, now.number, now.number, now.at, now.at, now.row, now.row, new)
        return Record(old.count + 1, old.first, now.number, old.first_at, now.at, old.first_row, now.row, new)

    def _advance(self, start: _Start, run: _Run, now: _Now, seen: set[tuple[int, ...]]) -> bool:
        """Take the row on one way; True when the pattern is complete and lesser ways are not wanted any more."""
        if run.hold:
            return self._hold_on(start, run, now)
        options = self._program.options[run.place]
        took = waits = False
        possible = 0
        for target, nots in options if run.options < 0 else options[: run.options]:
            if nots & run.hit:
                continue
            name = "" if target == _ACCEPT else self._program.code[target][1]
            if name and run.gap and self._strict[name]:
                continue
            if not name or not self._strict[name]:
                waits, possible = True, possible | nots
            if not name or (run.place == _START and name in now.held):
                continue
            verdict, records = self._judge(name, now, run.records)
            if verdict:
                took = True
                records = records or self._taken(run.records, name, now)
                if self._arrive(start, target, name, records, now.at, seen):
                    return True
        if not took and waits and run.place != _START:
            self._skip(start, run, now, possible, seen)
        return False

    def _skip(self, start: _Start, run: _Run, now: _Now, possible: int, seen: set[tuple[int, ...]]) -> None:
        hit = run.hit
        for bit in _bits(possible):
            if self._judge(self._program.nots[bit].name, now, run.records)[0]:
                hit |= 1 << bit
        if run.gap and hit == run.hit:
            self._go_on(start, run, seen)
            return
        skipped = _Run(run.place, run.records, run.since, gap=True, hit=hit, options=run.options)
        options = self._program.options[run.place]
        left = options if run.options < 0 else options[: run.options]
        if any(not nots & hit for _, nots in left):
            self._go_on(start, skipped, seen)

    def _hold_on(self, start: _Start, run: _Run, now: _Now) -> bool:
        name = self._program.code[run.place][1]
        verdict, records = self._judge(name, now, run.records)
        if verdict:
            records = records or self._taken(run.records, name, now)
            start.runs.append(_Run(run.place, records, now.at, hold=run.hold))
        elif verdict is None and not self._strict[name]:
            start.runs.append(run)
        return False

    def _arrive(
        self, start: _Start, place: int, name: str, records: Records, at: Nanos, seen: set[tuple[int, ...]]
    ) -> bool:
        if name in self._hold:
            start.runs.append(_Run(place, records, at, hold=at + self._hold[name]))
            return False
        return self._land(start, _Run(place, records, at), seen)

    def _land(self, start: _Start, run: _Run, seen: set[tuple[int, ...]]) -> bool:
        options = self._program.options[run.place]
        if options[-1] != (_ACCEPT, 0):
            self._go_on(start, run, seen)
            return False
        start.best = run.records
        if len(options) > 1:
            self._go_on(start, msgspec.structs.replace(run, options=len(options) - 1), seen)
        return True

    def _go_on(self, start: _Start, run: _Run, seen: set[tuple[int, ...]]) -> None:
        if self._merge:
            same = (run.place, run.gap, run.hit, run.options)
            if same in seen:
                return
            seen.add(same)
        start.runs.append(run)

    def _end(self, start: _Start) -> Nanos:
        return _NEVER if self._within is None else start.at + self._within

    def _due(self, start: _Start) -> Nanos:
        times = (run.hold or self._absent(start, run)[0] for run in start.runs)
        return min([self._end(start), *times]) if self._hold or self._program.nots else self._end(start)

    def _absent(self, start: _Start, run: _Run) -> tuple[Nanos, int]:
        """When absence at the end is complete, and which option that is."""
        options = self._program.options[run.place]
        for index, (target, nots) in enumerate(options if run.options < 0 else options[: run.options]):
            if target == _ACCEPT and nots and not nots & run.hit:
                names = (self._program.nots[bit].name for bit in _bits(nots))
                ends = [run.since + self._hold[name] if name in self._hold else _NEVER for name in names]
                return min(self._end(start), max(ends)), index
        return _NEVER, -1

    def on_timer(self, key: bytes, at: Nanos, tag: str) -> None:  # noqa: ARG002 - there is one kind of timer
        """Complete what held long enough or stayed away; end what took too long."""
        state = self._states[key]
        for start in state.starts:
            if start.due > at:
                continue
            while start.runs and self._due(start) <= at:
                runs, start.runs = start.runs, []
                for run in runs:
                    if self._elapsed(start, run, at):
                        break
            self._note(start)
        self._keep(key, state, at)

    def _elapsed(self, start: _Start, run: _Run, at: Nanos) -> bool:
        if run.hold and run.hold <= at:
            return self._land(start, _Run(run.place, run.records, at), set())
        if not run.hold:
            absent, index = self._absent(start, run)
            if absent <= at:
                start.best = run.records
                if index and self._end(start) > at:
                    start.runs.append(msgspec.structs.replace(run, options=index))
                return True
        if self._end(start) > at:
            start.runs.append(run)
        return False

    def _settle(self, key: bytes, state: _Key, at: Nanos) -> None:
        """Tell what is decided, the leftmost start first."""
        while state.starts and not state.starts[0].runs:
            start = state.starts.pop(0)
            if start.best is None:
                continue
            now = _Now(start.best[""].last_row, at, 0, 0, None, start.best)
            ends = {"first_at": start.best[""].first_at, "last_at": start.best[""].last_at}
            told = {name: measure(now) for name, measure in self._told_measures.items()}
            self.give({**self.named(key), "at": at, **ends, **told})
            resume = self._resume(start, start.best)
            state.starts = [later for later in state.starts if later.number >= resume]

    def _resume(self, start: _Start, records: Records) -> int:
        where, step = self._after_match
        if where == "next":
            return start.number + 1
        if step and step in records:
            again = records[step].first if where == "to first" else records[step].last
            if again > start.number:
                return again
        return records[""].last + 1

    def save(self) -> bytes:
        """The runs of every key."""
        return msgpack.encode((list(self._states.items()), self.dropped_runs))

    def load(self, own: bytes) -> None:
        """Continue with them."""
        states, self.dropped_runs = msgpack.decode(own, type=tuple[list[tuple[bytes, _Key]], int])
        self._states = dict(states)


def _bits(mask: int) -> Iterator[int]:
    return (bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def _fold(what: str, past: Any, value: Any) -> Any:
    """A running aggregate with one more value; null is not counted."""
    if value is None:
        return past
    if what == "n":
        return past + 1
    if past is None:
        return value
    if what == "sum":
        return past + value
    return min(past, value) if what == "min" else max(past, value)


def _own(node: Typed, step: str) -> Typed:
    """A condition on one row only: what the step says of itself is said of that row."""
    if node.op == "step" and node.value[0] == step:
        return Typed("column", node.type, (), node.value[1])
    return Typed(node.op, node.type, tuple(_own(one, step) for one in node.args), node.value)


def _told(node: Typed, schema: pa.Schema) -> pa.DataType:
    """The type of a measure: a time stays a time."""
    if node.op in ("column", "step", "aggregate") and node.value[0] not in ("count", "sum", "avg"):
        column = node.value if isinstance(node.value, str) else node.value[-1]
        kind = schema.field(column).type
        if pa.types.is_timestamp(kind):
            return pa.timestamp("ns", kind.tz)
    return node.type

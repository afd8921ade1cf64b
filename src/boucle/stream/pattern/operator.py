"""The operator: one row per match of a pattern."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import pyarrow as pa
from msgspec import msgpack

from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.ports import From, Traced
from boucle.product.duration import seconds
from boucle.stream.origin import Inputs, expressed, grouped, one_of
from boucle.stream.pattern.conditions import Conditions, Now, Records
from boucle.stream.pattern.matching import NEVER, KeyState, Matching, Run, Start
from boucle.stream.pattern.program import ACCEPT, START, PatternStep, Program, bits
from boucle.stream.sequence import Order
from boucle.stream.stateful import KeyedFold

__all__ = ["Pattern"]


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
        self._program = program = Program(stream, told)
        if contiguity not in ("strict", "relaxed") or on_limit not in ("error", "drop"):
            program.refuse(
                f"contiguity: {contiguity}, on_limit: {on_limit}", "strict or relaxed; error or drop"
            )
        self._conditions = Conditions(stream, program, measures or {})
        self._matching = Matching(
            program,
            self._conditions,
            strict={n: (s.contiguity or contiguity) == "strict" for n, s in program.steps.items()},
            hold={n: round(seconds(s.for_) * SECOND) for n, s in program.steps.items() if s.for_ is not None},
            within=None if within is None else round(seconds(within) * SECOND),
        )
        self._after_match = self._read_after(after)
        self._limit, self._on_limit = limit, on_limit
        self._check()
        self.dropped_runs = 0
        self._states: dict[bytes, KeyState] = {}
        self._edges = [n for n in self._matching.hold if not program.steps[n].not_]

    @classmethod
    def trace(
        cls,
        inputs: Inputs,
        *,
        by: Sequence[str] | str,
        steps: Sequence[PatternStep | Mapping[str, Any]],
        measures: Mapping[str, str] | None = None,
        time: str = "at",
        **declared: Any,
    ) -> Traced:
        """Keys, times, and what each measure reads; the conditions of the steps decide which rows match."""
        del declared
        stream = one_of(inputs)
        told = msgspec.convert([msgspec.to_builtins(step) for step in steps], list[PatternStep])
        conditions = Conditions(stream, Program(stream, told), measures or {})
        names = (by,) if isinstance(by, str) else tuple(by)
        decided = From(stream, time, "TRANSFORMATION", "when the match was decided")
        columns: dict[str, tuple[From, ...]] = {"at": (decided,)}
        columns |= {name: (From(stream, name),) for name in names}
        columns |= {name: (From(stream, time),) for name in ("first_at", "last_at")}
        for name, measure in conditions.measures.items():
            columns[name] = expressed(measure.node, stream, measure.text)
        asked = [
            From(one.stream, one.column, "FILTER", f"{step}: {where.text}")
            for step, where in conditions.where.items()
            for one in expressed(where.node, stream, "")
        ]
        return Traced(columns, (*grouped(stream, names, time, "pattern"), *dict.fromkeys(asked)))

    def _check(self) -> None:
        program = self._program
        takes = [place for place in program.options if place != START]
        waits = [
            place
            for place in takes
            if any(not self._matching.strict[program.code[t][1]] for t, _ in self._matching.next(place))
        ]
        if self._matching.within is None and waits:
            what = "rows may be skipped without end"
            program.refuse(what, "give within: a duration, or contiguity: strict")
        for place, options in program.options.items():
            nots = [program.nots[i] for t, mask in options if t == ACCEPT for i in bits(mask)]
            if place != START and self._matching.within is None and any(step.for_ is None for step in nots):
                program.refuse("absence at the end has no end", "give within, or the `not` step a `for`")
        clash = {"at", "first_at", "last_at", *self._by} & set(self._conditions.measures)
        if clash:
            program.refuse(f"measure {min(clash)} is a column already", "give it another name")
        if program.code[0][0] == "not":
            program.refuse("nothing comes before the first step", "let another step come before the `not`")
        for name, text in self._conditions.measures.items():
            if any(node.op == "prev" for node in text.leaves()):
                program.refuse(f"measure {name} asks for a row outside the match", "prev is for conditions")

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

    def bind(self, schema: pa.Schema) -> pa.Schema:
        """Conditions and measures over these columns; B221 for one that is not there."""
        measures = self._conditions.bind(schema)
        head = self.heads(schema)
        ends = [pa.field(name, head[0].type) for name in ("first_at", "last_at")]
        return pa.schema([*head, *ends, *measures])

    def take(self, rows: pa.RecordBatch) -> None:
        """The columns that are asked for, and what can be judged for all rows at once."""
        self._conditions.take(rows)

    def on_row(self, index: int, key: bytes, at: Nanos) -> None:
        """Take the row on every way through the pattern, and begin one with it."""
        fits = self._conditions.fits[index]
        begins = fits & self._matching.listens[START]
        state = self._states.get(key)
        if state is None:
            if not begins and not self._conditions.asks and not self._edges:
                return
            state = KeyState()
        now = Now(self._conditions.rows[index], at, index, state.number, state.previous, {}, state.held)
        changed = False
        for start in state.starts:
            if start.listens >= 0 and not fits & start.listens:
                continue
            changed = True
            runs, start.runs = start.runs, []
            seen: set[tuple[int, ...]] = set()
            for run in runs:
                if self._matching.advance(start, run, now, seen):
                    break
            self._matching.note(start)
        if begins:
            begun = Start(state.number, at, [])
            self._matching.advance(begun, Run(START, {}, at), now, set())
            if begun.runs or begun.best is not None:
                self._matching.note(begun)
                state.starts.append(begun)
                changed = True
        self._remember(state, now)
        if changed or self._conditions.asks or self._edges:
            self._keep(key, state, at)

    def _remember(self, state: KeyState, now: Now) -> None:
        state.number += 1
        state.previous = now.row if self._conditions.asks else None
        now.records = {}
        for name in self._edges:
            held = self._conditions.judge(name, now, {})[0]
            if held is not None:
                state.held = [*(n for n in state.held if n != name), *([name] if held else [])]

    def _keep(self, key: bytes, state: KeyState, at: Nanos) -> None:
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
            if 0 < due < NEVER:
                self.set(key, due)
        if state.starts or state.held or state.previous is not None:
            self._states[key] = state
        else:
            self._states.pop(key, None)

    def on_timer(self, key: bytes, at: Nanos, tag: str) -> None:  # noqa: ARG002 - there is one kind of timer
        """Complete what held long enough or stayed away; end what took too long."""
        state = self._states[key]
        for start in state.starts:
            if start.due > at:
                continue
            while start.runs and self._matching.due(start) <= at:
                runs, start.runs = start.runs, []
                for run in runs:
                    if self._matching.elapsed(start, run, at):
                        break
            self._matching.note(start)
        self._keep(key, state, at)

    def _settle(self, key: bytes, state: KeyState, at: Nanos) -> None:
        """Tell what is decided, the leftmost start first."""
        while state.starts and not state.starts[0].runs:
            start = state.starts.pop(0)
            if start.best is None:
                continue
            ends = {"first_at": start.best[""].first_at, "last_at": start.best[""].last_at}
            told = self._conditions.measured(start.best, at)
            self.give({**self.named(key), "at": at, **ends, **told})
            resume = self._resume(start, start.best)
            state.starts = [later for later in state.starts if later.number >= resume]

    def _resume(self, start: Start, records: Records) -> int:
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
        states, self.dropped_runs = msgpack.decode(own, type=tuple[list[tuple[bytes, KeyState]], int])
        self._states = dict(states)

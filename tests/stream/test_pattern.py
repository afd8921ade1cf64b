"""Patterns: against regular expressions, against a search by hand, and whatever the cut of the stream."""

import importlib
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position, as_dicts, as_rows
from boucle.clock import SECOND
from boucle.errors import BoucleError
from boucle.stream.pattern import Pattern, PatternStep

SCHEMA = pa.schema(
    [("at", pa.timestamp("ns", tz="UTC")), ("key", pa.string()), ("s", pa.string()), ("x", pa.float64())]
)
LATENESS = 25
Row = dict[str, Any]
Found = list[tuple[int, int]]


def block(rows: list[Row], watermark: int) -> Block:
    return Block("in", as_rows(rows, SCHEMA), watermark, Position("in", watermark))


def play(
    make: Callable[[], Pattern],
    rows: list[Row],
    cuts: Sequence[int] = (),
    *,
    restart: bool = False,
) -> list[Row]:
    operator, newest = make(), 0
    out: list[Row] = []
    edges = [0, *sorted({min(cut, len(rows)) for cut in cuts} - {0, len(rows)}), len(rows)]
    for piece in [*(rows[start:end] for start, end in pairwise(edges)), None]:
        newest = max([newest, *(row["at"] for row in piece)]) if piece is not None else 10**15
        if restart:
            state = operator.snapshot()
            operator = make()
            operator.restore(state)
            assert operator.snapshot() == state
        for given_block in operator.step(block(piece or [], max(0, newest - LATENESS))):
            assert given_block.stream == "out"
            out += as_dicts(given_block.rows)
    return out


def word(text: str, key: str = "k") -> list[Row]:
    """One row for each letter, 10 ns apart."""
    return [
        {"at": 10 + 10 * index, "key": key, "s": letter, "x": float(index)}
        for index, letter in enumerate(text)
    ]


def ends(rows: list[Row]) -> Found:
    return [((row["first_at"] - 10) // 10, (row["last_at"] - 10) // 10) for row in rows]


def step(name: str, letters: str, repeat: str = "", **more: Any) -> dict[str, Any]:
    told = ", ".join(repr(letter) for letter in letters)
    return {"name": name, "where": f"s in [{told}]", "repeat": repeat, **more}


part = st.tuples(
    st.sets(st.sampled_from("abc"), min_size=1, max_size=2).map(lambda letters: "".join(sorted(letters))),
    st.sampled_from(["", "?", "*", "+", "{2}", "{1,2}", "{2,}", "{0,2}"]),
    st.sampled_from(["", "?"]),
)
Part = tuple[str, str, str]


@settings(max_examples=250, deadline=None)
@given(st.lists(part, min_size=1, max_size=4), st.text("abcd", max_size=14), st.booleans())
def test_strict_patterns_are_regular_expressions(parts: list[Part], text: str, each: bool) -> None:
    steps = [
        step(f"s{i}", letters, many + (few if many else "")) for i, (letters, many, few) in enumerate(parts)
    ]
    said = re.compile("".join(f"[{letters}]{many}{few if many else ''}" for letters, many, few in parts))
    if said.match(""):
        with pytest.raises(BoucleError, match="without any row"):
            Pattern("out", by=["key"], steps=steps, contiguity="strict")
        return
    after = "to next row" if each else "past last row"
    found = play(
        lambda: Pattern("out", by=["key"], steps=steps, contiguity="strict", after=after), word(text + "z")
    )
    if each:
        starts = (said.match(text, start) for start in range(len(text)))
        assert ends(found) == [(match.start(), match.end() - 1) for match in starts if match]
    else:
        assert ends(found) == [(match.start(), match.end() - 1) for match in said.finditer(text)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(part, min_size=2, max_size=3),
    st.lists(part, min_size=1, max_size=2),
    st.text("abcd", max_size=14),
)
def test_groups_and_alternatives_are_regular_expressions(
    ways: list[Part], rest: list[Part], text: str
) -> None:
    def told(index: int, one: Part) -> dict[str, Any]:
        return step(f"s{index}", one[0], one[1] + (one[2] if one[1] else ""))

    def said(one: Part) -> str:
        return f"[{one[0]}]{one[1]}{one[2] if one[1] else ''}"

    group = {"any": [told(i, one) for i, one in enumerate(ways)], "repeat": "{1,2}"}
    tail = {"steps": [told(10 + i, one) for i, one in enumerate(rest)]}
    expression = re.compile(f"(?:{'|'.join(map(said, ways))}){{1,2}}{''.join(map(said, rest))}")
    if re.match(f"(?:{'|'.join(map(said, ways))})$", ""):
        return  # `re` treats an empty turn of a loop in its own way
    found = play(
        lambda: Pattern("out", by=["key"], steps=[group, tail], contiguity="strict"), word(text + "z")
    )
    assert ends(found) == [(match.start(), match.end() - 1) for match in expression.finditer(text)]


class Search:
    """The best match from a start, by trying everything in the order of preference."""

    def __init__(self, text: str, parts: list[tuple[str, int, int, bool, str]], within: int) -> None:
        self.text, self.parts, self.within = text, parts, within

    def options(self, index: int, count: int, nots: str = "") -> list[tuple[int, str]]:
        """What may come after `count` rows of part `index`: (part, or -1 when complete; what must not be skipped)."""
        if index == len(self.parts) - 1:
            loop, leave = count < self.parts[index][2], [(-1, nots)] if count >= self.parts[index][1] else []
        else:
            loop = count < self.parts[index][2]
            leave = []
            if count >= self.parts[index][1]:
                leave = self.options(index + 1, 0, nots + self.parts[index + 1][4])
        again = [(index, nots)] if loop else []
        return again + leave if self.parts[index][3] else leave + again

    def best(self, index: int, count: int, start: int, last: int) -> int | None:
        told = self.options(index, count)
        skipped = ""
        cut = next((i for i, way in enumerate(told) if way == (-1, "")), len(told))
        ways = [way for way in told[:cut] if way[0] >= 0]
        for at in range(last + 1, min(len(self.text), start + self.within)):
            open_ways = [part for part, nots in ways if not set(nots) & set(skipped)]
            here = [part for part in open_ways if self.text[at] in self.parts[part][0]]
            for part in here:
                end = self.best(part, count + 1 if part == index else 1, start, at)
                if end is not None:
                    return end
            if here:
                # A row that a step takes is not skipped: nothing is absent from here on.
                return last if cut < len(told) else None
            skipped += self.text[at]
        absent = any(part == -1 and not set(nots) & set(skipped) for part, nots in told)
        return last if absent else None

    def all(self, *, each: bool) -> Found:
        found, start = [], 0
        while start < len(self.text):
            for part, _ in self.options(0, 0, self.parts[0][4]):
                if part >= 0 and self.text[start] in self.parts[part][0]:
                    end = self.best(part, 1, start, start)
                    if end is not None:
                        found.append((start, end))
                        start = start if each else end
                        break
            start += 1
        return found


relaxed_part = st.tuples(
    st.sets(st.sampled_from("abc"), min_size=1, max_size=2).map(lambda letters: "".join(sorted(letters))),
    st.sampled_from([(1, 1), (0, 1), (0, 99), (1, 99), (2, 3), (2, 99)]),
    st.booleans(),
    st.sampled_from(["", "", "d", "c"]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(relaxed_part, min_size=1, max_size=4),
    st.text("abcd", max_size=12),
    st.integers(1, 8),
    st.booleans(),
)
def test_relaxed_patterns_with_nots_and_within_are_what_a_search_finds(
    parts: list[tuple[str, tuple[int, int], bool, str]], text: str, within: int, each: bool
) -> None:
    if all(least == 0 for _, (least, _), _, _ in parts):
        return
    steps: list[dict[str, Any]] = []
    for index, (letters, (least, most), greedy, stop) in enumerate(parts):
        if stop and index:
            steps.append({"name": f"n{index}", "where": f"s == '{stop}'", "not": True})
        many = f"{{{least},{most if most < 99 else ''}}}" + ("" if greedy else "?")
        steps.append(step(f"s{index}", letters, many))
    after = "to next row" if each else "past last row"
    found = play(
        lambda: Pattern("out", by=["key"], steps=steps, within=within * 1e-8, after=after), word(text)
    )
    search = Search(text, [(p[0], *p[1], p[2], p[3] if i else "") for i, p in enumerate(parts)], within)
    assert ends(found) == search.all(each=each)


PLANT: dict[str, Any] = {
    "by": ["key"],
    "within": "10min",
    "steps": [
        {"name": "hot", "where": "s == 'temperature' and x > 80", "for": "30s"},
        {"name": "stop", "where": "s == 'stop'", "not": True},
        {"name": "drop", "where": "s == 'pressure' and x < 5"},
    ],
    "measures": {
        "since": "first(hot.at)",
        "hottest": "max(hot.x)",
        "seen": "count(hot)",
        "low": "drop.x",
        "x2": "x * 2",
    },
}


def plant(*told: tuple[float, str, float]) -> list[Row]:
    return [{"at": int(at * SECOND), "key": "p", "s": what, "x": x} for at, what, x in told]


def test_a_condition_that_holds_then_a_drop_and_no_stop_between() -> None:
    # Pressure rows say something about the temperature condition: they must be unknown, not false.
    steps = [
        {"name": "hot", "where": "if_else(s == 'temperature', x > 80, None)", "for": "30s"},
        *PLANT["steps"][1:],
    ]

    def make() -> Pattern:
        return Pattern("out", **{**PLANT, "steps": steps})

    hot = [(1, "temperature", 90), (10, "pressure", 9), (20, "temperature", 95), (40, "temperature", 99)]
    (match,) = play(make, plant(*hot, (50, "pressure", 4)))
    assert match == {
        "at": 50 * SECOND,
        "key": "p",
        "first_at": SECOND,
        "last_at": 50 * SECOND,
        "since": SECOND,
        "hottest": 95.0,
        "seen": 2,
        "low": 4.0,
        "x2": 8.0,
    }
    assert play(make, plant(*hot, (45, "stop", 1), (50, "pressure", 4))) == []
    assert play(make, plant((1, "temperature", 90), (30, "temperature", 70), (50, "pressure", 4))) == []
    assert play(make, plant((1, "temperature", 90), (29, "pressure", 4))) == [], "not yet long enough"
    assert play(make, plant(*hot, (601, "pressure", 4))) == [], "ten minutes are over"


def test_a_condition_that_holds_is_told_once_and_by_the_watermark() -> None:
    def make() -> Pattern:
        return Pattern("out", by=["key"], steps=[{"name": "hot", "where": "x > 80", "for": "30s"}])

    operator = make()
    assert len(operator.step(block(plant((1, "t", 90)), 31 * SECOND - 1))[0]) == 0
    (told,) = operator.step(block([], 31 * SECOND))
    assert [row["at"] for row in as_dicts(told.rows)] == [31 * SECOND]
    long = [(float(at), "t", 90.0) for at in range(1, 200, 7)]
    cool = (200.0, "t", 20.0)
    again = [(float(at), "t", 90.0) for at in range(201, 300, 7)]
    assert [row["at"] // SECOND for row in play(make, plant(*long, cool, *again))] == [31, 231]


def test_absence_at_the_end_is_known_by_the_watermark() -> None:
    asked: dict[str, Any] = {
        "by": ["key"],
        "steps": [
            {"name": "order", "where": "s == 'order'"},
            {"name": "done", "where": "s == 'done'", "not": True, "for": "5s"},
        ],
    }

    def make() -> Pattern:
        return Pattern("out", **asked)

    found = play(
        make, plant((1, "order", 0), (3, "else", 0), (4, "order", 0), (5, "done", 0), (7, "order", 0))
    )
    assert [(row["first_at"] // SECOND, row["at"] // SECOND) for row in found] == [(7, 12)]
    found = play(make, plant((1, "order", 0), (6, "done", 0)))
    assert [row["at"] // SECOND for row in found] == [6], "done at the very end is too late"
    whole = Pattern(
        "out", **{**asked, "steps": [asked["steps"][0], {**asked["steps"][1], "for": None}], "within": 8}
    )
    assert [row["at"] // SECOND for row in play(lambda: whole, plant((1, "order", 0)))] == [9]


def test_steps_refer_to_earlier_ones_and_to_the_row_before() -> None:
    fall = [
        {"name": "high", "where": "x > 10"},
        {"name": "fall", "where": "fall.x < prev(x) and fall.x > high.x - 9", "repeat": "+"},
        {"name": "drop", "where": "x < high.x - 5 and count(fall) >= 2 and x < avg(fall.x)"},
    ]
    measures = {"mean": "avg(fall.x)", "n": "count(fall)", "from_": "high.x", "to": "drop.x"}

    def make() -> Pattern:
        return Pattern("out", by=["key"], steps=fall, within=9, contiguity="strict", measures=measures)

    values = [3, 12, 11, 9, 2, 5]
    rows = [{"at": i + 1, "key": "k", "s": "", "x": float(x)} for i, x in enumerate(values)]
    (match,) = play(make, rows)
    assert (match["mean"], match["n"], match["from_"], match["to"]) == (10.0, 2, 12.0, 2.0)


CARDS = [
    {"name": "small", "where": "x < 5", "repeat": "{3,}"},
    {"name": "large", "where": "x > 500 and x > 100 * avg(small.x)"},
]


def test_three_small_payments_then_a_large_one() -> None:
    def make() -> Pattern:
        return Pattern(
            "out",
            by=["key"],
            steps=CARDS,
            within="10min",
            measures={"n": "count(small)", "paid": "large.x"},
        )

    paid = plant((1, "", 1), (60, "", 2), (90, "", 50), (100, "", 1), (120, "", 3), (300, "", 900))
    (match,) = play(make, paid)
    assert (match["n"], match["paid"]) == (4, 900.0)
    assert play(make, [*paid[:-1], {**paid[-1], "at": 700 * SECOND}]) == []


def test_after_a_match() -> None:
    steps = [step("a", "a", "+"), step("b", "b")]

    def found(after: str) -> Found:
        return ends(
            play(
                lambda: Pattern("out", by=["key"], steps=steps, contiguity="strict", after=after),
                word("aabaabz"),
            )
        )

    assert found("past last row") == [(0, 2), (3, 5)]
    assert found("to next row") == [(0, 2), (1, 2), (3, 5), (4, 5)]
    assert found("to last a") == [(0, 2), (1, 2), (3, 5), (4, 5)]
    assert found("to first b") == [(0, 2), (3, 5)]


def test_too_many_runs_are_told() -> None:
    steps = [step("a", "a"), step("b", "b")]
    with pytest.raises(BoucleError, match="the limit is 3"):
        play(lambda: Pattern("out", by=["key"], steps=steps, within=1, limit=3), word("aaaaaaab"))
    dropping = Pattern("out", by=["key"], steps=steps, within=1, limit=3, on_limit="drop")
    assert ends(play(lambda: dropping, word("aaaaaaab"))) == [(4, 7)]
    assert dropping.dropped_runs == 4


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"steps": [{"name": "a", "where": "s =="}]}, "cannot be read"),
        ({"steps": [{"name": "a", "where": "b.s == 'x'"}]}, "no step 'b'"),
        ({"steps": [{"name": "a", "where": "s == 'x'", "repeat": "3"}]}, "repeat: '3'"),
        ({"steps": [{"name": "a", "where": "s == 'x'", "repeat": "{3,2}"}]}, "allows nothing"),
        ({"steps": [{"name": "a", "wher": "s == 'x'"}]}, "wher"),
        ({"steps": [step("a", "a"), step("b", "b")]}, "skipped without end"),
        ({"steps": [step("a", "a"), step("a", "b")], "within": 1}, "two steps are called a"),
        ({"steps": [step("a", "a", "{600}")], "within": 1}, "more than 500"),
        ({"steps": [step("a", "a"), {**step("b", "b"), "not": True}]}, "absence"),
        ({"steps": [{**step("a", "a"), "not": True}, step("b", "b")], "within": 1}, "nothing comes before"),
        ({"steps": [step("a", "a")], "after": "to first b"}, "after"),
        ({"steps": [step("a", "a")], "measures": {"at": "a.x"}}, "column already"),
        ({"steps": [{**step("a", "a", "+"), "for": "1s"}], "within": 1}, "repeat"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings_: dict[str, Any], said: str) -> None:
    with pytest.raises(BoucleError) as refused:
        Pattern("out", by=["key"], **settings_)
    assert refused.value.code == "B220"
    assert said in str(refused.value)
    assert refused.value.fix or refused.value.why


@pytest.mark.parametrize("where", ["y > 3", "x + 1", "a.y > 3", "sum(a.s) > 1"])
def test_columns_are_checked_at_the_first_block(where: str) -> None:
    operator = Pattern("out", by=["key"], steps=[{"name": "a", "where": where}])
    with pytest.raises(BoucleError, match="B221"):
        operator.step(block(word("a"), 0))


def test_late_rows_are_told() -> None:
    operator = Pattern("out", by=["key"], steps=[PatternStep("a", "s == 'a'")])
    operator.step(block(word("a"), 100))
    late, _ = operator.step(block(word("a"), 101))
    assert late.stream == "out/late"
    assert operator.late_rows == 1


LAWS: list[dict[str, Any]] = [
    {
        "steps": CARDS,
        "within": 8e-8,
        "measures": {"n": "count(small)", "mean": "avg(small.x)", "at1": "small.at"},
    },
    {
        "steps": [step("a", "ab", "+"), step("b", "bc", "?"), step("c", "c")],
        "within": 9e-8,
        "after": "to next row",
    },
    {
        "steps": [
            {"name": "a", "where": "s != 'c' and x > 3", "for": 2e-8},
            {"name": "n", "where": "s == 'd'", "not": True},
            step("b", "ab"),
            {"name": "m", "where": "s == 'd'", "not": True, "for": 3e-8},
        ],
        "within": 1.2e-7,
    },
    {
        "steps": [step("a", "ab"), {"name": "up", "where": "x >= prev(x) and x > a.x", "repeat": "+"}],
        "contiguity": "strict",
    },
]


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(LAWS),
    st.lists(
        st.tuples(
            st.integers(0, 20),
            st.sampled_from("kl"),
            st.sampled_from("abcd"),
            st.sampled_from([0.1, 2, 4, 800]),
        ),
        max_size=25,
    ),
    st.lists(st.integers(0, LATENESS), min_size=25, max_size=25),
    st.lists(st.integers(0, 25), max_size=6),
    st.booleans(),
)
def test_cut_shuffle_and_restart_change_nothing(
    law: dict[str, Any],
    told: list[tuple[int, str, str, float]],
    shifts: list[int],
    cuts: list[int],
    restart: bool,
) -> None:
    rows: list[Row] = []
    for gap, key, letter, x in told:
        rows.append({"at": (rows[-1]["at"] if rows else 1) + gap, "key": key, "s": letter, "x": float(x)})
    order = sorted(range(len(rows)), key=lambda index: rows[index]["at"] + shifts[index])

    def make() -> Pattern:
        return Pattern("out", by=["key"], **law)

    expected = play(make, rows)
    assert play(make, [rows[index] for index in order], cuts, restart=restart) == expected
    assert [row["at"] for row in expected] == sorted(row["at"] for row in expected)


def from_page(name: str) -> Callable[[], Pattern]:
    """A step of the how-to, as it stands there."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "patterns.md"
    texts = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (declared,) = (one for text in texts for one in yaml.safe_load(text) if one["id"] == name)
    module, _, made = declared["use"].partition(":")
    factory = getattr(importlib.import_module(module), made)
    return lambda: factory(stream=declared["id"], **declared["with"])


def told(
    make: Callable[[], Pattern], schema: dict[str, pa.DataType], rows: list[tuple[Any, ...]]
) -> list[Row]:
    names = list(schema)
    kinds = pa.schema(list(schema.items()))
    batch = as_rows([dict(zip(names, (row[0] * SECOND, *row[1:]), strict=True)) for row in rows], kinds)
    return [
        row
        for out in make().step(Block("in", batch, 10**15, Position("in", 1)))
        for row in as_dicts(out.rows)
    ]


PLANT_SCHEMA = {
    "at": pa.timestamp("ns", tz="UTC"),
    "machine": pa.string(),
    "temperature": pa.float64(),
    "pressure": pa.float64(),
    "event": pa.string(),
}


def test_the_plant_of_the_how_to() -> None:
    make = from_page("pressure_lost")
    readings = [
        (1, "p", 85.0, None, None),
        (20, "p", None, 99.0, None),
        (25, "p", 91.0, None, None),
        (40, "p", None, 100.0, None),
        (50, "p", None, 94.0, None),
    ]
    assert told(make, PLANT_SCHEMA, readings) == [
        {
            "at": 50 * SECOND,
            "machine": "p",
            "first_at": SECOND,
            "last_at": 50 * SECOND,
            "hot_since": SECOND,
            "hottest": 91.0,
            "before": 100.0,
            "after": 94.0,
        }
    ]
    stopped = [*readings[:4], (45, "p", None, None, "stop"), readings[4]]
    assert told(make, PLANT_SCHEMA, stopped) == []
    cooled = [*readings[:2], (25, "p", 79.0, None, None), *readings[3:]]
    assert told(make, PLANT_SCHEMA, cooled) == []


def test_the_bank_of_the_how_to() -> None:
    schema = {"at": pa.timestamp("ns", tz="UTC"), "card": pa.string(), "amount": pa.float64()}
    paid = [(1, "c", 1.0), (30, "c", 2.0), (40, "d", 1.0), (60, "c", 60.0), (90, "c", 3.0), (200, "c", 900.0)]
    (match,) = told(from_page("card_testing"), schema, paid)
    assert (match["card"], match["tries"], match["amount"], match["at"]) == ("c", 3, 900.0, 200 * SECOND)
    assert told(from_page("card_testing"), schema, [*paid[:-1], (601, "c", 900.0)]) == []


def test_the_absence_of_the_how_to() -> None:
    schema = {"at": pa.timestamp("ns", tz="UTC"), "order": pa.string(), "state": pa.string()}
    rows = [(1, "a", "sent"), (2, "b", "sent"), (9, "a", "done")]
    (match,) = told(from_page("order_forgotten"), schema, rows)
    assert (match["order"], match["at"]) == ("b", 3602 * SECOND)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(LAWS),
    st.text("abcd", max_size=20),
    st.lists(st.integers(0, 25), max_size=6),
    st.booleans(),
)
def test_in_arrival_order_a_key_does_not_depend_on_the_cut(
    law: dict[str, Any], text: str, cuts: list[int], restart: bool
) -> None:
    rows = word(text)

    def make() -> Pattern:
        return Pattern("out", by=["key"], order="arrival", **law)

    expected = play(make, rows)
    assert play(make, rows, cuts, restart=restart) == expected
    assert expected == play(lambda: Pattern("out", by=["key"], **law), rows), "one key in order: as by time"


def test_what_is_remembered_is_bounded_by_event_time() -> None:
    operator = Pattern("out", by=["key"], **LAWS[0])
    sizes = []
    for turn in range(50):
        rows = [
            {**row, "at": row["at"] + turn * 1000, "key": f"{turn} {index}"}
            for index, row in enumerate(word("abc" * 9))
        ]
        operator.step(block(rows, turn * 1000 + 900))
        sizes.append(len(operator.snapshot()))
    assert max(sizes) < 2 * sizes[0]


def test_a_key_that_cannot_be_told_apart_is_refused() -> None:
    schema = pa.schema(
        [("at", pa.timestamp("ns", tz="UTC")), ("key", pa.list_(pa.int64())), ("s", pa.string())]
    )
    operator = Pattern("out", by=["key"], steps=[step("a", "a")])
    with pytest.raises(BoucleError, match="key key is list"):
        operator.step(Block("in", as_rows([], schema), 0, Position("in", 0)))

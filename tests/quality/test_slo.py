"""Objectives: counts add up however they are split, no time is counted twice, budgets and alerts are the book's."""

import itertools
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.product.sla import Objective, Reference, Sla
from boucle.quality.ledger import Ledger
from boucle.quality.slo.budget import rules_for, standing
from boucle.quality.slo.counts import MINUTE_MS, Cell, Minutes, minutes_between
from boucle.quality.slo.history import Counted, History, history_cells, read_past
from boucle.quality.slo.measures import Counters, Measure, Probe, measure_of
from boucle.quality.slo.truth import Truth

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
START = 29_000_000 * MINUTE
DAY = 86400.0

cells_of = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 50), st.integers(0, 50)).map(
        lambda c: (c[0], c[1], c[1] + c[2])
    ),
    max_size=60,
)


def counted(cells: Iterable[Cell], size: int = 100) -> Minutes:
    minutes = Minutes(size)
    for cell in cells:
        minutes.add(*cell)
    return minutes


@given(cells=cells_of, data=st.data())
def test_counts_merged_over_any_split_are_the_whole(cells: list[Cell], data: st.DataObject) -> None:
    whole = counted(cells)
    parts: list[list[Cell]] = [[], [], []]
    for cell in data.draw(st.permutations(cells)):
        parts[data.draw(st.integers(0, 2))].append(cell)
    merged = Minutes(100)
    for part in parts:
        merged.merge(counted(part))
    assert list(merged.cells()) == list(whole.cells())
    assert (merged.newest, merged.first) == (whole.newest, whole.first)
    first, last = data.draw(st.integers(-5, 305)), data.draw(st.integers(-5, 305))
    newest = max((cell[0] for cell in cells if cell[2]), default=0)
    inside = [c for c in cells if first <= c[0] <= last and c[0] > newest - 100]
    told = (sum(c[1] for c in inside), sum(c[2] for c in inside))
    assert whole.between(first, last) == merged.between(first, last) == told


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=8))
def test_time_is_cut_into_minutes_without_a_rest(start: int, until: int, cuts: list[int]) -> None:
    ends = [start, *sorted(cut for cut in cuts if cut > start)]
    cells = [cell for a, b in itertools.pairwise(ends) for cell in minutes_between(a, until, b)]
    whole = list(minutes_between(start, until, ends[-1]))
    assert counted(cells, 40).between(0, 40) == counted(whole, 40).between(0, 40)
    assert sum(cell[2] for cell in whole) == ends[-1] - start
    assert sum(cell[1] for cell in whole) == max(0, min(until, ends[-1]) - start)
    assert all(0 <= good <= total <= MINUTE_MS for _, good, total in whole)


def objective(**told: Any) -> Objective:
    plain: dict[str, Any] = {
        "id": "o",
        "measure": "freshness",
        "target": 0.99,
        "window": 30 * DAY,
        "bound": 60.0,
    }
    return Objective(**{**plain, "element": "t", "column": "at", "stream": "s", **told})


def block(at: list[int], offset: int = 1, **columns: Any) -> Block:
    rows = pa.record_batch({"at": pa.array(at, pa.timestamp("ns", "UTC")), **columns})
    return Block("s", rows, 0, Position("s", offset))


def measure(told: Objective, truth: Truth | None = None) -> Measure:
    return measure_of(told, lambda: True, lambda: (0, 0), truth)


moments = st.lists(
    st.tuples(st.sampled_from(["see", "look", "back", "restart"]), st.integers(0, 400)),
    min_size=1,
    max_size=40,
)


@given(moments)
def test_time_is_counted_once_whatever_clock_gaps_and_restarts_do(steps: list[tuple[str, int]]) -> None:
    """The good time of an ideal observer who never slept, from the first look to the furthest time that was seen."""
    current, now, furthest = measure(objective()), START, START
    list(current.look(now))
    until, good = START + MINUTE, 0
    cells: list[Cell] = []
    for what, seconds in steps:
        now += -seconds * SECOND if what == "back" else seconds * SECOND
        if now > furthest:
            good += max(0, min(until, now) - furthest)
            furthest = now
        if what == "see":
            cells += current.see(block([now - 5 * SECOND]), now)
            until = max(until, now - 5 * SECOND + MINUTE)
        else:
            cells += current.look(now)
        if what == "restart":
            again = measure(objective())
            again.resume(json.loads(json.dumps(current.mark())))
            current = again
    told = counted(cells, 60 * 24 * 30)
    assert told.between(0, 2**40) == (good // 10**6, (furthest - START) // 10**6)


@pytest.mark.parametrize("mark", [None, 3, [1], ["a", 2], [1.5, 2], {"x": 1}, [-9, 2], [2**70, 1], [True, 1]])
def test_a_mark_that_is_none_changes_nothing(mark: Any) -> None:
    for name in ("freshness", "throughput", "latency", "availability", "errorRate"):
        current = measure(objective(measure=name))
        before = current.mark()
        current.resume(mark)
        assert current.mark() == before


def test_a_clock_ahead_makes_nothing_fresher() -> None:
    current = measure(objective())
    list(current.look(START))
    list(current.see(block([START + 3600 * SECOND]), START + SECOND))
    told = counted(current.look(START + 121 * SECOND), 100)
    assert told.between(0, 2**40) == (60_000, 120_000)


def test_rows_that_must_come_in_every_minute() -> None:
    arrivals = [(0, 100), (61, 100), (130, 59), (130, 1), (200, 30), (400, 100), (480, 0)]
    throughput, complete = (
        measure(objective(measure="throughput", bound=1.0)),
        measure(objective(measure="completeness", rate=1.0)),
    )
    cells: list[Cell] = []
    shares: list[Cell] = []
    for seconds, rows in arrivals:
        now = START + seconds * SECOND
        cells += throughput.see(block([now] * rows), now)
        shares += complete.see(block([now] * rows), now)
    first = START // MINUTE
    assert [(minute - first, good) for minute, good, _ in cells] == [
        (0, 1), (1, 1), (2, 1), (3, 0), (4, 0), (5, 0), (6, 1), (7, 0),
    ]  # fmt: skip
    assert [(good, total) for _, good, total in shares] == [
        (60, 60), (60, 60), (60, 60), (30, 60), (0, 60), (0, 60), (60, 60), (0, 60),
    ]  # fmt: skip


def test_rows_and_commands_that_were_in_time() -> None:
    rows = measure(objective(measure="latency", bound=2.0))
    now = START + 10 * SECOND
    ages = [0, 1, 2, 3]
    assert list(rows.see(block([now - age * SECOND for age in ages]), now)) == [(now // MINUTE, 3, 4)]
    assert list(rows.took(1.0, now)) == []
    commands = measure(objective(measure="latency", bound=0.05, stream="", element="", column=""))
    assert [next(iter(commands.took(s, now)))[1:] for s in (0.05, 0.051)] == [(1, 1), (0, 1)]
    lost = pa.record_batch({"x": [1]})
    assert list(rows.see(Block("s", lost, 0, Position("s", 2)), now)) == []
    assert rows.why == "s has no column at"


def test_counters_tell_what_came_since() -> None:
    told = iter([(10, 10), (18, 20), (18, 20), (25, 30)])
    current = Counters(objective(measure="errorRate"), lambda: next(told))
    assert [list(current.look(START)) for _ in range(4)] == [
        [(START // MINUTE, 10, 10)], [(START // MINUTE, 8, 10)], [], [(START // MINUTE, 7, 10)],
    ]  # fmt: skip


def test_a_probe_counts_only_what_it_can_know() -> None:
    answers: list[bool | None] = [True, True, False, None, True, True, True]
    current = Probe(objective(measure="availability"), lambda: answers.pop(0), every=10.0)
    told = []
    for seconds in (0, 5, 10, 20, 30, 40, 7200, 7210):
        current.ask(START + seconds * SECOND)
        told.append(counted(current.look(START + seconds * SECOND)).between(0, 2**40))
    assert told == [
        (0, 0),
        (0, 0),
        (10_000, 10_000),
        (0, 10_000),
        (0, 0),
        (10_000, 10_000),
        (0, 0),
        (10_000, 10_000),
    ]


def reference(**told: Any) -> Reference:
    plain = {"file": "truth.csv", "key": ("machine",), "column": "right", "tolerance": 0.5, "relative": False}
    return Reference(**{**plain, "within": 60.0, "time": "at", **told})


def test_rows_agree_with_the_truth_as_of_their_time(tmp_path: Path) -> None:
    lines = [
        "machine,at,right",
        "1,2026-03-01T00:00:00Z,5.0",
        "1,2026-03-01T00:01:00Z,8.0",
        "2,2026-03-01T00:00:00Z,1",
    ]
    (tmp_path / "truth.csv").write_text("\n".join(lines))
    truth = Truth(reference(), "value", "at", tmp_path)
    base = 1_772_323_200 * SECOND

    def judged(rows: list[tuple[int, int | None, float | None]], **told: Any) -> tuple[int, int]:
        at = pa.array([base + seconds * SECOND for seconds, _, _ in rows], pa.timestamp("ns", "UTC"))
        columns = {"at": at, "machine": [one for _, one, _ in rows], "value": [one for _, _, one in rows]}
        return (Truth(reference(**told), "value", "at", tmp_path) if told else truth).judge(
            pa.record_batch(columns)
        )

    assert judged([(0, 1, 5.5), (59, 1, 5.6), (60, 1, 8.0), (61, 1, None)]) == (2, 4)
    assert judged([(-1, 1, 5.0), (500, 1, 8.0), (0, 7, 1.0), (0, None, 1.0)]) == (0, 0), "nobody knows"
    assert judged([(0, 1, 5.4)], tolerance=0.1, relative=True) == (1, 1)
    assert judged([(5000, 2, 1.0)], time="", within=0.0) == (1, 1)
    # Renewed when it changes; told when it is gone.
    pq.write_table(pa.table({"machine": ["1"], "right": [6.0]}), tmp_path / "truth.parquet")
    assert judged([(0, 1, 6.0)], file="truth.parquet", time="") == (1, 1)
    (tmp_path / "truth.csv").write_text("machine,at,right\n1,2026-03-01T00:00:00Z,100\n")
    assert judged([(0, 1, 5.0)]) == (0, 1)
    (tmp_path / "truth.csv").write_text("machine,at\n1,2026-03-01T00:00:00Z\n")
    assert judged([(0, 1, 5.0)]) == (0, 0)
    assert "right" in truth.why
    (tmp_path / "truth.csv").unlink()
    assert judged([(0, 1, 5.0)]) == (0, 0)
    assert "truth.csv" in truth.why


@given(st.binary(max_size=300))
def test_whatever_stands_in_a_truth_no_row_is_judged_wrongly(tmp_path_factory: Any, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "any.csv").write_bytes(b"machine,right\n" + content)
    truth = Truth(reference(file="any.csv", time=""), "value", "at", folder)
    rows = block([START], machine=["nobody knows"], value=[1.0]).rows
    assert truth.judge(rows) in {(0, 0), (0, 1)}


# ── budgets and alerts ────────────────────────────────────────────────────────────────────────


def test_the_alerts_of_the_book() -> None:
    rules = rules_for(0.999, 30 * DAY)
    assert [(rule.name, rule.burn, rule.long, rule.short) for rule in rules] == [
        ("fast", 14.4, 60, 5), ("slow", 6.0, 360, 30), ("lasting", 1.0, 4320, 360),
    ]  # fmt: skip
    week = rules_for(0.999, 7 * DAY)
    assert [(rule.long, rule.short) for rule in week] == [(14, 1), (84, 7), (1008, 84)]
    assert rules_for(0.9, 30 * DAY)[0].burn == pytest.approx(9.0), "an outage of all is ten times too much"
    assert [rule.short for rule in rules_for(0.99, 3600)] == [1, 1, 1]


def stands(bad: Callable[[int], float], minutes: int = 3 * 1440, target: float = 0.999) -> Any:
    """Where an objective stands after so many minutes, of which `bad` says how much of each was not good."""
    told = Minutes(30 * 1440 + 1)
    for minute in range(minutes):
        total = MINUTE_MS
        told.add(minute, total - round(bad(minutes - 1 - minute) * total), total)
    return standing(told, target, 30 * DAY, minutes - 1, rules_for(target, 30 * DAY))


@pytest.mark.parametrize(
    ("bad", "fires"),
    [
        (lambda ago: 0.0, []),
        (lambda ago: float(ago < 5), ["fast", "slow", "lasting"]),
        (lambda ago: float(5 <= ago < 30), ["slow", "lasting"]),  # over for five minutes
        (lambda ago: 0.02 * (ago < 61), ["fast"]),
        (lambda ago: 0.01 * (ago < 360), ["slow"]),
        (lambda ago: 0.0011, ["lasting"]),
        (lambda ago: 0.0009, []),
        (lambda ago: float(300 < ago < 330), ["lasting"]),
    ],
)
def test_what_wakes_somebody(bad: Callable[[int], float], fires: list[str]) -> None:
    assert [burn.rule.name for burn in stands(bad).burns if burn.fires] == fires


def test_what_is_left_of_a_budget() -> None:
    half = stands(lambda ago: 0.0005)
    assert (half.left, half.compliance) == (pytest.approx(0.95), pytest.approx(0.9995)), (
        "three days of thirty"
    )
    assert math.isinf(half.exhausts)
    twice = stands(lambda ago: 0.002)
    assert (twice.left, twice.exhausts) == (pytest.approx(0.8), pytest.approx(12 * DAY))
    # Ten minutes of outage are 23 % of the 43 minutes that a month has, also on the first day.
    assert stands(lambda ago: float(ago < 10), minutes=60).left == pytest.approx(1 - 10 / 43.2)
    spent = stands(lambda ago: float(ago < 90))
    assert spent.left < 0
    assert spent.exhausts == 0
    none = standing(Minutes(10), 0.99, 600, 5, rules_for(0.99, 3600))
    assert (none.left, none.total) == (1.0, 0)
    assert math.isnan(none.compliance)


def test_one_slow_command_wakes_nobody() -> None:
    minutes, rules = Minutes(100), rules_for(0.99, 30 * DAY)
    for number, fires in ((1, False), (2, False), (3, True)):
        minutes.add(50, 0, 1)
        told = standing(minutes, 0.99, 30 * DAY, 50, rules)
        assert any(burn.fires for burn in told.burns) == fires, number


# ── history ───────────────────────────────────────────────────────────────────────────────────

PROMISED = Sla((objective(id="a", window=7200.0), objective(id="b", window=7200.0)))


@given(entries=st.lists(st.tuples(st.sampled_from("abz"), cells_of), max_size=8), kill=st.integers(0, 200))
def test_a_history_goes_on_after_any_kill(
    tmp_path_factory: Any, entries: list[tuple[str, list[Cell]]], kill: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    history = History(folder)
    history.open("p", PROMISED, START)
    for number, (name, cells) in enumerate(entries):
        history.append(Counted(START + number, {name: cells}, {name: {"mark": number}}, {"a/fast": number}))
    history.close()
    file = folder / "slo" / "history.ndjson"
    text = file.read_bytes()
    torn = text[: max(text.index(b"\n") + 1, len(text) - kill)]
    file.write_bytes(torn)
    kept = entries[: max(0, torn.count(b"\n") - 2)]
    past = read_past(folder)
    assert past is not None
    again = History(folder)
    opened = again.open("p", PROMISED, START)
    again.close()
    for told in (past, opened, read_past(folder)):
        assert told is not None
        for name in "ab":
            whole = counted([cell for owner, cells in kept for cell in cells if owner == name], 121)
            assert list(told.minutes[name].cells()) == [cell for cell in whole.cells() if cell[2]]
        assert told.marks.get("a") == next(
            ({"mark": n} for n, (name, _) in reversed(list(enumerate(kept))) if name == "a"), None
        )


def test_a_history_is_written_anew_when_it_has_grown(tmp_path: Path) -> None:
    history = History(tmp_path, room=2000)
    history.open("p", PROMISED, START)
    sizes = []
    for number in range(400):
        cells: dict[str, list[Cell]] = {"a": [(number // 6, 5, 6)]}
        history.append(Counted(START + number, cells, {"a": {"mark": number}}, {"a/fast": 7}))
        sizes.append((tmp_path / "slo" / "history.ndjson").stat().st_size)
    history.close()
    assert max(sizes) < 12_000
    past = read_past(tmp_path)
    assert past is not None
    assert past.minutes["a"].between(0, 1000) == (2000, 2400)
    assert (past.product, past.marks["a"], past.firing) == ("p", {"mark": 399}, {"a/fast": 7})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
entry_like = st.fixed_dictionaries(
    {"type": st.sampled_from(["counted", "declared", "x"]), "at": json_values},
    optional=dict.fromkeys(("cells", "marks", "firing", "sla", "product"), json_values),
)


@given(
    st.lists(st.binary(max_size=60).filter(lambda b: b"\n" not in b) | entry_like.map(msgspec.json.encode))
)
def test_a_damaged_history_never_stops_a_run(tmp_path_factory: Any, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("run")
    ledger = Ledger(folder / "slo" / "history.ndjson")
    for line in lines:
        if b"\n" not in line:
            ledger.append(line)
    ledger.append(msgspec.json.encode(Counted(START, {"a": [(7, 1, 2), (-5, 1, 1), (3, 2**65, 1)]})))
    ledger.close()
    history = History(folder)
    past = history.open("p", PROMISED, START)
    history.close()
    assert set(past.minutes) == {"a", "b"}


def test_the_history_of_a_window_in_points() -> None:
    minutes = Minutes(121)
    for minute in range(1000, 1100):
        minutes.add(minute, 1 if minute < 1090 else 0, 1)
    told = list(history_cells(minutes, 1099))
    assert told[0] == (99, 1.0)
    assert told[-1] == (1, 0.0)
    assert len(told) == 50
    assert list(history_cells(Minutes(121), 1099)) == []

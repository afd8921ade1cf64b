"""Rules speak once, at the right moment, with the same words and ids at every replay."""

from typing import Any

import msgspec
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from boucle.act.guard import Guard, Situation
from boucle.act.policy import Policy, Rule, read_rules
from boucle.act.says import columns_of, fill, fill_value
from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.errors import BoucleError
from boucle.event import Command, Event, Severity
from tests.act.plant import LIMITS, START

STREAMS = {"verdicts", "alerts"}
WEAR: dict[str, Any] = yaml.safe_load("""
id: wear
"on": verdicts
when: {family: machine, confidence: ">= 0.8", health: "<= 0.85", zone: [C, D]}
hold: 2s
once: episode
rearm: 3s
event:
  kind: machine_wear
  severity: alarm
  says: {en: "{machine} is worn, health {health:.2f}", fr: "{machine} s'use, santé {health:.2f}"}
commands:
  - target: plc/{machine}/speed_setpoint
    verb: set
    value: {of: setpoint, times: 0.75, at_least: 24, at_most: 40}
    expires: 5s
    says: {en: "Slow {machine} down", fr: "Ralentir {machine}"}
  - target: mes/{machine}/job_order
    verb: order
    expires: 1h
    value: {WorkType: Maintenance, Priority: 2, Description: "{cause}: {health:.1f}",
            Parameters: {Health: "{health}", Hours: "{rul_h}", Cause: "{cause}"}, List: ["{machine}", 1]}
""")
WORN: dict[str, Any] = {
    "machine": "press-2", "family": "machine", "confidence": 0.9, "health": 0.5, "zone": "C", "setpoint": 40.0,
    "rul_h": None, "cause": "outer_race", "subject": "press-2", "evidence": '{"bpfo": 9.5}',
}  # fmt: skip
FINE = {**WORN, "health": 0.95}


def rules(*declared: dict[str, Any]) -> list[Rule]:
    found, problems = read_rules(list(declared), streams=STREAMS, limits=LIMITS)
    assert problems == []
    return found


def block(rows: list[tuple[float, dict[str, Any]]], stream: str = "verdicts") -> Block:
    at = pa.array([START + int(second * SECOND) for second, _ in rows], pa.timestamp("ns", tz="UTC"))
    columns = {name: pa.array([row[name] for _, row in rows]) for name in (rows[0][1] if rows else WORN)}
    if rows:
        columns["rul_h"] = columns["rul_h"].cast(pa.float64()) if "rul_h" in columns else at
    batch = pa.record_batch({**columns, "at": at, "list": pa.array([[1.0]] * len(rows))})
    return Block(stream, batch, 0, Position(stream, 1))


def decide(
    rows: list[tuple[float, dict[str, Any]]], policy: Policy | None = None
) -> tuple[list[Event], list[Command]]:
    return (policy or Policy(rules(WEAR), "press-line")).decide(block(rows))


def moments(events: list[Event]) -> list[float]:
    return [(event.at - START) / SECOND for event in events]


def test_a_rule_speaks_once_it_has_held() -> None:
    events, commands = decide([(second, WORN) for second in range(6)])
    [event] = events
    assert moments(events) == [2]
    assert event.id == f"wear/press-2/{START}"
    assert (event.product, event.subject, event.kind) == ("press-line", "press-2", "machine_wear")
    assert event.severity is Severity.alarm
    assert event.says == {"en": "press-2 is worn, health 0.50", "fr": "press-2 s'use, santé 0,50"}
    assert event.evidence["evidence"] == {"bpfo": 9.5}
    assert "rul_h" not in event.evidence
    slow, order = commands
    now = START + 2 * SECOND
    assert (slow.id, slow.target, slow.value) == (f"{event.id}/0", "plc/press-2/speed_setpoint", 30.0)
    assert (slow.not_after, slow.issued_at, slow.caused_at) == (now + 5 * SECOND, now, now)
    assert slow.because == (event.id,)
    assert slow.says == {"en": "Slow press-2 down", "fr": "Ralentir press-2"}
    assert order.value == {
        "WorkType": "Maintenance",
        "Priority": 2,
        "Description": "outer_race: 0.5",
        "Parameters": {"Health": 0.5, "Hours": None, "Cause": "outer_race"},
        "List": ["press-2", 1],
    }


def test_an_interruption_starts_the_wait_anew() -> None:
    events, _ = decide([(0, WORN), (1, WORN), (1.5, FINE), (2, WORN), (3, WORN), (4, WORN)])
    assert moments(events) == [4]


def test_an_episode_ends_only_after_the_rule_was_false_for_long() -> None:
    flicker = [(0, WORN), (2, WORN), (3, FINE), (4, WORN), (5, FINE), (7, FINE), (7.5, WORN), (20, WORN)]
    assert moments(decide([(float(s), row) for s, row in flicker])[0]) == [2]
    healed = [(0, WORN), (2, WORN), (3, FINE), (6, FINE), (7, WORN), (9, WORN)]
    events, _ = decide([(float(s), row) for s, row in healed])
    assert moments(events) == [2, 9]
    assert events[1].id == f"wear/press-2/{START + 7 * SECOND}"
    silent = [(0, WORN), (2, WORN), (3, FINE), (9, WORN), (11, WORN)]
    assert moments(decide([(float(s), row) for s, row in silent])[0]) == [2, 11]


@pytest.mark.parametrize(
    "change",
    [{"family": "sensor"}, {"confidence": 0.79}, {"health": None}, {"health": float("nan")}, {"zone": "A"},
     {"confidence": None}, {"family": None}],
)  # fmt: skip
def test_every_condition_must_hold(change: dict[str, Any]) -> None:
    assert decide([(s, {**WORN, **change}) for s in range(9)]) == ([], [])


def test_subjects_have_their_own_episodes() -> None:
    other = {**WORN, "machine": "press-3", "subject": "press-3/vib_x"}
    events, _ = decide([(0, WORN), (1, other), (2, WORN), (3, other)])
    assert [event.subject for event in events] == ["press-2", "press-3/vib_x"]


def test_old_rows_are_not_judged() -> None:
    assert moments(decide([(5, FINE), (0, WORN), (2, WORN), (6, WORN), (8, WORN)])[0]) == [8]


def test_once_per_row_speaks_for_each() -> None:
    each = {**WEAR, "once": "row", "hold": 0, "commands": []}
    events, _ = decide([(0, WORN), (1, FINE), (2, WORN)], Policy(rules(each), "p"))
    assert [event.id for event in events] == [f"wear/press-2/{START}", f"wear/press-2/{START + 2 * SECOND}"]


def test_a_policy_clamps_its_own_value_and_the_guard_what_is_left() -> None:
    def value(setpoint: Any) -> Any:
        return decide([(0, {**WORN, "setpoint": setpoint}), (2, {**WORN, "setpoint": setpoint})])[1][0]

    assert value(26.0).value == 24
    assert value(99.0).value == 40
    unknown = value(float("nan"))
    world = Situation(now=START, deadline=unknown.not_after)
    refusal = Guard(LIMITS).before_intent(unknown, world)
    assert refusal is not None
    assert refusal.code == "not_a_number"


def test_the_cause_may_be_later_than_the_row() -> None:
    policy = Policy(rules({**WEAR, "hold": 0}), "p")
    _, commands = policy.decide(block([(0, WORN)]), caused_at=START + 7)
    assert commands[0].caused_at == START + 7
    assert commands[0].not_after == START + 7 + 5 * SECOND


def test_a_missing_column_is_said_with_what_is_there() -> None:
    with pytest.raises(BoucleError, match=r'B715.*"confidense"'):
        decide([(0, {("confidense" if k == "confidence" else k): v for k, v in WORN.items()})])


def test_other_streams_are_not_looked_at() -> None:
    assert Policy(rules(WEAR), "p").decide(block([(0, WORN)], "other")) == ([], [])


def _changed(**change: Any) -> dict[str, Any]:
    return {**WEAR, **change}


def _commanding(**change: Any) -> dict[str, Any]:
    return {**WEAR, "commands": [{**WEAR["commands"][0], **change}]}


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (_changed(on="verdict"), "verdicts"),
        (_changed(when={}), "condition"),
        (_changed(when={"x": {"a": 1}}), "compared"),
        (_changed(when={"x": "<= much"}), "number"),
        (_changed(hold="2 weeks"), "duration"),
        (_changed(colour="red"), "colour"),
        (_changed(once="ever"), "once"),
        (_changed(event=None, commands=[]), "neither"),
        (_changed(event={"kind": "k", "severity": "loud", "says": {}}), "severity"),
        (_changed(event={"kind": "k", "severity": "info", "says": {"en": "x"}}), "fr is missing"),
        (_changed(event={"kind": "k", "severity": "info", "says": {"en": "{x.y}", "fr": "x"}}), "x.y"),
        (_changed(event={"kind": "k", "severity": "info", "says": {"en": "{", "fr": "x"}}), "event"),
        (_commanding(target="plc/{machine}/speed"), "speed_setpoint"),
        (_commanding(target="plc/speed_setpoint"), "actuator/machine/signal"),
        (_commanding(verb="order"), "order"),
        (_commanding(verb="safe"), "safe"),
        (_commanding(value=41), "outside"),
        (_commanding(value="fast"), "takes a number"),
        (_commanding(value={"of": "setpoint", "at_most": 45}), "outside"),
        (_commanding(value={"of": "setpoint", "time": 2}), "time"),
        (_commanding(expires="6s"), "lives"),
        (_commanding(target="mes/{machine}/job_order", verb="order", value=3), "takes an order"),
        (
            _commanding(target="mes/{machine}/job_order", verb="order", value={"of": "x", "at_least": 1}),
            "order",
        ),
        ("not a rule", "number 1"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said(declared: Any, told: str) -> None:
    found, problems = read_rules([declared], streams=STREAMS, limits=LIMITS)
    assert found == []
    assert any(told in f"{what} {fix}" for _, what, fix in problems), problems


def test_all_mistakes_are_listed() -> None:
    bad = _changed(on="x", hold="y", when={})
    _, problems = read_rules([WEAR, bad, WEAR], streams=STREAMS, limits=LIMITS)
    assert [index for index, _, _ in problems] == [1, 1, 1, 2]


def test_templates_reach_nothing_but_their_row() -> None:
    assert columns_of({"a": "{x:.1f} {y}", "b": ["{z}", 1]}) == {"x", "y", "z"}
    for bad in ("{x.__class__}", "{x[0]}", "{x!r}", "{x:{y}}", "{0}", "{}"):
        with pytest.raises(ValueError, match=r"column name|empty"):
            columns_of(bad)
    assert fill("{x:.1f}/{y}/{z:d}", {"x": 1.25, "y": None, "z": 1.5}, "fr") == "1,2/–/1,5"
    assert fill("{x} {b}", {"x": float("nan"), "b": True}, "fr") == "– True"
    assert fill("{{x}}", {}) == "{x}"
    assert fill_value("{x}", {"x": float("inf")}) is None
    assert fill_value({"a": ["{x}", "n {x}"]}, {"x": 3}) == {"a": [3, "n 3"]}


def passed(policy: Policy, second: float, names: range, *, worn: bool) -> list[str]:
    """Who is spoken of when all of these say the same at one moment, which the watermark passes."""
    row = WORN if worn else FINE
    said = block([(second, {**row, "machine": f"press-{number}"}) for number in names])
    return [
        event.id
        for event in policy.decide(msgspec.structs.replace(said, watermark=START + int(second * SECOND)))[0]
    ]


def test_subjects_are_forgotten_when_nothing_depends_on_them() -> None:
    policy = Policy(rules({**WEAR, "hold": 0}), "p")
    for turn in range(20):
        names = range(1000 * turn, 1000 * (turn + 1))
        assert len(passed(policy, 10 * turn, names, worn=True)) == 1000
        assert passed(policy, 10 * turn + 1, names, worn=False) == []
        passed(policy, 10 * turn + 9, range(10_000_000, 10_000_001), worn=False)
    assert policy.subjects < 5000
    # One whose episode goes on, or whose rearm has not passed, is remembered.
    assert len(passed(policy, 300, range(10), worn=True)) == 10
    for turn in range(8):
        passed(policy, 301 + turn / 4, range(10_000 * turn, 10_000 * turn + 3000), worn=turn % 2 == 1)
    assert len(passed(policy, 303, range(5), worn=True)) == 0, "it ended less than 3 s ago"


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["press-1", "press-2"]), st.booleans()), max_size=25
    ),
    st.data(),
)
def test_cuts_restarts_and_replays_say_the_same(
    steps: list[tuple[int, str, bool]], data: st.DataObject
) -> None:
    rows: list[tuple[float, dict[str, Any]]] = []
    now = 0.0
    for gap, machine, worn in steps:
        now += gap
        rows.append((now, {**(WORN if worn else FINE), "machine": machine}))
    if not rows:
        return
    whole = decide(rows)
    policy = Policy(rules(WEAR), "press-line")
    events: list[Event] = []
    commands: list[Command] = []
    start = 0
    while start < len(rows):
        end = data.draw(st.integers(start + 1, len(rows)))
        more = policy.decide(block(rows[start:end]))
        events += more[0]
        commands += more[1]
        fresh = Policy(rules(WEAR), "press-line")
        fresh.restore(policy.snapshot())
        policy, start = fresh, end
    assert (events, commands) == whole
    assert len({command.id for command in commands}) == len(commands)

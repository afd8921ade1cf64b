"""Nothing outside a declared envelope is ever allowed, whoever asks for it."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.act.guard import REFUSALS, Guard, Limits, Situation, read_limits
from boucle.clock import SECOND
from boucle.errors import BoucleError
from boucle.event import Command
from tests.act.plant import LIMITS, ORDER, SPEED, START, guard

HEALTHY = {"speed_setpoint": 36.0, "interlock": False, "emergency_stop": False, "mode": "auto"}
WORLD = Situation(now=START, deadline=START + SECOND)


def command(value: Any = 30.0, **other: Any) -> Command:
    told = {"id": "c", "target": SPEED, "verb": "set", "not_after": START + 5 * SECOND, **other}
    return Command(value=value, **told)


def refused(asked: Command, world: Situation = WORLD, present: dict[str, Any] | None = None) -> str:
    first = guard().before_intent(asked, world)
    second = guard().before_write(asked, world, HEALTHY if present is None else present)
    return first.code if first else second.code if second else ""


def test_a_command_within_its_envelope_is_let_through() -> None:
    assert refused(command()) == ""
    assert refused(command(24)) == ""
    assert refused(command({"WorkType": "Maintenance"}, target=ORDER, verb="order"), present={}) == ""


@pytest.mark.parametrize(
    ("asked", "world", "code"),
    [
        (command(target="plc/press-1/oil"), {}, "unknown_target"),
        (command(target="plc/speed_setpoint"), {}, "unknown_target"),
        (command(target="speed_setpoint"), {}, "unknown_target"),
        (command(target=""), {}, "unknown_target"),
        (command(verb="reset"), {}, "unknown_verb"),
        (command(24.0, verb="safe"), {}, "unknown_verb"),
        (command(math.nan), {}, "not_a_number"),
        (command(math.inf), {}, "not_a_number"),
        (command(True), {}, "not_a_number"),
        (command("30"), {}, "not_a_number"),
        (command(None), {}, "not_a_number"),
        (command({"a": 1}), {}, "not_a_number"),
        (command(10**400), {}, "not_a_number"),
        (command(30.0, target=ORDER, verb="order"), {}, "not_a_number"),
        (command(40.0001), {}, "out_of_bounds"),
        (command(23.9999), {}, "out_of_bounds"),
        (command(-30), {}, "out_of_bounds"),
        (command(), {"now": START + 2 * SECOND}, "expired"),
        (command(not_after=START - 1), {}, "expired"),
        (command(), {"seen": True}, "duplicate"),
        (command(), {"retained": True}, "retained"),
        (command(), {"automatic": False}, "automatic_off"),
        (command(needs_approval=True), {}, "not_approved"),
        (command(), {"sent": (START - SECOND, START - 59 * SECOND)}, "rate_limited"),
    ],
)
def test_what_a_command_says_is_refused(asked: Command, world: dict[str, Any], code: str) -> None:
    assert refused(asked, msgspec.structs.replace(WORLD, **world)) == code
    assert code in REFUSALS


def test_what_does_not_count_against_a_command() -> None:
    old = (START - 60 * SECOND, START - 61 * SECOND, START - SECOND)
    assert refused(command(), msgspec.structs.replace(WORLD, sent=old)) == ""
    assert refused(command(), msgspec.structs.replace(WORLD, automatic=False, by_person=True)) == ""
    assert refused(command(needs_approval=True), msgspec.structs.replace(WORLD, approved=True)) == ""


@pytest.mark.parametrize(
    ("present", "code"),
    [
        ({"interlock": True}, "interlock"),
        ({"emergency_stop": True}, "emergency_stop"),
        ({"interlock": None}, "unreadable"),
        ({"interlock": 0}, "unreadable"),
        ({"interlock": "False"}, "unreadable"),
        ({"mode": "manual"}, "mode"),
        ({"mode": None}, "unreadable"),
        ({"speed_setpoint": None}, "unreadable"),
        ({"speed_setpoint": math.nan}, "unreadable"),
        ({"speed_setpoint": "36"}, "unreadable"),
        ({"speed_setpoint": 43.0}, "step_too_large"),
        ({"speed_setpoint": 17.9}, "step_too_large"),
        ({"speed_setpoint": 42.0}, ""),
    ],
)
def test_what_the_machine_says_is_refused(present: dict[str, Any], code: str) -> None:
    assert refused(command(), present={**HEALTHY, **present}) == code


def test_what_could_not_be_read_is_refused() -> None:
    for name in HEALTHY:
        assert refused(command(), present={k: v for k, v in HEALTHY.items() if k != name}) == "unreadable"


def test_the_safe_state_may_be_far_away_but_nowhere_else() -> None:
    going = msgspec.structs.replace(WORLD, going_safe=True)
    far = {**HEALTHY, "speed_setpoint": 99.0}
    assert refused(command(24, verb="safe"), going, far) == ""
    assert refused(command(25, verb="safe"), going, far) == "out_of_bounds"
    assert refused(command(24, verb="safe"), going, {**far, "interlock": True}) == "interlock"


def test_a_command_never_outlives_its_limit() -> None:
    forever = command(not_after=START + 10**6 * SECOND)
    assert guard().deadline(forever, START) == START + 5 * SECOND
    old = msgspec.structs.replace(forever, issued_at=START - 3 * SECOND)
    assert guard().deadline(old, START) == START + 2 * SECOND
    ahead = msgspec.structs.replace(forever, issued_at=START + 999 * SECOND)
    assert guard().deadline(ahead, START) == START + 5 * SECOND
    assert guard().deadline(command(not_after=START + 1), START) == START + 1


@pytest.mark.parametrize(
    "declared",
    [
        {"min": 1},
        {"max_step": 1},
        {"unit": "bar"},
        {"safe": 3},
        {"min": 3, "max": 1},
        {"min": 0, "max": 1, "safe": 2},
        {"min": 0, "max": math.nan},
        {"min": 0, "max": math.inf},
        {"min": 0, "max": 1, "max_step": -1},
        {"min": 0, "max": 1, "tolerance": -1},
        {"min": 0, "max": 1, "rate": {"count": 0, "per": "1s"}},
        {"min": 0, "max": 1, "rate": {"count": 1, "per": "0s"}},
        {"min": 0, "max": 1, "rate": {"count": 1}},
        {"min": 0, "max": 1, "minimum": 1},
        {"min": "low", "max": 1},
        {"expires": "soon"},
    ],
)
def test_limits_that_bound_nothing_are_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(BoucleError):
        read_limits(declared)


def test_limits_read_as_they_are_written() -> None:
    limits = LIMITS["plc/speed_setpoint"]
    assert (limits.minimum, limits.maximum, limits.count, limits.per, limits.expires) == (24, 40, 2, 60, 5)
    assert limits.watched() == ("interlock", "emergency_stop", "mode")
    assert read_limits({"interlock": "door"}).interlock == ("door",)
    with pytest.raises(BoucleError, match="max_step"):
        read_limits({"min": 0, "max": 1, "maxstep": 1})


def test_refusals_are_said_in_both_languages() -> None:
    assert all(set(says) == {"en", "fr"} for says in REFUSALS.values())


finite = st.floats(-50, 50)
anything = st.one_of(
    st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=5), st.lists(st.floats(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
)  # fmt: skip


@st.composite
def envelopes(draw: st.DrawFn) -> Limits:
    low, high = sorted((draw(finite), draw(finite)))
    return Limits(
        minimum=low,
        maximum=high,
        max_step=draw(st.none() | st.floats(0, 40)),
        count=draw(st.integers(0, 3)),
        per=draw(st.floats(0.1, 100)),
        expires=draw(st.none() | st.floats(0, 100)),
        interlock=tuple(draw(st.lists(st.sampled_from(["door", "emergency_stop"]), unique=True))),
        require=draw(st.sampled_from([{}, {"mode": "auto"}, {"mode": 1, "armed": True}])),
        approval=draw(st.booleans()),
    )


@given(
    limits=envelopes(),
    value=anything | finite,
    verb=st.sampled_from(["set", "set", "safe", "order", "reset"]),
    target=st.sampled_from(
        [SPEED, SPEED, SPEED, "plc/speed_setpoint", "plc/x/other", "mes/a/speed_setpoint"]
    ),
    not_after=st.integers(START - 100 * SECOND, START + 100 * SECOND),
    accepted=st.integers(START - 100 * SECOND, START),
    issued_at=st.integers(0, 2 * START),
    needs=st.booleans(),
    flags=st.tuples(*[st.booleans()] * 5),
    sent=st.lists(st.integers(START - 200 * SECOND, START), max_size=4),
    present=st.fixed_dictionaries(
        {},
        optional={
            "speed_setpoint": finite | anything,
            "door": st.sampled_from([False, False, True, None, 0, "no"]),
            "emergency_stop": st.sampled_from([False, False, True, None]),
            "mode": st.sampled_from(["auto", "manual", 1, True, None]),
            "armed": st.sampled_from([True, False, 1, None]),
        },
    ),
)
def test_no_command_outside_its_envelope_is_ever_allowed(
    limits: Limits, value: Any, verb: str, target: str, not_after: int, accepted: int, issued_at: int,
    needs: bool, flags: tuple[bool, ...], sent: list[int], present: dict[str, Any],
) -> None:  # fmt: skip
    automatic, person, approved, retained, seen = flags
    asked = Command("c", target, verb, value, not_after, needs_approval=needs, issued_at=issued_at)
    watch = Guard({"plc/speed_setpoint": limits})
    world = Situation(
        now=START, deadline=watch.deadline(asked, accepted), automatic=automatic, by_person=person,
        approved=approved, retained=retained, seen=seen, sent=sent,
    )  # fmt: skip
    first = watch.before_intent(asked, world)
    second = watch.before_write(asked, world, present)
    for refusal in (first, second):
        assert refusal is None or refusal.code in REFUSALS
    if first is not None or second is not None:
        return
    assert target == SPEED
    assert verb == "set"
    assert isinstance(value, int | float)
    assert not isinstance(value, bool)
    assert limits.minimum is not None
    assert limits.maximum is not None
    assert limits.minimum <= value <= limits.maximum
    assert not_after >= START
    assert limits.expires is None or accepted + limits.expires * SECOND >= START - 1
    assert automatic or person
    assert approved or not (needs or limits.approval)
    assert not retained
    assert not seen
    assert limits.count == 0 or sum(at > START - int(limits.per * SECOND) for at in sent) < limits.count
    assert all(present[name] is False for name in limits.interlock)
    assert all(present[name] == wanted for name, wanted in limits.require.items())
    assert limits.max_step is None or abs(value - present["speed_setpoint"]) <= limits.max_step


@given(st.floats() | st.floats(20, 45), st.floats(20, 45))
def test_the_press_never_leaves_its_speeds(value: float, present: float) -> None:
    allowed = refused(command(value), present={**HEALTHY, "speed_setpoint": present}) == ""
    assert allowed == (24 <= value <= 40 and abs(value - present) <= 12)

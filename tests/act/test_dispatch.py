"""Every Command ends in exactly one Receipt, and the machine moves at most once for it."""

import math
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from boucle.act.journal import Journal
from boucle.act.lane import IN_DOUBT
from boucle.clock import SECOND
from boucle.errors import Unavailable
from boucle.event import Command, Outcome, Receipt
from tests.act.plant import LIMITS, SPEED, START, Plant


def test_a_command_is_written_read_back_and_receipted(plant: Plant) -> None:
    receipt = plant.do(plant.command(30.0, caused_at=plant.clock.now() - SECOND // 50))
    assert (receipt.outcome, receipt.code) == (Outcome.applied, "")
    assert (receipt.before, receipt.read_back, receipt.latency_ms) == (36.0, 30.0, 20.0)
    assert plant.wire.writes == [("press-1.speed_setpoint", 30.0)]
    assert plant.dispatcher.waiting() == 0
    kinds = [entry.kind for entry in plant.journal.read()]
    assert kinds == ["intent", "receipt"]


def test_the_intent_is_on_disk_before_anything_is_sent(plant: Plant) -> None:
    seen: list[list[str]] = []
    plant.wire.before_write = lambda: seen.append(
        [
            line.split(b'"kind":"')[1][:6].decode()
            for line in plant.journal._ledger.file.read_bytes().splitlines()
        ]
    )
    plant.do(plant.command())
    assert seen == [["intent"]]


def test_latency_is_in_real_milliseconds(plant: Plant) -> None:
    plant.clock.speed = 10.0
    receipt = plant.do(plant.command(caused_at=plant.clock.now() - SECOND))
    assert receipt.latency_ms == 100.0


@pytest.mark.parametrize(
    ("value", "code"),
    [(math.nan, "not_a_number"), (41, "out_of_bounds"), (object(), "not_a_number"), (2**80, "not_a_number"),
     ({1: {2, 3}}, "not_a_number")],
)  # fmt: skip
def test_a_refused_command_touches_nothing(plant: Plant, value: Any, code: str) -> None:
    receipt = plant.do(plant.command(value))
    assert (receipt.outcome, receipt.code) == (Outcome.refused, code)
    assert plant.wire.writes == []
    assert [entry.kind for entry in plant.journal.read()] == ["receipt"]


def test_an_undeclared_target_is_refused(plant: Plant) -> None:
    for target in ("robot/arm/speed", "plc/press-1/oil_temperature", "", "plc"):
        assert plant.do(plant.command(target=target)).code == "unknown_target"


def test_the_same_command_twice_moves_the_machine_once(plant: Plant) -> None:
    command = plant.command(30.0, id="once")
    assert plant.do(command).outcome is Outcome.applied
    plant.wire.values["press-1.speed_setpoint"] = 36.0
    assert plant.do(command).outcome is Outcome.duplicate
    plant.restart()
    assert plant.do(command).outcome is Outcome.duplicate
    assert len(plant.wire.writes) == 1
    receipts = [entry for entry in plant.journal.read() if entry.kind == "receipt"]
    assert len(receipts) == 1


def test_a_copy_of_a_waiting_command_is_a_duplicate(plant: Plant) -> None:
    plant.wire.cut = True
    command = plant.command(id="once")
    plant.dispatcher.submit(command)
    plant.dispatcher.submit(command)
    plant.dispatcher.submit(command, retained=True)
    plant.dispatcher.step(0)
    assert [receipt.outcome for _, receipt in plant.receipts] == [Outcome.duplicate, Outcome.refused]
    plant.wire.cut = False
    plant.settle(1)
    assert plant.last().outcome is Outcome.applied
    assert plant.journal.receipt("once") == plant.last()


def test_a_retained_command_is_refused(plant: Plant) -> None:
    receipt = plant.do(plant.command(), retained=True)
    assert (receipt.outcome, receipt.code) == (Outcome.refused, "retained")
    assert plant.wire.writes == []


def test_a_late_command_expires(plant: Plant) -> None:
    receipt = plant.do(plant.command(not_after=START - 1))
    assert (receipt.outcome, receipt.code) == (Outcome.expired, "expired")
    stale = plant.command(issued_at=START - 6 * SECOND, not_after=START + 999 * SECOND)
    assert plant.do(stale).outcome is Outcome.expired


def test_the_rate_is_kept_across_a_restart(plant: Plant) -> None:
    assert plant.do(plant.command(34)).outcome is Outcome.applied
    plant.restart()
    assert plant.do(plant.command(33)).outcome is Outcome.applied
    assert plant.do(plant.command(32)).code == "rate_limited"
    assert plant.do(plant.command(32, target="plc/press-2/speed_setpoint")).outcome is Outcome.applied
    plant.clock.advance(61)
    assert plant.do(plant.command(32)).outcome is Outcome.applied


def test_refused_commands_do_not_use_up_the_rate(plant: Plant) -> None:
    for _ in range(5):
        plant.do(plant.command(99))
    assert plant.do(plant.command()).outcome is Outcome.applied


def test_an_interlock_set_between_decision_and_write_wins(plant: Plant) -> None:
    command = plant.command()
    plant.dispatcher.submit(command)
    plant.wire.values["press-1.interlock"] = True
    plant.dispatcher.step(0)
    assert (plant.last().outcome, plant.last().code) == (Outcome.refused, "interlock")
    plant.wire.values |= {"press-1.interlock": False, "press-1.emergency_stop": True}
    assert plant.do(plant.command()).code == "emergency_stop"
    plant.clock.advance(61)
    plant.wire.values |= {"press-1.emergency_stop": False, "press-1.mode": "manual"}
    assert plant.do(plant.command()).code == "mode"
    plant.wire.values["press-1.mode"] = "auto"
    plant.wire.status["press-1.interlock"] = "BadSensorFailure"
    assert plant.do(plant.command()).code == "unreadable"
    assert plant.wire.writes == []


def test_what_the_plc_itself_refuses_is_a_refusal(plant: Plant) -> None:
    plant.wire.refuse = "BadOutOfRange"
    receipt = plant.do(plant.command())
    assert (receipt.outcome, receipt.code) == (Outcome.refused, "out_of_bounds")
    assert "BadOutOfRange" in receipt.why


def test_an_absent_plc_is_retried_until_the_command_expires(plant: Plant) -> None:
    plant.wire.cut = True
    plant.dispatcher.submit(plant.command())
    plant.settle(4.9)
    assert plant.receipts == []
    assert plant.dispatcher.waiting() == 1
    plant.settle(0.3)
    assert (plant.last().outcome, plant.last().code) == (Outcome.expired, "expired")
    assert "the cable is cut" in plant.last().why
    assert plant.dispatcher.waiting() == 0


def test_a_plc_that_comes_back_in_time_gets_its_command(plant: Plant) -> None:
    plant.wire.cut = True
    plant.dispatcher.submit(plant.command())
    plant.settle(2)
    plant.wire.cut = False
    plant.settle(2)
    assert plant.last().outcome is Outcome.applied
    assert len(plant.wire.writes) == 1


def test_a_newer_command_replaces_one_that_is_being_retried(plant: Plant) -> None:
    plant.wire.cut = True
    plant.dispatcher.submit(plant.command(30, id="older"))
    plant.dispatcher.submit(plant.command(28, id="newer"))
    plant.dispatcher.step(0)
    assert [(c.id, r.code) for c, r in plant.receipts] == [("older", "superseded")]
    plant.wire.cut = False
    plant.settle(1)
    assert plant.wire.writes == [("press-1.speed_setpoint", 28.0)]


def test_a_lost_answer_is_resolved_by_reading_back(plant: Plant) -> None:
    plant.wire.lose_answer = True
    plant.dispatcher.submit(plant.command(30))
    plant.dispatcher.step(0)
    assert plant.receipts == []
    plant.wire.cut = plant.wire.lose_answer = False
    plant.settle(1)
    assert (plant.last().outcome, plant.last().read_back) == (Outcome.applied, 30.0)
    assert len(plant.wire.writes) == 1


def test_a_lost_write_is_sent_again_only_when_nothing_changed(plant: Plant) -> None:
    plant.wire.lose_answer = plant.wire.stuck = True
    plant.dispatcher.submit(plant.command(30))
    plant.dispatcher.step(0)
    plant.wire.cut = plant.wire.lose_answer = plant.wire.stuck = False
    plant.settle(1)
    assert plant.last().outcome is Outcome.applied
    assert len(plant.wire.writes) == 2


def test_a_lost_write_is_not_sent_over_somebody_elses_value(plant: Plant) -> None:
    plant.wire.lose_answer = True
    plant.dispatcher.submit(plant.command(30))
    plant.dispatcher.step(0)
    plant.wire.cut = plant.wire.lose_answer = False
    plant.wire.values["press-1.speed_setpoint"] = 33.0
    plant.settle(1)
    assert (plant.last().outcome, plant.last().code) == (Outcome.failed, IN_DOUBT)
    assert plant.last().read_back == 33.0
    assert len(plant.wire.writes) == 1


def test_a_doubt_that_cannot_be_resolved_is_said_in_the_end(plant: Plant) -> None:
    plant.wire.lose_answer = True
    plant.dispatcher.submit(plant.command(30))
    plant.settle(59, every=1)
    assert plant.receipts == []
    plant.settle(10, every=1)
    assert (plant.last().outcome, plant.last().code) == (Outcome.failed, IN_DOUBT)


def test_a_value_that_does_not_take_leads_to_the_safe_state_once(plant: Plant) -> None:
    plant.wire.stuck = True
    receipt = plant.do(plant.command(30, id="c"))
    assert (receipt.outcome, receipt.code) == (Outcome.failed, "read_back")
    assert plant.wire.writes == [("press-1.speed_setpoint", 30.0), ("press-1.speed_setpoint", 24.0)]
    safe, told = plant.receipts[-1]
    assert (safe.id, safe.verb, safe.because) == ("c/safe", "safe", ("c",))
    assert set(safe.says) == {"en", "fr"}
    assert told.code == "read_back"
    plant.settle(70, every=1)
    assert len(plant.wire.writes) == 2


def test_the_safe_state_may_be_beyond_a_step_and_a_rate(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(LIMITS["plc/speed_setpoint"], max_step=3.0, count=1)
    plant = Plant(tmp_path, {**LIMITS, "plc/speed_setpoint": limits})
    plant.wire.stuck = True
    plant.wire.before_write = lambda: setattr(plant.wire, "stuck", not plant.wire.writes)
    plant.do(plant.command(34))
    assert plant.last().outcome is Outcome.applied
    assert plant.wire.values["press-1.speed_setpoint"] == 24.0
    plant.close()


def test_hold_means_nothing_is_written(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(LIMITS["plc/speed_setpoint"], safe="hold")
    plant = Plant(tmp_path, {**LIMITS, "plc/speed_setpoint": limits})
    plant.wire.stuck = True
    assert "left as it is" in plant.do(plant.command(30)).why
    assert len(plant.wire.writes) == 1
    plant.close()


def test_approval_is_waited_for(plant: Plant) -> None:
    command = plant.command(needs_approval=True, id="big")
    plant.dispatcher.submit(command)
    plant.dispatcher.step(0)
    assert plant.receipts == []
    assert plant.dispatcher.held() == [command]
    assert not plant.dispatcher.approve("other", "alice")
    plant.restart()
    assert plant.dispatcher.held() == [command]
    assert plant.dispatcher.approve("big", "alice")
    assert plant.dispatcher.step(0) == 1
    assert plant.last().outcome is Outcome.applied
    assert [entry.by for entry in plant.journal.read() if entry.kind == "approved"] == ["alice"]
    assert not plant.dispatcher.approve("big", "alice")


def test_what_nobody_approves_expires(plant: Plant) -> None:
    plant.dispatcher.submit(plant.command(needs_approval=True))
    plant.settle(6)
    assert (plant.last().outcome, plant.last().code) == (Outcome.expired, "not_approved")
    assert plant.dispatcher.held() == []


def test_an_approval_given_before_a_crash_counts(plant: Plant) -> None:
    plant.dispatcher.submit(plant.command(needs_approval=True, id="big"))
    plant.dispatcher.step(0)
    assert plant.dispatcher.approve("big", "alice")
    plant.restart()
    plant.dispatcher.step(0)
    assert plant.last().outcome is Outcome.applied


def test_a_person_can_stop_automatic_action(plant: Plant) -> None:
    plant.dispatcher.set_automatic(False, "alice")
    assert plant.do(plant.command()).code == "automatic_off"
    plant.restart()
    assert not plant.dispatcher.automatic
    assert plant.do(plant.command()).code == "automatic_off"
    assert plant.do(plant.command(), by="alice").outcome is Outcome.applied
    plant.dispatcher.set_automatic(True, "alice")
    assert plant.do(plant.command(31)).outcome is Outcome.applied
    told = [(entry.allowed, entry.by) for entry in plant.journal.read() if entry.kind == "automatic"]
    assert told == [(False, "alice"), (True, "alice")]


def test_stopping_also_stops_what_is_being_retried(plant: Plant) -> None:
    plant.wire.cut = True
    plant.dispatcher.submit(plant.command())
    plant.settle(1)
    plant.dispatcher.set_automatic(False, "alice")
    plant.wire.cut = False
    plant.settle(1)
    assert plant.last().code == "automatic_off"
    assert plant.wire.writes == []


def test_an_absent_mes_delays_no_plc(plant: Plant) -> None:
    plant.book.cut = True
    plant.dispatcher.submit(plant.order(id="o"))
    receipt = plant.do(plant.command())
    assert receipt.outcome is Outcome.applied
    plant.settle(600, every=5)
    plant.book.cut = False
    plant.settle(10, every=5)
    assert plant.journal.receipt("o") == plant.last()
    assert plant.last().outcome is Outcome.applied


def test_an_order_whose_answer_was_lost_exists_once(plant: Plant) -> None:
    plant.book.lose_answer = True
    plant.dispatcher.submit(plant.order(id="o"))
    plant.settle(1)
    assert plant.last().outcome is Outcome.applied
    assert list(plant.book.orders) == ["o"]


def test_an_unsent_command_of_a_former_life_is_sent_while_it_is_valid(plant: Plant) -> None:
    plant.wire.cut = True
    plant.dispatcher.submit(plant.command(30, id="c"))
    plant.settle(1)
    plant.restart()
    plant.wire.cut = False
    plant.settle(1)
    assert plant.last().outcome is Outcome.applied
    assert len(plant.wire.writes) == 1


def _crash_after_intent(plant: Plant, command: Command) -> None:
    plant.journal.intend(command, plant.clock.now())
    plant.restart()


def test_a_restart_finds_the_value_on_the_machine(plant: Plant) -> None:
    plant.wire.values["press-1.speed_setpoint"] = 30.02
    _crash_after_intent(plant, plant.command(30, id="c"))
    plant.dispatcher.step(0)
    assert (plant.last().outcome, plant.last().read_back) == (Outcome.applied, 30.02)
    assert plant.wire.writes == []


def test_a_restart_never_sends_a_set_point_blindly(plant: Plant) -> None:
    _crash_after_intent(plant, plant.command(30, id="c"))
    plant.dispatcher.step(0)
    assert (plant.last().outcome, plant.last().code) == (Outcome.failed, IN_DOUBT)
    assert plant.wire.writes == []
    plant.restart()
    plant.dispatcher.step(0)
    assert len(plant.receipts) == 1


def test_a_restart_sends_an_order_the_mes_does_not_have(plant: Plant) -> None:
    _crash_after_intent(plant, plant.order(id="o"))
    plant.dispatcher.step(0)
    assert plant.last().outcome is Outcome.applied
    assert list(plant.book.orders) == ["o"]


def test_a_restart_with_narrower_limits_refuses(plant: Plant) -> None:
    plant.wire.cut = True
    plant.dispatcher.submit(plant.command(30, id="c"))
    plant.settle(0.5)
    narrow = msgspec.structs.replace(LIMITS["plc/speed_setpoint"], minimum=34.0)
    plant.limits = {**LIMITS, "plc/speed_setpoint": narrow}
    plant.restart()
    plant.wire.cut = False
    plant.settle(1)
    assert plant.last().code == "out_of_bounds"
    assert plant.wire.writes == []


def test_a_full_disk_keeps_commands_from_being_sent(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise Unavailable("B430", "the file cannot be written", why="no space left")

    with monkeypatch.context() as disk:
        disk.setattr(plant.journal._ledger, "flush", full)
        plant.dispatcher.submit(plant.command(id="c"))
        plant.settle(1)
        assert plant.wire.writes == []
        assert plant.dispatcher.waiting() == 1
    plant.settle(2)
    assert plant.last().outcome is Outcome.applied
    assert len(plant.wire.writes) == 1
    with monkeypatch.context() as disk:
        plant.wire.before_write = lambda: disk.setattr(plant.journal._ledger, "flush", full)
        assert plant.do(plant.command(31, id="d")).outcome is Outcome.applied


def test_too_many_waiting_commands_are_refused_not_forgotten(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boucle.act.lane._ROOM", 3)
    for number in range(5):
        plant.dispatcher.submit(plant.command(id=f"c{number}"))
    assert [receipt.code for _, receipt in plant.receipts] == ["busy", "busy"]
    plant.dispatcher.step(0)
    assert len(plant.receipts) == 5


class Plain:
    """A stranger's actuator: nothing but the port."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"plc/press-1/speed_setpoint": 36.0, "plc/press-1/mode": "auto",
                                       "plc/press-1/interlock": False, "plc/press-1/emergency_stop": False}  # fmt: skip

    def open(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def state(self) -> str:
        return "connected"

    def read(self, target: str) -> Any:
        return self.values[target]

    def send(self, command: Command) -> Receipt:
        self.values[command.target] = command.value
        return Receipt(command.id, command.target, Outcome.applied, START, read_back=command.value)


def test_the_guard_asks_the_machine_for_actuators_that_do_not(plant: Plant) -> None:
    from boucle.act.dispatch import Dispatcher

    plain = Plain()
    dispatcher = Dispatcher({"plc": plain}, LIMITS, plant.journal, plant.clock, plant._told)
    plain.values["plc/press-1/interlock"] = True
    dispatcher.submit(plant.command(30, id="a"))
    dispatcher.step(0)
    assert plant.last().code == "interlock"
    plain.values |= {"plc/press-1/interlock": False, SPEED: 25.0}
    dispatcher.submit(plant.command(39, id="b"))
    dispatcher.step(0)
    assert plant.last().code == "step_too_large"
    plant.journal.intend(plant.command(25.0, id="c"), START)
    again = Dispatcher({"plc": plain}, LIMITS, plant.journal, plant.clock, plant._told)
    again.step(0)
    assert plant.last().outcome is Outcome.applied


def test_a_slow_actuator_holds_up_only_its_own_lane(tmp_path: Path) -> None:
    """Real threads: the MES answers only after the PLC was written."""
    plant = Plant(tmp_path)
    written, told = threading.Event(), threading.Event()
    plain_send = plant.book.send

    def slow(command: Command) -> Receipt:
        assert written.wait(10)
        return plain_send(command)

    plant.book.send = slow  # type: ignore[method-assign]
    plant.wire.before_write = written.set
    stop = threading.Event()
    lanes = [
        threading.Thread(target=plant.dispatcher.run, args=(lane, stop)) for lane in plant.dispatcher.lanes
    ]
    for lane in lanes:
        lane.start()
    plant.dispatcher.submit(plant.order(id="o"))
    plant.dispatcher.submit(plant.command(id="c"))
    until = time.monotonic() + 10
    while plant.dispatcher.waiting() and time.monotonic() < until:
        told.wait(0.01)
    stop.set()
    for lane in lanes:
        lane.join()
    assert {command.id: receipt.outcome for command, receipt in plant.receipts} == {
        "o": Outcome.applied,
        "c": Outcome.applied,
    }
    plant.close()


def test_a_journal_remembers_only_so_much(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.ndjson", remember=3)
    for number in range(6):
        end = 10 if number else 100
        command = Command(f"c{number}", SPEED, "set", 30, not_after=end)
        journal.settle(command, Receipt(command.id, SPEED, Outcome.refused, at=20))
    assert journal.seen("c0"), "what may still be valid is never forgotten"
    journal.close()

"""What an MES may answer, and what the order's receipt then says."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from boucle.act.lane import IN_DOUBT
from boucle.act.mes import MesActuator, order_id
from boucle.errors import Unavailable
from boucle.event import Command, Outcome
from tests.act.plant import ORDER, START


class Odd(BaseHTTPRequestHandler):
    """Answers as the test says; status 0 hangs up without an answer."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append(json.loads(body))  # type: ignore[attr-defined]
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def _answer(self) -> None:
        status, text = self.server.answer  # type: ignore[attr-defined]
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


class OddServer(ThreadingHTTPServer):
    answer: tuple[int, bytes] = (201, b"{}")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Odd)
        self.taken: list[Any] = []


@pytest.fixture
def server() -> Iterator[OddServer]:
    made = OddServer()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def mes(server: OddServer) -> Iterator[MesActuator]:
    made = MesActuator(f"http://127.0.0.1:{server.server_port}/job-orders?x=1", timeout=2)
    made.open()
    yield made
    made.close()


def order(**value: Any) -> Command:
    return Command("wear/press-1/7/1", ORDER, "order", {"WorkType": "Maintenance", **value}, START)


def test_the_order_carries_the_commands_id_and_no_nulls(mes: MesActuator, server: OddServer) -> None:
    receipt = mes.send(order(ID="mine", Parameters={"Health": 0.5, "Hours": None}))
    assert receipt.outcome is Outcome.applied
    assert server.taken == [
        {
            "ID": "wear/press-1/7/1",
            "Command": "Store",
            "WorkType": "Maintenance",
            "Parameters": {"Health": 0.5},
        }
    ]
    assert mes.state() == "connected"


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        ((200, b""), Outcome.applied, ""),
        ((201, b"not json \xff"), Outcome.applied, ""),
        ((201, b"[" * 99_999), Outcome.applied, ""),
        ((409, b'{"ID": "x"}'), Outcome.duplicate, "duplicate"),
        (
            (422, b'{"problems": [{"field": "Priority", "why": "too high"}]}'),
            Outcome.refused,
            "refused_by_mes",
        ),
        ((404, b"{}"), Outcome.refused, "refused_by_mes"),
        ((302, b""), Outcome.refused, "refused_by_mes"),
        ((0, b""), Outcome.failed, IN_DOUBT),
    ],
)
def test_answers(
    mes: MesActuator, server: OddServer, answer: tuple[int, bytes], outcome: Outcome, code: str
) -> None:
    server.answer = answer
    receipt = mes.send(order())
    assert (receipt.outcome, receipt.code) == (outcome, code)
    assert ("Priority: too high" in receipt.why) == (answer[0] == 422)


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_an_mes_in_trouble_is_asked_again_later(mes: MesActuator, server: OddServer, status: int) -> None:
    server.answer = (status, b"")
    with pytest.raises(Unavailable, match=str(status)):
        mes.send(order())
    assert mes.state() != "connected"


def test_what_became_of_an_order(mes: MesActuator, server: OddServer) -> None:
    server.answer = (200, b'{"ID": "x"}')
    assert mes.recover(order()).outcome is Outcome.applied
    server.answer = (404, b"")
    assert mes.recover(order()).code == IN_DOUBT
    for status in (0, 403):
        server.answer = (status, b"")
        with pytest.raises(Unavailable):
            mes.recover(order())


def test_orders_of_a_machine_are_those_about_it_and_its_sensors(mes: MesActuator, server: OddServer) -> None:
    scopes = ["press-1", "press-10", "press-1/vib_x", "", None]
    server.answer = (200, json.dumps([{"HierarchyScope": scope} for scope in scopes] + [7]).encode())
    assert [one["HierarchyScope"] for one in mes.read(ORDER)] == ["press-1", "press-1/vib_x"]
    server.answer = (200, b'{"orders": []}')
    with pytest.raises(Unavailable):
        mes.read(ORDER)


def test_what_is_no_order_is_refused_unsent(mes: MesActuator, server: OddServer) -> None:
    assert mes.send(Command("c", ORDER, "order", 7, START)).outcome is Outcome.refused
    assert server.taken == []


def test_order_ids_are_plain_and_stable() -> None:
    assert order_id("wear/press-1/7") == "wear/press-1/7"
    for odd in ("x" * 200, "é", "a\nb", "", "\ud800"):
        assert order_id(odd) == order_id(odd)
        assert len(order_id(odd)) == 64


def test_one_that_was_never_opened_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        MesActuator("http://127.0.0.1:1/job-orders").send(order())

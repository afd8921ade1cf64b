"""The MES over real HTTP, and its fake."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from boucle.clock import SECOND
from boucle.errors import BoucleError, Unavailable
from boucle.event import Command, Outcome
from boucle.ports import Actuator
from boucle.testing import FakeMes, ManualClock, MesServer, OrderBook

START = 1_800_000_000 * SECOND
ORDER: dict[str, Any] = {
    "ID": "wear-press-2-17",
    "WorkType": "Maintenance",
    "Description": "L’usure de la bague <extérieure> progresse",
    "Priority": 2,
    "HierarchyScope": "press-2",
    "Parameters": {"Cause": "outer_race"},
    "Command": "Store",
}


@pytest.fixture
def mes() -> Iterator[MesServer]:
    with MesServer(OrderBook(ManualClock(START))) as server:
        yield server


def test_an_order_is_stored_and_shown(mes: MesServer) -> None:
    answer = httpx.post(f"{mes.url}/job-orders", json=ORDER)
    assert answer.status_code == 201
    stored = answer.json()
    assert stored == {**ORDER, "State": "Released", "TimeStamp": "2027-01-15T08:00:00Z"}
    assert httpx.get(mes.url + answer.headers["location"]).json() == stored
    assert httpx.get(f"{mes.url}/job-orders").json() == [stored]
    mes.book.move(ORDER["ID"], "Completed")
    assert httpx.get(f"{mes.url}/job-orders/{ORDER['ID']}").json()["State"] == "Completed"


def test_the_same_id_is_stored_once(mes: MesServer) -> None:
    first = httpx.post(f"{mes.url}/job-orders", json=ORDER)
    again = httpx.post(f"{mes.url}/job-orders", json={**ORDER, "Priority": 9})
    assert again.status_code == 409
    assert again.json() == first.json()
    assert len(mes.book.all()) == 1


def test_every_problem_of_an_order_is_told(mes: MesServer) -> None:
    wrong = {
        "WorkType": "Holiday",
        "Description": "",
        "Priority": "high",
        "Parameters": [],
        "Command": "Abort",
        "StartTime": "2026-11-21T14:00:00",
        "EndTime": "soon",
        "Colour": "red",
    }
    answer = httpx.post(f"{mes.url}/job-orders", json=wrong)
    assert answer.status_code == 422
    fields = {problem["field"] for problem in answer.json()["problems"]}
    assert fields == {*wrong, "ID", "HierarchyScope"}
    assert mes.book.all() == []
    backwards = {**ORDER, "StartTime": "2026-11-21T14:00:00Z", "EndTime": "2026-11-21T13:00:00Z"}
    assert [p["field"] for p in httpx.post(f"{mes.url}/job-orders", json=backwards).json()["problems"]] == [
        "EndTime"
    ]


@pytest.mark.parametrize(("body", "status"), [(b"{", 422), (b"[1]", 422), (b"x" * 70_000, 413)])
def test_what_is_no_order_at_all(mes: MesServer, body: bytes, status: int) -> None:
    assert httpx.post(f"{mes.url}/job-orders", content=body).status_code == status


def test_an_unknown_order_is_not_found(mes: MesServer) -> None:
    assert httpx.get(f"{mes.url}/job-orders/none").status_code == 404


def test_the_page_speaks_both_languages(mes: MesServer) -> None:
    french = {"Accept-Language": "de, fr-CH;q=0.9, en;q=0.8"}
    assert "Aucun ordre" in httpx.get(mes.url, headers=french).text
    httpx.post(f"{mes.url}/job-orders", json={**ORDER, "WorkType": "Calibration"})
    page = httpx.get(mes.url, headers=french)
    assert '<html lang="fr">' in page.text
    assert "Étalonnage" in page.text
    assert "Lancé" in page.text
    assert "&lt;extérieure&gt;" in page.text
    assert "Calibration" in httpx.get(mes.url).text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_it_goes_away_and_comes_back_with_its_orders(mes: MesServer) -> None:
    httpx.post(f"{mes.url}/job-orders", json=ORDER)
    port = mes.port
    mes.stop()
    mes.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(mes.url)
    mes.start()
    assert mes.port == port
    assert len(httpx.get(f"{mes.url}/job-orders").json()) == 1
    with pytest.raises(Unavailable, match="cannot listen"):
        MesServer(port=port).start()


def command(value: Any, identity: str = "c1") -> Command:
    return Command(id=identity, target="mes/press-2/job_order", verb="order", value=value, not_after=0)


def test_the_fake_is_an_actuator() -> None:
    fake = FakeMes()
    fake.open()
    assert isinstance(fake, Actuator)
    without_id = {key: value for key, value in ORDER.items() if key != "ID"}
    receipt = fake.send(command(without_id))
    assert (receipt.outcome, receipt.read_back["ID"]) == (Outcome.applied, "c1")
    assert fake.send(command(without_id)).outcome is Outcome.duplicate
    refused = fake.send(command({"WorkType": "Holiday"}, "c2"))
    assert (refused.outcome, refused.code) == (Outcome.refused, "invalid_order")
    assert "HierarchyScope" in refused.why
    assert [order["ID"] for order in fake.read("mes/press-2/job_order")] == ["c1"]
    assert fake.read("mes/press-3") == []
    fake.reachable = False
    with pytest.raises(Unavailable):
        fake.send(command(without_id, "c3"))
    fake.close()
    assert fake.state() == "not open"


def test_a_state_nobody_knows_is_refused() -> None:
    with pytest.raises(BoucleError, match="Sleeping"):
        OrderBook().move("x", "Sleeping")

"""Every view in both languages, and what stands before them."""

import math
import re

import httpx
import pytest
from msgspec.structs import replace
from tests.web.sample import DRIFTED, SLOW_DOWN, SampleLoop, StillClock, Story

from boucle.event import Event
from boucle.loop.view import LoopView, MachineView
from boucle.web import create_app, serve

VIEWS = ["/", "/machines/press-2", "/events", "/commands", "/path", "/models", "/slo", "/automatic"]


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("path", VIEWS)
@pytest.mark.parametrize("story", ["wear", "normal", "empty"])
def test_every_view_in_every_state(story: Story, path: str, language: str) -> None:
    with serve(create_app(SampleLoop(StillClock(150.0), story)), port=0) as server:
        answer = httpx.get(server.url.rstrip("/") + path, params={"lang": language}, trust_env=False)
    assert answer.status_code == 200
    assert f'<html lang="{language}">' in answer.text
    assert not re.search(r"\b(nan|None|inf)\b", re.sub(r"<[^>]+>", "", answer.text))


def test_policy_allows_nothing_foreign_and_nothing_inline(http: httpx.Client) -> None:
    for path in [*VIEWS, "/nowhere", "/static/page.css", "/metrics"]:
        policy = http.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    for path in VIEWS:
        page = http.get(path).text
        assert not re.findall(r"\sstyle=|<style|\son\w+=|<script(?![^>]*\ssrc=)", page)
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


def test_wear_story_is_told_in_english(http: httpx.Client) -> None:
    page = http.get("/").text
    assert SLOW_DOWN["en"] in page
    assert DRIFTED["en"] in page
    assert "36 → 27" in page
    assert "outside 24 to 40" in page
    assert page.count("Accepted") == 2


def test_wear_story_is_told_in_french(http: httpx.Client) -> None:
    page = http.get("/", headers={"accept-language": "fr-CH, en;q=0.5"}).text
    assert "ralentie de 36 à 27 coups/min" in page
    assert "Étalonnage" in page
    assert "9,40" in page
    assert "9.40" not in page
    assert "hors de ses limites" in page


def test_language_is_kept_by_the_switch(http: httpx.Client) -> None:
    assert '<html lang="en">' in http.get("/").text
    http.get("/", params={"lang": "fr"})
    assert '<html lang="fr">' in http.get("/path").text


def test_language_of_the_owner_beats_the_browser() -> None:
    with serve(create_app(SampleLoop(StillClock(1.0)), language="fr"), port=0) as server:
        answer = httpx.get(server.url, headers={"accept-language": "en"}, trust_env=False)
    assert '<html lang="fr">' in answer.text


def test_htmx_gets_the_body_only(http: httpx.Client) -> None:
    part = http.get("/", headers={"hx-request": "true"}).text
    assert "<html" not in part
    assert part.lstrip().startswith("<header")


def test_machine_page_gives_evidence_and_only_its_own(http: httpx.Client) -> None:
    page = http.get("/machines/press-2").text
    assert "Outer-race line over noise" in page
    assert "8.70" in page
    assert "Calibration" not in page


def test_unknown_machine_and_view_are_404_with_a_way_back(http: httpx.Client) -> None:
    machine = http.get("/machines/press-9")
    assert machine.status_code == 404
    assert "/machines/press-1" in machine.text
    nowhere = http.get("/nowhere")
    assert nowhere.status_code == 404
    assert 'href="/"' in nowhere.text


def test_events_are_filtered(http: httpx.Client) -> None:
    alarms = http.get("/events", params={"severity": "alarm"}).text
    assert "event-e-3" in alarms
    assert "event-e-4" not in alarms
    assert "No event matches" in http.get("/events", params={"subject": "press-1"}).text


def test_path_adds_up(http: httpx.Client) -> None:
    page = http.get("/path").text
    terms = [int(term.replace(",", "")) for term in re.findall(r'class="term[^"]*"><b>([\d,]+)', page)]
    assert terms[0] == sum(terms[1:])
    assert "it adds up" in page
    assert "unknown sensor" in page
    for name in ("vibration", "process", "features", "verdicts", "plc", "mes", "maintenance_summary"):
        assert f'<text class="name" x="12" y="23">{name}</text>' in page


def test_a_sum_that_does_not_add_up_is_shouted() -> None:
    class Losing(SampleLoop):
        def view(self) -> LoopView:
            view = super().view()
            view.accounting.stored -= 5
            return view

    with serve(create_app(Losing(StillClock(150.0))), port=0) as losing:
        page = httpx.get(losing.url + "path", trust_env=False).text
        health = httpx.get(losing.url + "healthz", trust_env=False).json()
    assert "5 readings are missing" in page
    assert health["status"] == "degraded"


def test_for_machines(http: httpx.Client) -> None:
    view = http.get("/api/view").json()
    assert [machine["status"] for machine in view["machines"]] == ["normal", "alarm", "attention"]
    assert view["accounting"]["in"] == 48150
    assert http.get("/metrics").text.startswith("# HELP boucle_rows_total")
    assert http.get("/healthz").json() == {
        "status": "ok",
        "not_well": {},
        "balanced": True,
        "automatic": True,
    }


def test_stop_and_allow_automatic_action(http: httpx.Client, sample: SampleLoop) -> None:
    assert "Stop automatic action?" in http.get("/automatic").text
    answer = http.post("/automatic", data={"allowed": "false", "confirm": "yes", "by": "  Zoé \n Martin "})
    assert answer.status_code == 303
    assert sample.asked == [(False, "Zoé Martin (127.0.0.1)")]
    page = http.get("/").text
    assert "Stopped" in page
    assert "Allow automatic action?" in http.get("/automatic").text
    http.post(
        "/automatic", data={"allowed": "true", "confirm": "yes"}, headers={"origin": str(http.base_url)[:-1]}
    )
    assert sample.asked[-1] == (True, "page (127.0.0.1)")


@pytest.mark.parametrize("form", [{}, {"allowed": "false"}, {"allowed": "perhaps", "confirm": "yes"}])
def test_nothing_changes_without_confirmation(
    http: httpx.Client, sample: SampleLoop, form: dict[str, str]
) -> None:
    assert http.post("/automatic", data=form).status_code == 400
    assert sample.asked == []


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
)
def test_another_origin_may_not_act(http: httpx.Client, sample: SampleLoop, headers: dict[str, str]) -> None:
    answer = http.post("/automatic", data={"allowed": "false", "confirm": "yes"}, headers=headers)
    assert answer.status_code == 403
    assert "B804" in answer.text
    assert sample.asked == []


def test_a_renamed_host_is_refused_unless_declared(http: httpx.Client) -> None:
    answer = http.get("/", headers={"host": "evil.example"})
    assert answer.status_code == 400
    assert "hosts=['evil.example']" in answer.text
    with serve(create_app(SampleLoop(StillClock(1.0)), hosts=["plant.example"]), port=0) as server:
        named = httpx.get(server.url, headers={"host": "plant.example:8080"}, trust_env=False)
    assert named.status_code == 200


def test_markup_in_the_data_is_shown_not_run() -> None:
    class Hostile(SampleLoop):
        def events(self, now: float) -> tuple[Event, ...]:
            return tuple(
                replace(event, says={"en": "<script>alert(1)</script>"}) for event in super().events(now)
            )

    with serve(create_app(Hostile(StillClock(150.0))), port=0) as server:
        page = httpx.get(server.url, trust_env=False).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_an_old_value_says_its_age_and_a_bad_one_that_it_is_bad() -> None:
    class Stale(SampleLoop):
        def machine(self, machine: str, second: float) -> MachineView:
            shown = super().machine(machine, second)
            return replace(shown, age_s=42.0, values=shown.values | {"oil_temperature": math.nan})

    with serve(create_app(Stale(StillClock(150.0)), language="fr"), port=0) as server:
        line = httpx.get(server.url, trust_env=False).text
        machine = httpx.get(server.url + "machines/press-1", trust_env=False).text
    assert line.count("Valeur d&#39;il y a 42\u00a0s") == 3
    assert "mauvaise qualité" in machine

"""What a reader sees when the loop, the page or the port does not do its part."""

import httpx
import pytest
from tests.web.sample import SampleLoop, StillClock

from boucle.errors import BoucleError, Unavailable
from boucle.loop.view import LoopView
from boucle.web import PageServer, create_app, serve
from boucle.web import drawn as application


class Gone(SampleLoop):
    def view(self) -> LoopView:
        raise Unavailable("B699", "the loop has stopped", why="the disk is full", fix="free some space")


class Broken(SampleLoop):
    def view(self) -> LoopView:
        raise ZeroDivisionError


def test_a_loop_that_does_not_answer_is_503_with_why_and_fix() -> None:
    with serve(create_app(Gone(StillClock(1.0)), language="fr"), port=0) as server:
        answer = httpx.get(server.url, trust_env=False)
        health = httpx.get(server.url + "healthz", trust_env=False)
    assert answer.status_code == health.status_code == 503
    assert "La boucle ne répond pas" in answer.text
    assert "the disk is full" in answer.text
    assert "free some space" in answer.text


def test_a_mistake_of_ours_is_500_says_so_and_keeps_the_headers() -> None:
    with serve(create_app(Broken(StillClock(1.0))), port=0) as server:
        answer = httpx.get(server.url, trust_env=False)
    assert answer.status_code == 500
    assert "B801" in answer.text
    assert "ZeroDivisionError" not in answer.text
    assert "content-security-policy" in answer.headers


def test_a_taken_port_says_what_to_do(server: PageServer) -> None:
    with pytest.raises(BoucleError, match=r"B806 .*--port 0") as caught:
        serve(create_app(SampleLoop(StillClock(1.0))), port=server.port)
    assert caught.value.why


def test_stop_is_final_and_may_be_repeated(server: PageServer) -> None:
    server.stop()
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, trust_env=False)


def test_missing_browser_libraries_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(application, "STAMP", tmp_path_factory.mktemp("nothing") / "stamp.json")
    with serve(create_app(SampleLoop(StillClock(150.0))), port=0) as server:
        page = httpx.get(server.url, trust_env=False).text
    assert "make assets" in page
    assert "vendor/" not in page
    assert 'http-equiv="refresh"' in page
    assert "press-2 is wearing" in page

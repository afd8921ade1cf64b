"""The wear story seen to happen on the page of a real loop, in a real browser, in two languages."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boucle.bus.broker import find_mosquitto
from boucle.web import PageServer, create_app, serve
from tests.loop.plant import PATIENCE, SocketPlant, short_story
from tests.web.conftest import chromium
from tests.web.test_web_browser import Watched

__all__ = ["chromium"]

pytestmark = [pytest.mark.browser, pytest.mark.real]

WAIT = PATIENCE * 1000


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[SocketPlant, PageServer]]:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    with (
        SocketPlant(tmp_path, short_story(40), seed=3, speed=1.5) as plant,
        serve(create_app(plant.loop.picture), port=0) as server,
    ):
        yield plant, server
        plant.gateway.pause()


def test_the_story_is_seen_to_happen(chromium: Any, running: tuple[SocketPlant, PageServer]) -> None:
    plant, server = running
    watched = Watched(chromium, locale="en-GB")
    page = watched.open(server, figures="")
    plant.play()
    worn, lying = page.locator("#card-press-2"), page.locator("#card-press-3")
    page.wait_for_selector("#card-press-3 .plot canvas", timeout=WAIT)
    page.wait_for_selector("#card-press-2.normal", timeout=WAIT)
    assert page.locator("#card-press-1.normal, #card-press-2.normal, #card-press-3.normal").count() == 3
    assert watched.saturated() == 0, "nothing is coloured while all is normal"

    page.wait_for_selector("#card-press-2.alarm", timeout=WAIT)
    assert "It is the machine, not a sensor." in worn.inner_text()
    page.wait_for_selector("#card-press-3.attention", timeout=WAIT)
    page.wait_for_selector('.rows.orders:has-text("Calibration")', timeout=WAIT)
    page.wait_for_selector('.rows.orders:has-text("Maintenance")', timeout=WAIT)
    page.wait_for_selector('.rows.commands:has-text("40 → 30\u00a0strokes/min")', timeout=WAIT)
    assert "plc/press-2/speed_setpoint" in page.locator(".rows.commands").inner_text()
    assert "press-3" not in page.locator(".rows.commands").inner_text()
    assert re.search("the sensor lost .* of its gain", lying.inner_text()), lying.inner_text()
    assert "It is the instrument, not the machine." in lying.inner_text()
    assert page.locator("#card-press-1.normal").count() == 1
    assert watched.saturated() > 1000, "the alarm stands out"

    page.click("text=FR")
    page.wait_for_selector("html[lang=fr]")
    page.wait_for_selector("#card-press-2.alarm")
    assert "Alarme" in worn.inner_text()
    assert "C'est la machine, pas un capteur." in worn.inner_text()
    assert re.search("le capteur a perdu .* de son gain", lying.inner_text()), lying.inner_text()
    assert "C'est l'instrument, pas la machine." in lying.inner_text()
    assert "Ralentir press-2" in page.locator(".rows.commands").inner_text()
    assert "40 → 30\u00a0coups/min" in page.locator(".rows.commands").inner_text()
    orders = page.locator(".rows.orders").inner_text()
    assert "Étalonnage" in orders
    assert "press-3/vib_x" in orders
    assert watched.complaints == []
    own = server.url.removeprefix("http://")
    assert all(address.partition("://")[2].startswith(own) for address in watched.asked)
    watched.context.close()

"""The page in a real browser: the story, the colours, the languages, the lost link."""

import base64
from typing import Any

import pytest
from msgspec.structs import replace
from tests.web.sample import SLOW_DOWN, SampleLoop, StillClock, Story

from boucle.loop.view import Live, LoopView
from boucle.web import PageServer, create_app, serve

pytestmark = pytest.mark.browser

SATURATED = """async (png) => {
  const image = await createImageBitmap(await (await fetch("data:image/png;base64," + png)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const most = Math.max(data[i], data[i + 1], data[i + 2]);
    const least = Math.min(data[i], data[i + 1], data[i + 2]);
    if (most > 50 && (most - least) / most > 0.25) count++;
  }
  return count;
}"""

CONTRAST = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgb(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("#page *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.nodeValue.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, .unseen")) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const what = `${element.className} ${element.textContent.trim().slice(0, 40)}`;
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${what}`);
  }
  return poor;
}"""

OVERFLOWING = """() => [...document.querySelectorAll("#page *")]
  .filter((one) => one.checkVisibility() && !one.closest("svg, .scroll, .rows, .plot, .unseen"))
  .filter((one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth && !one.matches(".cut-off"))
  .map((one) => `${one.tagName} ${one.className} ${one.textContent.trim().slice(0, 40)}`)"""


class Watched:
    """A page that remembers what it complained about and whom it asked."""

    def __init__(self, browser: Any, size: tuple[int, int] = (1440, 900), **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type != "log" else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))

    def open(self, server: PageServer, path: str = "/", figures: str = ".plot canvas") -> Any:
        self.page.goto(server.url.rstrip("/") + path)
        if figures:
            self.page.wait_for_selector(figures)
        return self.page

    def saturated(self) -> int:
        png = base64.b64encode(self.page.screenshot()).decode()
        blank = self.context.new_page()
        count = int(blank.evaluate(SATURATED, png))
        blank.close()
        return count


def running(story: Story, second: float) -> tuple[SampleLoop, PageServer]:
    loop = SampleLoop(StillClock(second), story)
    return loop, serve(create_app(loop), port=0)


def test_nothing_is_coloured_when_all_is_normal(chromium: Any) -> None:
    _, server = running("normal", 150.0)
    with server:
        for scheme in ("light", "dark"):
            watched = Watched(chromium, color_scheme=scheme)
            for path in ("/", "/machines/press-1", "/path", "/events", "/commands"):
                watched.open(server, path, ".plot canvas" if path in {"/", "/machines/press-1"} else "h1")
                assert watched.saturated() == 0, f"{path} in {scheme}"
            assert watched.complaints == []
            watched.context.close()


def test_the_wear_story_is_seen_and_everything_comes_from_here(chromium: Any, server: PageServer) -> None:
    watched = Watched(chromium)
    page = watched.open(server)
    card = page.locator("#card-press-2")
    assert "Alarm" in card.inner_text()
    assert SLOW_DOWN["en"] in card.inner_text()
    assert "36 → 27\u00a0strokes/min" in page.locator(".rows.commands").inner_text()
    assert "Calibration" in page.locator(".rows.orders").inner_text()
    assert watched.saturated() > 1000
    page.click("#card-press-2 h2 a")
    page.wait_for_selector(".plot.waveform canvas")
    assert page.locator(".plot.waveform").count() == 3
    assert page.locator(".plot.trend").count() == 11
    assert watched.complaints == []
    own = server.url.removeprefix("http://")
    assert all(address.partition("://")[2].startswith(own) for address in watched.asked)
    watched.context.close()


@pytest.mark.parametrize("size", [(1280, 800), (1440, 900), (1920, 1080)])
@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_overview_fits_one_screen(
    chromium: Any, server: PageServer, size: tuple[int, int], language: str
) -> None:
    watched = Watched(chromium, size)
    page = watched.open(server, f"/?lang={language}")
    width, height = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    assert (width, height) == size
    assert page.evaluate(OVERFLOWING) == []
    watched.context.close()


@pytest.mark.parametrize("machines", [3, 6])
def test_a_long_shift_and_a_longer_line_still_fit(chromium: Any, machines: int) -> None:
    class Busy(SampleLoop):
        def view(self) -> LoopView:
            view = super().view()
            twins = tuple(replace(machine, id=f"{machine.id}b") for machine in view.machines)
            shown = (*view.machines, *twins)[:machines]
            return replace(view, machines=shown, events=view.events * 9, commands=view.commands * 9)

        def live(self, machine: str) -> Live | None:
            live = super().live(machine.removesuffix("b"))
            return live and replace(live, machine=machine)

    with serve(create_app(Busy(StillClock(150.0))), port=0) as server:
        watched = Watched(chromium)
        page = watched.open(server, "/?lang=fr")
        page.wait_for_function("() => document.querySelectorAll('.plot.trend canvas').length >= 3")
        assert page.evaluate("document.documentElement.scrollHeight") == 900
        watched.context.close()


@pytest.mark.parametrize("path", ["/", "/machines/press-2", "/path", "/events", "/commands", "/automatic"])
def test_a_phone_can_read_it(chromium: Any, server: PageServer, path: str) -> None:
    watched = Watched(chromium, (390, 844))
    page = watched.open(server, path + "?lang=fr", "main section")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    watched.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(chromium: Any, server: PageServer, scheme: str) -> None:
    watched = Watched(chromium, color_scheme=scheme)
    for path in ("/", "/machines/press-3", "/path", "/events", "/commands", "/automatic"):
        page = watched.open(server, path, "main section")
        assert page.evaluate(CONTRAST) == [], path
    watched.context.close()


def test_the_switch_speaks_french_and_stays(chromium: Any, server: PageServer) -> None:
    watched = Watched(chromium, locale="en-GB")
    page = watched.open(server)
    assert page.locator("html").get_attribute("lang") == "en"
    page.click("text=FR")
    page.wait_for_selector("html[lang=fr]")
    page.wait_for_selector(".plot canvas")
    assert "Alarme" in page.locator("#card-press-2").inner_text()
    assert "Vibration x, eff." in page.locator("#card-press-2 .plot.trend").inner_text()
    page.click("nav >> text=Parcours")
    page.wait_for_selector("text=le compte est bon")
    watched.context.close()


def test_a_keyboard_is_enough(chromium: Any, server: PageServer) -> None:
    watched = Watched(chromium)
    page = watched.open(server)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('href') ?? ''"))
    assert {"/path", "/events", "/commands", "/automatic", "/machines/press-2"} <= reached
    watched.context.close()


def test_only_a_new_alarm_is_announced_and_focus_survives_the_refresh(chromium: Any) -> None:
    loop, server = running("wear", 90.0)
    assert isinstance(loop.clock, StillClock)
    with server:
        watched = Watched(chromium)
        page = watched.open(server)
        page.focus("#card-press-2 h2 a")
        assert page.locator("#announce").inner_text() == ""
        loop.clock.seconds = 100.0
        page.wait_for_selector('#announce:has-text("press-2 is wearing")', state="attached")
        assert page.evaluate("document.activeElement.textContent") == "press-2"
        assert page.locator("#card-press-2.alarm .plot canvas").count() == 2
        watched.context.close()


def test_a_lost_link_greys_the_page_and_comes_back(chromium: Any) -> None:
    loop, server = running("wear", 150.0)
    watched = Watched(chromium)
    page = watched.open(server)
    assert not page.locator("#lost").is_visible()
    server.stop()
    page.wait_for_selector("body.link-lost")
    assert "Link to the loop lost" in page.locator("#lost").inner_text()
    assert float(page.evaluate("getComputedStyle(document.getElementById('main')).opacity")) < 0.6
    with serve(create_app(loop), port=server.port):
        page.wait_for_selector("body:not(.link-lost)")
        assert not page.locator("#lost").is_visible()
        watched.context.close()


def test_stopping_takes_two_clicks_and_shows(chromium: Any) -> None:
    loop, server = running("normal", 150.0)
    with server:
        watched = Watched(chromium)
        page = watched.open(server)
        page.click(".tile.mode .button")
        page.fill("input[name=by]", "Awa")
        page.click("button.strong")
        page.wait_for_selector(".pill.stopped")
        assert loop.asked == [(False, "Awa (127.0.0.1)")]
        assert watched.complaints == []
        watched.context.close()

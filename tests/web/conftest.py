"""A page on the sample press line, and a real browser when there is one."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.web.sample import SampleLoop, StillClock  # noqa: E402

from boucle.web import PageServer, create_app, serve  # noqa: E402

CHROMIUM_ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def sample() -> SampleLoop:
    """The press line at second 150 of the wear story."""
    return SampleLoop(StillClock(150.0))


@pytest.fixture
def server(sample: SampleLoop) -> Iterator[PageServer]:
    with serve(create_app(sample), port=0) as running:
        yield running


@pytest.fixture
def http(server: PageServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    # Not for the session: Playwright keeps an event loop running in this thread, and tests after it need theirs.
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on the PATH: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield browser
        browser.close()

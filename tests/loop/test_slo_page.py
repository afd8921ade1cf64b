"""The page of promises of a loop whose promises are kept, at risk, nearly spent, and not measured."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from boucle.web import create_app, serve
from tests.loop.served import Served

ITEMS: list[dict[str, Any]] = [
    {"id": "fresh", "property": "freshness", "value": 2, "unit": "min", "element": "readings",
     "description": "What the shift looks at."},
    {"id": "prompt", "property": "latency", "value": 3, "unit": "s", "element": "readings"},
    {"id": "clean", "property": "errorRate", "value": 5, "unit": "%"},
    {"id": "right", "property": "accuracy", "value": "99%", "element": "readings.value"},
    {"id": "steady", "property": "throughput", "value": 2, "unit": "rows/min", "element": "readings"},
    {"id": "up", "property": "availability", "value": "99.5%", "element": "readings"},
]  # fmt: skip
BESIDE = {
    "fresh": {"target": "99.9%", "window": "30d"},
    "right": {"reference": "truth.csv", "key": ["pump"]},
    "prompt": {"window": "7d"},
}


def story(folder: Path) -> Served:
    """Two good hours, a quarter of an hour of silence, and half an hour since."""
    plant = Served(folder, ITEMS, BESIDE)
    plant.pass_(120)
    plant.pass_(15, silent=True)
    plant.pass_(2)
    return plant


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_page_says_how_every_promise_stands(tmp_path: Path, language: str) -> None:
    plant = story(tmp_path)
    with (
        serve(create_app(plant.loop.picture), port=0) as server,
        httpx.Client(base_url=server.url, trust_env=False, params={"lang": language}) as http,
    ):
        page = http.get("/slo").text
        whole = http.get("/api/view").json()
    plant.loop.close()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert not re.search(r"\b(nan|None|inf)\b", text)
    rows = re.findall(r'<tr id="slo-(\w+)" class="(\w+)">', page)
    assert rows[0] == ("fresh", "alarm"), "the worst stands first"
    assert ("right", "unknown") in rows
    assert ("clean", "normal") in rows
    assert len(rows) == len(ITEMS)
    if language == "en":
        assert "The newest row of readings.at is at most 2 min old." in text
        assert "99.9 %" in text
        assert "Cannot be measured: truth.csv" in text
        assert "the error budget of 30 d burns" in text
    else:
        assert "La ligne la plus récente de readings.at a au plus 2 min." in text
        assert "99,9 %" in text
        assert "le budget d&#39;erreur de 30 j se consume" in text
    assert not re.findall(r"\sstyle=|<style|\son\w+=", page)
    assert {one["id"] for one in whole["objectives"]} == {one["id"] for one in ITEMS}


def test_a_product_that_promises_nothing_says_so(tmp_path: Path) -> None:
    plant = Served(tmp_path, [])
    with serve(create_app(plant.loop.picture), port=0) as server:
        page = httpx.get(f"{server.url.rstrip('/')}/slo", trust_env=False).text
    plant.loop.close()
    assert "Nothing is promised" in page

"""The catalogue's pages: search, products, tables with masked samples, lineage; in both languages, without a loop."""

import html
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from tests.catalog.made import bank, put
from tests.web.sample import SampleLoop, StillClock

from boucle.block import Block, Position
from boucle.catalog.index import Index
from boucle.catalog.lineage import Lineage
from boucle.catalog.usage import Usage
from boucle.cli.main import main
from boucle.clock import SystemClock
from boucle.lake.delta import LakeTable
from boucle.loop.columns import trace_product
from boucle.product.sla import Objective, Sla
from boucle.quality.slo.history import Counted, History
from boucle.web import create_app, serve
from boucle.web.catalog import CataloguePages, create_catalogue

VIEWS = [
    "/catalogue",
    "/catalogue?q=carte+fraude",
    "/catalogue?domain=bank&kind=table",
    "/catalogue/cards",
    "/catalogue/cards/scored",
    "/catalogue/cards/payments",
    "/catalogue/claims",
    "/catalogue/broken",
    "/lineage",
    "/lineage?of=scored.spent_24h&question=origin",
    "/lineage?of=payments.amount&question=impact",
]
CARD = "4970-1000-2000"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products and a broken one, and a run of the first with rows in its lake."""
    folder = tmp_path_factory.mktemp("catalogue")
    put(bank(folder / "products"), "broken", "kind: [unclosed")
    (folder / "products" / "bank" / "cards" / "CHANGELOG.md").write_text("## 1.2.0\n\n- a column more\n")
    run = folder / "runs" / "cards"
    Lineage(run / "lineage", SystemClock(), namespace="cards").start("cards-loop").complete()
    rows = pa.record_batch(
        {
            "at": pa.array([1_790_000_000_000_000_000], pa.timestamp("ns", "UTC")),
            "card": [CARD],
            "terminal": ["t-7"],
            "amount": [12.5],
            "country": ["fr"],
            "spent_24h": [12.5],
            "seen_1h": [1],
            "label": [f"{CARD}-fr"],
            "large": [0.0],
        }
    )
    LakeTable(run / "lake" / "silver" / "scored", partition_by=("day",)).append(
        Block("scored", rows, 0, Position("scored", 1))
    )
    now = 1_790_000_000 * 10**9
    fresh = Objective(id="fresh", measure="freshness", element="scored", bound=60, target=0.9, window=86_400)
    history = History(run)
    history.open("cards", Sla((fresh,)), now)
    history.append(Counted(now, {"fresh": [(now // 60 // 10**9, 59_000, 60_000)]}))
    history.close()
    usage = Usage(run / "usage.sqlite")
    usage.count("cards", "scored", "superset", "sql", 100)
    usage.close()
    return folder


@pytest.fixture(scope="module")
def index(root: Path) -> Iterator[Index]:
    one = Index(root / "products", root / "catalogue.sqlite")
    one.refresh(trace_product)
    yield one
    one.close()


@pytest.fixture(scope="module")
def url(index: Index, root: Path) -> Iterator[str]:
    with serve(create_catalogue(index, runs=[root / "runs"]), port=0) as server:
        yield server.url.rstrip("/")


def get(url: str, path: str, **headers: str) -> httpx.Response:
    return httpx.get(url + path, headers=headers, trust_env=False, timeout=60)


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("path", VIEWS)
def test_every_view_in_both_languages_under_a_strict_policy(url: str, path: str, language: str) -> None:
    answer = get(url, path, **{"accept-language": language})
    assert answer.status_code == 200
    assert f'<html lang="{language}">' in answer.text
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert not re.findall(r"\sstyle=|<style|\son\w+=|<script(?![^>]*\ssrc=)", answer.text)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', answer.text)
    assert not re.search(r"\b(nan|None|inf)\b", re.sub(r"<[^>]+>|is not None", "", answer.text))


def test_search_forgives_and_says_so(url: str) -> None:
    page = get(url, "/catalogue?q=amuont&lang=fr").text
    assert "« amuont » a été lu « amount »" in page
    assert "scored" in page
    assert "Nothing was found" in get(url, "/catalogue?q=zzzzzz&lang=en").text


def test_a_broken_file_is_listed_with_its_reason(url: str) -> None:
    page = get(url, "/catalogue?lang=en").text
    assert "Files that cannot be read" in page
    assert "broken/product.yaml" in page
    assert "expected" in get(url, "/catalogue/broken?lang=en").text


def test_a_product_page_says_all_of_it(url: str) -> None:
    page = get(url, "/catalogue/cards?lang=en").text
    for part in (
        "ada@bank.example",
        "cards-contract",
        "Chaque paiement",
        "a column more",
        "superset",
        "boucle sql --folder",
    ):
        assert part in page
    assert '<svg xmlns="http://www.w3.org/2000/svg" class="lineage"' in page
    assert 'href="/catalogue/claims"' in page  # who reads it
    kept = re.search(r'<tr class="normal">.*?>fresh<.*?</tr>', page, re.DOTALL)
    assert kept is not None, "how the promise stands"
    assert "98.33 %" in html.unescape(kept[0]).replace("\u202f", " ").replace("\xa0", " ")


def test_personal_columns_are_masked_in_samples_also_those_made_of_them(
    url: str, index: Index, root: Path
) -> None:
    page = get(url, "/catalogue/cards/scored?lang=en").text
    assert CARD not in page
    assert "•••" in page
    assert "Masked because personal: card, label" in page
    assert "t-7" in page
    with serve(create_catalogue(index, runs=[root / "runs"], unmasked=True), port=0) as allowed:
        assert CARD in get(allowed.url.rstrip("/"), "/catalogue/cards/scored").text


def test_what_is_to_be_copied_runs(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = html.unescape(get(url, "/catalogue/cards/scored?lang=en").text)
    sql, python = (
        re.search(f"<h3>{way}</h3>.*?<pre[^>]*>(.*?)</pre>", page, re.DOTALL) for way in ("SQL", "Python")
    )
    assert sql is not None
    assert python is not None
    assert main(shlex.split(sql[1])[1:]) == 0
    assert "t-7" in capsys.readouterr().out
    exec(compile(python[1], "snippet", "exec"), {})
    assert "t-7" in capsys.readouterr().out


def test_lineage_is_drawn_and_told(url: str) -> None:
    page = get(url, "/lineage?of=payments.amount&question=impact&lang=en").text
    assert "per_card" in page
    assert "delivered under contract" in page
    origin = get(url, "/lineage?of=scored.spent_24h&question=origin&lang=fr").text
    assert "mqtt://broker.bank.example:1883/bank/payments.amount" in origin
    assert "sum(amount) over 24h by card" in origin
    assert "agrégé" in origin
    assert "étape · cards" in origin


def test_what_is_not_there_is_404_with_a_way_back(url: str) -> None:
    for path in ("/catalogue/nobody", "/catalogue/cards/nothing", "/nowhere", "/lineage?of=no.such"):
        answer = get(url, path)
        assert answer.status_code == 404
        assert 'href="/catalogue"' in answer.text
    assert httpx.get(url, follow_redirects=True, trust_env=False, timeout=60).url.path == "/catalogue"


def test_json_for_machines(url: str) -> None:
    hits = get(url, "/api/catalogue?q=montant&kind=column").json()["hits"]
    assert {one["column"] for one in hits} >= {"amount"}
    told = get(url, "/api/lineage?of=payments.amount").json()
    assert {one["node"]["name"] for one in told["reached"]} >= {"per_card", "burst"}
    assert get(url, "/api/lineage?of=no.such").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/catalogue?q=%00%22%27%3Cscript%3E",
        "/catalogue?page=99999999999",
        "/catalogue?page=-1",
        "/catalogue?kind=x'--",
        "/catalogue/..%2F..%2Fetc",
        "/lineage?of=%3Cscript%3Ealert(1)%3C/script%3E",
        "/lineage?of=" + "a." * 300,
    ],
)
def test_strange_requests_are_answered_and_nothing_is_injected(url: str, path: str) -> None:
    answer = get(url, path)
    assert answer.status_code in (200, 404)
    assert "<script>" not in answer.text


def test_a_changed_file_is_seen_while_the_page_is_served(root: Path, tmp_path: Path) -> None:
    products = bank(tmp_path / "products")
    index = Index(products, tmp_path / "index.sqlite")
    index.refresh(trace_product)
    pages = CataloguePages(index)
    put(products, "more", (products / "risk/claims/product.yaml").read_text().replace("claims", "more"))
    pages._looking.acquire()
    pages._look()
    assert index.product("more") is not None
    index.close()


def test_beside_a_running_loop(index: Index) -> None:
    with serve(create_app(SampleLoop(StillClock(150.0)), catalogue=CataloguePages(index)), port=0) as server:
        url = server.url.rstrip("/")
        assert 'href="/catalogue"' in get(url, "/").text
        assert get(url, "/catalogue/cards").status_code == 200
    with serve(create_app(SampleLoop(StillClock(150.0))), port=0) as alone:
        assert 'href="/catalogue"' not in get(alone.url.rstrip("/"), "/").text


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_in_a_browser(url: str, chromium: Any, width: int, height: int) -> None:
    page = chromium.new_page(viewport={"width": width, "height": height})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    for path in VIEWS:
        page.goto(url + path)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, path
    page.goto(f"{url}/catalogue?lang=en")
    page.fill("input[name=q]", "montant")
    page.wait_for_selector(".hits")
    assert "amount" in page.inner_text("#results")
    page.close()
    assert said == []

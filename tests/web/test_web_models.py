"""The page of models: of a running loop with everything around a model, in both languages, and in a real browser."""

import math
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from tests.web.sample import SampleLoop, StillClock
from tests.web.scoring import Scoring
from tests.web.test_web_browser import CONTRAST, OVERFLOWING, Watched

from boucle.loop.view import LoopView, ScoreView, VersionView
from boucle.loop.view_models import ArmView, DriftView, FigureView, TrialView
from boucle.serve.ledger import BOUNDS
from boucle.web import PageServer, create_app, serve
from boucle.web.models import panels_of
from boucle.web.speech import Speech


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scoring]:
    """Two minutes of payments, then half a minute of larger ones."""
    made = Scoring(tmp_path_factory.mktemp("scoring"))
    made.send(130)
    made.send(25, shift=0.4)
    yield made
    made.loop.close()


@pytest.fixture(scope="module")
def page(plant: Scoring) -> Iterator[PageServer]:
    with serve(create_app(plant.loop.picture), port=0) as server:
        yield server


def text_of(server: PageServer, language: str, path: str = "models") -> str:
    page = httpx.get(f"{server.url}{path}", params={"lang": language}, trust_env=False).text
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_what_is_known_of_the_models_is_there(plant: Scoring) -> None:
    (score,) = plant.loop.picture.fresh().scores
    assert {(arm.arm, arm.version) for arm in score.arms} == {
        ("champion", "1"),
        ("canary", "2"),
        ("shadow", "3"),
    }
    assert all(arm.since and arm.by == "marie" for arm in score.arms)
    figures = {(one.version, one.figure, one.estimated): one for one in score.figures}
    assert 0 < figures["1", "auc", False].labelled <= figures["1", "auc", False].rows
    assert 0.5 < figures["2", "auc", True].value <= 1
    assert score.trial is not None
    assert score.trial.difference > 0
    assert score.trial.better == 1.0
    assert score.shadow["limits"]["flip"]["broken"]
    assert any(one.drifted and one.column == "amount" for one in score.drift)
    assert {one.feature for one in score.reasons} == {"amount", "count_1h"}
    assert score.reasons[0].of["payment"] > 0
    assert score.changes[0].role == "candidate"
    assert set(score.service) >= {"volume", "cost"}
    kinds = [event.kind for event in plant.events]
    assert kinds.count("model_decision") == 1


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_page_says_it_in_both_languages(page: PageServer, language: str) -> None:
    text = text_of(page, language)
    assert not re.search(r"\b(nan|None|inf)\b", text)
    words = {
        "en": ["Champion, decides", "Canary, decides for a share", "Shadow, never acts", "estimated 0.", "AUC",
               "2 by 0.", "broken, not let in", "1 became champion", "by marie", "the distribution moved",
               "adds to the score", "no deadline", "1000 predictions cost", "· 10⁻", "fraud 2 is better than 1"],
        "fr": ["Champion, décide", "Canari, décide d&#39;une part", "Fantôme, n&#39;agit jamais", "estimé 0,", "AUC",
               "2 de 0,", "dépassé, n&#39;entre pas", "1 devient champion", "par marie", "la distribution a bougé",
               "sans échéance", "1000 prédictions coûtent", "promouvoir, attend une approbation"],
    }[language]  # fmt: skip
    page_text = httpx.get(f"{page.url}models", params={"lang": language}, trust_env=False).text
    for word in words:
        assert word in text or word in page_text, word
    assert not re.findall(r"\sstyle=|<style|\son\w+=", page_text)
    other = text_of(page, language, "")
    assert {"en": "Models", "fr": "Modèles"}[language] in other, "the way there"


@pytest.mark.browser
@pytest.mark.parametrize(("language", "width"), [("en", 1440), ("fr", 420)])
def test_it_can_be_read_in_a_browser(chromium: Any, page: PageServer, language: str, width: int) -> None:
    watched = Watched(chromium, (width, 900), color_scheme="dark" if language == "en" else "light")
    shown = watched.open(page, f"/models?lang={language}", "#model-scored")
    assert shown.evaluate(OVERFLOWING) == []
    assert shown.evaluate(CONTRAST) == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.locator(".model tbody tr").count() >= 5
    assert watched.saturated() > 100, "a broken limit is seen"
    assert watched.complaints == []
    watched.context.close()


def test_a_volume_out_of_bounds_is_told_once_and_when_it_is_back(plant: Scoring) -> None:
    before = len(plant.events)
    plant.send(45, rows=1)
    plant.send(45, rows=10)
    told = [event for event in plant.events[before:] if event.evidence.get("reason") == "volume"]
    assert [event.kind for event in told] == ["model_trouble", "model_well"]
    assert "40 to 4000 are declared" in told[0].says["en"]
    assert "40 à 4000 est déclaré" in told[0].says["fr"]
    assert told[0].subject == "step scored"


class Still(SampleLoop):
    """The sample line, one of whose steps scores with a model that is well."""

    scores: tuple[ScoreView, ...] = ()

    def view(self) -> LoopView:
        return replace(super().view(), scores=self.scores)


def spread(place: int) -> tuple[int, ...]:
    return tuple(100 if one == place else 0 for one in range(len(BOUNDS) + 1))


def score(**more: Any) -> ScoreView:
    version = VersionView("health", "3", "champion", 500, 500, 0.2, 0.4, math.nan, spread(9))
    told: dict[str, Any] = {
        "step": "health", "rows": 500, "scored": 500, "fallback": {}, "unscored": {}, "late": 0, "switches": 0,
        "playing": {"champion": "health 3"}, "troubles": (), "currency": "", "versions": (version,),
        "bounds": BOUNDS, "arms": (ArmView("champion", "health", "3"),),
    }  # fmt: skip
    return ScoreView(**(told | more))


def figure(name: str, value: float, **more: Any) -> FigureView:
    told: dict[str, Any] = {
        "version": "3", "group": "", "figure": name, "value": value, "error": 0.01, "low": math.nan,
        "high": math.nan, "unusual": False, "estimated": False, "complete": True, "rows": 100, "labelled": 100,
        "window_start": 1_763_728_200 * 10**9,
    }  # fmt: skip
    return FigureView(**(told | more))


@pytest.mark.browser
def test_nothing_is_coloured_when_a_model_is_well(chromium: Any) -> None:
    loop = Still(StillClock(150.0), "normal")
    loop.scores = (score(figures=(figure("auc", 0.9), figure("f1", 0.7))),)
    with serve(create_app(loop), port=0) as server:
        watched = Watched(chromium)
        watched.open(server, "/models", "#model-health")
        assert watched.saturated() == 0
        watched.context.close()


def test_what_is_not_there_is_said_and_what_is_wrong_stands_out() -> None:
    view = Still(StillClock(150.0), "normal").view()
    view = replace(view, steps=tuple(replace(step, p95_us=90.0) for step in view.steps))
    speech = Speech("en")

    def panel(**more: Any) -> Any:
        return panels_of(replace(view, scores=(score(**more),)), speech)[0]

    well = panel()
    assert (well.state, well.cost, well.doing, well.shadow, well.trial_there) == (
        "normal",
        "–",
        (),
        (),
        False,
    )
    assert "DataDrift" in well.drift_said
    assert panel(deadline_s=1e-6).late
    assert panel(deadline_s=1.0).deadline == "deadline 1,000.0\u00a0ms"
    assert panel(troubles=("latency",)).troubles == ("latency out of bounds",)
    odd = panel(figures=(figure("f1", 0.4, unusual=True, low=0.6, high=0.8), figure("f1", 0.7, version="2")))
    assert [row.name for row in odd.doing] == ["3", "2"], "the unusual stands first"
    assert odd.doing[0].cells[0].usual == "usual 0.600 to 0.800"
    assert odd.state == "attention"
    moved = DriftView("data", "a", "ks", 0.4, True, 1, 1, {"en": "a moved"})
    assert panel(drift=(moved,), drift_watched=True).drift == ("a moved",)
    assert "looked at: 1" in panel(drift=(replace(moved, drifted=False),), drift_watched=True).drift_said
    waiting = TrialView("", "", 0, math.nan, math.nan, 0.0, -1.0, 1.0, 0.0, 0.0, 0.01)
    assert panel(trial=waiting).trial == ()
    assert panel(trial=waiting).trial_there
    losing = replace(waiting, champion="3", challenger="4", pairs=50, difference=-0.1, worse=0.4, least=100)
    assert [fact.value for fact in panel(trial=losing).trial][:2] == ["3 by 0.100 of loss", "40\u00a0%"]
    assert panels_of(view, speech) == []


def test_a_loop_without_models_has_no_way_to_them() -> None:
    with serve(create_app(SampleLoop(StillClock(150.0))), port=0) as server:
        assert "No step of this product scores" in text_of(server, "en")
        assert "/models" not in httpx.get(server.url, trust_env=False).text

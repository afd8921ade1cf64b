"""The evidence as a picture: well-formed whatever it holds, and readable without colour."""

import json
from typing import Any
from xml.etree import ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.drift.picture import picture
from boucle.web.panel import proof_picture
from boucle.web.speech import Speech
from tests.drift.seconds import Row, seconds, verdicts

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["shift", "outer_line", "inner_line", "slow", "slow_limit", "left"])


def test_the_suspect_stands_out() -> None:
    def half(row: Row, since: int) -> None:
        for band in range(8):
            row[f"x_band_{band}"] *= 0.36

    last = verdicts(seconds(30, half))[-1]
    for language, word in (("en", "Change per band"), ("fr", "Variation par bande")):
        drawn = picture(json.loads(last["evidence"]), last[f"says_{language}"], language=language)
        root = ET.fromstring(drawn)
        assert word in drawn
        assert last["says_en"].partition(",")[0] in drawn or language == "fr"
        hatched = [bar for bar in root.iter() if bar.get("fill") == "url(#beyond)"]
        shown = json.loads(last["evidence"])["left"]
        left = 1 + sum(without > 1 for without in shown["without"].values())
        assert shown["without"]["vib_x"] < 1 < shown["without"]["vib_y"], (
            "without the suspect nothing is left"
        )
        assert len(hatched) == 8 + left, "the bands of the one axis, and what is left of everything"
        assert all(float(str(bar.get("width"))) > 0 for bar in hatched)


@settings(max_examples=40)
@given(st.dictionaries(NAMES, JSON), st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"])))
def test_anything_is_drawn(evidence: dict[str, Any], title: str) -> None:
    assert picture(evidence, title).startswith("<svg")


def test_the_page_of_a_machine_shows_it_for_a_verdict_only() -> None:
    speech = Speech("fr")
    shown = proof_picture(
        {"evidence": {"shift": {"x": [0.3, None]}, "slow": {"motor_current": "<b>"}}}, speech
    )
    assert "Variation par bande" in shown
    assert "<b>" not in shown
    assert proof_picture({"evidence": {"lag": 3}}, speech) == proof_picture({}, speech) == ""

"""Both languages are complete, and numbers read as they should in each."""

import re
import string
from pathlib import Path

import pytest

from boucle.web.speech import LANGUAGES, Speech, preferred
from boucle.web.strings import STRINGS

TEMPLATES = Path("src/boucle/web/templates")


@pytest.mark.parametrize("key", sorted(STRINGS))
def test_every_sentence_has_both_languages_and_the_same_blanks(key: str) -> None:
    said = STRINGS[key]
    assert tuple(sorted(said)) == LANGUAGES
    assert all(text.strip() for text in said.values())
    blanks = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in said.values()]
    assert blanks[0] == blanks[1]


def test_templates_say_nothing_that_has_no_key() -> None:
    for template in TEMPLATES.glob("*.html"):
        for key in re.findall(r"""\bt\(["']([\w.]+)["'][,)]""", template.read_text(encoding="utf-8")):
            assert key in STRINGS, f"{template.name}: {key}"


def test_french_typography() -> None:
    for key, said in STRINGS.items():
        french = said["fr"]
        assert not re.search(r"\w[:;?!](?:\s|$)", french), f"{key}: a space stands before : ; ? !"


def test_numbers() -> None:
    english, french = Speech("en"), Speech("fr")
    assert french.number(1234.5) == "1\u202f234"
    assert english.number(1234567) == "1,234,567"
    assert french.number(0.2041) == "0,204"
    assert french.number(-2.5) == "\u22122,50"
    assert english.number(float("nan")) == "–"
    assert french.quantity(36.04, "strokes/min") == "36,0\u00a0coups/min"
    assert french.life(250) == ">\u00a0200\u00a0h"
    assert english.micros(950) == "950\u00a0µs"
    assert french.micros(2460) == "2,5\u00a0ms"
    assert [english.span(s) for s in (0.34, 12, 200, 7200, 200_000)] == [
        "0.3\u00a0s",
        "12\u00a0s",
        "3\u00a0min",
        "2\u00a0h",
        "2\u00a0d",
    ]


def test_values_of_any_kind() -> None:
    speech = Speech("fr")
    assert speech.anything({"vib_x": 0.5, "health": None}) == "vib_x 0,500 · Santé –"
    assert speech.anything(["a", 2, 3.5]) == "a, 2, 3,50"
    assert speech.anything(float("inf")) == "–"
    assert speech.anything(27.0, "strokes/min") == "27\u00a0coups/min"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("fr-CH, en;q=0.9", "fr"),
        ("de, en;q=0.5, fr;q=0.7", "fr"),
        ("de", None),
        ("", None),
        ("fr;q=x, en", "en"),
    ],
)
def test_the_browser_is_asked(header: str, language: str | None) -> None:
    assert preferred(header) == language

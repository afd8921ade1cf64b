"""What the terminal says of a command, in both languages."""

import io

import pytest

from boucle.cli.screen import Screen, choose_language
from boucle.event import Command, Outcome, Receipt

COMMAND = Command(
    "c-1",
    "plc/press-2/speed_setpoint",
    "set",
    30.5,
    not_after=0,
    says={"en": "Slow press-2 down", "fr": "Ralentir press-2"},
)
WHY = "outside the declared bounds: 41 is not within 24 and 40 strokes/min"


def said(language: str, receipt: Receipt) -> str:
    out = io.StringIO()
    Screen(language, out).receipt(COMMAND, receipt)
    return out.getvalue().partition("→ ")[2].strip()


def test_a_refusal_is_told_in_the_readers_language() -> None:
    receipt = Receipt("c-1", COMMAND.target, Outcome.refused, 0, WHY, "out_of_bounds")
    place = "[plc/press-2/speed_setpoint"
    assert said("en", receipt) == f"Slow press-2 down {place} = 30.5] refused: {WHY}"
    assert said("fr", receipt) == f"Ralentir press-2 {place} = 30,5] refusée : hors des limites déclarées"


def test_an_applied_command_tells_how_long_it_took() -> None:
    receipt = Receipt("c-1", COMMAND.target, Outcome.applied, 0, read_back=30.5, latency_ms=12.34)
    assert said("en", receipt).endswith("applied (12.3 ms)")
    assert said("fr", receipt).endswith("appliquée (12,3 ms)")


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_its_words(outcome: Outcome) -> None:
    english, french = (said(language, Receipt("c-1", "plc", outcome, 0)) for language in ("en", "fr"))
    assert english.endswith(outcome.value)
    assert not french.endswith(outcome.value)


def test_the_language_is_asked_for_or_the_locales(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "fr_CA.UTF-8")
    assert choose_language(None) == "fr"
    assert choose_language("en") == "en"
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert choose_language(None) == "en"

"""What the product's page says of quality rules and output ports, in both languages."""

import pytest

from boucle.loop.outcomes import RuleCourse
from boucle.loop.view import QualityView
from boucle.outlet.courier import Delivered
from boucle.outlet.exporter import Exported
from boucle.outlet.ports import OutputPort
from boucle.web.rules import rows_of_ports, rows_of_rules
from boucle.web.speech import Speech

EN, FR = Speech("en"), Speech("fr")


def rule(name: str, state: str, failed: int = 0, severity: str = "error", before: int = 0) -> RuleCourse:
    view = QualityView("payments", name, severity, state, 1000, failed, "", float(failed), "at most 3")
    return RuleCourse(view, [(0, 500, before), (10, 1000, failed)])


def test_the_worst_rule_is_first_and_what_says_nothing_is_last_and_quiet() -> None:
    rules = [
        rule("amount.type", "kept"),
        rule("few", "broken", 5, "warning", before=1),
        rule("unique", "broken", 7),
        rule("other", "unknown"),
        rule("card.required", "refuses", 4, before=4),
        rule("card.range", "refuses", 4, before=3),
    ]
    rows = rows_of_rules(rules, EN)
    assert [(row.rule, row.state, row.quiet) for row in rows] == [
        ("unique", "alarm", False),
        ("card.range", "attention", False),
        ("few", "attention", False),
        ("other", "unknown", False),
        ("amount.type", "normal", True),
        ("card.required", "normal", False),
    ]
    assert (rows[0].failed, rows[0].recent, rows[2].recent) == ("7", "7", "4")
    assert rows[0].course == "0.0,28.0 90.0,0.0"
    assert rows[4].course == "", "nothing ever broke it"


@pytest.mark.parametrize(
    ("said", "en", "fr"),
    [
        ("exactly 0", "exactly 0", "exactement 0"),
        ("at most 60", "at most 60", "au plus 60"),
        ("not from 1 to 2", "not from 1 to 2", "pas de 1 à 2"),
        ("from 1 to 2", "from 1 to 2", "de 1 à 2"),
        ("as usual", "as usual", "as usual"),
    ],
)
def test_limits_are_said_in_the_readers_language(said: str, en: str, fr: str) -> None:
    one = RuleCourse(QualityView("t", "r", "info", "kept", 1, 0, "", 0.0, said))
    assert rows_of_rules([one], EN)[0].wanted == en
    assert rows_of_rules([one], FR)[0].wanted == fr


def test_each_port_says_what_it_gave() -> None:
    def port(name: str, kind: str, **given: str) -> OutputPort:
        return OutputPort(name, kind, "payments", "1.0.0", given)

    ports = [
        port("news", "events", to="https://there"),
        port("stuck", "events", to="https://there"),
        port("live", "events"),
        port("dump", "files"),
        port("new", "files"),
        port("tables", "sql"),
    ]
    states: dict[str, Delivered | Exported] = {
        "news": Delivered(3, 0, 0, 1200, 1200),
        "stuck": Delivered(3, 1, 4, 10, 6, 1, "B858 the receiver takes none"),
        "dump": Exported(7, 1500, 2, 1),
    }
    rows = rows_of_ports(ports, states, EN)
    assert [(row.name, row.state) for row in rows] == [
        ("news", "normal"),
        ("stuck", "attention"),
        ("live", "normal"),
        ("dump", "normal"),
        ("new", "normal"),
        ("tables", "normal"),
    ]
    assert rows[1].said == "6 events delivered, 3 waiting, 1 refused for good"
    assert rows[1].failure.startswith("B858")
    assert rows[2].said == rows[5].said == "served when asked (boucle serve)"
    assert rows[3].said.startswith("version 7 with 1")
    assert rows[4].said == "the last run gave nothing yet"
    assert "livrés" in rows_of_ports(ports, states, FR)[0].said

"""The whole chain, with real processes: the meaning changes → order → training → shadow and canary → trial → champion →
worse → back. Each step is journaled, counted, and stands in a table; the how-to page shows the product that runs here.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.loop.plant import until
from tests.story.renewed import PRODUCT, Renewed

PAGE = Path("docs/how-to/renew-models.md")


def before(a: float, b: float) -> bool:
    """What was fraud when the first model was made."""
    del b
    return a > 0.8


def after(a: float, b: float) -> bool:
    """A new kind of fraud, beside the old one."""
    return a > 0.8 or b > 0.6


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Renewed:
    """One run through all of it."""
    with Renewed(tmp_path_factory.mktemp("renewed"), before) as product:
        product.send(before, 400)
        until(lambda: product.stored("labels_seen") > 300, "labels in the lake")
        assert product.roles() == {"champion": 1}
        # The relation changes: the rule orders a training, and what it makes only watches.
        product.send(after, 600)
        until(
            lambda: product.roles().get("challenger") == 2 or product.events("training_failed"), "a training"
        )
        # On trial beside the champion: better, by the evidence and by its gates.
        product.send_until(after, lambda: product.roles().get("champion") == 2, "a promotion")
        # Its reason passes: the version before would be right now.
        product.send_until(before, lambda: product.roles().get("champion") == 1, "a way back")
        product.send_until(before, lambda: len(product.events("model_changed")) == 2, "the version before")
        product.end()
    return product


def test_every_change_of_a_role_has_its_reason_and_its_evidence(ended: Renewed) -> None:
    first, challenger, promoted, back = ended.history()
    assert (first.role, first.version) == ("champion", 1)
    assert (challenger.role, challenger.version) == ("challenger", 2)
    assert challenger.why.startswith("the error rose from 0.0")
    assert (promoted.verb, promoted.version, promoted.by) == ("promote", 2, "trial trial")
    assert promoted.evidence["champion_loss"] > promoted.evidence["challenger_loss"]
    assert [one["passed"] for one in promoted.evidence["gates"]] == [True] * 3
    assert (back.verb, back.version, back.by) == ("rollback", 1, "probation probation")
    assert "outcomes" in back.why


def test_what_was_ordered_is_journaled_and_limited(ended: Renewed) -> None:
    journal = ended.journal()
    orders = [one["command"] for one in journal if one["kind"] == "intent"]
    assert [one["target"] for one in orders] == ["models/fraud/training"]
    outcomes = [one["receipt"]["outcome"] for one in journal if one["kind"] == "receipt"]
    assert outcomes.count("applied") == 1
    assert set(outcomes) <= {"applied", "refused"}  # one a day: a second drift orders nothing


def test_what_was_told_stands_in_the_tables(ended: Renewed) -> None:
    kinds = [row["kind"] for row in ended.rows("events")]
    told = ["concept_drift", "training_done", "model_decision", "model_changed"]
    assert [kinds.index(kind) for kind in told] == sorted(kinds.index(kind) for kind in told)
    assert [one["evidence"]["done"] for one in ended.events("model_decision")] == ["done", "done"]
    assert [row["decision"] for row in ended.rows("trial")] == ["promote"]
    assert [row["decision"] for row in ended.rows("probation")] == ["rollback"]
    (drift, *_) = ended.rows("drifting")
    assert drift["before"] < 0.1 < drift["after"]
    lineage = b"".join(file.read_bytes() for file in (ended.run / "lineage").glob("*.ndjson"))
    assert b"gold/probation" in lineage
    assert b"training://" in lineage


def test_each_payment_is_scored_once_and_versions_follow_each_other(ended: Renewed) -> None:
    scored = ended.rows("scored")
    assert [row["payment"] for row in scored] == list(range(len(scored)))
    assert len(scored) == ended.sent
    assert all(row["probability"] is not None for row in scored)
    champions = [row["version"] for row in scored if row["arm"] == "champion"]
    runs = [one for place, one in enumerate(champions) if place == 0 or champions[place - 1] != one]
    assert runs == ["1", "2", "1"]
    assert {row["version"] for row in scored if row["arm"] == "canary"} == {"2"}


def test_the_page_shows_the_product_that_runs_here() -> None:
    text = PAGE.read_text(encoding="utf-8")
    *_, loop = yaml.safe_load_all((PRODUCT / "product.yaml").read_text(encoding="utf-8"))
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part, shown in yaml.safe_load(block).items():
            assert _within(shown, loop[part]), part
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), {})


def _within(shown: Any, whole: Any) -> bool:
    """Whether everything shown is declared so."""
    if isinstance(shown, dict):
        return isinstance(whole, dict) and all(
            name in whole and _within(one, whole[name]) for name, one in shown.items()
        )
    if isinstance(shown, list) and shown and isinstance(shown[0], dict):
        return all(any(_within(one, other) for other in whole) for one in shown)
    return bool(shown == whole)

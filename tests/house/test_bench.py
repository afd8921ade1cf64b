"""The benchmarks keep one form, so that their figures can be read by machines and set side by side."""

import ast
import json

import pytest
from bench.all import names, renew, summary
from bench.figures import Figure, Options, figure, met, percentile, publish, table

from tests.house.tree import ROOT


def test_a_figure_is_rounded_and_compared() -> None:
    one = figure("rate", 123.4567, "1/s", goal=">= 100", peer="other", peer_value=50.0)
    assert one == Figure("rate", 123.5, "1/s", ">= 100", "other", 50.0, 2.469)
    assert met(one) is True
    assert met(figure("p99", 60, "ms", goal="<= 50")) is False
    assert met(figure("p99", 60, "ms")) is None


def test_a_goal_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="a goal reads"):
        figure("rate", 1, "1/s", goal="about 10")


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_percentiles_are_values_that_were_measured(share: float, value: int) -> None:
    assert percentile(range(1, 101), share) == value


def test_json_is_one_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    publish([figure("rate", 5000, "1/s")], Options(quick=True, json=True))
    said = json.loads(capsys.readouterr().out)
    assert set(said) == {"figures", "machine", "commit"}
    assert set(said["figures"][0]) == {"name", "value", "unit", "goal", "peer", "peer_value", "ratio"}


def test_a_missed_goal_stands_out() -> None:
    text = table([figure("p99", 60, "ms", goal="<= 50"), figure("rate", 12345, "1/s")])
    assert "**no**" in text
    assert "12 340" in text or "12 350" in text


def test_renewing_a_table_keeps_the_words_around_it() -> None:
    page = renew("# Figures\n\nMine.\n", "one", "old")
    page = renew(page + "\nMine too.\n", "two", "2")
    page = renew(page, "one", "new")
    assert "old" not in page
    assert [word in page for word in ("Mine.", "Mine too.", "new", "2")] == [True] * 4
    assert renew(page, "one", "new") == page


@pytest.mark.parametrize("name", names())
def test_every_benchmark_has_the_form(name: str) -> None:
    tree = ast.parse((ROOT / "bench" / f"{name}.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a benchmark says what it measures"
    assert len(summary(name)) > 10
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert {"options", "publish"} <= {one.rpartition(".")[2] for one in called}

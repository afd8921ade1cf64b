"""The page about data and concept drift: its Python runs, its steps can be made, its rules are sound."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

PAGE = Path("docs/how-to/drift-data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_python_runs() -> None:
    (code,) = blocks("python")
    exec(compile(code, "drift-data.md", "exec"), {})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_steps_can_be_made_and_traced(text: str) -> None:
    for step in yaml.safe_load(text)["steps"]:
        module, _, name = step["use"].partition(":")
        made = getattr(importlib.import_module(module), name)
        if name == "ConceptDrift":
            pytest.importorskip("river", reason="needs river: pip install 'boucle[drift]'")
        operator = made(step["id"], **step["with"])
        inputs = {step["from"][0]: ["at", *step["with"]["columns"], *step["with"]["by"]]}
        assert list(made.trace(inputs, **step["with"]).columns) >= operator.schema.names[:1]
        assert set(operator.schema.names) == set(made.trace(inputs, **step["with"]).columns)


def test_the_rule_of_the_page_speaks_of_columns_there_are() -> None:
    from boucle.act.rules import read_rules

    declared = yaml.safe_load(blocks("yaml")[0].replace("on:", "'on':"))  # YAML 1.1 reads on as true
    _, wrong = read_rules(declared["rules"], streams={"input_drift"}, limits={})
    assert not wrong

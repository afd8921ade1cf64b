"""The page about data and concept drift: its Python runs, its steps can be made, its rules are sound."""

import importlib
import re
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
import yaml

from boucle.features.sketch import learn
from boucle.models.record import SKETCHES
from boucle.models.registry import registry_of
from tests.serve.models import linear

PAGE = Path("docs/how-to/drift-data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_python_runs() -> None:
    (code,) = blocks("python")
    exec(compile(code, "drift-data.md", "exec"), {})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_steps_can_be_made_and_traced(text: str, tmp_path: Path) -> None:
    for step in yaml.safe_load(text)["steps"]:
        module, _, name = step["use"].partition(":")
        made = getattr(importlib.import_module(module), name)
        if name == "ConceptDrift":
            pytest.importorskip("river", reason="needs river: pip install 'boucle[drift]'")
        with_ = step["with"]
        if isinstance(with_.get("reference"), str):
            sketches = {column: learn(pa.array([1.0, 2.0])) for column in with_["columns"]}
            registry = registry_of(tmp_path)
            registry.add(linear(1.0, name="fraud"), files={SKETCHES: msgspec.json.encode(sketches)})
            registry.promote("fraud", 1)
            with_["folder"] = tmp_path
        operator = made(step["id"], **with_)
        inputs = {step["from"][0]: ["at", *with_["columns"], *with_.get("by", ())]}
        assert list(made.trace(inputs, **step["with"]).columns) >= operator.schema.names[:1]
        assert set(operator.schema.names) == set(made.trace(inputs, **step["with"]).columns)


def test_the_rule_of_the_page_speaks_of_columns_there_are() -> None:
    from boucle.act.rules import read_rules

    declared = yaml.safe_load(blocks("yaml")[0].replace("on:", "'on':"))  # YAML 1.1 reads on as true
    _, wrong = read_rules(declared["rules"], streams={"input_drift"}, limits={})
    assert not wrong

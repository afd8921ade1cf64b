"""The page about watching models: its Python runs, its YAML builds."""

import re
from pathlib import Path

import yaml

from boucle.serve.explain import Explain
from boucle.serve.monitor import Performance

PAGE = Path("docs/how-to/monitor-models.md").read_text(encoding="utf-8")


def test_the_python_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "monitor-models.md", "exec"), {})


def test_the_yaml_builds() -> None:
    steps, rules, why, _ = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (step,) = yaml.safe_load(steps)["steps"]
    assert Performance(step["id"], **step["with"]).counts["predictions"] == 0
    traced = Performance.trace({"scored": ["at"], "labels": ["at"]}, **step["with"])
    (rule,) = yaml.safe_load(rules)["rules"]
    named = {*rule["per"], *rule["when"], "value", "low", "high"}
    assert named <= set(traced.columns)
    *_, explain = yaml.safe_load(why)["steps"]
    traced = Explain.trace({"scored": ["at", "payment"]}, **explain["with"])
    assert {"at", "payment", "contribution"} <= set(traced.columns)

"""The page about watching models: its Python runs, its YAML builds."""

import re
from pathlib import Path

import yaml

from boucle.loop.plan import build_plan
from boucle.product.project import load_project
from boucle.serve.declared import Declared
from boucle.serve.explain import Explain
from boucle.serve.monitor import Performance

PAGE = Path("docs/how-to/monitor-models.md").read_text(encoding="utf-8")


def test_the_python_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "monitor-models.md", "exec"), {})


def test_the_yaml_builds() -> None:
    steps, rules, late, watched, why, _ = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (step,) = yaml.safe_load(steps)["steps"]
    assert Performance(step["id"], **step["with"]).counts["predictions"] == 0
    given = step["with"] | yaml.safe_load(late)["with"]
    assert Performance(step["id"], **given).counts["kept"] == 0
    (scored,) = yaml.safe_load(watched)
    declared = Declared.read(scored["id"], scored["with"]["model"], scored["with"])
    assert declared.watch is not None
    assert declared.watch.p95 == 0.02
    traced = Performance.trace({"scored": ["at"], "labels": ["at"]}, **step["with"])
    (rule,) = yaml.safe_load(rules)["rules"]
    named = {*rule["per"], *rule["when"], "value", "low", "high"}
    assert named <= set(traced.columns)
    *_, explain = yaml.safe_load(why)["steps"]
    traced = Explain.trace({"scored": ["at", "payment"]}, **explain["with"])
    assert {"at", "payment", "contribution"} <= set(traced.columns)


PRODUCT = """kind: DataProduct
apiVersion: v1.0.0
id: cards
name: Cards
version: 1.0.0
status: active
---
kind: DataContract
apiVersion: v3.1.0
id: scores
version: 1.0.0
status: active
schema:
  - name: scored
    physicalType: topic
    properties:
      - {name: at, logicalType: timestamp, required: true}
      - {name: payment, logicalType: string, required: true}
      - {name: probability, logicalType: number}
      - {name: model_version, logicalType: string}
      - {name: country, logicalType: string}
  - name: labels
    physicalType: topic
    properties:
      - {name: at, logicalType: timestamp, required: true}
      - {name: payment, logicalType: string, required: true}
      - {name: fraud, logicalType: integer}
---
kind: Loop
apiVersion: boucle/v1
id: cards-loop
product: cards
contract: scores
sources:
  scored: {from: "mqtt://{broker}/bank/scored?qos=1", schema: scored}
  labels: {from: "mqtt://{broker}/bank/labels?qos=1", schema: labels}
"""


def test_the_rules_are_sound(tmp_path: Path) -> None:
    steps, rules, *_, retrain = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "product.yaml").write_text(PRODUCT + steps + retrain, encoding="utf-8")
    (tmp_path / "boucle.toml").write_text('[env.default]\nbroker = "127.0.0.1:1883"\n', encoding="utf-8")
    plan = build_plan(load_project(tmp_path))
    assert [rule.id for rule in plan.rules] == ["retrain"]
    (tmp_path / "product.yaml").write_text(PRODUCT + steps + rules, encoding="utf-8")
    assert [rule.id for rule in build_plan(load_project(tmp_path)).rules] == ["model-falls"]

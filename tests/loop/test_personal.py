"""What a model reads is followed back to what the contract calls personal."""

from pathlib import Path

import pytest

from boucle.errors import Problem
from boucle.loop.personal import personal_features
from boucle.product.project import load_project
from tests.models.tiny import tiny

PRODUCT = """kind: DataProduct
apiVersion: v1.0.0
id: cards
name: Card payments
version: 1.0.0
status: active
---
kind: DataContract
apiVersion: v3.1.0
id: payments
version: 1.0.0
status: active
schema:
  - name: payments
    physicalType: topic
    properties:
      - {name: at, logicalType: timestamp, required: true}
      - {name: card, logicalType: string, classification: confidential}
      - {name: age, logicalType: number, classification: restricted%s}
      - {name: income, logicalType: number, tags: [pii]}
      - {name: amount, logicalType: number, classification: public}
---
kind: Loop
apiVersion: boucle/v1
id: cards-loop
product: cards
contract: payments
sources:
  incoming: {from: "mqtt://{broker}/bank/payments?qos=1", schema: payments}
steps:
  - id: features
    use: boucle.stream.rows:Map
    from: [incoming]
    with: {columns: {%s}}
  - id: seen
    use: boucle.stream.sliding:Sliding
    from: [features]
    with: {features: {spent: {of: sum(amount), by: card, over: 24h}}}
  - id: scored
    use: boucle.serve.score:Score
    from: [seen]
    with: {model: models/tiny}
tables:
  scored: {from: scored, zone: silver}
"""
LEAVE = ', customProperties: [{property: modelUse, value: "consent, art. 6.1.a GDPR"}]'


def problems(folder: Path, columns: str, leave: str = "") -> list[Problem]:
    tiny().save(folder / "models" / "tiny")
    (folder / "product.yaml").write_text(PRODUCT % (leave, columns), encoding="utf-8")
    (folder / "boucle.toml").write_text('[env.default]\nbroker = "127.0.0.1:1883"\n', encoding="utf-8")
    return personal_features(load_project(folder))


def test_what_a_personal_column_was_made_into_is_personal(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, 'a: "age / 10", b: "amount * 2"')
    assert found.code == "B751"
    assert "reads a, which is made from payments.age: personal data (restricted)" in found.what
    assert "classification: restricted" in PRODUCT.splitlines()[found.line - 1]
    assert "modelUse" in found.fix


def test_a_tag_is_enough(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, 'a: "if_else(amount > 1, income, 0.0)", b: amount')
    assert "payments.income: personal data (by its tag)" in found.what


def test_the_owner_of_the_data_can_say_why(tmp_path: Path) -> None:
    assert problems(tmp_path, 'a: "age / 10", b: amount', LEAVE) == []
    (found,) = problems(tmp_path, 'a: "age + income", b: amount', LEAVE)
    assert "income" in found.what


@pytest.mark.parametrize(
    "columns", ['a: amount, b: "amount + 1"', 'a: "if_else(age > 30, amount, 0.0)", b: amount']
)
def test_deciding_by_it_carries_no_value(tmp_path: Path, columns: str) -> None:
    assert problems(tmp_path, columns) == []

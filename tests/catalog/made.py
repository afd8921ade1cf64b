"""Products made for a test: a supplier with personal columns and a consumer that reads it by contract."""

from pathlib import Path

CARDS = """kind: DataProduct
apiVersion: v1.0.0
id: cards
name: Card payments
version: 1.2.0
status: active
domain: bank
tags: [payments, fraud]
description: {purpose: "Chaque paiement par carte, avec son risque de fraude."}
outputPorts: [{name: scored, version: 1.0.0, contractId: cards-contract}]
team: {name: payments-team, members: [{username: ada@bank.example, role: owner}]}
---
kind: DataContract
apiVersion: v3.1.0
id: cards-contract
version: 1.0.0
status: active
schema:
  - name: payments
    physicalType: topic
    properties:
      - {name: at, logicalType: timestamp, required: true}
      - {name: card, logicalType: string, required: true, classification: confidential, description: Card number}
      - {name: terminal, logicalType: string}
      - name: amount
        logicalType: number
        required: true
        logicalTypeOptions: {minimum: 0}
        customProperties: [{property: unit, value: EUR}]
      - {name: country, logicalType: string, classification: public}
---
kind: Loop
apiVersion: boucle/v1
id: cards-loop
product: cards
contract: cards-contract
sources:
  payments: {from: "mqtt://{broker}/bank/payments?qos=1", schema: payments}
steps:
  - id: known
    use: boucle.stream.rows:Filter
    from: [payments]
    with: {where: "amount > 0 and terminal is not None"}
  - id: scored
    use: boucle.stream.sliding:Sliding
    from: [known]
    with:
      features:
        spent_24h: {of: sum(amount), by: card, over: 24h}
        seen_1h: {of: count, by: terminal, over: 1h}
  - id: named
    use: boucle.stream.rows:Map
    from: [scored]
    with: {columns: {label: "concat(card, '-', country)", large: "if_else(amount > 100, spent_24h, 0.0)"}}
  - id: hours
    use: boucle.stream.window:Tumbling
    from: [named]
    with: {size: 1h, by: [country], values: {rows: count, total: sum(amount)}}
tables:
  scored: {from: named, zone: silver}
  hours: {from: hours, zone: gold}
rules:
  - id: burst
    on: named
    per: [terminal]
    when: {spent_24h: ">= 1000"}
    event: {kind: burst, severity: warning, says: {en: "{terminal}: {spent_24h:.0f}", fr: "{terminal} : trop"}}
"""

CLAIMS = """kind: DataProduct
apiVersion: v1.0.0
id: claims
name: Fraud claims
version: 0.1.0
status: draft
domain: risk
inputPorts: [{name: scored, version: 1.0.0, contractId: cards-contract}]
team: {name: risk-team}
---
kind: DataContract
apiVersion: v3.1.0
id: claims-contract
version: 0.1.0
status: draft
schema:
  - name: per_card
    physicalType: table
    properties:
      - {name: who, logicalType: string}
      - {name: total, logicalType: number}
"""

PER_CARD = """with big as (select card as who, amount, at from scored where amount > 10)
select who, sum(amount) as total, max("at") as last from big group by who
"""


def put(root: Path, name: str, text: str, **beside: str) -> Path:
    """A product's folder below the root; `beside` are files, `__` in their names for `/` and `_dot_` for `.`."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "product.yaml").write_text(text, encoding="utf-8")
    for file, content in beside.items():
        path = folder / file.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def bank(root: Path) -> Path:
    """The two of them."""
    put(root, "bank/cards", CARDS, boucle_dot_toml='[addresses]\nbroker = "broker.bank.example:1883"\n')
    put(root, "risk/claims", CLAIMS, sql__per_card_dot_sql=PER_CARD)
    return root

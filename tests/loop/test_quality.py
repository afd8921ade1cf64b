"""Rules about whole streams are counted while they flow, once a row, over restarts; shown, told, and kept."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.bus.log_groups import committed_rows
from boucle.bus.memory import MemorySource
from boucle.errors import DeclarationError
from boucle.loop.plan import build_plan
from boucle.loop.quality import watched_streams
from boucle.loop.run import Loop
from boucle.loop.view import QualityView
from boucle.product.project import load_project
from boucle.testing.clock import ManualClock

START = 1_790_000_000_000_000_000
SECOND = 10**9
PRODUCT = """\
apiVersion: v1.0.0
kind: DataProduct
id: shop
name: Shop
version: 0.1.0
status: active
---
apiVersion: v3.1.0
kind: DataContract
id: shop-orders
version: 1.0.0
status: active
schema:
  - name: orders
    physicalType: topic
    properties:
      - {name: at, logicalType: timestamp, required: true}
      - {name: id, logicalType: integer, unique: true}
      - name: customer
        logicalType: integer
        relationships: [{to: customers.id}]
      - name: amount
        logicalType: number
        logicalTypeOptions: {exclusiveMinimum: 0}
        quality:
          - {id: few-nulls, metric: nullValues, mustBeLessThan: 20, unit: percent, severity: warning}
    quality:
      - {id: enough, metric: rowCount, mustBeGreaterOrEqualTo: 3, severity: info}
      - {id: fresh, type: custom, engine: boucle, implementation: {check: freshness, column: at, within: 1min}}
      - {id: volume, type: custom, engine: boucle, implementation: {check: volume, atLeast: 2}}
  - name: customers
    physicalType: topic
    properties:
      - {name: at, logicalType: timestamp, required: true}
      - {name: id, logicalType: integer, primaryKey: true}
---
kind: Loop
apiVersion: boucle/v1
id: shop-loop
product: shop
contract: shop-orders
sources:
  orders: {from: "mqtt://{broker}/orders", schema: orders}
  customers: {from: "mqtt://{broker}/customers", schema: customers}
tables:
  orders: {from: orders, zone: raw, partition: [day]}
"""


class Shop:
    """The loop on the manual clock."""

    def __init__(self, folder: Path, text: str = PRODUCT) -> None:
        self.folder = folder
        (folder / "product.yaml").write_text(text)
        self.clock = ManualClock(START)
        self.told: list[Any] = []
        self.sent = 0
        self.orders, self.customers = MemorySource(stream="orders"), MemorySource(stream="customers")
        self.start()

    def start(self) -> None:
        self.project = load_project(
            self.folder, None, {"addresses.broker": "127.0.0.1:1", "run.lake_every": "60s"}
        )
        self.loop = Loop(
            build_plan(self.project), self.clock, sources={"orders": self.orders, "customers": self.customers},
            folder=self.folder / "run", listener=self.told.append,
        )  # fmt: skip
        self.loop.open()

    def restart(self) -> None:
        self.loop.close()
        self.start()

    def order(self, *rows: tuple[int | None, int | None, float | None]) -> None:
        schema = self.project.contracts["orders"].schema()
        at = [self.clock.now() + n for n in range(len(rows))]
        columns = [at, *(list(column) for column in zip(*rows, strict=True))]
        self.put(
            self.orders,
            pa.RecordBatch.from_arrays(
                [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
            ),
        )

    def customer(self, *ids: int) -> None:
        schema = self.project.contracts["customers"].schema()
        at = [self.clock.now()] * len(ids)
        self.put(
            self.customers,
            pa.RecordBatch.from_arrays(
                [pa.array(at, schema[0].type), pa.array(ids, pa.int64())], schema=schema
            ),
        )

    def put(self, source: MemorySource, rows: pa.RecordBatch) -> None:
        self.sent += rows.num_rows
        source.put(Block(source.stream, rows, 0, Position("memory", self.sent)))
        self.clock.advance(2)
        self.loop.pump()

    def rules(self) -> dict[str, QualityView]:
        return {f"{one.table}.{one.rule}": one for one in self.loop.picture.fresh().quality}


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    made = Shop(tmp_path)
    yield made
    made.loop.close()


def test_what_is_left_to_be_counted(shop: Shop) -> None:
    rules = {
        name: [rule.id for rule in rules] for name, (_, _, rules) in watched_streams(shop.project).items()
    }
    assert rules["orders"] == ["id.unique", "customer.foreignKey", "few-nulls", "enough", "fresh", "volume"]
    assert rules["customers"] == ["id.primaryKey-2"]


def test_counted_shown_and_told_once(shop: Shop) -> None:
    shop.customer(1, 2)
    shop.order((10, 1, 5.0), (11, 2, 6.0), (11, 7, None), (12, None, -1.0))
    rules = shop.rules()
    unique = rules["orders.id.unique"]
    assert (unique.state, unique.checked, unique.failed) == ("broken", 3, 1)
    assert rules["orders.customer.foreignKey"].failed == 1
    few = rules["orders.few-nulls"]
    assert (few.state, few.severity) == ("broken", "warning")
    assert few.measured == pytest.approx(100 / 3)
    assert rules["orders.enough"].state == "kept"
    assert rules["orders.fresh"].state == "kept"
    amount = rules["orders.amount.range"]
    assert (amount.state, amount.checked, amount.failed) == ("refuses", 4, 1)
    metrics = shop.loop.picture.metrics().decode()
    assert 'boucle_quality_failed_total{rule="id.unique",severity="error",table="orders"} 1.0' in metrics
    assert 'boucle_quality_broken{rule="few-nulls",severity="warning",table="orders"} 1.0' in metrics
    kinds = [one.kind for one in shop.told if getattr(one, "kind", "").startswith("quality")]
    assert kinds.count("quality_broken") == 3
    # Kept again is told too, and nothing is told twice.
    shop.order(*((n, 1, 1.0) for n in range(100, 110)))
    assert [one.evidence["rule"] for one in shop.told if getattr(one, "kind", "") == "quality_kept"] == [
        "few-nulls"
    ]
    failing = [
        json.loads(line[9:])
        for line in (shop.folder / "run/quality/failing.ndjson").read_bytes().splitlines()
    ]
    assert failing == []  # not flushed yet
    shop.restart()
    lines = (shop.folder / "run/quality/failing.ndjson").read_bytes().splitlines()
    kept = {one["rule"]: one for one in (json.loads(line[9:]) for line in lines)}
    assert set(kept) == {"id.unique", "few-nulls"}
    assert (kept["id.unique"]["values"], kept["id.unique"]["severity"]) == ([11], "error")


def test_each_row_counts_once_over_restarts(shop: Shop) -> None:
    shop.customer(1)
    shop.order((1, 1, 1.0), (2, 1, 1.0))
    shop.restart()
    shop.order((3, 1, 1.0), (1, 1, 1.0))
    unique = shop.rules()["orders.id.unique"]
    assert (unique.checked, unique.failed) == (4, 1)
    shop.restart()
    shop.clock.advance(120)
    shop.loop.pump()
    assert shop.rules()["orders.id.unique"].checked == 4
    assert shop.rules()["orders.fresh"].state == "broken"


def test_what_was_counted_is_found_damaged_and_counted_anew(shop: Shop) -> None:
    shop.order((1, 1, 1.0), (1, 1, 1.0))
    shop.loop.close()
    (shop.folder / "run/quality/state/orders/state").write_bytes(b"\xff\x00 no state")
    shop.start()
    shop.loop.pump()
    unique = shop.rules()["orders.id.unique"]
    assert (unique.checked, unique.failed) == (2, 1)


def test_hours_are_compared_with_the_hours_before(shop: Shop) -> None:
    number = 0
    for hour, rows in enumerate([10, 11, 10, 400]):
        shop.order(*((number + n, 1, 1.0) for n in range(rows)))
        number += rows
        shop.clock.advance(3600)
        shop.loop.pump()
        volume = shop.rules()["orders.volume"]
        assert volume.state == ("broken" if hour == 3 else "kept"), (hour, volume)
    assert volume.measured is not None
    assert volume.measured > 100


QUERY = "      - {id: dear, type: sql, query: 'SELECT max(amount) FROM ${table}', mustBeLessThan: 100}\n"
ASKED = PRODUCT.replace("      - {id: enough,", QUERY + "      - {id: enough,")


def test_a_query_is_asked_of_the_table_behind_the_stream(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ASKED)
    with closing(shop.loop):
        shop.order((1, 1, 5.0))
        dear = shop.rules()["orders.dear"]
        assert (dear.state, dear.why) == ("unknown", 'there is no table "orders"')
        for amount, state in ((6.0, "kept"), (600.0, "broken")):
            shop.order((int(amount), 1, amount))
            shop.loop.tables.commit(force=True)
            shop.clock.advance(61)
            shop.loop.pump()
            dear = shop.rules()["orders.dear"]
            assert (dear.state, dear.measured) == (state, amount)
        told = [one.evidence["rule"] for one in shop.told if getattr(one, "kind", "") == "quality_broken"]
        assert "dear" in told


def test_a_query_about_a_stream_that_no_table_keeps_is_a_problem(tmp_path: Path) -> None:
    text = ASKED.replace("tables:\n  orders: {from: orders, zone: raw, partition: [day]}\n", "")
    (tmp_path / "product.yaml").write_text(text)
    with pytest.raises(DeclarationError, match="B255") as error:
        load_project(tmp_path)
    (problem,) = error.value.problems
    assert text.splitlines()[problem.line - 1].strip().startswith("- {id: dear")


def test_a_replay_counts_nothing(shop: Shop) -> None:
    plan = build_plan(shop.project)
    sources = {name: MemorySource(stream=name) for name in ("orders", "customers")}
    beside = Loop(plan, shop.clock, sources=sources, folder=shop.folder / "replay", promises=False)
    assert beside.quality.watched == {}
    beside.close()


def test_a_log_that_forgets_keeps_what_was_not_counted(tmp_path: Path) -> None:
    declared = '{from: "mqtt://{broker}/orders", schema: orders}'
    text = PRODUCT.replace(declared, declared.replace("schema: orders", "schema: orders, keep: 2min"))
    shop = Shop(tmp_path, text)
    groups = tmp_path / "run" / "log" / "orders" / "groups"
    assert {one.name for one in groups.iterdir()} == {"loop", "quality"}
    shop.customer(1)
    for number in range(30):
        shop.order((number, 1, 1.0))
    position = committed_rows(groups.parent)["quality"]
    assert 0 < position <= 30, "as far as it was kept on disk"
    shop.restart()
    assert committed_rows(groups.parent)["quality"] == 30
    shop.loop.pump()
    assert shop.rules()["orders.enough"].measured == 30
    shop.loop.close()
    rules = text.index("    quality:\n      - {id: enough")
    text = text[:rules] + text[text.index("  - name: customers\n") :]
    text = text.replace("unique: true}", "}").replace("        relationships: [{to: customers.id}]\n", "")
    few = text.index("        quality:\n")
    (tmp_path / "product.yaml").write_text(text[:few] + text[text.index("  - name: customers\n") :])
    shop.start()
    assert {one.name for one in groups.iterdir()} == {"loop"}, "rules that are gone hold nothing back"
    shop.loop.close()

"""Declared ports are run by a running loop: every row it stores goes out, over a restart, and is counted."""

import json
from pathlib import Path

import pyarrow as pa

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.bus.memory import MemorySource
from boucle.clock import SystemClock
from boucle.loop.outputs import states_of
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.outlet.courier import Delivered
from boucle.outlet.export import verify
from boucle.outlet.exporter import Exported
from boucle.product.project import load_project

PRODUCT = """\
apiVersion: v1.0.0
kind: DataProduct
id: shop
name: Shop
version: 0.1.0
status: active
outputPorts:
  - name: news
    type: events
    version: 1.0.0
    contractId: shop-orders
    customProperties: [{property: table, value: orders}, {property: to, value: "file://EVENTS"}]
  - name: orders
    type: files
    version: 1.0.0
    contractId: shop-orders
    customProperties: [{property: every, value: 100ms}]
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
      - {name: id, logicalType: integer, required: true}
---
kind: Loop
apiVersion: boucle/v1
id: shop-loop
product: shop
contract: shop-orders
sources:
  orders: {from: "mqtt://{broker}/orders", schema: orders}
tables:
  orders: {from: orders, zone: raw, partition: [day]}
"""


def run(folder: Path, source: MemorySource, first: int, last: int) -> None:
    """A life of the loop, in which some orders come."""
    clock = SystemClock()
    project = load_project(folder, None, {"addresses.broker": "127.0.0.1:1", "run.lake_every": "200ms"})
    loop = Loop(build_plan(project), clock, sources={"orders": source}, folder=folder / "run")
    loop.open()
    loop.start()
    schema = project.contracts["orders"].schema()
    rows = pa.record_batch(
        [
            pa.array([clock.now()] * (last - first), schema[0].type),
            pa.array(range(first, last), schema[1].type),
        ],
        schema=schema,
    )
    source.put(Block("orders", rows, 0, Position("memory", last)))
    loop.drain()
    loop.stop()
    assert loop.failure is None


def test_what_is_stored_goes_out_and_is_counted_over_a_restart(tmp_path: Path) -> None:
    events = tmp_path / "events"
    (tmp_path / "product.yaml").write_text(PRODUCT.replace("EVENTS", str(events)))
    source = MemorySource(stream="orders")
    run(tmp_path, source, 0, 30)
    run(tmp_path, source, 30, 50)
    blocks = EventLog(events, stream="events").read()
    told = [json.loads(one) for block in blocks for one in block.rows["payload"].to_pylist()]
    assert sorted(one["data"]["id"] for one in told) == list(range(50))
    assert len({one["id"] for one in told}) == 50
    states = states_of(tmp_path / "run")
    news, files = states["news"], states["orders"]
    assert isinstance(news, Delivered)
    assert (news.taken, news.delivered, news.pending, news.dead, news.failure) == (50, 50, 0, 0, "")
    assert isinstance(files, Exported)
    assert files.rows in {30, 50}
    assert verify(tmp_path / "run" / "outputs" / "orders" / "orders" / str(files.version)) == []

"""More than the loop can work through: it holds the source back, or sheds where that is declared, and says so."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from boucle.bus.log import EventLog
from boucle.bus.memory import MemorySource
from boucle.event import Command, Event, Receipt
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.product.project import load_project
from boucle.testing.clock import ManualClock
from tests.loop.bursts import Phase, burst

PRODUCT = Path(__file__).parent / "loaded_product"
START = 1_790_000_000_000_000_000
MILLISECOND = 1_000_000


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.002)


def rows(first: int, count: int) -> pa.RecordBatch:
    """Readings numbered from `first`, a millisecond apart."""
    return pa.record_batch(
        {
            "machine": ["press-1"] * count,
            "at": pa.array(range(START + first * MILLISECOND, START + (first + count) * MILLISECOND, MILLISECOND)).cast(
                pa.timestamp("ns", tz="UTC")
            ),
            "seq": pa.array(range(first, first + count)),
        }
    )  # fmt: skip


class Loaded:
    """The product with its sources in memory and its clock and its gate in the test's hand."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any] | None = None,
        product: Path = PRODUCT,
        needed: MemorySource | None = None,
    ) -> None:
        plan = build_plan(load_project(product, None, {"run.lake_every": "60s", **(settings or {})}))
        self.folder = folder
        self.clock = ManualClock(START)
        self.surplus = MemorySource(stream="surplus")
        self.needed = needed or MemorySource(stream="needed")
        self.told: list[Event | tuple[Command, Receipt]] = []
        sources = {"surplus": self.surplus, "needed": self.needed}
        self.loop = Loop(plan, self.clock, sources=sources, folder=folder, listener=self.told.append)
        self.gate: Any = plan.steps[0].operator
        self.loop.open()
        self.loop.start()

    def stop(self) -> None:
        self.gate.open.set()
        self.loop.stop()
        assert self.loop.failure is None

    def counted(self, source: str) -> Any:
        return self.loop.intakes[source].counted()

    def received(self, source: str, count: int) -> None:
        until(lambda: self.counted(source).received >= count, f"{count} rows of {source} came in")

    def behind(self, source: MemorySource, first: int = 0) -> None:
        """One row of a source is in work and stays there; the next accepted rows wait for it."""
        self.gate.open.clear()
        seen = self.gate.seen
        source.put_rows(rows(first, 1))
        until(lambda: self.gate.seen > seen, "the path has begun")

    def drain(self) -> None:
        self.gate.open.set()
        self.loop.drain(60)

    def logged(self, source: str) -> list[int]:
        self.loop.intakes[source].flush()
        blocks = EventLog(self.folder / "log" / source).read()
        return [seq for block in blocks for seq in block.rows.column("seq").to_pylist()]

    def events(self, kind: str) -> list[Event]:
        return [one for one in self.told if isinstance(one, Event) and one.kind == kind]


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Loaded]:
    one = Loaded(tmp_path)
    yield one
    one.stop()


def test_what_may_be_shed_is_shed_once_the_path_is_behind(loaded: Loaded) -> None:
    loaded.behind(loaded.surplus)
    loaded.surplus.put_rows(rows(1, 10))
    loaded.received("surplus", 11)
    loaded.clock.advance(1.9)
    loaded.surplus.put_rows(rows(11, 10))
    loaded.received("surplus", 21)
    assert loaded.counted("surplus").shed == 0
    loaded.clock.advance(0.2)
    for first in range(21, 51, 10):
        loaded.surplus.put_rows(rows(first, 10))
    loaded.received("surplus", 51)
    assert loaded.counted("surplus").shed == 30
    until(lambda: loaded.events("shedding"), "it is said that readings are shed")
    assert loaded.loop.picture.fresh().sources[0].shedding
    loaded.drain()
    loaded.surplus.put_rows(rows(51, 10))
    loaded.received("surplus", 61)
    loaded.drain()
    counted = loaded.counted("surplus")
    assert (counted.received, counted.stored, counted.shed, counted.pending) == (61, 31, 30, 0)
    assert counted.balanced()
    assert loaded.logged("surplus") == [*range(21), *range(51, 61)]
    loaded.clock.advance(3)
    until(lambda: loaded.events("shedding_over"), "it is said that nothing is shed any more")
    (over,) = loaded.events("shedding_over")
    assert over.evidence["shed"] == 30
    assert over.says["fr"].startswith("surplus : 30 lectures")
    assert len(loaded.events("shedding")) == 1


def test_shed_readings_are_counted_on_metrics_and_in_the_picture(loaded: Loaded) -> None:
    loaded.behind(loaded.surplus)
    loaded.clock.advance(2.5)
    loaded.surplus.put_rows(rows(1, 7))
    loaded.received("surplus", 8)
    view = loaded.loop.picture.fresh()
    assert (view.sources[0].shed, view.sources[1].shed, view.accounting.shed) == (7, 0, 7)
    assert view.backlog.lag_s == 2.5
    families = {
        family.name: family
        for family in text_string_to_metric_families(loaded.loop.picture.metrics().decode())
    }
    shed = {one.labels["source"]: one.value for one in families["boucle_shed"].samples}
    assert shed == {"surplus": 7, "needed": 0, "waves": 0}
    assert families["boucle_lag_seconds"].samples[0].value == 2.5
    outcomes = {one.labels["outcome"]: one.value for one in families["boucle_readings"].samples}
    assert outcomes["shed"] == 7
    assert view.accounting.balanced()


def test_what_is_not_declared_to_be_shed_never_is(loaded: Loaded) -> None:
    loaded.behind(loaded.needed)
    loaded.clock.advance(3600)
    for first in range(1, 51, 10):
        loaded.needed.put_rows(rows(first, 10))
    loaded.received("needed", 51)
    loaded.drain()
    counted = loaded.counted("needed")
    assert (counted.stored, counted.shed) == (51, 0)
    assert loaded.logged("needed") == list(range(51))
    assert loaded.events("shedding") == []


def test_a_reading_that_was_shed_may_be_sent_again(loaded: Loaded) -> None:
    loaded.behind(loaded.surplus)
    loaded.clock.advance(2.5)
    loaded.surplus.put_rows(rows(1, 5))
    loaded.received("surplus", 6)
    loaded.drain()
    loaded.surplus.put_rows(rows(1, 5))
    loaded.received("surplus", 11)
    loaded.drain()
    counted = loaded.counted("surplus")
    assert (counted.stored, counted.shed, counted.duplicate) == (6, 5, 0)


def test_one_that_stops_while_it_sheds_says_how_much(tmp_path: Path) -> None:
    loaded = Loaded(tmp_path)
    loaded.behind(loaded.surplus)
    loaded.clock.advance(2.5)
    loaded.surplus.put_rows(rows(1, 5))
    loaded.received("surplus", 6)
    loaded.stop()
    (over,) = loaded.events("shedding_over")
    assert over.evidence["shed"] == 5
    kept = list(EventLog(tmp_path / "log" / "events").read())
    kinds = [kind for block in kept for kind in block.rows.column("kind").to_pylist()]
    assert kinds == ["shedding", "shedding_over"]


@pytest.mark.parametrize(
    "bound", [{"run.queue_blocks": 4}, {"run.queue_bytes": f"{4 * rows(0, 100).nbytes}B"}], ids=["blocks", "bytes"]
)  # fmt: skip
def test_a_full_queue_holds_the_source_back_and_sheds_only_what_may_be(
    tmp_path: Path, bound: dict[str, Any]
) -> None:
    loaded = Loaded(tmp_path, bound)
    loaded.behind(loaded.needed)
    for first in range(1, 2001, 100):
        loaded.needed.put_rows(rows(first, 100))
    backlog = loaded.loop.backlog
    until(lambda: backlog.full, "the queue is full")
    loaded.surplus.put_rows(rows(0, 50))
    loaded.received("surplus", 50)
    assert loaded.counted("surplus").shed == 50
    assert backlog.blocks == 4
    assert backlog.bytes == 4 * rows(0, 100).nbytes
    # In work, waiting, and the one that waits to be let in.
    assert loaded.counted("needed").received <= 1 + 4 * 100 + 100
    loaded.received("needed", 1 + 5 * 100)
    loaded.drain()
    loaded.received("needed", 2001)
    loaded.drain()
    assert loaded.logged("needed") == list(range(2001))
    assert loaded.counted("needed").shed == 0
    loaded.stop()


def test_ten_times_the_rate_is_held_back_and_worked_off(tmp_path: Path) -> None:
    """`python -m bench.burst` does the same for a minute."""
    phases = [Phase(0.3, 100), Phase(1.2, 1000), Phase(0.3, 100)]
    told = burst(tmp_path, phases, capacity=600, settings={"run.queue_blocks": 200, "run.queue_bytes": "4MB"})
    assert told.logged == list(range(told.sent))
    assert (told.accounting.received, told.accounting.stored) == (told.sent, told.sent)
    assert told.accounting.balanced()
    # The bytes bound it, not the Blocks; what is more waits with the line.
    assert told.most_bytes <= 4_000_000
    assert told.most_blocks <= 40
    assert told.waited > 40
    assert told.lag > 0
    assert told.delay > told.lag / 2
    assert told.lag_after == 0
    # Twice the queue, the log's two buffers, and what the allocators keep: not the burst.
    assert told.volume > 120_000_000
    assert told.grown < 60_000_000, told.grown

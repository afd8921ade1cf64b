"""What every Source must do; run it on yours: `for check in SOURCE_CHECKS: check(bench)`.

A bench knows the far end: it can put numbered readings there and find the numbers in a Block.
Give each check a fresh bench, with nothing at the far end yet.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing

from boucle.block import Block, Position
from boucle.ports import Source

__all__ = ["SOURCE_CHECKS", "SourceBench"]

PATIENCE = 30.0
"""Seconds until a check gives up waiting; a healthy source needs a small part of it."""


class SourceBench:
    """The far end of one source. Derive from it, and set what yours cannot do."""

    grows = True
    """Readings may come while the source is open (False for a file: they are put there before)."""
    keeps = True
    """What was not committed comes again, also to a new object, when it is not replayable."""

    def make(self) -> Source:
        """A new source object on this far end, with a queue as short as it can be made."""
        raise NotImplementedError

    def feed(self, numbers: Sequence[int]) -> None:
        """Put one reading per number there, in this order; return when the far end has them."""
        raise NotImplementedError

    def numbers(self, block: Block) -> list[int]:
        """The numbers of the readings in a Block."""
        raise NotImplementedError

    def outage(self) -> AbstractContextManager[object] | None:
        """Takes the far end away while it is entered; None when it cannot be taken away."""
        return None


def _opened(bench: SourceBench, resume: Position | None = None) -> Source:
    source = bench.make()
    source.open(resume)
    if bench.grows:
        _wait_for(lambda: source.state() == "connected")
    return source


def _wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    assert true(), "waited in vain"


def _blocks(source: Source, bench: SourceBench, count: int) -> list[Block]:
    """Blocks until `count` different numbers came, or patience ended."""
    blocks: list[Block] = []
    seen: set[int] = set()
    until = time.monotonic() + PATIENCE
    while len(seen) < count and time.monotonic() < until and source.state() != "finished":
        block = source.poll(0.2)
        if block is not None:
            blocks.append(block)
            seen.update(bench.numbers(block))
    return blocks


def _numbers(blocks: Sequence[Block], bench: SourceBench) -> list[int]:
    return [number for block in blocks for number in bench.numbers(block)]


def _fed(bench: SourceBench, numbers: Sequence[int]) -> Source:
    if bench.grows:
        source = _opened(bench)
        bench.feed(numbers)
        return source
    bench.feed(numbers)
    return _opened(bench)


def is_a_source(bench: SourceBench) -> None:
    """It has the methods of the port, and tells its facts."""
    source = bench.make()
    assert isinstance(source, Source)
    assert source.facts.delivery in {"at-most-once", "at-least-once", "exactly-once"}


def nothing_is_none(bench: SourceBench) -> None:
    """When nothing is there `poll` returns None, and does not raise."""
    if not bench.grows:
        return
    with closing(_opened(bench)) as source:
        _wait_for(lambda: source.poll(0.01) is None)
        assert source.poll(0.0) is None


def delivers_everything_in_order(bench: SourceBench) -> None:
    """Every reading comes, in order when it says so."""
    with closing(_fed(bench, range(50))) as source:
        numbers = _numbers(_blocks(source, bench, 50), bench)
        assert set(numbers) == set(range(50))
        if source.facts.ordered:
            assert numbers == sorted(numbers)


def positions_grow(bench: SourceBench) -> None:
    """Blocks name their stream; positions are of one partition and grow from Block to Block."""
    with closing(_fed(bench, range(50))) as source:
        blocks = _blocks(source, bench, 50)
        assert {block.stream for block in blocks} == {blocks[0].stream} != {""}
        assert len({block.position.partition for block in blocks}) == 1
        offsets = [block.position.offset for block in blocks]
        assert offsets == sorted(set(offsets))
        assert all(len(block) > 0 for block in blocks)


def positions_go_on(bench: SourceBench) -> None:
    """Opened at a position, a source goes on counting from there: positions never go back."""
    with closing(_fed(bench, range(10))) as source:
        last = _blocks(source, bench, 10)[-1].position
        source.commit(last)
    if not bench.grows:
        return
    with closing(_opened(bench, last)) as source:
        bench.feed(range(10, 20))
        blocks = _blocks(source, bench, 10)
        assert all(block.position.offset > last.offset for block in blocks)


def replays_after_a_position(bench: SourceBench) -> None:
    """A replayable source opened at the position of a Block delivers exactly what came after it."""
    with closing(_fed(bench, range(50))) as source:
        if not source.facts.replayable:
            return
        blocks = _blocks(source, bench, 50)
        everything = _numbers(blocks, bench)
    for index, block in enumerate(blocks[:-1]):
        with closing(_opened(bench, block.position)) as source:
            known = len(_numbers(blocks[: index + 1], bench))
            rest = _numbers(_blocks(source, bench, len(everything) - known), bench)
            assert rest == everything[known:]


def gives_again_what_was_not_committed(bench: SourceBench) -> None:
    """Committed readings need not come again; all others do, to whoever opens next."""
    with closing(_fed(bench, range(20))) as source:
        facts = source.facts
        if facts.delivery == "at-most-once" or facts.replayable or not bench.keeps or not bench.grows:
            return
        _blocks(source, bench, 20)
        bench.feed(range(20, 40))
        blocks = _blocks(source, bench, 20)
        bench.feed(range(40, 60))
        source.commit(blocks[-1].position)
        source.commit(blocks[-1].position)
    lacking = set(range(60)) - set(range(20)) - set(_numbers(blocks, bench))
    with closing(_opened(bench)) as source:
        again = set(_numbers(_blocks(source, bench, len(lacking)), bench))
        assert again >= lacking
        assert not again & set(range(20))


def holds_back_without_losing(bench: SourceBench) -> None:
    """Nobody polls for a while: what does not fit the queue waits outside, or is counted in `shed`."""
    with closing(_fed(bench, range(300))) as source:
        blocks: list[Block] = []
        while len(set(_numbers(blocks, bench))) < 300 - getattr(source, "shed", 0):
            more = _blocks(source, bench, 1)
            assert more, "what did not fit the queue never came"
            source.commit(more[-1].position)
            blocks += more


def outlives_an_outage(bench: SourceBench) -> None:
    """The far end goes and comes back: `poll` never raises, `state` says it, readings come again."""
    outage = bench.outage()
    if outage is None:
        return
    with closing(_opened(bench)) as source:
        bench.feed(range(10))
        _blocks(source, bench, 10)
        with outage:
            _wait_for(lambda: source.poll(0.05) is None and source.state() != "connected")
        _wait_for(lambda: source.state() == "connected")
        bench.feed(range(10, 20))
        until = time.monotonic() + PATIENCE
        seen: set[int] = set()
        while not seen >= set(range(10, 20)) and time.monotonic() < until:
            seen.update(_numbers(_blocks(source, bench, 1), bench))
        assert seen >= set(range(10, 20))


def starts_before_its_far_end(bench: SourceBench) -> None:
    """Opened while the far end is away, it says so and connects when it comes."""
    outage = bench.outage()
    if outage is None:
        return
    with outage:
        source = bench.make()
        source.open(None)
        assert source.poll(0.3) is None
        assert source.state() not in {"connected", "finished"}
    with closing(source):
        _wait_for(lambda: source.state() == "connected")


def closes_twice(bench: SourceBench) -> None:
    """`close` may be called twice, and says that it is closed."""
    source = _fed(bench, range(3))
    source.close()
    source.close()
    assert source.state() != "connected"


SOURCE_CHECKS: tuple[Callable[[SourceBench], None], ...] = (
    is_a_source,
    nothing_is_none,
    delivers_everything_in_order,
    positions_grow,
    positions_go_on,
    replays_after_a_position,
    gives_again_what_was_not_committed,
    holds_back_without_losing,
    outlives_an_outage,
    starts_before_its_far_end,
    closes_twice,
)

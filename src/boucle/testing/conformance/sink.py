"""What every Sink must do; run it on yours: `for check in SINK_CHECKS: check(bench)`.

A bench makes Blocks that the sink takes, and reads the far end back. Give each check a fresh one.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing

from boucle.block import Block
from boucle.errors import Unavailable
from boucle.ports import Sink

__all__ = ["SINK_CHECKS", "SinkBench"]


class SinkBench:
    """The far end of one sink."""

    def make(self) -> Sink:
        """A new sink object on this far end."""
        raise NotImplementedError

    def block(self, numbers: Sequence[int]) -> Block:
        """A Block of one row per number."""
        raise NotImplementedError

    def stored(self, count: int) -> list[int]:
        """The numbers at the far end, in its order; may wait a little until there are `count`."""
        raise NotImplementedError

    def outage(self) -> AbstractContextManager[object] | None:
        """Takes the far end away while it is entered; None when it cannot be taken away."""
        return None


def _opened(bench: SinkBench) -> Sink:
    sink = bench.make()
    sink.open()
    return sink


def _once(numbers: Sequence[int]) -> list[int]:
    """Without repetitions: at least once is allowed."""
    return list(dict.fromkeys(numbers))


def is_a_sink(bench: SinkBench) -> None:
    """It has the methods of the port."""
    assert isinstance(bench.make(), Sink)


def flushed_is_stored(bench: SinkBench) -> None:
    """When `flush` returns, everything written before is at the far end, in order."""
    with closing(_opened(bench)) as sink:
        for first in range(0, 50, 10):
            sink.write(bench.block(range(first, first + 10)))
        sink.flush()
        assert _once(bench.stored(50)) == list(range(50))


def the_cut_changes_nothing(bench: SinkBench) -> None:
    """Blocks of one row, of many, and of none leave what one Block would."""
    with closing(_opened(bench)) as sink:
        for numbers in (range(1), range(1, 1), range(1, 30), range(30, 31)):
            sink.write(bench.block(numbers))
            sink.flush()
        assert _once(bench.stored(31)) == list(range(31))


def flushing_nothing_is_nothing(bench: SinkBench) -> None:
    """`flush` without a `write`, and twice in a row, returns."""
    with closing(_opened(bench)) as sink:
        sink.flush()
        sink.write(bench.block(range(3)))
        sink.flush()
        sink.flush()
        assert _once(bench.stored(3)) == [0, 1, 2]


def closing_flushes(bench: SinkBench) -> None:
    """What was written and not flushed is there after `close`; `close` twice does no harm."""
    sink = _opened(bench)
    sink.write(bench.block(range(5)))
    sink.close()
    sink.close()
    assert _once(bench.stored(5)) == list(range(5))


def an_outage_is_told_and_loses_nothing(bench: SinkBench) -> None:
    """While the far end is away `flush` raises Unavailable; afterwards everything accepted gets there."""
    outage = bench.outage()
    if outage is None:
        return
    with closing(_opened(bench)) as sink:
        sink.write(bench.block(range(5)))
        sink.flush()
        with outage:
            sink.write(bench.block(range(5, 10)))
            try:
                sink.flush()
            except Unavailable as told:
                assert told.fix  # noqa: PT017  the suite runs without pytest
            else:
                raise AssertionError("flush returned while the far end was away")
        for _ in range(20):
            try:
                sink.flush()
                break
            except Unavailable:
                continue
        assert set(bench.stored(10)) >= set(range(5, 10))


SINK_CHECKS: tuple[Callable[[SinkBench], None], ...] = (
    is_a_sink,
    flushed_is_stored,
    the_cut_changes_nothing,
    flushing_nothing_is_nothing,
    closing_flushes,
    an_outage_is_told_and_loses_nothing,
)

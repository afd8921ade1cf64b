"""What idempotent producers have appended, so that a repeated append is recognised, also after a crash.

Each frame of a producer carries its name and sequence, and each segment begins with what was known
before it: the last segment alone tells everything (after Kafka's KIP-98, which keeps snapshot files).
"""

import struct
from collections import OrderedDict

import msgspec

from boucle.bus.frames import PRODUCERS_KIND, ROWS_KIND, Frame
from boucle.errors import ContractBroken, PositionLost

__all__ = ["PRODUCERS", "SEQUENCES", "Producers", "numbered_nothing", "produced"]

PRODUCERS = 1024
"""How many producers are remembered; the one that has appended nothing for longest is forgotten."""
SEQUENCES = 32
"""How many of a producer's last sequences still tell their Position."""

_SEQUENCE = struct.Struct("<q")


def produced(producer: str, sequence: int) -> bytes:
    """The extra of a frame that a producer appended."""
    return _SEQUENCE.pack(sequence) + producer.encode()


def numbered_nothing(producer: str, sequence: int, where: str) -> ContractBroken:
    """The error for an empty Block with a sequence."""
    return ContractBroken(
        "B317",
        f'producer "{producer}" numbered an empty Block {sequence}',
        where=where,
        why="nothing of it would be stored, not even its number",
        fix="leave empty Blocks out, and do not count them",
    )


class Producers:
    """Producer → its last sequence, and after which rows its last ones ended."""

    def __init__(self) -> None:
        self._ends: OrderedDict[str, list[int]] = OrderedDict()
        self._last: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._last)

    def stored(self, producer: str, sequence: int, where: str) -> int | None:
        """The row after which this append ended the first time; None when it is the next one.

        ContractBroken (B317) when sequences between are missing, PositionLost (B318) when it was
        stored so long ago that nobody remembers where.
        """
        last = self._last.get(producer)
        if last is None or sequence == last + 1:
            return None
        if sequence > last + 1:
            raise ContractBroken(
                "B317",
                f'producer "{producer}" skipped from sequence {last} to {sequence}',
                where=where,
                why="what lies between was never appended, or in another order",
                fix=f"append {last + 1} first",
            )
        ends = self._ends[producer]
        back = last - sequence
        if back >= len(ends):
            raise PositionLost(
                "B318",
                f'sequence {sequence} of producer "{producer}" is no longer remembered',
                where=where,
                why=f"its last is {last}, and {len(ends)} are kept",
                fix=f"it was stored; go on with {last + 1}",
            )
        return ends[-1 - back]

    def took(self, producer: str, sequence: int, end: int) -> None:
        """Remember an append that ended before row `end`."""
        ends = self._ends.setdefault(producer, [])
        ends.append(end)
        del ends[:-SEQUENCES]
        self._last[producer] = sequence
        self._ends.move_to_end(producer)
        if len(self._ends) > PRODUCERS:
            forgotten, _ = self._ends.popitem(last=False)
            del self._last[forgotten]

    def saw(self, frame: Frame) -> None:
        """Learn from a frame of a segment, in the order of its file. ValueError when it cannot be read."""
        if frame.kind == PRODUCERS_KIND:
            self._restore(frame.body)
        elif frame.kind == ROWS_KIND and len(frame.extra) > _SEQUENCE.size:
            (sequence,) = _SEQUENCE.unpack_from(frame.extra)
            name = bytes(frame.extra[_SEQUENCE.size :]).decode()
            self.took(name, sequence, frame.offset + frame.rows)

    def snapshot(self) -> bytes:
        """All of it, as the body of a frame."""
        return msgspec.json.encode([(name, self._last[name], ends) for name, ends in self._ends.items()])

    def _restore(self, body: memoryview) -> None:
        try:
            known = msgspec.json.decode(bytes(body).rstrip(b"\0"), type=list[tuple[str, int, list[int]]])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"the producers cannot be read: {error}") from error
        self._ends = OrderedDict((name, ends) for name, _, ends in known)
        self._last = {name: last for name, last, _ in known}

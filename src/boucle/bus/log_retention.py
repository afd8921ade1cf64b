"""How long the event log keeps its rows: whole segments go, oldest first, once nobody needs them."""

import logging
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

from boucle.bus.log_disk import sync_folder
from boucle.bus.log_groups import committed_rows, groups_held
from boucle.bus.segments import read_head, segment_files
from boucle.clock import SECOND, Nanos

__all__ = ["Retention", "remove_before", "remove_expired"]

_log = logging.getLogger("boucle.bus.log")

_SHARE = 8
"""A segment covers this part of the time that is kept, so rows stay at most that much longer."""


class Retention(Struct, frozen=True):
    """What a log keeps. A segment goes when its newest row is too old or the log too big.

    `seconds` count from the append, by the log's clock; `bytes` may be exceeded by the segment being
    written, which never goes. With `hold_for_groups`, the default, rows that a consumer group has not
    committed stay whatever their age and size: losing them is worse than a disk that fills and says so.
    """

    seconds: float | None = None
    bytes: int | None = None
    hold_for_groups: bool = True

    def __post_init__(self) -> None:
        if (self.seconds is not None and self.seconds <= 0) or (self.bytes is not None and self.bytes < 0):
            raise ValueError(
                f"a log keeps a positive time and size, not {self.seconds} s and {self.bytes} bytes"
            )

    @property
    def segment_age(self) -> Nanos | None:
        """After how long a segment that has rows is followed by another; None: never for its age."""
        return None if self.seconds is None else int(self.seconds * SECOND / _SHARE)


def remove_expired(folder: Path, keep: Retention, now: Nanos) -> int:
    """Remove the segments that need not be kept; returns how many. B311 when a head or group is broken."""
    files = segment_files(folder)
    expired = _expired(files, keep, now)
    if not expired:
        return 0
    with groups_held(folder):  # a group that appears now must find the rows it is promised
        committed = committed_rows(folder) if keep.hold_for_groups else {}
        gone = [file for end, file in expired if end <= min(committed.values(), default=end)]
        for file in gone:
            file.unlink()
    if len(gone) < len(expired):
        waits = min(committed, key=lambda name: committed[name])
        _log.warning(
            '%s keeps %d segments beyond its limit: the group "%s" stands at row %d',
            folder,
            len(expired) - len(gone),
            waits,
            committed[waits],
        )
    if gone:
        sync_folder(folder)
    return len(gone)


def remove_before(folder: Path, row: int) -> int:
    """Remove the segments whose rows all lie before this one; returns how many. Never the newest."""
    gone = [file for (_, file), (end, _) in pairwise(segment_files(folder)) if end <= row]
    for file in gone:
        file.unlink()
    if gone:
        sync_folder(folder)
    return len(gone)


def _expired(files: list[tuple[int, Path]], keep: Retention, now: Nanos) -> list[tuple[int, Path]]:
    """The segments beyond a limit, each with the number of the row after it."""
    total = sum(file.stat().st_size for _, file in files) if keep.bytes is not None else 0
    expired = []
    for (_, file), (end, following) in pairwise(files):
        big = keep.bytes is not None and total > keep.bytes
        # The next segment was made after this one's newest row came.
        if not big and not (
            keep.seconds and now - read_head(following, end).created >= keep.seconds * SECOND
        ):
            break
        expired.append((end, file))
        total -= 0 if keep.bytes is None else file.stat().st_size
    return expired

"""The table and the heap of open windows say what a plain dictionary says, through any growth and churn."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.stream.open_windows import OpenWindows

turns = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=80), st.integers(0, 12)),
    max_size=12,
)


def ints(values: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(list(values), np.int64)


@settings(max_examples=60, deadline=None)
@given(turns, st.sampled_from([0, 3]), st.booleans())
def test_fixed_windows_are_found_and_end(turns: Any, allowed: int, restart: bool) -> None:
    windows, now = OpenWindows(threading.Lock(), allowed=allowed), 0
    known: dict[tuple[int, int], int] = {}
    fresh: set[tuple[int, int]] = set()
    for rows, ahead in turns:
        # Starts before and behind the watermark: what is behind may be opened anew, by late rows.
        starts = ints(now + start - 2 for _, start in rows)
        keys = ints(key for key, _ in rows)
        slots = windows.fixed(keys, starts, starts + 5)
        for key, start, slot in zip(keys.tolist(), starts.tolist(), slots.tolist(), strict=True):
            assert known.setdefault((key, start), slot) == slot
            fresh.add((key, start))
        assert len(set(known.values())) == len(known) == len(windows), "no slot has two windows"
        now += ahead
        if restart:
            again = OpenWindows(threading.Lock(), allowed=allowed)
            again.restore_parts(windows.snapshot())
            windows = again
        given, gone = windows.ended(now)
        key, start, end, _, _ = windows.said(given)
        assert (end == start + 5).all()
        told = set(zip(key.tolist(), start.tolist(), strict=True))
        assert len(told) == len(given)
        assert told == {one for one in fresh if one[1] + 5 <= now}
        assert sorted(gone.tolist()) == sorted(
            slot for (_, begun), slot in known.items() if begun + 5 + allowed <= now
        )
        windows.free(gone)
        fresh -= told
        known = {one: slot for one, slot in known.items() if one[1] + 5 + allowed > now}
        assert len(windows) == len(known)


@pytest.mark.parametrize("most", [0, 3])
@settings(max_examples=60, deadline=None)
@given(turns=turns, restart=st.booleans())
def test_following_windows_are_found_and_end(most: int, turns: Any, restart: bool) -> None:
    gap, now = 4, 0
    windows = OpenWindows(threading.Lock(), alone=True)
    newest: dict[int, list[int]] = {}
    waiting: list[tuple[int, list[int]]] = []
    for rows, ahead in turns:
        times = sorted(now + at for _, at in rows)
        keys = [key for key, _ in rows]
        slots = windows.following(ints(keys), ints(times), gap, most)
        for key, at in zip(keys, times, strict=True):
            held = newest.get(key)
            if held is None or at - held[-1] >= gap or len(held) == most:
                held = newest[key] = []
                waiting.append((key, held))
            held.append(at)
        assert len(slots) == len(rows)
        now = max([now + ahead, *(at + 1 for at in times)])
        if restart:
            again = OpenWindows(threading.Lock(), alone=True)
            again.restore_parts(windows.snapshot())
            windows = again
        over = [
            (key, held[-1] + (1 if len(held) == most else gap), len(held))
            for key, held in waiting
            if held[-1] + (1 if len(held) == most else gap) <= now
        ]
        given, gone = windows.ended(now)
        key, _, end, revision, seen = windows.said(given)
        assert sorted(zip(key.tolist(), end.tolist(), seen.tolist(), strict=True)) == sorted(over)
        assert (revision == 0).all()
        windows.free(gone)
        waiting = [(key, held) for key, held in waiting if held[-1] + (1 if len(held) == most else gap) > now]
        newest = dict(waiting)
        assert len(windows) == len(waiting)

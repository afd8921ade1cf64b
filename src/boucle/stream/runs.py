"""Which of many numbered Python objects changed, so that a checkpoint encodes those and no others."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Runs", "numbers_of", "runs_of"]

_RUN = 256
"""Numbers of a run: what is encoded anew when one of them changed."""


class Runs:
    """The runs of numbers in which something changed since `take` was last called."""

    def __init__(self) -> None:
        self._changed: set[int] = set()

    def change(self, numbers: NDArray[np.int64]) -> None:
        """What these numbers stand for is other now."""
        if len(numbers):
            self._changed.update(np.unique(numbers // _RUN).tolist())

    def take(self, known: Iterable[int], *, everything: bool) -> list[int]:
        """The runs that changed, or all there are of `known` numbers; from now on they count as told."""
        changed, self._changed = self._changed, set()
        return runs_of(known) if everything else sorted(changed)


def runs_of(known: Iterable[int]) -> list[int]:
    """The runs of these numbers."""
    return sorted({number // _RUN for number in known})


def numbers_of(run: int, upto: int = 2**62) -> range:
    """The numbers of a run, as far as they are less than `upto`."""
    return range(run * _RUN, min((run + 1) * _RUN, upto))

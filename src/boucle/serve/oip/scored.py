"""An answered request, as shadow and log take it: over a socket, so it knows its version by name only."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.clock import Nanos

__all__ = ["Scored", "Version"]


class Version(Struct, frozen=True, array_like=True):
    """A version of a model, and the columns it takes and gives."""

    name: str
    version: str
    columns: tuple[str, ...]
    gives: tuple[str, ...]


class Scored(Struct, frozen=True):
    """An answered request; `at` when it came, `seconds` how long it took, `role` who was asked."""

    of: Version
    id: str
    wire: str
    at: Nanos
    rows: NDArray[np.float32]
    scores: NDArray[np.float64]
    seconds: float
    role: str

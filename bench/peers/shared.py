"""What the peers' scripts share: NumPy on one window of W1, and how a script tells what it did.

Imported by Pythons of other environments: only NumPy and SciPy may be used here.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

__all__ = ["BANDS", "CARD_WINDOWS_MS", "CHUNK", "DAY_MS", "RATE", "START_MS", "describe", "load", "tell"]

RATE, CHUNK = 10_000, 1000
BANDS = (10, 27, 80, 300, 600, 1000, 2000, 3600, 4500)
START_MS = 1_767_225_600_000
DAY_MS = 86_400_000
CARD_WINDOWS_MS = (600_000, 3_600_000, DAY_MS)
_EDGES = np.array(BANDS)


def describe(sensor: int, second: int, window: NDArray[np.float32]) -> list[float]:
    """The answer of W1 for one window: the fastest that NumPy and SciPy do with a float32 array."""
    mean = window.mean(dtype=np.float64)
    centred = window - np.float32(mean)
    square = centred * centred
    second_moment = float(np.mean(square, dtype=np.float64))
    fourth = float(np.dot(square, square)) / len(window)
    spectrum = scipy.fft.rfft(centred)
    power = spectrum.real**2 + spectrum.imag**2
    bands = np.add.reduceat(power[: BANDS[-1]], _EDGES[:-1]) * (2 / RATE**2)
    return [
        float(sensor),
        float(second),
        float(len(window)),
        float(mean),
        float(window.min()),
        float(window.max()),
        second_moment**0.5,
        fourth / second_moment**2,
        *bands.tolist(),
    ]


def load(folder: str, *names: str) -> list[NDArray[Any]]:
    """Arrays of a workload folder."""
    return [np.load(Path(folder) / f"{name}.npy") for name in names]


def tell(answer: str, rows: Any, items: int, seconds: Sequence[float], **more: Any) -> None:
    """Write the answer, and say on the last line how long it took."""
    np.save(answer, np.asarray(rows, dtype=np.float64))
    print(json.dumps({"items": items, "seconds": list(seconds), **more}), flush=True)

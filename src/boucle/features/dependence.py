"""How many rows tell as much as one independent row: why a slow sensor must not alarm on every window.

The mean of n dependent rows varies like that of n/τ independent ones, τ = 1 + 2·Σρ(k) (integrated autocorrelation
time). The sum is cut off by Geyer's initial positive sequence (Geyer 1992, §3.3): pairs ρ(2k)+ρ(2k+1) as long as they
are positive. Tests below divide their sample sizes by τ; for independent rows τ is near 1.
"""

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["inflation"]


def inflation(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    """τ of the ranks of some rows in their order, at least 1; ranks, because the tests look at ranks."""
    size = len(values)
    if size < 8:
        return 1.0
    ranks = rankdata(values)
    ranks -= ranks.mean()
    if not ranks.any():
        return 1.0
    spectrum = scipy.fft.rfft(ranks, scipy.fft.next_fast_len(2 * size))
    covariance = scipy.fft.irfft(np.abs(spectrum) ** 2)[: size // 2 * 2]
    pairs = covariance.reshape(-1, 2).sum(axis=1) / covariance[0]
    negative = np.flatnonzero(pairs <= 0)
    tau = 2 * float(pairs[: negative[0] if len(negative) else len(pairs)].sum()) - 1
    return min(max(1.0, tau), size / 2)

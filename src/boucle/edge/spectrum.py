"""What one FFT per window tells: band-passed statistics, band energies, velocity, envelope.

Everything comes from a single float32 transform of the window, X. With N samples and one-sided
power P[k] = 2|X[k]|²/N² (Parseval: the sum of P is the mean square of the signal):

    filtered    y = irfft(X inside `band`, 0 outside): zero-phase, rms² = ΣP over the band
    kurtosis    mean(y⁴)/mean(y²)², 3 for Gaussian noise; crest = max|y|/rms
    bands       ΣP between neighbouring edges, g²
    velocity    Σ P_hann·(g/2πf)² over 10-1000 Hz, m/s → mm/s; ISO 20816-1 asks for this integral
    envelope    |analytic signal of `envelope_band`|², its own spectrum by Hann; a defect that
                rings a resonance at every ball pass shows as a line (Randall & Antoni 2011)

The Hann window is applied in the frequency domain (X[k]/2 - (X[k-1]+X[k+1])/4), which costs no FFT.
"""

import itertools
from typing import Any

import numpy as np
import scipy.fft
from msgspec import Struct
from numpy.typing import NDArray

from boucle.edge.kernels import line_ratios, line_spectrum, moments, powers, squared_envelope
from boucle.errors import BoucleError

__all__ = ["GRAVITY", "Analyser", "Analysis", "Envelope", "line_ratio"]

GRAVITY = 9.80665
"""m/s² in one g (CGPM 1901)."""

_HANN_POWER = 3 / 8
"""Mean of the squared Hann window."""

Array = NDArray[np.float32]
Wide = NDArray[np.float64]


class Analysis(Struct, frozen=True):
    """Results for a batch of windows, first axis the window; g, g², mm/s, ratios."""

    rms: Any
    kurtosis: Any
    crest: Any
    velocity: Any
    bands: Any
    """(n, bands) float64, g²."""
    power: Any
    """(n, bins) float32, one-sided power per bin, g²."""
    envelope: Any
    """(n, bins) float32, amplitude spectrum of the squared envelope, g²."""


class Analyser:
    """The formulas for one rate, window and choice of bands; indices are worked out once."""

    def __init__(
        self,
        size: int,
        window_s: float,
        *,
        band: tuple[float, float],
        bands: tuple[float, ...],
        velocity_band: tuple[float, float],
        envelope_band: tuple[float, float],
        envelope_limit: float = 1000.0,
    ) -> None:
        self.size = size
        self.bin_hz = 1 / window_s
        nyquist = size / window_s / 2
        named: dict[str, tuple[float, ...]] = {
            "band": band,
            "bands": bands,
            "velocity_band": velocity_band,
            "envelope_band": envelope_band,
        }
        for name, edges in named.items():
            _check_edges(name, edges, nyquist)
        self._band = self._bins(band)
        self._edges = np.array([round(edge * window_s) for edge in bands])
        self._velocity = self._bins(velocity_band)
        low, high = self._velocity
        # (g → mm/s) per bin, with the Hann power correction
        omega = 2 * np.pi * self.bin_hz * np.arange(low, high)
        self._integral = ((GRAVITY * 1000 / omega) ** 2 * 2 / size**2 / _HANN_POWER).astype(np.float32)
        self._envelope = Envelope(size, self._bins(envelope_band), int(envelope_limit * window_s))
        # Compile, or load what was compiled, now: not when the first window is due.
        idle = np.zeros((1, size), dtype=np.float32)
        line_ratio(self.analyse(idle, np.full(1, size)).envelope, self.bin_hz, nyquist / 8)

    def analyse(self, centred: Array, counts: NDArray[np.int64]) -> Analysis:
        """Analyse windows (n, size) less their means, 0 where a sample is missing.

        Energies are scaled by size/count, so that a gap does not read as quiet.
        """
        spectrum = scipy.fft.rfft(centred, axis=1)
        present = (self.size / counts).astype(np.float32)
        scale = np.float32(2 / self.size**2)
        power, rms, bands, velocity = powers(
            spectrum, present, scale, self._band, self._edges, self._velocity, self._integral
        )
        kurtosis, crest = self._shape(spectrum, rms)
        return Analysis(
            rms=rms,
            kurtosis=kurtosis,
            crest=crest,
            velocity=velocity,
            bands=bands,
            power=power,
            envelope=self._envelope.spectrum(spectrum),
        )

    def amplitude(self, power: Array) -> Array:
        """The amplitude spectrum (peak, in the signal's unit) of a row of `power`."""
        return np.sqrt(2 * power)

    def _bins(self, band: tuple[float, ...]) -> tuple[int, int]:
        return round(band[0] / self.bin_hz), round(band[1] / self.bin_hz)

    def _shape(self, spectrum: NDArray[np.complex64], rms: Wide) -> tuple[Wide, Wide]:
        low, high = self._band
        inside = np.zeros_like(spectrum)
        inside[:, low:high] = spectrum[:, low:high]
        filtered = scipy.fft.irfft(inside, n=self.size, axis=1, overwrite_x=True)
        peak, second, fourth = moments(filtered)
        kurtosis = np.divide(fourth, second**2, out=np.zeros_like(second), where=second > 0)
        return kurtosis, np.divide(peak, rms, out=np.zeros_like(rms), where=rms > 0)


class Envelope:
    """The spectrum of the squared envelope of one band, given in bins of a window of `size` samples.

    No line up to bin `limit` (none given: the width of the band) is folded over by products above it.
    """

    def __init__(self, size: int, band: tuple[int, int], limit: int | None = None) -> None:
        self._size, self._band = size, band
        width = band[1] - band[0]
        self._points = scipy.fft.next_fast_len(width + min(width if limit is None else limit, width) + 1)

    def spectrum(self, transforms: NDArray[np.complex64]) -> Array:
        """Amplitudes, one row for each transform of a window; a bin is as wide as theirs."""
        low, high = self._band
        # The band moved down to 0 Hz: same envelope, far fewer points than the signal itself.
        baseband = np.zeros((len(transforms), self._points), dtype=np.complex64)
        baseband[:, : high - low] = transforms[:, low:high] * np.float32(2 * self._points / self._size)
        analytic = scipy.fft.ifft(baseband, axis=1, overwrite_x=True)
        lines = scipy.fft.rfft(squared_envelope(analytic), axis=1)
        amplitude: Array = line_spectrum(lines, np.float32(4 / self._points))
        return amplitude


def line_ratio(
    envelope: Array, bin_hz: float, frequency: float | Wide, *, slip: float = 0.02, harmonics: int = 3
) -> Wide:
    """How far the lines of `frequency` (Hz, one or one a window) stand out of the envelope spectra, one number each.

    Geometric mean over the harmonics of line amplitude over local noise floor (the median beside the
    line), at the one slip within ±`slip` that fits all harmonics best: rolling elements slide, so the
    true frequency is a little off the geometric one (Randall & Antoni 2011, §3). The geometric mean asks
    for *every* harmonic, so one line that another defect happens to share does not count for much.
    About 2 for noise; 0 when there is no envelope at all, or no room for the first harmonic.
    """
    last = envelope.shape[1] - 1
    centre = np.broadcast_to(np.asarray(frequency, np.float64) / bin_hz, len(envelope)).copy()
    orders = np.zeros(len(envelope), np.int64)
    for order in range(1, harmonics + 1):
        orders += order * centre * (1 + slip) + 16 < last
    orders[centre < 8] = 0
    ratios: Wide = line_ratios(envelope, centre, slip, orders)
    return ratios


def _check_edges(name: str, edges: tuple[float, ...], nyquist: float) -> None:
    rising = all(low < high for low, high in itertools.pairwise(edges))
    if len(edges) < 2 or not rising or edges[0] <= 0 or edges[-1] > nyquist:
        raise BoucleError(
            "B220",
            f"{name}: {list(edges)} are not usable frequencies",
            why=f"they must rise, start above 0 and end by half the sampling rate, {nyquist:g} Hz",
            fix="correct the edges, in Hz",
        )

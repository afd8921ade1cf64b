"""MFPT bearing recordings: inner or outer race, by the lines of the envelope spectrum alone.

    python -m bench.public_mfpt --data DIR      # DIR holds signals.parquet and files.parquet

Nothing is learned: the defect frequencies come from the bearing's geometry, the demodulation band from the recording
itself. Of the bands of a dyadic ladder (a third-octave coarse kurtogram, Antoni 2007) the one is taken whose squared
envelope has the highest kurtosis, and beside it the fixed band of the edge (2-4.5 kHz); both are witnesses. The race
whose lines stand further out of the envelope spectra is named. The files hold no healthy recording, so no false alarms
can be counted here.
"""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.fft
from msgspec import Struct
from numpy.typing import NDArray

from bench.figures import figure, publish
from bench.judged.data import beside, options
from boucle.edge.spectrum import Envelope, line_ratio

WINDOW_S = 1.0
FIXED_HZ = (2000.0, 4500.0)
LEAST_HZ = 1000.0
"""Three harmonics of the inner race and its sidebands fit into a band this wide."""


class Named(Struct):
    """One file: per second the ratio of line to floor of both races, in the chosen and in the fixed band."""

    label: str
    band: tuple[float, float]
    adaptive: list[tuple[float, float]]
    fixed: list[tuple[float, float]]


def bands(nyquist: float) -> list[tuple[float, float]]:
    """Halves, thirds, quarters, sixths, ... of the band up to `nyquist`, none narrower than LEAST_HZ."""
    found = []
    for parts in (2, 3, 4, 6, 8, 12, 16, 24):
        width = nyquist / parts
        if width >= LEAST_HZ:
            found += [(max(place * width, 500.0), (place + 1) * width) for place in range(parts)]
    return [(low, high) for low, high in found if high - low >= LEAST_HZ]


def kurtosis_of_envelope(spectrum: NDArray[np.complex64], low: int, high: int) -> float:
    """Kurtosis of the squared envelope of one band, all windows together: 6 of Gaussian noise, more of impacts."""
    analytic = scipy.fft.ifft(spectrum[:, low:high], axis=1)
    squared = np.abs(analytic) ** 2
    centred = squared - squared.mean()
    return float((centred**4).mean() / (centred**2).mean() ** 2)


def name(signal: NDArray[np.float32], rate: float, races: tuple[float, float], label: str) -> Named:
    """Judge a recording second by second; `races` are BPFO and BPFI in Hz."""
    size = int(rate * WINDOW_S)
    whole = signal[: len(signal) // size * size].reshape(-1, size)
    spectrum = scipy.fft.rfft(whole - whole.mean(axis=1, keepdims=True), axis=1)
    ladder = [(round(low * WINDOW_S), round(high * WINDOW_S)) for low, high in bands(rate / 2)]
    chosen = max(ladder, key=lambda band: kurtosis_of_envelope(spectrum, *band))
    told = []
    for band in (chosen, (round(FIXED_HZ[0] * WINDOW_S), round(FIXED_HZ[1] * WINDOW_S))):
        envelope = Envelope(size, band).spectrum(spectrum)
        ratios = [line_ratio(envelope, 1 / WINDOW_S, race) for race in races]
        told.append([(float(outer), float(inner)) for outer, inner in zip(*ratios, strict=True)])
    return Named(label, (chosen[0] / WINDOW_S, chosen[1] / WINDOW_S), *told)


def right(label: str, ratios: list[tuple[float, float]]) -> bool:
    """Whether the recording as a whole (geometric mean over seconds and bands) is named rightly."""
    outer, inner = np.log(np.maximum(ratios, 1e-9)).mean(axis=0)
    return ("outer" if outer > inner else "inner") in label.lower()


def recordings(folder: Path) -> dict[str, Named]:
    """Every file with a defect, judged."""
    signals, found = pq.read_table(folder / "signals.parquet"), {}
    for file in pq.read_table(folder / "files.parquet").to_pylist():
        if "race" not in file["label"].lower():
            continue
        samples = (
            signals.filter(pc.equal(signals["file"], file["file"]))["accel_g"].to_numpy().astype(np.float32)
        )
        races = (file["BPFO"], file["BPFI"])
        found[file["file"]] = name(samples, file["sample_rate_hz"], races, file["label"])
    return found


def main() -> None:
    folder, asked = options(__doc__, "mfpt_bearing")
    found = recordings(folder)
    ways = {
        "both": [right(one.label, one.adaptive + one.fixed) for one in found.values()],
        "adaptive": [right(one.label, one.adaptive) for one in found.values()],
        "fixed": [right(one.label, one.fixed) for one in found.values()],
    }
    share = {way: 100 * sum(judged) / len(judged) for way, judged in ways.items()}
    seconds = [
        ("outer" if outer > inner else "inner") in one.label
        for one in found.values()
        for outer, inner in one.fixed
    ]
    if not asked.json:
        rows = {
            file: (one.label, f"{one.band[0]:.0f}-{one.band[1]:.0f} Hz",
                   *np.median(one.adaptive, axis=0), *np.median(one.fixed, axis=0))
            for file, one in found.items()
        }  # fmt: skip
        columns = ("truth", "chosen band", "outer", "inner", "outer, fixed band", "inner, fixed band")
        print(beside("MFPT: line over floor", "none; the labels are the data set's own", columns, rows))
    figures = [
        figure("mfpt_files", len(found), ""),
        figure("mfpt_right", share["both"], "%", goal=">= 100"),
        figure("mfpt_right_chosen_band", share["adaptive"], "%"),
        figure("mfpt_right_fixed_band", share["fixed"], "%"),
        figure("mfpt_right_every_second", 100 * sum(seconds) / len(seconds), "%"),
    ]
    publish(figures, asked)


if __name__ == "__main__":
    main()

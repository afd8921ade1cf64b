"""The binary frame of the live WebSocket, and how signals are cut down to what a screen can show.

A frame is a little-endian uint32 with the length of the header, the header (JSON, padded with
spaces so that the numbers behind it lie on a multiple of four bytes), then every array as
little-endian float32, one after the other, in the order of the header's plots:

    {"v": 1, "seq": 7, "at": 1763728300.1, "speed": 1.0, "machines": [
        {"id": "press-1", "status": "normal", "ages": {"vib_x": 0.03}, "plots": [
            {"kind": "waveform", "name": "vib_x", "unit": "g", "n": 1000, "pairs": false, "ms": 100.0},
            {"kind": "spectrum", "name": "vib_x", "unit": "g", "n": 501, "bin_hz": 10.0},
            {"kind": "trend", "name": "rms_x", "unit": "g", "n": 180, "low": 0.1, "high": 0.3}]}]}

`speed` is event seconds per second of the wall, in which ages are counted too. `n` counts float32
values; a trend has two arrays of `n` (seconds before now, value). A waveform
with `pairs` holds minimum and maximum of each pixel column in turn. A plot that has not changed
since the last frame of this connection is left out.
"""

import json
import struct
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Floats", "columns", "decode", "encode", "peaks", "thinned"]

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


def encode(header: dict[str, Any], arrays: list[Floats]) -> bytes:
    """One frame. NaN in the header is not allowed; in the arrays it is a gap."""
    text = json.dumps(header, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 4)
    body = b"".join(np.ascontiguousarray(array, dtype="<f4").tobytes() for array in arrays)
    return struct.pack("<I", len(text)) + text + body


def decode(frame: bytes) -> tuple[dict[str, Any], list[Floats]]:
    """The header and the arrays of a frame, as `encode` was given them."""
    (length,) = struct.unpack_from("<I", frame)
    header: dict[str, Any] = json.loads(frame[4 : 4 + length])
    arrays: list[Floats] = []
    offset = 4 + length
    for machine in header["machines"]:
        for plot in machine["plots"]:
            for _ in range(2 if plot["kind"] == "trend" else 1):
                arrays.append(np.frombuffer(frame, dtype="<f4", count=plot["n"], offset=offset))
                offset += 4 * plot["n"]
    return header, arrays


def columns(samples: Floats, width: int) -> tuple[Floats, bool]:
    """Samples for `width` pixels: as they are when they fit twice, else (min, max) of each column.

    No peak is lost, however short: it is the maximum of its column.
    """
    if len(samples) <= 2 * width:
        return samples, False
    low, high = extremes(samples, width)
    pairs = np.empty(2 * len(low), dtype=np.float32)
    pairs[0::2], pairs[1::2] = low, high
    return pairs, True


def peaks(spectrum: Floats, width: int) -> tuple[Floats, int]:
    """The highest line of every `step` bins, and that step, so that at most `width` lines remain."""
    step = -(-len(spectrum) // width) if len(spectrum) else 1
    if step == 1:
        return spectrum, 1
    padded = np.pad(spectrum, (0, -len(spectrum) % step), mode="edge")
    return padded.reshape(-1, step).max(axis=1), step


def thinned(ago: Floats, values: Floats, width: int) -> tuple[Floats, Floats]:
    """A trend of at most two points a pixel, lowest and highest of each column kept."""
    if len(values) <= 2 * width:
        return ago, values
    low, high = extremes(values, width)
    pairs = np.empty(2 * len(low), dtype=np.float32)
    pairs[0::2], pairs[1::2] = low, high
    edges = np.linspace(0, len(ago) - 1, len(pairs)).astype(int)
    return ago[edges], pairs


def extremes(values: Floats, width: int) -> tuple[Floats, Floats]:
    """Minimum and maximum of `width` runs of nearly equal length."""
    starts = np.linspace(0, len(values), width, endpoint=False).astype(int)
    return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)

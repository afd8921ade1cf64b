"""What server and sidecar say to each other: frames of a length and MessagePack, over a pair of sockets."""

import socket
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from boucle.serve.agreement import Agreement
from boucle.serve.oip.scored import Scored, Version

__all__ = ["Batch", "Frames", "Order", "Status", "batch_of", "frame"]


class Order(Struct, frozen=True):
    """What a sidecar is for; the first frame it gets."""

    models: str
    """Where they are, as `Shelf` takes it."""
    folder: str | None
    """Of the prediction log; None: none is kept."""
    keep: str
    shadow: bool


class _Noted(Struct, frozen=True, array_like=True):
    of: int
    """Place in the batch's versions."""
    id: str
    wire: str
    at: int
    seconds: float
    role: str
    rows: bytes
    scores: bytes


class Batch(Struct, frozen=True, array_like=True):
    """Answered requests."""

    versions: list[Version]
    noted: list[_Noted]

    def scored(self) -> list[Scored]:
        """As they were."""
        return [self._scored(one, self.versions[one.of]) for one in self.noted]

    def _scored(self, one: _Noted, of: Version) -> Scored:
        rows = np.frombuffer(one.rows, np.float32).reshape(-1, len(of.columns))
        scores = np.frombuffer(one.scores, np.float64).reshape(-1, len(of.gives))
        return Scored(of, one.id, one.wire, one.at, rows, scores, one.seconds, one.role)


class Status(Struct, frozen=True):
    """What a sidecar did since it began."""

    settled: int = 0
    """Rows it was given and is done with, whatever became of them."""
    stored: int = 0
    """Rows in the log, those of shadows among them."""
    failed: int = 0
    """Rows that could not be written."""
    compared: list[tuple[tuple[str, str, str, str], Agreement]] = []
    problem: tuple[str, str, str, str, str] | None = None
    """Why it did not begin: code, what, where, why and fix of an error."""


def batch_of(scored: list[Scored]) -> Batch:
    """Requests as they travel."""
    places: dict[Version, int] = {}
    noted = [
        _Noted(
            places.setdefault(one.of, len(places)), one.id, one.wire, one.at, one.seconds, one.role,
            np.ascontiguousarray(one.rows, np.float32).tobytes(), one.scores.tobytes(),
        )
        for one in scored
    ]  # fmt: skip
    return Batch(list(places), noted)


_encode = msgspec.msgpack.Encoder().encode


def frame(message: Any) -> bytes:
    """A message with its length before it."""
    body = _encode(message)
    return len(body).to_bytes(8, "big") + body


class Frames:
    """Bytes that come from a socket, as whole frames."""

    def __init__(self, kind: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._bytes = bytearray()

    def read(self, source: socket.socket) -> list[Any] | None:
        """Those that are whole after one look at the socket; None when the other side is gone. May block."""
        try:
            got = source.recv(1 << 20)
        except (BlockingIOError, TimeoutError):
            return []
        except OSError:
            return None
        if not got:
            return None
        self._bytes += got
        found = []
        while len(self._bytes) >= 8:
            size = int.from_bytes(self._bytes[:8], "big")
            if len(self._bytes) < 8 + size:
                break
            found.append(self._decode(bytes(self._bytes[8 : 8 + size])))
            del self._bytes[: 8 + size]
        return found

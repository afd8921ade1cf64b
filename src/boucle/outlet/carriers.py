"""How events leave: to a topic of a broker, into a log of files, or by HTTP to a webhook.

A carrier takes some events at once. When `send` returns, what it tells of and does not name as refused is durable at
the other end; when it raises `Unavailable`, nothing is known of any of them and they are sent again, with the same ids.
"""

import base64
import hashlib
import hmac
import http.client
import os
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pyarrow as pa

from boucle.address import adapter, parse_address
from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.errors import BoucleError, Unavailable
from boucle.ports import WIRE, Sink

__all__ = ["Busy", "Carrier", "LogCarrier", "SinkCarrier", "Told", "Webhook", "carrier", "secret_of"]

Told = tuple[str, bytes]
"""An event: its id, and its JSON."""

_LATER = {408, 425, 429, 502, 503, 504}
"""The receiver is away or busy: the event is not to blame."""
_LONGEST_WAIT = 3600.0


class Busy(Unavailable):
    """The receiver takes nothing now; `after`: how many seconds it asked to be left alone (0: it did not say)."""

    def __init__(self, where: str, why: str, after: float) -> None:
        super().__init__("B858", "the receiver of the events takes none now", where=where, why=why,
                         fix="nothing is lost: they wait and are sent again")  # fmt: skip
        self.after = after


class Carrier(Protocol):
    """Takes events away. `at_once`: how many it takes best."""

    at_once: int

    def open(self) -> None:
        """Get ready; returns at once."""
        ...

    def send(self, events: Sequence[Told]) -> list[str]:
        """For the first events, at least one: "" (it is there), or why the receiver will never take it.

        Raises `Unavailable` when it took none.
        """
        ...

    def close(self) -> None:
        """Give back what was taken. Safe to call twice."""
        ...


def carrier(to: str, topic: str, name: str, secret: str = "", attempts: int = 5) -> Carrier:
    """The carrier of an address. B204 for a scheme nobody serves."""
    scheme = urlsplit(to).scheme
    if scheme in {"http", "https"}:
        return Webhook(to, secret=secret, attempts=attempts)
    if scheme == "file":
        return LogCarrier(Path(to.removeprefix("file://")), topic)
    address = parse_address(to, "sink")
    return SinkCarrier(adapter(address, "sink")(address, client_id=name), topic or address.path)


class SinkCarrier:
    """A topic of a broker, through a sink of the bus."""

    at_once = 500

    def __init__(self, sink: Sink, topic: str) -> None:
        self._sink, self._topic = sink, topic

    def open(self) -> None:
        """Connect in the background."""
        self._sink.open()

    def send(self, events: Sequence[Told]) -> list[str]:
        """All of them, acknowledged by the broker."""
        self._sink.write(_messages(events, self._topic))
        self._sink.flush()
        return [""] * len(events)

    def close(self) -> None:
        """Disconnect; what was not acknowledged is sent again another time."""
        try:
            self._sink.close()
        except BoucleError:
            return  # nothing of it was counted as delivered


class LogCarrier:
    """A durable log in a folder (`boucle.bus.log`): any number of processes read it, `keep` is theirs to decide."""

    at_once = 5_000

    def __init__(self, folder: Path, topic: str) -> None:
        self._topic = topic
        self._log = EventLog(folder, stream=topic or folder.name)

    def open(self) -> None:
        """Take the folder for writing."""
        self._log.open()

    def send(self, events: Sequence[Told]) -> list[str]:
        """All of them, synced to the disk."""
        self._log.append(_messages(events, self._topic))
        self._log.flush()
        return [""] * len(events)

    def close(self) -> None:
        """Give back the folder."""
        self._log.close()


def _messages(events: Sequence[Told], topic: str) -> Block:
    now = time.time_ns()
    columns = [
        pa.array([topic] * len(events), pa.string()),
        pa.array([payload for _, payload in events], pa.binary()),
        pa.array([now] * len(events), WIRE.field("received").type),
        pa.array([False] * len(events)),
    ]
    return Block(topic, pa.record_batch(columns, schema=WIRE), 0, Position(topic, 0))


class Webhook:
    """One POST for each event (CloudEvents' HTTP binding, structured mode), signed when there is a secret.

    `Idempotency-Key` and `webhook-id` carry the event's id, which stays the same when it is sent again. The signature
    is that of Standard Webhooks. 2xx: taken. 408, 425, 429, 502-504 and no answer: the receiver is away, the event
    waits (`Retry-After` is kept). Any other 5xx is tried `attempts` times. Everything else is a refusal for good.
    """

    at_once = 20

    def __init__(self, url: str, *, secret: str = "", attempts: int = 5, timeout: float = 10.0) -> None:
        split = urlsplit(url)
        self._url, self._timeout, self._attempts = url, timeout, attempts
        self._secret = secret.encode()
        self._path = (split.path or "/") + (f"?{split.query}" if split.query else "")
        self._secure, self._host, self._port = split.scheme == "https", split.hostname or "", split.port
        self._client: http.client.HTTPConnection | None = None
        self._failed: dict[str, int] = {}

    def open(self) -> None:
        """Nothing to do before the first event."""

    def send(self, events: Sequence[Told]) -> list[str]:
        """One after the other, as far as somebody answers."""
        told: list[str] = []
        for name, payload in events:
            try:
                told.append(self._one(name, payload))
            except Busy:
                if not told:
                    raise
                break
        return told

    def _one(self, name: str, payload: bytes) -> str:
        status, reason, after = self._post(name, payload)
        if 200 <= status < 300:
            self._failed.pop(name, None)
            return ""
        said = f"the receiver answered {status} {reason}".strip()
        if status >= 500 or status in _LATER:
            tried = self._failed.get(name, 0) + (status not in _LATER)
            self._failed[name] = tried
            if tried < self._attempts:
                raise self._away(said, after)
            said += f", {tried} times"
        self._failed.pop(name, None)
        return said

    def _post(self, name: str, payload: bytes) -> tuple[int, str, float]:
        if self._client is None:
            self._client = self._connected()
        try:
            self._client.request("POST", self._path, payload, self._headers(name, payload))
            answer = self._client.getresponse()
            answer.read(65_536)
            if answer.length:  # a long answer nobody wants
                self.close()
            return answer.status, answer.reason, _seconds(answer.getheader("Retry-After", ""))
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._away(str(error) or type(error).__name__, 0.0) from error

    def _connected(self) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)

    def _headers(self, name: str, payload: bytes) -> dict[str, str]:
        told = {
            "Content-Type": "application/cloudevents+json",
            "Idempotency-Key": name,
            "webhook-id": name,
        }
        if self._secret:
            now = str(int(time.time()))
            signed = hmac.digest(self._secret, f"{name}.{now}.".encode() + payload, hashlib.sha256)
            told |= {"webhook-timestamp": now, "webhook-signature": f"v1,{base64.b64encode(signed).decode()}"}
        return told

    def _away(self, why: str, after: float) -> "Busy":
        return Busy(self._url, why, after)

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()
            self._client = None


def _seconds(text: str) -> float:
    """`Retry-After` in seconds; a date, and nonsense, is none."""
    return min(float(text), _LONGEST_WAIT) if text.isascii() and text.isdigit() else 0.0


def secret_of(name: str) -> str:
    """What the environment holds under a secret's name; B859 when it holds nothing."""
    if not name:
        return ""
    value = os.environ.get(name, "")
    if not value:
        raise BoucleError(
            "B859",
            f"the secret {name} of an output port is not there",
            why="no variable of the environment has this name",
            fix=f"export {name}=…",
        )
    return value

"""HTTP/1.1 for the protocol: one `asyncio.Protocol` per connection, in the event loop that scores.

A server library hands each request over, to a task or from a thread of its own; here that costs more than the score
(docs/why/model-server.md). Reading requests is llhttp's, by httptools; TLS and sockets are asyncio's. Source: RFC 9112.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any

from msgspec import Struct

from boucle.errors import MissingExtra
from boucle.serve.oip.answering import Answering
from boucle.serve.oip.refusal import Busy, Malformed, Refusal, TooLarge, TooLate
from boucle.serve.oip.rest import Reply, Rest

__all__ = ["Connections"]

log = logging.getLogger("boucle.serve.oip.http")

IDLE_S = 120.0
"""A connection on which nobody asks is closed."""
LINGERS_S = 2.0
"""How long what still comes is read and forgotten, after an answer that did not wait for the whole request: a socket
closed with unread bytes takes the answer back."""
_HEAD = 64 << 10
"""Bytes of a request line with its headers."""
_AHEAD = 16
"""Requests of one connection that wait for the answer of the one before."""
_LINES = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() for one in HTTPStatus}


class Connections:
    """Those of one server; makes the protocol object of each, and closes what takes too long."""

    def __init__(self, answering: Answering) -> None:
        try:
            import httptools
        except ModuleNotFoundError as error:
            raise MissingExtra("the model server", "httptools", "serving") from error
        self.parser, self.mistake = httptools.HttpRequestParser, httptools.HttpParserError
        self.upgrade = httptools.HttpParserUpgrade
        self.answering, self.rest = answering, Rest(answering)
        self.open: set[_Connection] = set()
        self.ending = False
        self._last = asyncio.Event()

    def __call__(self) -> asyncio.Protocol:
        """A new connection."""
        return _Connection(self)

    async def watch(self) -> None:
        """Look at all of them now and then: one timer for each request would cost a tenth of it."""
        while True:
            await asyncio.sleep(min(1.0, self.answering.limits.seconds / 4))
            now = time.perf_counter()
            for one in list(self.open):
                one.look(now)

    async def end(self, seconds: float) -> None:
        """Answer what was asked, take nothing more, and close."""
        self.ending = True
        for one in list(self.open):
            one.end()
        try:
            await asyncio.wait_for(self._last.wait(), seconds if self.open else 0)
        except TimeoutError:
            for one in list(self.open):
                log.warning("a request was not answered within %g s of the end", seconds)
                one.abort()

    def gone(self, one: "_Connection") -> None:
        """A connection is closed."""
        self.open.discard(one)
        if self.ending and not self.open:
            self._last.set()


class _Asked(Struct):
    """A request that arrived, or was refused while it did."""

    method: str
    path: str
    headers: dict[str, str]
    keep: bool
    begun: float
    body: bytes = b""
    refused: Refusal | None = None


class _Connection(asyncio.Protocol):
    """The callbacks `on_*` are httptools'."""

    def __init__(self, all_: Connections) -> None:
        self._all, self._answering = all_, all_.answering
        self._parser = all_.parser(self)
        self._ready: deque[_Asked] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None
        self._seen = time.perf_counter()
        """When something was last asked or answered."""
        self._begun = 0.0
        """When the request that is being read began; 0: none is."""
        self._entered = self._lingers = False
        self._head = self._size = 0
        self._parts: list[bytes] = []
        self._refused: Refusal | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._all.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._all.gone(self)
        self._leave()
        self._room.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        if self._head >= 0:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except (
            self._all.upgrade
        ) as told:  # it was answered as if nothing had been said, as RFC 9110 §7.8 allows
            self._parser = self._all.parser(self)
            if rest := data[told.args[0] :]:
                self.data_received(rest)
            return
        except self._all.mistake as error:
            self._refuse_now(Malformed("the bytes are no HTTP request", why=str(error)))
            return
        if self._head > _HEAD:
            self._refuse_now(Malformed(f"a request has headers of more than {_HEAD >> 10} KiB"))

    def on_message_begin(self) -> None:
        self._begun, self._url, self._headers = time.perf_counter(), b"", dict[str, str]()
        self._parts, self._size, self._refused = [], 0, None

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._head = -1  # what comes now is body, and has its own limit
        told, most = self._headers.get("content-length", "0"), self._answering.limits.body
        if told.isdigit() and int(told) > most:
            self._refuse_now(TooLarge(most))
            return
        try:
            self._answering.enter()
        except Busy as refused:  # said when the body is here, so that the connection can go on
            self._refused = refused
            return
        self._entered = True
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        if self._lingers:
            return
        self._size += len(part)
        if self._size > self._answering.limits.body:
            self._refuse_now(TooLarge(self._answering.limits.body))
        elif self._refused is None:
            self._parts.append(part)

    def on_message_complete(self) -> None:
        self._head = 0
        if self._lingers:
            return
        keep = self._parser.should_keep_alive()
        self._give(self._asked(keep=keep, body=b"".join(self._parts), refused=self._refused))
        if len(self._ready) > _AHEAD:
            self._transport.pause_reading()

    def _asked(self, *, keep: bool, body: bytes = b"", refused: Refusal | None = None) -> _Asked:
        path = self._url.partition(b"?")[0].decode("latin-1")
        method = self._parser.get_method().decode("latin-1")
        if path[:1] != "/":  # the absolute form, which a proxy sends
            path = "/" + path.partition("//")[2].partition("/")[2]
        return _Asked(method, path, self._headers, keep, self._begun, body, refused)

    def _give(self, asked: _Asked) -> None:
        """Answer it now when nothing is before it and nothing must be waited for."""
        self._begun, self._seen, self._entered = 0.0, asked.begun, False
        if self._task is None and not self._ready and self._room.is_set():
            reply = self._reply(asked)
            if isinstance(reply, Reply):
                self._leave_after(asked)
                self._send(asked, reply)
                return
            self._task = asyncio.get_running_loop().create_task(self._work(asked, reply))
            return
        self._ready.append(asked)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def _refuse_now(self, refused: Refusal) -> None:
        """Answer although the request is not here, and take no other on this connection."""
        if self._lingers:
            return
        self._lingers = True
        if not self._begun:  # not one byte of it could be understood
            self.on_message_begin()
        self._leave()
        self._parts = []
        self._give(_Asked("", "", {}, False, self._begun, refused=refused))

    def _leave(self) -> None:
        if self._entered:
            self._entered = False
            self._answering.leave()

    async def _work(self, asked: _Asked | None = None, reply: Reply | Awaitable[Reply] | None = None) -> None:
        """Answer what is here, in its order."""
        while asked is not None or self._ready:
            if asked is None or reply is None:
                await self._room.wait()
                asked = self._ready.popleft()
                reply = self._reply(asked)
            try:
                given = reply if isinstance(reply, Reply) else await reply
            finally:
                self._leave_after(asked)
            self._send(asked, given)
            asked = reply = None
            if len(self._ready) == _AHEAD:
                self._transport.resume_reading()
        self._task = None

    def _reply(self, asked: _Asked) -> Reply | Awaitable[Reply]:
        rest = self._all.rest
        if asked.refused is not None:
            return rest.refused(asked.refused)
        return rest.reply(asked.method, asked.path, asked.headers, asked.body, asked.begun)

    def _leave_after(self, asked: _Asked) -> None:
        if asked.refused is None:
            self._answering.leave()

    def _send(self, asked: _Asked, reply: Reply) -> None:
        if self._transport.is_closing():
            return  # who asked went away; it was scored and counted all the same
        keep = asked.keep and not self._all.ending
        self._transport.writelines(_written(reply, keep=keep, head=asked.method == "HEAD"))
        self._seen = time.perf_counter()
        if not keep:
            for one in self._ready:  # RFC 9112 §9.3.2: nothing behind the last one is answered
                self._leave_after(one)
            self._ready.clear()
            self._lingers = True
            pause = LINGERS_S if asked.refused else 0
            asyncio.get_running_loop().call_later(pause, self._transport.close)

    def look(self, now: float) -> None:
        """Give up a request whose bytes do not come, and a connection that is idle or does not read its answer."""
        seconds = self._answering.limits.seconds
        if self._begun and not self._lingers and self._task is None and now - self._begun > seconds:
            self._refuse_now(TooLate(seconds))
        elif now - self._seen > IDLE_S and (self._task is None or not self._room.is_set()):
            self._transport.abort()

    def end(self) -> None:
        """Close once nothing is being answered."""
        if self._task is None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()


def _written(reply: Reply, *, keep: bool, head: bool) -> list[bytes]:
    """The bytes of an answer."""
    lines = [f"{name}: {value}\r\n" for name, value in reply.headers]
    if not keep:
        lines.append("connection: close\r\n")
    first = _LINES[reply.status] + f"{''.join(lines)}content-length: {len(reply.body)}\r\n\r\n".encode(
        "latin-1"
    )
    return [first] if head else [first + reply.body] if len(reply.body) < 4096 else [first, reply.body]

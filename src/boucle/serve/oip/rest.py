"""The protocol over REST: paths, headers, compression. Nothing here knows the server that carries it."""

import json
import zlib
from collections.abc import Awaitable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from boucle import __version__
from boucle.serve.oip.answering import Answering
from boucle.serve.oip.refusal import Malformed, NoSuchThing, Refusal, TooLarge
from boucle.serve.oip.request import Answer, InferRequest
from boucle.serve.oip.rest_body import decode_request, encode_answer

__all__ = ["EXTENSIONS", "Reply", "Rest", "index"]

EXTENSIONS = ["binary_tensor_data", "model_repository"]
_JSON = ("content-type", "application/json")
_WORTH_PACKING = 1024
_GZIP = 16 + zlib.MAX_WBITS


class Reply(Struct, frozen=True):
    """Status, headers (content-length aside) and body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Refused(Refusal):
    """A method that a path does not have (B677)."""

    status, rpc = 405, "UNIMPLEMENTED"


class Rest:
    """Answers one HTTP request after the other, given its parts."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def reply(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, begun: float
    ) -> Reply | Awaitable[Reply]:
        """The answer, or the wait for it; `headers` by lower-case name, `begun` by perf_counter.

        What can be said at once is: a task for each request would cost a fifth of it.
        """
        if not (path.endswith("/infer") and method == "POST"):
            return self._guarded(self._other(method, path, headers))
        try:
            self._answering.check_allowed(headers.get("authorization", ""))
            name, version, verb = _model(path)
            if verb != "infer":
                return self._guarded(self._other(method, path, headers))
            request = self._request(headers, body)
            answer = self._answering.at_once(name, version, request, "rest", begun)
            if answer is not None:
                return _given(answer, request, headers)
        except Exception as error:  # noqa: BLE001 - the boundary of a request: the others go on
            return self.refused(error)
        return self._guarded(self._infer(name, version, request, headers, begun))

    async def _guarded(self, reply: Awaitable[Reply]) -> Reply:
        try:
            return await reply
        except Exception as error:  # noqa: BLE001 - the boundary of a request: the others go on
            return self.refused(error)

    def refused(self, error: Exception) -> Reply:
        """What is answered instead, counted."""
        told = self._answering.refusal(error, "rest")
        body = msgspec.json.encode({"error": str(told)})
        return Reply(told.status, [_JSON, *told.headers], body)

    def _request(self, headers: Mapping[str, str], body: bytes) -> InferRequest:
        packed = headers.get("content-encoding", "")
        if packed:
            body = _unpacked(body, packed, self._answering.limits.body)
        told = headers.get("inference-header-content-length")
        if told is not None and not (told.isascii() and told.isdigit() and len(told) < 12):
            raise Malformed("Inference-Header-Content-Length is a number")
        return decode_request(body, None if told is None else int(told))

    async def _infer(
        self, name: str, version: str, request: InferRequest, headers: Mapping[str, str], begun: float
    ) -> Reply:
        answer = await self._answering.answer(name, version, request, "rest", begun)
        return _given(answer, request, headers)

    async def _other(self, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        parts = path.strip("/").split("/")
        if parts[:2] == ["v2", "health"] and len(parts) == 3:  # probes carry no password
            return self._health(method, parts[2])
        self._answering.check_allowed(headers.get("authorization", ""))
        if parts == ["metrics"]:
            _only("GET", method, path)
            page = self._answering.counts.exposition(self._answering.shelf, self._answering.sidecar)
            return Reply(200, [("content-type", "text/plain; version=0.0.4; charset=utf-8")], page)
        if parts == ["v2"]:
            _only("GET", method, path)
            return _json({"name": "boucle", "version": __version__, "extensions": EXTENSIONS})
        if parts == ["v2", "models"]:
            _only("GET", method, path)
            return _json({"models": sorted(self._answering.shelf.offers())})
        if parts == ["v2", "repository", "index"]:
            _only("POST", method, path)
            return _json(index(self._answering))
        name, version, verb = _model(path)
        _only("POST" if verb == "infer" else "GET", method, path)
        if verb == "ready":
            ready = await is_ready(self._answering, name, version)
            return _json({"name": name, "ready": ready}, 200 if ready else 503)
        if verb:
            raise NoSuchThing(f"there is nothing at {path}", fix="ready or infer")
        served = await self._answering.served(name, version)
        return _json(served.metadata(self._answering.shelf.versions(name)))

    def _health(self, method: str, what: str) -> Reply:
        _only("GET", method, f"/v2/health/{what}")
        if what == "live":
            return _json({"live": True})
        if what == "ready":
            ready = all_ready(self._answering)
            return _json({"live": True, "ready": ready}, 200 if ready else 503)
        raise NoSuchThing(f"there is nothing at /v2/health/{what}", fix="live or ready")


def all_ready(answering: Answering) -> bool:
    """Whether every model that should answer can; one that nobody has made champion yet should not."""
    return not any(one.default is None and one.problem for one in answering.shelf.offers().values())


async def is_ready(answering: Answering, name: str, version: str) -> bool:
    """Whether a version can answer; Refusal when there is none such."""
    if not version:
        return answering.shelf.offer(name).default is not None
    await answering.served(name, version)
    return True


def index(answering: Answering) -> list[dict[str, str]]:
    """Every version that is loaded, and what could not be: the repository extension's index."""
    told = []
    for name, offer in sorted(answering.shelf.offers().items()):
        told += [
            {"name": name, "version": version, "state": "READY", "reason": ""} for version in offer.ready
        ]
        if offer.default is None:
            told.append({"name": name, "version": "", "state": "UNAVAILABLE", "reason": offer.problem})
    return told


def _given(answer: Answer, request: InferRequest, headers: Mapping[str, str]) -> Reply:
    """An answer as it goes over the wire."""
    given, json_size = encode_answer(answer, request)
    if json_size is None:
        out = [_JSON]
    else:
        out = [
            ("content-type", "application/octet-stream"),
            ("inference-header-content-length", str(json_size)),
        ]
    if "gzip" in headers.get("accept-encoding", "") and len(given) >= _WORTH_PACKING:
        out.append(("content-encoding", "gzip"))
        packer = zlib.compressobj(1, wbits=_GZIP)
        given = packer.compress(given) + packer.flush()
    return Reply(200, out, given)


@lru_cache(1024)
def _model(path: str) -> tuple[str, str, str]:
    """Name, version and verb of `/v2/models/NAME[/versions/VERSION][/VERB]`."""
    parts = [unquote(one) for one in path.strip("/").split("/")]
    if parts[:2] != ["v2", "models"] or len(parts) < 3:
        raise NoSuchThing(f"there is nothing at {path}", fix="/v2/models/NAME")
    name, rest = parts[2], parts[3:]
    version = ""
    if rest[:1] == ["versions"] and len(rest) > 1:
        version, rest = rest[1], rest[2:]
    if len(rest) > 1:
        raise NoSuchThing(f"there is nothing at {path}", fix="/v2/models/NAME/versions/VERSION/infer")
    return name, version, rest[0] if rest else ""


def _only(wanted: str, method: str, path: str) -> None:
    if method not in {wanted, "HEAD" if wanted == "GET" else wanted}:
        raise Refused("B677", f"{path} is no place for {method}", fix=f"use {wanted}")


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, [_JSON], json.dumps(value).encode())


def _unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """A compressed body as it was; never more than `most` bytes of it."""
    if encoding not in {"gzip", "deflate", "identity"}:
        raise Malformed(f"the body is packed by {encoding!r}", fix="gzip, deflate or nothing")
    if encoding == "identity":
        return body
    unpacker = zlib.decompressobj(_GZIP if encoding == "gzip" else zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise Malformed(f"the body is not {encoding}", why=str(error)) from None
    if len(plain) > most:
        raise TooLarge(most)
    if not unpacker.eof:
        raise Malformed(f"the body ends within its {encoding}")
    return plain

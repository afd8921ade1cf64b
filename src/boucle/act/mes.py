"""Job orders to an MES over HTTP, in the words of ISA-95 (part 4, B2MML V7). The only importer of httpx.

    POST <address>          201 or 200: taken · 409: it has this ID already · other 4xx: refused
    GET  <address>          every order
    GET  <address>/<ID>     one order, 404 when there is none

The order's ID comes from the Command's id, so an order sent twice exists once.
"""

import hashlib
import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from boucle.act.guard import Guard
from boucle.act.lane import IN_DOUBT
from boucle.address import Address
from boucle.clock import Clock, SystemClock
from boucle.errors import BoucleError, Unavailable
from boucle.event import Command, Outcome, Receipt

if TYPE_CHECKING:
    import httpx

__all__ = ["MesActuator", "order_id"]

_log = logging.getLogger("boucle.act.mes")
_LOOK_SOON, _LOOK_LATER = 0.5, 10.0
_LONGEST_ID = 128
_LATER = {408, 425, 429}
_LARGEST = 16 << 20
_FIX = "start the MES or check its address; orders are tried again until they expire"


def order_id(command_id: str) -> str:
    """The ID of a Command's order: its own id, or a fingerprint of one that is too long or not plain text."""
    if 0 < len(command_id) <= _LONGEST_ID and command_id.isascii() and command_id.isprintable():
        return command_id
    return hashlib.sha256(command_id.encode(errors="surrogatepass")).hexdigest()


class MesActuator:
    """Targets are `mes/<machine>/job_order`; a Command's value is the order without its ID.

    Proxies of the environment are not used: an MES stands in the plant.
    """

    idempotent = True

    def __init__(
        self,
        address: Address | str,
        *,
        guard: Guard | None = None,
        clock: Clock | None = None,
        timeout: float = 3.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        del guard  # what an MES can check, it checks itself
        text = address if isinstance(address, str) else address.text
        self._url = urlunsplit((*urlsplit(text)[:3], "", "")).rstrip("/")
        self._clock = clock or SystemClock()
        self._timeout = timeout
        self._headers = dict(headers or {})
        self._client: httpx.Client | None = None
        self._state = "not opened"
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    def open(self) -> None:
        """Get ready, and ask now and then whether the MES is there; returns at once."""
        if self._client is None:
            import httpx

            self._client = httpx.Client(timeout=self._timeout, headers=self._headers, trust_env=False)
            self._state = f"connecting to {self._url}"
            self._closing.clear()
            self._watcher = threading.Thread(target=self._watch, name="mes watcher", daemon=True)
            self._watcher.start()

    def _watch(self) -> None:
        # Orders are rare: without asking, an absent MES would be noticed only by the next one.
        pause = 0.0
        while not self._closing.wait(pause):
            before = self._state
            try:
                self._request("HEAD", self._url, None, None)
            except Unavailable as error:
                pause = _LOOK_SOON
                if before != self._state:
                    _log.warning("%s; trying again", error.why)
            else:
                pause = _LOOK_LATER

    def state(self) -> str:
        """`connected`, or why the last request failed."""
        return self._state

    def close(self) -> None:
        """Give back the connections. Safe to call twice."""
        client, watcher = self._client, self._watcher
        if client is not None and watcher is not None:
            self._closing.set()
            watcher.join()
            client.close()
            self._client = self._watcher = None
            self._state = "closed"

    def send(self, command: Command) -> Receipt:
        """Place the order; one that the MES has already is a `duplicate`, and just as delivered."""
        if not isinstance(command.value, Mapping):
            return self._receipt(command, Outcome.refused, "not_a_number", "an order is a mapping")
        order = {"ID": order_id(command.id), "Command": "Store", **_without_null(command.value)}
        order["ID"] = order_id(command.id)
        status, body = self._request("POST", self._url, command, msgspec.json.encode(order))
        if status == 0:
            return self._receipt(command, Outcome.failed, IN_DOUBT, str(body))
        if status in {200, 201, 202}:
            return self._receipt(command, Outcome.applied, "", "", body)
        if status == 409:
            why = f"the MES has order {order['ID']} already"
            return self._receipt(command, Outcome.duplicate, "duplicate", why, body)
        why = f"the MES answered {status}: {_problems(body)}"
        return self._receipt(command, Outcome.refused, "refused_by_mes", why)

    def read(self, target: str) -> Any:
        """The orders about what the target names, `press-2` in `mes/press-2/job_order`; oldest first."""
        subject = target.partition("/")[2].rpartition("/")[0] or target
        status, body = self._request("GET", self._url, None, None)
        if status != 200 or not isinstance(body, list):
            raise Unavailable(
                "B711", "the MES does not list its orders", where=self._url, why=f"status {status}"
            )
        orders = [order for order in body if isinstance(order, Mapping)]
        return [order for order in orders if _about(str(order.get("HierarchyScope", "")), subject)]

    def recover(self, command: Command) -> Receipt:
        """Applied when the MES has the order; else failed: it can be sent again."""
        url = f"{self._url}/{quote(order_id(command.id), safe='')}"
        status, body = self._request("GET", url, None, None)
        if status == 200:
            return self._receipt(command, Outcome.applied, "", "its answer was lost; the MES has it", body)
        if status == 404:
            return self._receipt(command, Outcome.failed, IN_DOUBT, "its answer was lost; the MES has it not")
        raise Unavailable(
            "B711", "the MES does not show the order", where=url, why=f"status {status}", fix=_FIX
        )

    def _request(
        self, verb: str, url: str, command: Command | None, content: bytes | None
    ) -> tuple[int, Any]:
        """Status and body; status 0 and why, when a command was sent and no answer came."""
        import httpx

        if self._client is None:
            raise Unavailable("B711", "the MES connection is not open", where=self._url, fix="open it first")
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            answer = self._client.request(verb, url, content=content, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise self._gone(str(error) or type(error).__name__) from error
        except httpx.HTTPError as error:
            gone = self._gone(str(error) or type(error).__name__)
            if command is None:
                raise gone from error
            return 0, f"the order was sent and no answer came: {gone.why}"
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise BoucleError("B204", f"{url!r} is no address", why=str(error)) from error
        if answer.status_code >= 500 or answer.status_code in _LATER:
            raise self._gone(f"status {answer.status_code}")
        self._state = "connected"
        return answer.status_code, _json(answer.content)

    def _gone(self, why: str) -> Unavailable:
        self._state = f"no answer from {self._url}: {why}"
        return Unavailable("B711", "the MES does not answer", where=self._url, why=why, fix=_FIX)

    def _receipt(
        self, command: Command, outcome: Outcome, code: str, why: str, read_back: Any = None
    ) -> Receipt:
        now = self._clock.now()
        return Receipt(command.id, command.target, outcome, now, why, code, read_back=read_back)


def _about(scope: str, subject: str) -> bool:
    return scope == subject or scope.startswith(f"{subject}/")


def _without_null(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(name): _without_null(item) if isinstance(item, Mapping) else item
        for name, item in value.items()
        if item is not None
    }


def _json(content: bytes) -> Any:
    if len(content) > _LARGEST:
        return None
    try:
        return msgspec.json.decode(content) if content else None
    except (ValueError, RecursionError):
        return content[:200].decode(errors="replace")


def _problems(body: Any) -> str:
    if isinstance(body, Mapping) and isinstance(body.get("problems"), list):
        told = [p for p in body["problems"] if isinstance(p, Mapping)]
        return "; ".join(f"{p.get('field', '')}: {p.get('why', '')}" for p in told)[:300]
    return str(body)[:300]

"""A small MES over HTTP: `boucle.testing.mes` served on this machine, with a page for people.

POST /job-orders         201 stored · 409 the ID is taken (the body is the stored order)
                         422 {"problems": [{"field", "why"}, …]} · 413 larger than 64 kB
GET  /job-orders         every order, oldest first
GET  /job-orders/{id}    one order, or 404
GET  /                   the orders as a page, in English or French
"""

import html
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any, Self

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from boucle.errors import Unavailable
from boucle.testing.mes import Mistake, OrderBook, problems_of

__all__ = ["MesServer", "application"]

_LARGEST = 65_536
_COLUMNS = ("ID", "WorkType", "HierarchyScope", "Description", "Priority", "State", "TimeStamp")
_WORDS: dict[str, dict[str, str]] = {
    "en": {"title": "Job orders", "none": "No job order yet.", "Maintenance": "Maintenance",
           "Calibration": "Calibration", "ID": "Order", "WorkType": "Work", "HierarchyScope": "About",
           "Description": "Description", "Priority": "Priority", "State": "State", "TimeStamp": "Received",
           "Released": "Released", "Running": "Running", "Completed": "Completed", "Aborted": "Aborted",
           "Closed": "Closed"},
    "fr": {"title": "Ordres de travail", "none": "Aucun ordre de travail pour l’instant.",
           "Maintenance": "Maintenance", "Calibration": "Étalonnage", "ID": "Ordre", "WorkType": "Travail",
           "HierarchyScope": "Objet", "Description": "Description", "Priority": "Priorité", "State": "État",
           "TimeStamp": "Reçu", "Released": "Lancé", "Running": "En cours", "Completed": "Terminé",
           "Aborted": "Abandonné", "Closed": "Clos"},
}  # fmt: skip
_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2rem;color:#222;background:#f4f4f4}"
    "table{border-collapse:collapse;background:#fff}td,th{border:1px solid #ccc;padding:.4rem .7rem;"
    "text-align:left}th{background:#e8e8e8}"
)


def application(book: OrderBook) -> Starlette:
    """The ASGI application over an order book."""

    async def create(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST:
                return _wrong(413, [Mistake("", "an order is at most 64 kB")])
        try:
            order = msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            return _wrong(422, [Mistake("", f"this is not JSON: {error}")])
        wrong = problems_of(order) if isinstance(order, dict) else [Mistake("", "an object is needed")]
        if wrong:
            return _wrong(422, wrong)
        stored, fresh = book.store(order)
        return JSONResponse(
            _shown(stored), 201 if fresh else 409, headers={"Location": f"/job-orders/{stored['ID']}"}
        )

    async def listing(request: Request) -> Response:
        del request
        return JSONResponse([_shown(order) for order in book.all()])

    async def one(request: Request) -> Response:
        order = book.get(request.path_params["identity"])
        if order is None:
            return _wrong(404, [Mistake("ID", "there is no such order")])
        return JSONResponse(_shown(order))

    async def page(request: Request) -> Response:
        language = _language(request.headers.get("accept-language", ""))
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return HTMLResponse(_page(book, language), headers=headers)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/job-orders", create, methods=["POST"]),
            Route("/job-orders", listing, methods=["GET"]),
            Route("/job-orders/{identity:path}", one),
        ]
    )


def _wrong(status: int, mistakes: list[Mistake]) -> Response:
    return JSONResponse({"problems": msgspec.to_builtins(mistakes)}, status)


def _shown(order: dict[str, Any]) -> dict[str, Any]:
    moment = datetime.fromtimestamp(order["TimeStamp"] // 1_000_000_000, UTC)
    return {**order, "TimeStamp": moment.isoformat().replace("+00:00", "Z")}


def _language(accepted: str) -> str:
    """The first of the browser's languages that is spoken here."""
    for part in accepted.split(","):
        wanted = part.split(";")[0].strip().lower()[:2]
        if wanted in _WORDS:
            return wanted
    return "en"


def _page(book: OrderBook, language: str) -> str:
    words = _WORDS[language]
    head = "".join(f"<th scope=col>{words[column]}</th>" for column in _COLUMNS)
    rows = ""
    for order in reversed(book.all()):
        shown = {**_shown(order), "WorkType": words[order["WorkType"]], "State": words[order["State"]]}
        cells = (html.escape(str(shown.get(column, "–"))) for column in _COLUMNS)
        rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return (
        f'<!doctype html><html lang="{language}"><meta charset="utf-8"><title>{words["title"]}</title>'
        f"<style>{_STYLE}</style><h1>{words['title']}</h1>{table if rows else '<p>' + words['none'] + '</p>'}"
        "</html>"
    )


class MesServer:
    """Serves an order book over HTTP in a thread of its own; stop and start again keep port and orders."""

    def __init__(self, book: OrderBook | None = None, port: int = 0) -> None:
        self.book = book or OrderBook()
        self.port = port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """host:port, as `{mes}` of a boucle.toml wants it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where a browser looks."""
        return f"http://{self.address}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve; returns once clients can connect. Unavailable when the port is taken."""
        if self._thread is not None:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self.port))
        except OSError as error:
            listener.close()
            raise Unavailable(
                "B131",
                f"the MES cannot listen on port {self.port}",
                why=str(error),
                fix="choose another port",
            ) from error
        self.port = int(listener.getsockname()[1])
        config = uvicorn.Config(
            application(self.book),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="mes", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)

    def stop(self) -> None:
        """Close the port. Safe to call twice."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        self._server = self._thread = None

"""The web application of a running loop: every view a URL, drawn on the server, refreshed in place.

/  /machines/{id}  /events  /commands  /path      views (HTML; with HX-Request only their body)
/automatic                                        stop or allow automatic action, with a confirmation
/live  /live/{machine}                            binary WebSocket, see `boucle.web.frame`
/api/view  /metrics  /healthz                     for machines
/trace.json  /trace.jsonl                         where the time of the last sampled Blocks went (OTLP/JSON)
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from boucle.errors import BoucleError
from boucle.loop.view import Observable
from boucle.web import panel
from boucle.web.flow import flow
from boucle.web.guard import HEADERS, LOOPBACK, Guard
from boucle.web.live import LiveFeed
from boucle.web.speech import LANGUAGES, Speech, preferred

__all__ = ["create_app"]

HERE = Path(__file__).parent
STAMP = HERE / "static" / "vendor" / "stamp.json"
COOKIE = "boucle_language"
COOKIE_AGE_S = 365 * 86_400
LISTED = 8
LONGEST_NAME = 80
FAULTS = {400: "error.bad_request", 403: "error.forbidden", 404: "error.not_found", 503: "error.unavailable"}


def create_app(
    loop: Observable, *, language: str | None = None, hosts: Sequence[str] = LOOPBACK
) -> Starlette:
    """The page of `loop`.

    `language` (`en` or `fr`) is what a reader gets who has not chosen with the switch; None follows
    the browser. `hosts` are the names the page may be called by besides this machine's own; `*`
    allows any, for a page behind a proxy that checks.
    """
    pages, feed = Pages(loop, language), LiveFeed(loop)
    return Starlette(
        routes=[
            Route("/", pages.line),
            Route("/machines/{machine}", pages.machine),
            Route("/events", pages.events),
            Route("/commands", pages.commands),
            Route("/path", pages.path),
            Route("/automatic", pages.confirm),
            Route("/automatic", pages.automatic, methods=["POST"]),
            Route("/api/view", pages.api_view),
            Route("/metrics", pages.metrics),
            Route("/trace.json", pages.trace),
            Route("/trace.jsonl", pages.trace_lines),
            Route("/healthz", pages.healthz),
            WebSocketRoute("/live", feed.serve),
            WebSocketRoute("/live/{machine}", feed.serve),
            Mount("/static", StaticFiles(directory=HERE / "static", check_dir=False)),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={
            HTTPException: pages.refused,
            BoucleError: pages.failed,
            Exception: pages.broken,
        },
    )


class Pages:
    """The views. Each takes one frozen picture of the loop and draws it."""

    def __init__(self, loop: Observable, language: str | None) -> None:
        self.loop, self.language = loop, language
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals["panel"] = panel
        self._assets = STAMP.is_file()

    def line(self, request: Request) -> Response:
        """The overview."""
        view = self.loop.view()
        return self.draw(request, "line.html", view=view, live="/live", listed=LISTED, **rows_of(view))

    def machine(self, request: Request) -> Response:
        """One machine."""
        view = self.loop.view()
        name = request.path_params["machine"]
        shown = next((one for one in view.machines if one.id == name), None)
        if shown is None:
            return self.draw(request, "unknown.html", status=404, view=view, live="", missing=name)
        rows = rows_of(view)
        mine: dict[str, Any] = {key: panel.commands_of(rows[key], name) for key in ("writes", "orders")}
        events = panel.events_of(view, name)
        return self.draw(
            request,
            "machine.html",
            view=view,
            live=f"/live/{name}",
            shown=shown,
            events=events,
            proof=panel.proof_of(events),
            listed=LISTED,
            **mine,
        )

    def events(self, request: Request) -> Response:
        """Every event the loop still holds, by severity and subject."""
        view = self.loop.view()
        severity = request.query_params.get("severity", "")
        subject = request.query_params.get("subject", "")
        events = panel.events_of(view, subject, severity)
        chosen = {"severity": severity, "subject": subject}
        return self.draw(request, "events.html", view=view, live="", events=events, chosen=chosen)

    def commands(self, request: Request) -> Response:
        """Every command the loop still holds, with what became of it."""
        view = self.loop.view()
        return self.draw(request, "commands.html", view=view, live="", **rows_of(view))

    def path(self, request: Request) -> Response:
        """The path of a reading, with rates and latencies, and where every reading went."""
        view = self.loop.view()
        return self.draw(request, "path.html", view=view, live="", diagram=flow(view))

    def confirm(self, request: Request) -> Response:
        """Ask before stopping or allowing automatic action."""
        return self.draw(request, "automatic.html", view=self.loop.view(), live="", fault="")

    async def automatic(self, request: Request) -> Response:
        """Stop or allow automatic action: `allowed` is true or false, `confirm` is yes."""
        form = await request.form()
        allowed = {"true": True, "false": False}.get(str(form.get("allowed", "")))
        if allowed is None or form.get("confirm") != "yes":
            speech = self.speech(request)
            fault = speech("mode.unconfirmed")
            return self.draw(
                request, "automatic.html", status=400, view=self.loop.view(), live="", fault=fault
            )
        host = request.client.host if request.client else "?"
        name = " ".join(str(form.get("by", "")).split())[:LONGEST_NAME]
        by = f"{name} ({host})" if name else f"page ({host})"
        await run_in_threadpool(self.loop.set_automatic, allowed, by)
        return RedirectResponse("/", 303)

    def api_view(self, _: Request) -> Response:
        """The whole picture as JSON."""
        return Response(msgspec.json.encode(self.loop.view()), media_type="application/json")

    def metrics(self, _: Request) -> Response:
        """For Prometheus."""
        return Response(self.loop.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def trace(self, _: Request) -> Response:
        """The last traces as one OTLP/JSON document."""
        whole = [one for told in self.loop.traces() for one in told["resourceSpans"]]
        return Response(msgspec.json.encode({"resourceSpans": whole}), media_type="application/json")

    def trace_lines(self, _: Request) -> Response:
        """The last traces, one a line, as a collector's file exporter writes them."""
        lines = b"".join(msgspec.json.encode(told) + b"\n" for told in self.loop.traces())
        return Response(lines, media_type="application/x-ndjson")

    def healthz(self, _: Request) -> Response:
        """`ok`, or `degraded` with what is not well; 200 as long as the loop answers."""
        view = self.loop.view()
        states = {one.id: one.state for one in view.sources} | {one.id: one.state for one in view.actuators}
        states |= {one.id: "shedding" for one in view.sources if one.shedding}
        ill = {name: state for name, state in states.items() if not panel.is_well(state)}
        body = {
            "status": "degraded" if ill or not view.accounting.balanced() else "ok",
            "not_well": ill,
            "balanced": view.accounting.balanced(),
            "automatic": view.automatic,
        }
        return JSONResponse(body)

    def speech(self, request: Request) -> Speech:
        """The reader's language: `?lang=`, the switch's cookie, the owner's choice, the browser's."""
        asked = request.query_params.get("lang", "")
        kept = request.cookies.get(COOKIE, "")
        for language in (asked, kept, self.language):
            if language in LANGUAGES:
                return Speech(language)
        return Speech(preferred(request.headers.get("accept-language", "")) or LANGUAGES[0])

    def draw(self, request: Request, template: str, *, status: int = 200, **shown: Any) -> Response:
        """A view in the reader's language; only its body when htmx asks, to be put in place."""
        speech = self.speech(request)
        body = self._templates.get_template(template).render(
            t=speech,
            here=request.url.path,
            switch=partial(in_language, request),
            refresh=str(request.url.include_query_params(lang=speech.language).replace(scheme="", netloc="")),
            part="hx-request" in request.headers,
            assets=self._assets,
            **shown,
        )
        response = HTMLResponse(body, status, {"vary": "HX-Request, Accept-Language, Cookie"})
        if request.query_params.get("lang") in LANGUAGES and "hx-request" not in request.headers:
            response.set_cookie(COOKIE, speech.language, COOKIE_AGE_S, samesite="strict", httponly=True)
        return response

    def fault(self, request: Request, status: int, detail: str, fix: str) -> Response:
        """A page that says what went wrong; plain and without the loop's picture, which may be the cause."""
        speech = self.speech(request)
        title = speech(FAULTS.get(status, "error.broken"))
        return self.draw(request, "fault.html", status=status, live="", title=title, detail=detail, fix=fix)

    def refused(self, request: Request, error: Exception) -> Response:
        """404 and its kin."""
        status = error.status_code if isinstance(error, HTTPException) else 400
        speech = self.speech(request)
        fix = speech("error.not_found_fix") if status == 404 else ""
        detail = request.url.path if status == 404 else getattr(error, "detail", "")
        return self.fault(request, status, detail, fix)

    def failed(self, request: Request, error: Exception) -> Response:
        """The loop could not answer."""
        fix = error.fix if isinstance(error, BoucleError) else ""
        return self.fault(request, 503, str(error).partition(" Fix: ")[0], fix)

    def broken(self, request: Request, _: Exception) -> Response:
        """A mistake of ours: the server logs the trace, the reader is told that the loop goes on."""
        response = self.fault(request, 500, "B801", self.speech(request)("error.broken_fix"))
        response.headers.update(HEADERS)  # drawn outside the Guard, which sets them elsewhere
        return response


def rows_of(view: Any) -> dict[str, Any]:
    """Events, machine commands and work orders, newest first."""
    return {
        "events": panel.events_of(view),
        "writes": panel.entries(view, orders=False),
        "orders": panel.entries(view, orders=True),
    }


def in_language(request: Request, language: str) -> str:
    """This same view in another language, as a relative address."""
    return str(request.url.include_query_params(lang=language).replace(scheme="", netloc=""))

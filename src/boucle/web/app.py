"""The web application of a running loop: every view a URL, drawn on the server, refreshed in place.

/  /machines/{id}  /events  /commands  /path  /models  /slo  views (HTML; with HX-Request only their body)
/automatic                                        stop or allow automatic action, with a confirmation
/live  /live/{machine}                            binary WebSocket, see `boucle.web.frame`
/api/view  /metrics  /healthz                     for machines
/catalogue…  /lineage                             the products, where there is a catalogue of them
/trace.json  /trace.jsonl                         where the time of the last sampled Blocks went (OTLP/JSON)
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from boucle.errors import BoucleError
from boucle.loop.view import Observable
from boucle.web import panel
from boucle.web.catalog import CataloguePages
from boucle.web.drawn import HERE, Drawn
from boucle.web.flow import flow
from boucle.web.guard import LOOPBACK, Guard
from boucle.web.live import LiveFeed
from boucle.web.models import events_of_models, panels_of
from boucle.web.slo import COURSE_HEIGHT, COURSE_WIDTH, events_of_objectives, rows_of_objectives

__all__ = ["create_app"]

LISTED = 8
LONGEST_NAME = 80


def create_app(
    loop: Observable,
    *,
    language: str | None = None,
    hosts: Sequence[str] = LOOPBACK,
    catalogue: CataloguePages | None = None,
) -> Starlette:
    """The page of `loop`.

    `language` (`en` or `fr`) is what a reader gets who has not chosen with the switch; None follows
    the browser. `hosts` are the names the page may be called by besides this machine's own; `*`
    allows any, for a page behind a proxy that checks. `catalogue` are the pages of the products.
    """
    pages, feed = Pages(loop, language, catalogue is not None), LiveFeed(loop)
    return Starlette(
        routes=[
            Route("/", pages.line),
            Route("/machines/{machine}", pages.machine),
            Route("/events", pages.events),
            Route("/commands", pages.commands),
            Route("/path", pages.path),
            Route("/models", pages.models),
            Route("/slo", pages.slo),
            Route("/automatic", pages.confirm),
            Route("/automatic", pages.automatic, methods=["POST"]),
            Route("/api/view", pages.api_view),
            Route("/metrics", pages.metrics),
            Route("/trace.json", pages.trace),
            Route("/trace.jsonl", pages.trace_lines),
            Route("/healthz", pages.healthz),
            *(catalogue.routes() if catalogue is not None else ()),
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


class Pages(Drawn):
    """The views. Each takes one frozen picture of the loop and draws it."""

    def __init__(self, loop: Observable, language: str | None, catalogue: bool = False) -> None:
        super().__init__(language, panel=panel, catalogue=catalogue)
        self.loop = loop

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

    def models(self, request: Request) -> Response:
        """The models that score: who, how fast, how well, on what evidence."""
        view = self.loop.view()
        panels = panels_of(view, self.speech(request))
        told = events_of_models(panel.events_of(view))
        return self.draw(request, "models.html", view=view, live="", panels=panels, events=told)

    def slo(self, request: Request) -> Response:
        """What is promised of the service, and how it stands."""
        view = self.loop.view()
        told = events_of_objectives(panel.events_of(view))
        rows = rows_of_objectives(view.objectives, self.speech(request))
        size = {"width": COURSE_WIDTH, "height": COURSE_HEIGHT}
        return self.draw(request, "slo.html", view=view, live="", rows=rows, events=told, **size)

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


def rows_of(view: Any) -> dict[str, Any]:
    """Events, machine commands and work orders, newest first."""
    return {
        "events": panel.events_of(view),
        "writes": panel.entries(view, orders=False),
        "orders": panel.entries(view, orders=True),
    }

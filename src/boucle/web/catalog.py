"""The pages of the catalogue: search, products, their tables, and lineage; with a loop's page or on their own.

/catalogue                        search, filters, all products
/catalogue/{product}              what is promised, how it is kept, where it comes from, how to read it
/catalogue/{product}/{table}      columns, sample (personal columns masked), snippets
/lineage?of=…&question=impact     what breaks, or where it comes from, as a picture and in words
/api/catalogue  /api/lineage      the same answers as JSON
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from boucle.catalog.drawing import draw, draw_things
from boucle.catalog.entry import Entry
from boucle.catalog.graph import CARRIES, Node
from boucle.catalog.index import Index
from boucle.catalog.mask import personal_columns
from boucle.catalog.questions import Answer, ask, find_node
from boucle.catalog.search import Found, read_query, search
from boucle.catalog.snippets import snippets
from boucle.catalog.things import Thing
from boucle.catalog.usage import Usage
from boucle.errors import BoucleError
from boucle.loop.columns import trace_product
from boucle.loop.outcomes import read_outcomes
from boucle.loop.outputs import states_of
from boucle.loop.showcase import Held, Sample, find_run, held_by, refused_by, sample_of
from boucle.loop.slo import views_of
from boucle.loop.view import ObjectiveView
from boucle.outlet.ports import OutputPort, output_ports
from boucle.product.lines import read_documents
from boucle.quality.slo.history import read_past
from boucle.web.drawn import HERE, Drawn
from boucle.web.guard import LOOPBACK, Guard
from boucle.web.rules import rows_of_ports, rows_of_rules
from boucle.web.slo import rows_of_objectives

__all__ = ["CataloguePages", "create_catalogue"]

_log = logging.getLogger("boucle.web.catalog")

_EVERY_S = 5.0
"""Between two looks at the products' files, while somebody reads the pages."""
_LISTED, _HITS, _REACHED = 60, 60, 400
_FILTERS = ("domain", "owner", "status", "class", "kind", "tag", "pii")
_KINDS = ("product", "table", "topic", "column", "model", "rule", "command")


class CataloguePages(Drawn):
    """The views over one index. `runs` are folders of runs, or folders above them.

    `unmasked` shows personal columns in samples: only where everybody who can open the page may see them.
    """

    def __init__(
        self,
        index: Index,
        *,
        language: str | None = None,
        runs: Sequence[Path] = (),
        unmasked: bool = False,
        home: str = "/catalogue",
    ) -> None:
        super().__init__(language, catalogue=True)
        self._index, self._runs, self._unmasked, self._home = index, tuple(runs), unmasked, home
        self._looking = threading.Lock()
        self._looked = time.monotonic()

    def routes(self) -> list[BaseRoute]:
        """Where the pages are."""
        return [
            Route("/catalogue", self.catalogue),
            Route("/catalogue/{product:path}/{table}", self.table),
            Route("/catalogue/{product}", self.product),
            Route("/lineage", self.lineage),
            Route("/api/catalogue", self.api_catalogue),
            Route("/api/lineage", self.api_lineage),
        ]

    # ── views ─────────────────────────────────────────────────────────────────────────────────

    def catalogue(self, request: Request) -> Response:
        """Search, or without a word all products."""
        self._renew()
        found, fault = self._found(request)
        entries = self._index.products()
        chosen = {name: request.query_params.get(name, "") for name in ("q", *_FILTERS)}
        page = _whole(request.query_params.get("page", ""))
        return self.draw(
            request,
            "catalogue.html",
            found=found,
            fault=fault,
            chosen=chosen,
            groups=_grouped(found.hits) if found else [],
            entries=entries[page * _LISTED : (page + 1) * _LISTED],
            page=page,
            pages=-(-len(entries) // _LISTED),
            broken=[one for one in entries if one.broken],
            options=_options(entries),
            kinds=_KINDS,
            counts=self._index.counts(),
        )

    def product(self, request: Request) -> Response:
        """One product."""
        self._renew()
        entry = self._entry(request.path_params["product"])
        things = self._index.things(entry.id)
        run = find_run(entry, self._index.root, self._runs)
        held = held_by(run) if run else {}
        tables = [thing for thing in things if thing.kind == "table"]
        links = self._index.links(entry.id)
        titles = {thing.node: thing.title for thing in things if thing.kind == "topic"}
        first = next((one for one in tables if one.title == "gold"), tables[-1] if tables else None)
        return self.draw(
            request,
            "catalogue_product.html",
            entry=entry,
            tables=tables,
            topics=[thing for thing in things if thing.kind == "topic"],
            held=held,
            run=run,
            refused=refused_by(run) if run else [],
            rules=rows_of_rules(read_outcomes(run) if run else [], self.speech(request)),
            ports=rows_of_ports(
                _ports(self._index.root / entry.file), states_of(run) if run else {}, self.speech(request)
            ),
            objectives=rows_of_objectives(_objectives(run), self.speech(request)),
            drawing=draw_things(entry.name, links, alone=False, titles=titles, kinds=self._words(request)),
            suppliers=self._index.suppliers(entry.id),
            consumers=self._index.consumers(entry.id),
            problems=self._index.problems(entry.id),
            snippets=snippets(entry, first.name, _zone(first, held), run) if first else [],
            changes=_changes(self._index.root / Path(entry.file).parent),
            used=_used(run, entry.id),
        )

    def table(self, request: Request) -> Response:
        """One table of a product."""
        self._renew()
        product, name = request.path_params["product"], request.path_params["table"]
        if self._index.product(f"{product}/{name}") is not None:  # an id may have a slash in it
            request.path_params["product"] = f"{product}/{name}"
            return self.product(request)
        entry = self._entry(product)
        found = [one for one in self._index.things(entry.id) if one.kind in ("table", "topic")]
        thing = next((one for one in found if one.kind == "table" and one.name == name), None)
        thing = thing or next((one for one in found if one.title == name), None)
        if thing is None:
            raise HTTPException(404)
        run = find_run(entry, self._index.root, self._runs)
        held = held_by(run).get(thing.name) if run and thing.kind == "table" else None
        hidden = personal_columns(self._index, thing.node, list(thing.fields))
        sample, unread = self._sample(run, held, thing, hidden)
        return self.draw(
            request,
            "catalogue_table.html",
            entry=entry,
            thing=thing,
            held=held,
            promised=next((one for one in entry.tables if one.name in (thing.name, thing.title)), None),
            hidden=hidden,
            sample=sample,
            unread=unread,
            run=run,
            snippets=snippets(entry, thing.name, held.zone if held else thing.title, run)
            if thing.kind == "table"
            else [],
            used=_used(run, entry.id, thing.name),
        )

    def lineage(self, request: Request) -> Response:
        """What breaks without a column, or where it comes from."""
        self._renew()
        of = request.query_params.get("of", "")
        question = request.query_params.get("question", "impact")
        question = question if question in ("impact", "origin") else "impact"
        answer, fault = None, ""
        if of:
            try:
                answer = self._answer(of, question)
            except BoucleError as error:
                fault = f"{error.what}. {error.fix}"
        return self.draw(
            request,
            "lineage.html",
            status=404 if fault else 200,
            of=of,
            question=question,
            answer=answer,
            fault=fault,
            drawing=self._drawing(request, answer) if answer else "",
            things=_things(answer) if answer else [],
            origins=_origins(answer) if answer and question == "origin" else [],
        )

    def api_catalogue(self, request: Request) -> Response:
        """The hits of a search as JSON."""
        self._renew()
        found, fault = self._found(request)
        if fault:
            return _json({"error": {"code": fault.code, "what": fault.what, "fix": fault.fix}}, 400)
        return _json(found or Found(()))

    def api_lineage(self, request: Request) -> Response:
        """An answer of lineage as JSON."""
        self._renew()
        question = request.query_params.get("question", "impact")
        try:
            answer = self._answer(request.query_params.get("of", ""), question)
        except BoucleError as error:
            return _json({"error": {"code": error.code, "what": error.what, "fix": error.fix}}, 404)
        return _json({"asked": answer.asked, "question": question, "reached": answer.reached})

    def fault(self, request: Request, status: int, detail: str, fix: str) -> Response:
        """What went wrong, with a way back to the catalogue."""
        speech = self.speech(request)
        title = speech("catalogue.no_such" if status == 404 else "error.broken")
        return self.draw(request, "catalogue_fault.html", status=status, title=title, detail=detail, fix=fix)

    def root(self, _: Request) -> Response:
        """To the catalogue, where it is served on its own."""
        return RedirectResponse(self._home, 307)

    # ── what they show ────────────────────────────────────────────────────────────────────────

    def _renew(self) -> None:
        """Look at the files from time to time, beside the request: it is answered from what is known."""
        if time.monotonic() - self._looked < _EVERY_S or not self._looking.acquire(blocking=False):
            return
        self._looked = time.monotonic()
        threading.Thread(target=self._look, name="boucle-catalogue", daemon=True).start()

    def _look(self) -> None:
        try:
            self._index.refresh(trace_product)
        except BoucleError as error:
            _log.warning("%s", error)
        finally:
            self._looked = time.monotonic()
            self._looking.release()

    def _found(self, request: Request) -> tuple[Found | None, BoucleError | None]:
        filters = [(name, value) for name in _FILTERS if (value := request.query_params.get(name, ""))]
        query = request.query_params.get("q", "")
        if not query.strip() and not filters:
            return None, None
        try:
            return search(self._index, read_query(query, filters), _HITS), None
        except BoucleError as error:
            return None, error

    def _entry(self, name: str) -> Entry:
        entry = self._index.product(name)
        if entry is None:
            raise HTTPException(404)
        return entry

    def _answer(self, of: str, question: str) -> Answer:
        node = find_node(self._index, of)
        return ask(self._index, node, "origin" if question == "origin" else "impact")

    def _words(self, request: Request) -> dict[str, str]:
        """What kinds of things are called in the reader's language."""
        speech = self.speech(request)
        return {kind: speech(f"kind.{kind}") for kind in (*_KINDS, "event", "input", "stream")}

    def _drawing(self, request: Request, answer: Answer) -> str:
        links = f"/lineage?question={answer.direction}&of={{node}}"
        return draw(answer, alone=False, kinds=self._words(request), links=links)

    def _sample(
        self, run: Path | None, held: Held | None, thing: Thing, hidden: dict[str, str]
    ) -> tuple[Sample | None, str]:
        if run is None or held is None:
            return None, ""
        try:
            return sample_of(
                run, held, {} if self._unmasked else hidden, [field.name for field in thing.fields]
            ), ""
        except BoucleError as error:
            return None, f"{error.what}: {error.why}"


def create_catalogue(
    index: Index,
    *,
    language: str | None = None,
    hosts: Sequence[str] = LOOPBACK,
    runs: Sequence[Path] = (),
    unmasked: bool = False,
) -> Starlette:
    """The catalogue as a web application of its own, without a loop."""
    pages = CataloguePages(index, language=language, runs=runs, unmasked=unmasked)
    return Starlette(
        routes=[
            Route("/", pages.root),
            *pages.routes(),
            Mount("/static", StaticFiles(directory=HERE / "static", check_dir=False)),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={HTTPException: pages.refused, BoucleError: pages.failed, Exception: pages.broken},
    )


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 6 else 0


def _zone(thing: Thing, held: dict[str, Held]) -> str:
    return held[thing.name].zone if thing.name in held else thing.title


def _options(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """What can be chosen in the filters."""
    named: dict[str, Callable[[Entry], Sequence[str]]] = {
        "domain": lambda one: [one.domain],
        "owner": lambda one: [one.owner],
        "status": lambda one: [one.status],
        "tag": lambda one: one.tags,
        "class": lambda one: [field.classification for table in one.tables for field in table.fields],
    }
    return {
        name: sorted({value for one in entries for value in read(one) if value})[:200]
        for name, read in named.items()
    }


def _grouped(hits: Sequence[Any]) -> list[tuple[str, str, list[Any]]]:
    """Hits by product, the product with the best hit first."""
    groups: dict[str, list[Any]] = {}
    for hit in hits:
        groups.setdefault(hit.product, []).append(hit)
    return [(product, found[0].title, found) for product, found in groups.items()]


def _things(answer: Answer) -> list[tuple[Node, list[str], str, bool]]:
    """What was reached, thing by thing: its columns, the nearest way in words, whether it is sure."""
    found = []
    for thing, reached in answer.things(
        "table", "model", "rule", "command", "event", "topic", "input", "stream"
    ):
        columns = [one.node.column for one in reached if one.node.column]
        found.append((thing, columns, _told(answer, reached[0].node), any(one.sure for one in reached)))
    return found[:_REACHED]


def _told(answer: Answer, node: Node) -> str:
    steps = answer.way(node)
    said = [f"{one.says}" for one in steps if one.says and one.says != "its rows"]
    return " → ".join(dict.fromkeys(said))


def _origins(answer: Answer) -> list[tuple[Node, list[Any]]]:
    """The ends of an origin, each with its steps from there."""
    ends = [one for one in answer.ends() if not one.decides and one.how in CARRIES and one.node.column]
    return [(one.node, list(reversed(answer.way(one.node)))) for one in ends[:40]]


def _changes(folder: Path) -> str:
    """The product's own changelog, as far as somebody would read it."""
    for name in ("CHANGELOG.md", "changelog.md"):
        file = folder / name
        if file.is_file():
            return file.read_text(encoding="utf-8", errors="replace")[:8000]
    return ""


def _ports(file: Path) -> list[OutputPort]:
    """The output ports a product declares; none when its file cannot be read."""
    documents, _ = read_documents(file)
    values = [one.value for one in documents if isinstance(one.value, dict)]
    named: dict[str, Any] = next((one for one in values if one.get("kind") == "DataProduct"), {})
    try:
        return output_ports(named)
    except (KeyError, TypeError, AttributeError):
        return []  # what is wrong with it stands among the product's problems


def _objectives(run: Path | None) -> list[ObjectiveView]:
    past = None if run is None else read_past(run)
    return [] if past is None else views_of(past)


def _used(run: Path | None, product: str, table: str = "") -> list[Any]:
    if run is None or not (run / "usage.sqlite").exists():
        return []
    try:
        usage = Usage(run / "usage.sqlite")
    except BoucleError:
        return []
    try:
        return list(usage.used(product, table))[:20]
    finally:
        usage.close()

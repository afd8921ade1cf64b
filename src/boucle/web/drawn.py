"""What all pages share: templates, the reader's language, and the pages that say what went wrong."""

from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from boucle.errors import BoucleError
from boucle.web.guard import HEADERS
from boucle.web.speech import LANGUAGES, Speech, preferred

__all__ = ["HERE", "Drawn", "in_language"]

HERE = Path(__file__).parent
STAMP = HERE / "static" / "vendor" / "stamp.json"
COOKIE = "boucle_language"
COOKIE_AGE_S = 365 * 86_400
FAULTS = {400: "error.bad_request", 403: "error.forbidden", 404: "error.not_found", 503: "error.unavailable"}


class Drawn:
    """Views drawn from templates; `known` is what every template may name."""

    def __init__(self, language: str | None, *, catalogue: bool = False, **known: Any) -> None:
        self.language, self._catalogue = language, catalogue
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(known)
        self._assets = STAMP.is_file()

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
            catalogue=self._catalogue,
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


def in_language(request: Request, language: str) -> str:
    """This same view in another language, as a relative address."""
    return str(request.url.include_query_params(lang=language).replace(scheme="", netloc=""))

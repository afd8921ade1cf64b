"""What a terminal shows: progress, a ticker of events, errors that teach, JSON for machines.

Words for people go to standard error; standard output carries results only, so that `--json` can be
piped. Colour only for the abnormal, and only on a terminal.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any, TextIO

from boucle.act.guard import reason
from boucle.clock import Nanos
from boucle.errors import BoucleError, DeclarationError
from boucle.event import Command, Event, Outcome, Receipt

__all__ = ["Screen", "choose_language"]

_SHAPES = {"info": "·", "warning": "▲", "alarm": "■"}
_OUTCOMES = {
    Outcome.applied: "appliquée", Outcome.refused: "refusée", Outcome.expired: "expirée",
    Outcome.duplicate: "doublon", Outcome.failed: "échouée",
}  # fmt: skip
_COLOURS = {"warning": "33", "alarm": "31"}


def choose_language(asked: str | None) -> str:
    """`en` or `fr`: what was asked for, else what the environment's locale says."""
    if asked:
        return asked
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    return "fr" if locale.lower().startswith("fr") else "en"


class Screen:
    """Writes lines above one progress line that rewrites itself.

    The ticker shows seconds since the start, or with `event_time` (a replay) when it happened.
    """

    def __init__(self, language: str, out: TextIO | None = None, event_time: bool = False) -> None:
        self.language = language
        self._event_time = event_time
        self._out = out or sys.stderr
        self._terminal = self._out.isatty()
        self._started = time.monotonic()
        self._last = 0.0
        self._progress = ""

    def say(self, en: str, fr: str) -> None:
        """One line in the reader's language."""
        self._line(fr if self.language == "fr" else en)

    def event(self, event: Event) -> None:
        """One line of the ticker."""
        shape = _SHAPES[event.severity]
        self._line(
            f"{self._clock(event.at)} {shape} {event.says.get(self.language, event.kind)}", event.severity
        )

    def receipt(self, command: Command, receipt: Receipt) -> None:
        """What became of a command."""
        said = command.says.get(self.language) or f"{command.verb} {command.target}"
        french = self.language == "fr"
        told = _OUTCOMES[receipt.outcome] if french else receipt.outcome.value
        if receipt.why:
            told += f"{' ' if french else ''}: {reason(receipt.code, receipt.why, self.language)}"
        value = "" if isinstance(command.value, dict) else f" = {command.value:g}"
        took = (
            f" ({receipt.latency_ms:.1f} ms)" if receipt.latency_ms is not None and receipt.read_back else ""
        )
        if french:
            value, took = value.replace(".", ","), took.replace(".", ",")
        self._line(f"{self._clock(command.issued_at)} → {said} [{command.target}{value}] {told}{took}")

    def progress(self, text: str) -> None:
        """The line at the bottom; on no terminal, at most one line every ten seconds."""
        now = time.monotonic()
        if self._terminal:
            self._out.write(f"\r\x1b[2K{text}")
            self._out.flush()
            self._progress = text
        elif now - self._last >= 10:
            self._last = now
            self._out.write(f"{text}\n")
            self._out.flush()

    def done(self) -> None:
        """Leave the progress line behind."""
        if self._progress:
            self._out.write("\n")
            self._progress = ""

    def _clock(self, at: Nanos) -> str:
        if self._event_time:
            return datetime.fromtimestamp(at / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
        return f"{time.monotonic() - self._started:6.1f} s"

    def _line(self, text: str, severity: str = "") -> None:
        colour = _COLOURS.get(severity, "") if self._terminal else ""
        told = f"\x1b[{colour}m{text}\x1b[0m" if colour else text
        if self._progress:
            self._out.write(f"\r\x1b[2K{told}\n{self._progress}")
        else:
            self._out.write(f"{told}\n")
        self._out.flush()


def print_error(error: BoucleError, as_json: bool) -> None:
    """An error for a person on standard error, or for a machine on standard output."""
    if as_json:
        problems = error.problems if isinstance(error, DeclarationError) else ()
        told: dict[str, Any] = {
            name: getattr(error, name) for name in ("code", "what", "where", "why", "fix")
        }
        told["problems"] = [
            {"code": p.code, "what": p.what, "file": p.file, "line": p.line, "why": p.why, "fix": p.fix}
            for p in problems
        ]
        print(json.dumps({"error": told}, ensure_ascii=False))
        return
    if isinstance(error, DeclarationError):
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return
    head = f"{error.code} {error.where}: {error.what}" if error.where else f"{error.code} {error.what}"
    print(head, file=sys.stderr)
    if error.why:
        print(f"    why: {error.why}", file=sys.stderr)
    if error.fix:
        print(f"    fix: {error.fix}", file=sys.stderr)

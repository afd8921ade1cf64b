"""Why the SQL endpoint says no, in our words and in PostgreSQL's codes."""

import re

from boucle.errors import BoucleError
from boucle.lake.sql import SqlRefused

__all__ = ["Refused", "broken_protocol", "refusal"]

_STATES = {
    "B510": "42501",  # insufficient_privilege
    "B511": "42P01",  # undefined_table
    "B512": "42703",  # undefined_column
}
_KINDS = {
    "Parser": "42601",
    "Binder": "42601",
    "Catalog": "42704",
    "Conversion": "22P02",
    "Out of Range": "22003",
    "INTERRUPT": "57014",
    "Out of Memory": "53200",
    "Permission": "42501",
    "TransactionContext": "25P02",
    "IO": "58030",
    "Not implemented": "0A000",
}
_MORE = re.compile(r"\n+(?:LINE \d+:|\s*Candidate functions:).*", re.DOTALL)
"""What DuckDB adds: the place, which the protocol tells apart, and every function there might have been."""
_DIVISION = re.compile("division by zero", re.IGNORECASE)
_COLUMN = re.compile('Referenced column ".*" was not found')
_FUNCTION = re.compile(r"(?:Function|Macro) with name|No function matches")


class Refused(BoucleError):
    """An error as the protocol tells it: with a SQLSTATE, and with the place in the statement (from 1; 0: unknown)."""

    def __init__(
        self, code: str, what: str, *, sqlstate: str, why: str = "", fix: str = "", position: int = 0
    ) -> None:
        super().__init__(code, what, why=why, fix=fix)
        self.sqlstate, self.position = sqlstate, position


def broken_protocol(what: str) -> Refused:
    """Bytes that are no message of the protocol; the connection ends."""
    return Refused("B830", what, sqlstate="08P01", fix="connect with a client of PostgreSQL's protocol 3.0")


def refusal(error: BoucleError, text: str) -> Refused:
    """What went wrong while answering `text`, as the protocol tells it."""
    if isinstance(error, Refused):
        return error
    state, position = _STATES.get(error.code, "XX000"), 0
    why = error.why
    if isinstance(error, SqlRefused):
        if error.code == "B513":
            state = _state(error)
        found = re.search(rf"(?<!\w){re.escape(error.near)}", text, re.IGNORECASE) if error.near else None
        position = found.start() + 1 if found else 0
        why = _MORE.sub("", why)
    elif error.retryable:
        state = "57P03"
    return Refused(error.code, error.what, sqlstate=state, why=why, fix=error.fix, position=position)


def _state(error: SqlRefused) -> str:
    if _DIVISION.search(error.why):
        return "22012"
    if _FUNCTION.search(error.why):
        return "42883"
    if "out of range" in error.why:
        return "22003"
    if error.why.startswith('relation "'):
        return "42P01"
    if _COLUMN.search(error.why):
        return "42703"
    if "GROUP BY" in error.why:
        return "42803"
    return _KINDS.get(error.kind, "XX000")

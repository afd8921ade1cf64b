"""The statements that are about the session and not about the tables: transactions, settings, cursors, COPY."""

import re
from typing import TypeAlias

from msgspec import Struct

from boucle.outlet.dialect import words
from boucle.outlet.refused import Refused

__all__ = [
    "Begin",
    "CloseCursor",
    "Command",
    "CopyOut",
    "Deallocate",
    "Declare",
    "Discard",
    "End",
    "Fetch",
    "Nothing",
    "Reset",
    "Savepoint",
    "SetTo",
    "Show",
    "command",
]


class Begin(Struct, frozen=True):
    """BEGIN, START TRANSACTION."""


class End(Struct, frozen=True):
    """COMMIT or ROLLBACK."""

    tag: str


class Savepoint(Struct, frozen=True):
    """SAVEPOINT, RELEASE, ROLLBACK TO: nothing is written, so there is nothing to go back to but a failure."""

    tag: str


class SetTo(Struct, frozen=True):
    """SET name TO values."""

    name: str
    values: tuple[str, ...]
    local: bool = False


class Reset(Struct, frozen=True):
    """RESET name; "" for ALL."""

    name: str


class Show(Struct, frozen=True):
    """SHOW name."""

    name: str


class Discard(Struct, frozen=True):
    """DISCARD."""

    tag: str


class Deallocate(Struct, frozen=True):
    """DEALLOCATE name; "" for ALL."""

    name: str


class Declare(Struct, frozen=True):
    """DECLARE name CURSOR FOR query."""

    name: str
    query: str
    hold: bool
    binary: bool


class Fetch(Struct, frozen=True):
    """FETCH count FROM name; 0 asks for all. With `move`, rows are skipped."""

    name: str
    count: int
    move: bool


class CloseCursor(Struct, frozen=True):
    """CLOSE name; "" for ALL."""

    name: str


class CopyOut(Struct, frozen=True):
    """COPY (query) TO STDOUT."""

    query: str
    options: dict[str, str]


class Nothing(Struct, frozen=True):
    """A statement that means nothing here and is answered with its tag."""

    tag: str


Command: TypeAlias = (
    Begin
    | End
    | Savepoint
    | SetTo
    | Reset
    | Show
    | Discard
    | Deallocate
    | Declare
    | Fetch
    | CloseCursor
    | CopyOut
    | Nothing
)

_SHOWN_BY_DUCKDB = {"tables", "databases", "schemas", "variables"}
_DECLARE = re.compile(r"\bfor\b", re.IGNORECASE)
_TO_STDOUT = re.compile(r"\s+to\s+stdout\b", re.IGNORECASE)


def command(statement: str) -> Command | None:  # noqa: C901, PLR0912 - one branch a statement
    """What a statement asks of the session; None when it is a question to the tables."""
    said = words(statement)
    first = said[0]
    rest = (
        [word for word in said[1:] if word not in {"work", "transaction", "isolation", "level"}]
        if first != "set"
        else said[1:]
    )
    if first == "begin" or said[:2] == ["start", "transaction"]:
        return Begin()
    if first in {"commit", "end"}:
        return End("COMMIT")
    if first in {"rollback", "abort"}:
        return Savepoint("ROLLBACK") if "to" in said else End("ROLLBACK")
    if first in {"savepoint", "release"}:
        return Savepoint(first.upper())
    if first == "set":
        return _set(rest)
    if first == "reset":
        return Reset("" if rest == ["all"] else _setting(rest))
    if first == "show" and said[1:2] and said[1] not in _SHOWN_BY_DUCKDB and said[1:3] != ["all", "tables"]:
        return Show(_setting(said[1:]))
    if first == "discard":
        return Discard(" ".join(said).upper())
    if first == "deallocate":
        name = said[-1].strip('"')
        return Deallocate("" if name == "all" else name)
    if first == "declare":
        return _declare(statement, said)
    if first in {"fetch", "move"}:
        return _fetch(said)
    if first == "close":
        return CloseCursor("" if said[1:] == ["all"] else said[-1].strip('"'))
    if first == "copy":
        return _copy(statement)
    if first in {"unlisten", "listen"}:
        return Nothing(first.upper())
    return None


def _unquoted(word: str) -> str:
    if word[:1] in {"'", '"'}:
        return word[1:-1].replace(word[0] * 2, word[0])
    return word


def _setting(said: list[str]) -> str:
    if said[:2] == ["time", "zone"]:
        return "timezone"
    if said[:1] == ["transaction"]:
        return "_".join(said[:2]) if said[1:] != ["isolation", "level"] else "transaction_isolation"
    return "".join(said).strip('"').lower()


def _set(said: list[str]) -> Command:
    local = said[:1] == ["local"]
    if said[:1] in (["local"], ["session"]):
        said = said[1:]
    if said[:1] in (["characteristics"], ["transaction"], ["constraints"], ["role"]) or said[:2] == [
        "session",
        "authorization",
    ]:
        return Nothing("SET")
    if said[:2] == ["time", "zone"]:
        return SetTo("timezone", tuple(_unquoted(word) for word in said[2:]), local)
    if said[:1] == ["names"]:
        return SetTo("client_encoding", tuple(_unquoted(word) for word in said[1:]), local)
    at = next((index for index, word in enumerate(said) if word in {"to", "="}), None)
    if not at:
        raise Refused("B835", "a SET without a value", sqlstate="42601", fix="SET name TO value")
    values = tuple(_unquoted(word) for word in said[at + 1 :] if word != ",")
    return SetTo("".join(said[:at]).strip('"'), values, local)


def _declare(statement: str, said: list[str]) -> Declare:
    found = _DECLARE.search(statement)
    if found is None or "cursor" not in said:
        raise Refused(
            "B835", "a DECLARE that declares no cursor", sqlstate="42601", fix="DECLARE c CURSOR FOR SELECT …"
        )
    head = words(statement[: found.start()])
    hold = "hold" in head and "without" not in head
    return Declare(_unquoted(said[1]), statement[found.end() :].strip(), hold, "binary" in head)


def _fetch(said: list[str]) -> Fetch:
    name, middle = _unquoted(said[-1]), [word for word in said[1:-1] if word not in {"from", "in"}]
    if any(word in {"backward", "prior", "first", "last", "absolute", "relative", "-"} for word in middle):
        raise Refused(
            "B835", "cursors only go forward here", sqlstate="0A000", fix="FETCH FORWARD n FROM cursor"
        )
    counted = [word for word in middle if word not in {"forward", "next"}]
    if not counted:
        return Fetch(name, 1, said[0] == "move")
    count = 0 if counted == ["all"] else int(counted[0]) if counted[0].isdigit() else -1
    if count < 0 or len(counted) > 1:
        raise Refused(
            "B835", "this FETCH cannot be read", sqlstate="42601", fix="FETCH FORWARD n FROM cursor"
        )
    return Fetch(name, count, said[0] == "move")


def _copy(statement: str) -> CopyOut:
    found = list(_TO_STDOUT.finditer(statement))
    if not found:
        raise Refused(
            "B835",
            "COPY writes to the client only",
            sqlstate="42501",
            why="tables are written by the loop alone, and nothing is written to the server's files",
            fix="COPY (SELECT …) TO STDOUT",
        )
    body = statement.strip()[4 : found[-1].start() - (len(statement) - len(statement.lstrip()))].strip()
    if body.startswith("("):
        query = body[1 : body.rindex(")")] if ")" in body else body[1:]
    else:
        table, _, columns = body.partition("(")
        query = f"SELECT {columns.strip().removesuffix(')') or '*'} FROM {table}"  # noqa: S608 - what was asked, checked as a query
    return CopyOut(query, _options(words(statement[found[-1].end() :])))


def _options(said: list[str]) -> dict[str, str]:
    """`(FORMAT csv, HEADER)`, and the older spelling `CSV HEADER DELIMITER ';'`."""
    told = [word for word in said if word not in {"with", "(", ")", ",", "=", "as"}]
    options: dict[str, str] = {}
    at = 0
    while at < len(told):
        name, after = told[at], told[at + 1] if at + 1 < len(told) else ""
        at += 1
        if name in {"csv", "binary", "text"}:
            options["format"] = name
        elif name == "header" and after not in {"true", "false", "on", "off", "match", "1", "0"}:
            options[name] = "true"
        else:
            options[name] = _unquoted(after)
            at += 1
    return options

"""The question of a REST request: which columns, which rows, in which order, from where on.

`?machine=eq.press-1&value=gt.0.5&zone=in.(A,B)&cause=not.is.null&select=machine,at&order=at.desc&limit=100`

A page ends with a cursor: the sort values of its last row and the table's version, so that the next page goes on
right behind it in the same version, whatever was written meanwhile. Raises B852 for what cannot be read.
"""

import base64
import binascii
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.lake.duck import name as quoted

__all__ = ["Page", "Question", "cursor_of", "question", "read_cursor"]

_SIGNS = {"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_FILTER = re.compile(r"(not\.)?(eq|ne|gt|ge|lt|le|in|is|like)\.(.*)", re.DOTALL)
_RESERVED = ("select", "order", "limit", "cursor", "version")
MOST = 10_000
_USUAL = 100
_LAST = ("_file", "_row")


class Page(Struct, frozen=True):
    """Where the last page ended."""

    version: int
    order: str
    after: list[Any]


class Question(Struct, frozen=True):
    """SQL to ask of a relation, its values, and what the page's end needs."""

    select: str
    where: str
    order_by: str
    values: list[str]
    limit: int
    columns: tuple[str, ...]
    sorted_by: tuple[str, ...]
    order: str


def bad(what: str, fix: str) -> BoucleError:
    """B852: the request cannot be read."""
    return BoucleError("B852", what, fix=fix)


def read_cursor(text: str) -> Page:
    """A cursor out of its text."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=Page)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise bad("the cursor cannot be read", "take the `next` of the page before, as it is") from None


def cursor_of(page: Page) -> str:
    """A cursor as text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(page)).decode().rstrip("=")


def question(asked: Sequence[tuple[str, str]], kinds: Mapping[str, str], page: Page | None) -> Question:
    """The question of a request's parameters; `kinds` are the table's columns with DuckDB's types."""
    given = dict(asked)
    columns = (
        tuple(_column(name, kinds) for name in given["select"].split(","))
        if given.get("select")
        else tuple(kinds)
    )
    values: list[str] = []
    wanted = [_filter(name, text, kinds, values) for name, text in asked if name not in _RESERVED]
    order = page.order if page else given.get("order", "")
    keys = [_order(one, kinds) for one in order.split(",")] if order else []
    sort = [*keys, *((name, False) for name in _LAST)]
    if page:
        if len(page.after) != len(sort):
            raise bad("the cursor is of another question", "take the `next` of the page before, as it is")
        wanted.append(_behind(sort, page.after, {**kinds, "_file": "VARCHAR", "_row": "BIGINT"}, values))
    marks = [
        f"CAST({quoted(name)} AS VARCHAR) AS {quoted(f'_sort{index}')}"
        for index, (name, _) in enumerate(sort)
    ]
    return Question(
        select=", ".join([*map(quoted, columns), *marks]),
        where=" AND ".join(wanted) or "true",
        order_by=", ".join(f"{quoted(name)} {'DESC' if down else 'ASC'} NULLS LAST" for name, down in sort),
        values=values,
        limit=_limit(given.get("limit", "")),
        columns=columns,
        sorted_by=tuple(f"_sort{index}" for index in range(len(sort))),
        order=order,
    )


def _limit(text: str) -> int:
    if not text:
        return _USUAL
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST:
        raise bad(f"limit={text!r} is no number of rows", f"1 to {MOST}; go on with the cursor")
    return int(text)


def _column(name: str, kinds: Mapping[str, str]) -> str:
    if name in kinds:
        return name
    near = difflib.get_close_matches(name, kinds, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    raise bad(f'there is no column "{name}"', f"{hint}known: {', '.join(kinds)}")


def _order(text: str, kinds: Mapping[str, str]) -> tuple[str, bool]:
    name, _, way = text.partition(".")
    if way not in {"", "asc", "desc"}:
        raise bad(f"order={text!r} cannot be read", "order=column.desc,other")
    if "[" in kinds[_column(name, kinds)] or ("(" in kinds[name] and not kinds[name].startswith("DECIMAL")):
        raise bad(f'rows cannot be ordered by "{name}"', "choose a column of single values")
    return name, way == "desc"


def _filter(name: str, text: str, kinds: Mapping[str, str], values: list[str]) -> str:
    column, kind = quoted(_column(name, kinds)), kinds[name]
    found = _FILTER.fullmatch(text)
    if found is None:
        raise bad(
            f"{name}={text!r} cannot be read",
            "eq. ne. gt. ge. lt. le. in.(a,b) is.null like.a*; not. before any",
        )
    negated, sign, said = found.groups()

    def value(one: str, as_kind: str = kind) -> str:
        values.append(one)
        return f"CAST(${len(values)} AS {as_kind})"

    if sign == "is":
        if said != "null":
            raise bad(f"{name}={text!r} cannot be read", "is.null or not.is.null")
        test = f"{column} IS NULL"
    elif sign == "in":
        if not (said.startswith("(") and said.endswith(")")):
            raise bad(f"{name}={text!r} cannot be read", "in.(a,b,c)")
        test = f"{column} IN ({', '.join(value(one) for one in said[1:-1].split(','))})"
    elif sign == "like":
        if kind != "VARCHAR":
            raise bad(f'"{name}" is {kind.lower()}, like is for texts', "use eq, gt, …")
        pattern = said.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%")
        test = f"{column} LIKE {value(pattern, 'VARCHAR')} ESCAPE '\\'"
    else:
        test = f"{column} {_SIGNS[sign]} {value(said)}"
    return f"NOT ({test})" if negated else f"({test})"


def _behind(
    sort: Sequence[tuple[str, bool]], after: Sequence[Any], kinds: Mapping[str, str], values: list[str]
) -> str:
    """Rows that come after one in an order with nulls last: equal so far, and further at the next."""

    def value(index: int) -> str:
        values.append(str(after[index]))
        return f"CAST(${len(values)} AS {kinds[sort[index][0]]})"

    ways = []
    for index, (name, down) in enumerate(sort):
        if after[index] is None:
            continue  # nothing comes after null but a null that is further elsewhere
        same = [
            f"{quoted(other)} IS NULL" if after[place] is None else f"{quoted(other)} = {value(place)}"
            for place, (other, _) in enumerate(sort[:index])
        ]
        further = f"({quoted(name)} {'<' if down else '>'} {value(index)} OR {quoted(name)} IS NULL)"
        ways.append(" AND ".join([*same, further]))
    return "(" + " OR ".join(f"({way})" for way in ways) + ")"

"""The two questions of lineage over all products: what breaks without this column, and where does it come from.

Both walk the index's links breadth first, so every way that is told is a shortest one, and a circle is walked once.
"""

import difflib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from boucle.catalog.graph import CARRIES, WHOLE, Kind, Node
from boucle.catalog.index import Index
from boucle.errors import BoucleError
from boucle.ports import How

__all__ = ["Answer", "Direction", "Reached", "ask", "find_node"]

Direction: TypeAlias = Literal["impact", "origin"]

_ORDER: tuple[Kind, ...] = ("table", "input", "stream", "topic", "model", "rule", "event", "command")
_AT_ONCE = 500
"""Nodes asked for in one query."""
_SHOWN = 12


class Reached(Struct, frozen=True):
    """A node that the question leads to, and the last step of the shortest way there.

    `via` is the node before it (in an impact the one it is made from, in an origin the one made from it).
    """

    node: Node
    via: Node
    how: How
    says: str
    step: str
    far: int
    decides: bool = False
    """Somewhere on the way it only decides on rows or values; none of its values is in what was asked for."""
    sure: bool = True
    """Every step of the way was declared, none is UNKNOWN."""


class Answer(Struct, frozen=True):
    """What was asked, and everything that it leads to, the nearest first."""

    asked: Node
    direction: Direction
    reached: tuple[Reached, ...]
    last: frozenset[Node] = frozenset()
    """Those beyond which there is nothing: sensors' topics in an origin, commands and last tables in an impact."""

    def way(self, node: Node) -> list[Reached]:
        """The steps from the node that was asked for to another."""
        by_node = {one.node: one for one in self.reached}
        steps: list[Reached] = []
        while node != self.asked and node in by_node and len(steps) <= len(by_node):
            steps.append(by_node[node])
            node = by_node[node].via
        return steps[::-1]

    def things(self, *kinds: Kind) -> list[tuple[Node, list[Reached]]]:
        """What was reached of some kinds, each thing with its columns."""
        found: dict[Node, list[Reached]] = {}
        for one in self.reached:
            if one.node.kind in kinds:
                found.setdefault(one.node.of(WHOLE), []).append(one)
        return sorted(
            found.items(), key=lambda item: (_ORDER.index(item[0].kind), item[0].product, item[0].name)
        )

    def products(self) -> list[str]:
        """Other products that are reached."""
        return sorted({one.node.product for one in self.reached} - {self.asked.product, ""})

    def ends(self) -> list[Reached]:
        """The nodes beyond which there is nothing."""
        return [one for one in self.reached if one.node in self.last]


def find_node(index: Index, text: str) -> Node:
    """The node that `TABLE.COLUMN`, `TABLE`, `PRODUCT/TABLE.COLUMN` or a topic's address with `.COLUMN` names.

    Of several the table goes before the stream of its name. B563 when there is none, with the likely ones; B564 when
    products have it twice.
    """
    found: list[Node] = []
    for product, name, column in _readings(text):
        query = "SELECT kind, product, name, field FROM node WHERE name = ? AND field = ?"
        values = [name, column]
        if product:
            query, values = f"{query} AND product = ?", [*values, product]
        found = [Node(*row) for row in index.rows.execute(query, values)]
        if found:
            break
    found = found or _by_title(index, text)
    if not found:
        raise _unknown(index, text)
    best = min(_ORDER.index(node.kind) for node in found)
    chosen = [node for node in found if _ORDER.index(node.kind) == best]
    if len(chosen) > 1:
        raise BoucleError(
            "B564",
            f"{len(chosen)} products have {text}",
            fix=f"say which: {', '.join(str(node) for node in chosen[:_SHOWN])}",
        )
    return chosen[0]


def _readings(text: str) -> Iterator[tuple[str, str, str]]:
    """The ways a name can be read: product, thing, column."""
    product, slash, rest = text.partition("/")
    cut = [(place, text[place + 1 :]) for place in range(len(text)) if text[place] == "."]
    for place, column in [*cut, (len(text), "")]:
        if slash and place > len(product):
            yield product, text[len(product) + 1 : place], column
        yield "", text[:place], column
    yield "", rest, ""


def _by_title(index: Index, text: str) -> list[Node]:
    """A topic by the name its source has in a product."""
    name, _, column = text.rpartition("/")[2].partition(".")
    query = "SELECT DISTINCT kind, product, name FROM thing WHERE kind = 'topic' AND title = ?"
    topics = [Node(*row).of(column) for row in index.rows.execute(query, (name,))]
    return [node for node in topics if _number(index.rows, node) is not None]


def _unknown(index: Index, text: str) -> BoucleError:
    name = text.rpartition("/")[2]
    rows = index.rows
    known = [f"{table}.{field}" if field else table for table, field in rows.execute(
        "SELECT DISTINCT name, field FROM node WHERE name = ? LIMIT 2000", (name.partition(".")[0],)
    )]  # fmt: skip
    known = known or [table for (table,) in rows.execute("SELECT DISTINCT name FROM node LIMIT 20000")]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    fix = f"did you mean {', '.join(near)}?" if near else "find it with `boucle catalog search`"
    return BoucleError("B563", f"the catalogue knows nothing called {text!r}", fix=fix)


def _number(rows: sqlite3.Connection, node: Node) -> int | None:
    query = "SELECT id FROM node WHERE product = ? AND name = ? AND kind = ? AND field = ?"
    row = rows.execute(query, (node.product, node.name, node.kind, node.column)).fetchone()
    return None if row is None else int(row[0])


def ask(index: Index, node: Node, direction: Direction, limit: int = 200_000) -> Answer:
    """Everything downstream of a node (`impact`), or everything it is made from (`origin`).

    An origin follows what carries values to its end; of what only decides it takes the nearest, not its own origins.
    """
    return _Walk(index, node, direction, limit).answer()


class _Walk:
    def __init__(self, index: Index, node: Node, direction: Direction, limit: int) -> None:
        self._rows, self._asked, self._direction, self._limit = index.rows, node, direction, limit
        self._nodes: dict[int, Node] = {}
        self._seen: dict[int, tuple[int, bool, bool]] = {}
        self._reached: dict[Node, Reached] = {}
        self._goes_on: set[int] = set()

    def answer(self) -> Answer:
        start = _number(self._rows, self._asked)
        if start is None:
            return Answer(self._asked, self._direction, ())
        starts = [start, *self._twins()]
        for number in starts:
            self._nodes[number], self._seen[number] = self._asked, (0, False, True)
        frontier = [*starts, *self._columns([start], 0)]
        far = 0
        while frontier and len(self._reached) < self._limit:
            far += 1
            found = self._step(frontier, far)
            frontier = [*found, *self._columns(found, far)]
        last = frozenset(self._nodes[number] for number in self._seen if number not in self._goes_on)
        return Answer(self._asked, self._direction, tuple(self._reached.values()), last)

    def _twins(self) -> list[int]:
        """The stream that a table has its name from: without the column, what reads the stream lacks it, too."""
        if self._direction == "origin" or self._asked.kind != "table":
            return []
        asked = self._asked
        twin = _number(self._rows, Node("stream", asked.product, asked.name, asked.column))
        return [] if twin is None else [twin]

    def _step(self, frontier: Sequence[int], far: int) -> list[int]:
        """One link further from all of these."""
        here, there = ("source", "target") if self._direction == "impact" else ("target", "source")
        found: list[int] = []
        for some in _cut(frontier):
            query = (
                f"SELECT l.{here}, l.{there}, l.how, l.says, l.step, n.kind, n.product, n.name, n.field FROM link l "  # noqa: S608 - names of ours
                f"JOIN node n ON n.id = l.{there} WHERE l.{here} IN ({', '.join('?' * len(some))})"
            )
            for before, after, how, says, step, *named in self._rows.execute(query, some).fetchall():
                self._goes_on.add(before)
                if self._take(before, after, how, says, step, Node(*named), far):
                    found.append(after)
        if self._direction == "origin":
            # What only decides is told, and its own origins are another question.
            return [number for number in found if not self._seen[number][1]]
        return found

    def _take(self, before: int, after: int, how: How, says: str, step: str, node: Node, far: int) -> bool:
        _, decides, sure = self._seen[before]
        decides = decides or how not in CARRIES
        sure = sure and how != "UNKNOWN"
        known = self._seen.get(after)
        if known is not None:
            # A way that carries values says more than one that decides; it is told where both are as short.
            if not (self._direction == "origin" and known[1] and not decides):
                return False
            self._reached.pop(node)
        self._nodes[after], self._seen[after] = node, (far, decides, sure)
        self._reached[node] = Reached(node, self._nodes[before], how, says, step, far, decides, sure)
        return True

    def _columns(self, found: Iterable[int], far: int) -> list[int]:
        """The columns of things whose rows are no longer what they were; for an origin the rows of a column's thing."""
        more: list[int] = []
        for number in found:
            node = self._nodes[number]
            if (
                self._direction == "impact"
                and node.column == WHOLE
                and node.kind in ("table", "stream", "topic", "input")
            ):
                rows = self._rows.execute(
                    "SELECT id, kind, product, name, field FROM node WHERE product = ? AND name = ? AND kind = ? "
                    "AND field <> ''",
                    (node.product, node.name, node.kind),
                ).fetchall()
                more += [one for one, *named in rows if self._within(number, one, Node(*named), far)]
            elif self._direction == "origin" and node.column != WHOLE and far == 0:
                whole = _number(self._rows, node.of(WHOLE))
                if whole is not None and whole not in self._seen:
                    self._nodes[whole], self._seen[whole] = node.of(WHOLE), (0, True, True)
                    more.append(whole)
        return more

    def _within(self, thing: int, number: int, node: Node, far: int) -> bool:
        if number in self._seen:
            return False
        _, _, sure = self._seen[thing]
        self._nodes[number], self._seen[number] = node, (far, True, sure)
        via = self._nodes[thing]
        self._reached[node] = Reached(node, via, "FILTER", "its rows", "", far, decides=True, sure=sure)
        return True


def _cut(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(numbers), _AT_ONCE):
        yield numbers[first : first + _AT_ONCE]

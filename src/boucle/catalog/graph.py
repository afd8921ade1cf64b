"""What lineage is made of: nodes, and links from what something is made of to what is made.

A node is a column of a topic, stream or table, or (with an empty column) the thing itself: a table whose rows a
filter chooses, a model, a rule, a command. `Graph` holds the links of one product; the catalogue's index those of all.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, TypeAlias

from msgspec import Struct

from boucle.ports import From, How

__all__ = ["ANY", "CARRIES", "WHOLE", "Graph", "Kind", "Link", "Node", "stronger"]

Kind: TypeAlias = Literal["topic", "input", "stream", "table", "model", "rule", "event", "command"]

CARRIES = ("IDENTITY", "TRANSFORMATION", "AGGREGATION", "UNKNOWN")
"""The words for a link along which values go, the weakest change first; along the others only decisions."""

ANY = "*"
"""The column of a thing whose columns nobody declared: any of them."""

WHOLE = ""
"""The column of a node that is the thing itself."""


class Node(Struct, frozen=True):
    """A column, or a thing. Topics belong to nobody (`product` is empty): two products may read one."""

    kind: Kind
    product: str
    name: str
    column: str = WHOLE

    def of(self, column: str) -> "Node":
        """Another column of the same thing."""
        return Node(self.kind, self.product, self.name, column)

    def __str__(self) -> str:
        thing = f"{self.product}/{self.name}" if self.product else self.name
        return f"{thing}.{self.column}" if self.column else thing


class Link(Struct, frozen=True):
    """`target` is made from `source`; `step` is who does it, `says` how, in words."""

    source: Node
    target: Node
    how: How = "IDENTITY"
    says: str = ""
    step: str = ""


class Graph:
    """Links to walk along, from a thing back to what it is made of."""

    def __init__(self, links: Iterable[Link]) -> None:
        self._into: dict[Node, list[Link]] = defaultdict(list)
        for link in links:
            self._into[link.target].append(link)

    def into(self, node: Node) -> list[Link]:
        """The links that lead to a node."""
        return self._into.get(node, [])

    def sources(self, node: Node) -> list[tuple[Node, From]]:
        """The topics' and inputs' columns a node comes from, each with the strongest change on the way.

        `says` chains the words of the way, the nearest to the node last. A circle is walked once.
        """
        found: dict[tuple[Node, bool], From] = {}
        seen: set[tuple[Node, How]] = set()
        left: list[tuple[Node, How, tuple[str, ...]]] = [(node, "IDENTITY", ())]
        while left:
            at, how, words = left.pop()
            if (at, how) in seen:
                continue
            seen.add((at, how))
            links = self.into(at)
            if not links and at != node:
                key = (at, how in CARRIES)
                told = From(at.name, at.column, how, " → ".join(dict.fromkeys(reversed(words))))
                if key not in found or stronger(found[key].how, how) == how:
                    found[key] = told
            for link in links:
                said = (*words, link.says) if link.says else words
                left.append((link.source, stronger(how, link.how), said))
        return sorted(
            ((at, told) for (at, _), told in found.items()),
            key=lambda one: (one[0].name, one[0].column, one[1].how),
        )


def stronger(one: How, other: How) -> How:
    """What both changes come to: a decision stays a decision, an aggregate an aggregate."""
    for how in (one, other):
        if how not in CARRIES:
            return how
    return max(one, other, key=CARRIES.index)

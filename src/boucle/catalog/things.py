"""The things of a product that lineage runs through, with their columns, as they are read out of its declaration."""

from msgspec import Struct

from boucle.catalog.entry import Field
from boucle.catalog.graph import Kind, Link, Node

__all__ = ["Lineage", "Thing"]


class Thing(Struct, frozen=True):
    """A topic, table, stream, query, model, rule or command. `unknown`: why its columns are not all known."""

    kind: Kind
    product: str
    name: str
    title: str = ""
    """What people call it in the product: a source's name, a table's zone."""
    description: str = ""
    fields: tuple[Field, ...] = ()
    unknown: str = ""

    @property
    def node(self) -> Node:
        """The thing itself."""
        return Node(self.kind, self.product, self.name)


class Lineage(Struct, frozen=True):
    """What one product tells: its things, what is made from what, and what could not be told."""

    things: tuple[Thing, ...] = ()
    links: tuple[Link, ...] = ()
    problems: tuple[str, ...] = ()

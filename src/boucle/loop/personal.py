"""No model learns from personal data by accident: what it reads is followed back to the columns it is made from.

A column whose contract gives it a PII class (`classification`, tag, custom property) may go into a model when the
owner of the data says why, on the column: `customProperties: [{property: modelUse, value: "consent, art. 6.1.a"}]`.
A column on the way that its own contract classifies `public` or `internal` ends the search: whoever made it
(hashed, binned) answers for it. Keys that only group or join rows carry no values and do not count.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from boucle.catalog.entry import Field, read_entry
from boucle.catalog.graph import CARRIES, WHOLE, Graph, Node
from boucle.errors import Problem
from boucle.loop.columns import trace_product
from boucle.product.lines import Document
from boucle.product.project import Project

__all__ = ["personal_features"]

_ALLOWED = "modelUse"


def personal_features(project: Project) -> list[Problem]:
    """A problem for each personal column that a model of the product reads without leave."""
    if not any("model" in step.with_ for step in project.loop.steps):
        return []  # tracing costs milliseconds, and most products score nothing
    told = trace_product(
        read_entry(project.folder / "product.yaml", "product.yaml"),
        project.folder,
        fill=project.settings.fill,
    )
    graph = Graph(told.links)
    models = [thing for thing in told.things if thing.kind == "model"]
    if not models:
        return []
    fields = {thing.node.of(field.name): field for thing in told.things for field in thing.fields}
    # A topic's node has its address for a name; its title is the source, which names the contract's table.
    schemas = {name: spec.schema or name for name, spec in project.loop.sources.items()}
    tables = {
        thing.node: schemas.get(thing.title, thing.name) if thing.kind == "topic" else thing.name
        for thing in told.things
    }
    allowed = dict(_allowed(project.contract))
    found: dict[tuple[str, str, str], Problem] = {}
    for model in models:
        for read in graph.into(model.node):
            for node, field in _personal(graph, read.source, fields):
                table = tables[node.of(WHOLE)]
                reason, line = allowed.get((table, node.column), ("", project.contract.line(())))
                if not reason:
                    key = (model.name, table, node.column)
                    found.setdefault(
                        key, _problem(project, model.name, read.source.column, table, field, line)
                    )
    return list(found.values())


def _personal(graph: Graph, start: Node, fields: Mapping[Node, Field]) -> Iterator[tuple[Node, Field]]:
    """The personal columns whose values reach a node; none beyond a column that is declared harmless."""
    left, seen = [start], {start}
    while left:
        node = left.pop()
        into = [link.source for link in graph.into(node) if link.how in CARRIES and link.source.column]
        field = fields.get(node)
        # What is handed on unchanged inherits its class: the promise itself stands where nothing leads any more.
        if field is not None and field.personal and not into:
            yield node, field
            continue
        if field is not None and field.classification and not field.personal:
            continue
        left += [one for one in into if one not in seen]
        seen.update(into)


def _allowed(contract: Document) -> Iterator[tuple[tuple[str, str], tuple[str, int]]]:
    """Table and column → why a model may read it, and the line where the column stands."""
    for place, table in enumerate(_items(contract.value, "schema")):
        for at, column in enumerate(_items(table, "properties")):
            reasons = [
                str(one.get("value") or "")
                for one in _items(column, "customProperties")
                if one.get("property") == _ALLOWED
            ]
            line = contract.line(("schema", place, "properties", at))
            yield (str(table.get("name")), str(column.get("name"))), ("; ".join(filter(None, reasons)), line)


def _items(value: Any, name: str) -> list[dict[str, Any]]:
    listed = value.get(name) if isinstance(value, Mapping) else None
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _problem(project: Project, model: str, read: str, table: str, field: Field, line: int) -> Problem:
    column = f"{table}.{field.name}"
    made = "" if read == field.name else f", which is made from {column}"
    return Problem(
        "B751",
        f"the model {model} reads {read}{made}: personal data ({field.classification or 'by its tag'})",
        project.contract.file,
        line,
        why="a model may keep and give away what it was shown, and nobody has said that it may see this",
        fix=f"leave it out, or let the owner of the data say why under {column}: "
        f"customProperties: [{{property: {_ALLOWED}, value: …}}]",
    )
